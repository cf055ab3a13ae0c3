use std::time::Duration;

use crate::auth::{AuthConfig, BuiltinIssuer, Gate, MintError};
use crate::clock::Clock;

use super::*;

const NOW: u64 = 1_800_000_000;

fn args() -> MintArgs {
    MintArgs {
        subject: "you".to_owned(),
        ttl: DEFAULT_TTL.to_owned(),
        scopes: DEFAULT_SCOPES.to_owned(),
        claims: Vec::new(),
    }
}

fn setup() -> (BuiltinIssuer, Gate, Clock, crate::clock::ManualClock) {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let (clock, hand) = Clock::manual(NOW);
    let gate = Gate::new(&AuthConfig::default(), Some(issuer.clone()), clock.clone()).unwrap();
    (issuer, gate, clock, hand)
}

#[test]
fn a_minted_token_stands_alone_and_verifies() {
    let (issuer, gate, clock, _) = setup();
    let claims = vec![
        "tenant=123".to_owned(),
        "level:=3".to_owned(),
        "https://x.example/a=b=c".to_owned(),
    ];
    let token = mint(&MintArgs { claims, ..args() }, &issuer, &clock).unwrap();
    assert_eq!(token, token.trim());
    let said = verify(&token, &gate).unwrap();
    for line in [
        "issuer   mixgate:local",
        "subject  you",
        "tenant   123",
        "scopes   chat models",
        "3600 s from now",
    ] {
        assert!(said.contains(line), "{said}");
    }
    // As pasted from a header, with a line end.
    assert!(verify(&format!(" Bearer {token}\n"), &gate).is_ok());
}

#[test]
fn a_refused_token_is_explained_with_numbers_and_a_next_step() {
    let (issuer, gate, clock, hand) = setup();
    let token = mint(&args(), &issuer, &clock).unwrap();
    hand.advance(Duration::from_secs(3600 + 180));
    let error = verify(&token, &gate).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token is refused: the token expired 3 min ago (skew 5 s)\n  caused by: the server answers 401 token_expired"
    );
    assert!(error.hint().unwrap().contains("mixgate token mint"));
    assert!(!format!("{error:?}").contains(&token));
    let other = mint(
        &args(),
        &BuiltinIssuer::ephemeral().unwrap(),
        &gate.clock().clone(),
    )
    .unwrap();
    assert!(
        verify(&other, &gate)
            .unwrap_err()
            .to_string()
            .contains("the key id is")
    );
    let opaque = verify("sk-1234", &gate).unwrap_err();
    assert!(
        opaque.to_string().contains("has 1 parts") && opaque.hint().unwrap().contains("opaque"),
        "{opaque}"
    );
}

#[test]
fn a_length_of_time_needs_a_number_and_a_unit() {
    for (typed, seconds) in [
        ("90s", 90),
        ("15m", 900),
        ("1h", 3600),
        ("12h", 43_200),
        ("7d", 604_800),
    ] {
        assert_eq!(parse_ttl(typed), Ok(Duration::from_secs(seconds)));
    }
    for typed in [
        "",
        "h",
        "1",
        "1.5h",
        "-1h",
        "+1h",
        "1 h",
        "1w",
        "1é",
        "99999999999999999999d",
        "9999999999999999999d",
    ] {
        assert_eq!(
            parse_ttl(typed),
            Err(TokenError::Ttl {
                typed: typed.to_owned()
            })
        );
    }
}

#[test]
fn claims_are_text_or_json_and_given_once() {
    let (issuer, _, clock, _) = setup();
    let mint = |claims: &[&str]| {
        let claims = claims.iter().map(|&claim| claim.to_owned()).collect();
        mint(&MintArgs { claims, ..args() }, &issuer, &clock).unwrap_err()
    };
    for bad in ["tenant", "=x", ":=1", "a:=not json", "a:="] {
        assert_eq!(
            mint(&[bad]),
            TokenError::Claim {
                typed: bad.to_owned()
            }
        );
    }
    assert_eq!(
        mint(&["a=1", "a=2"]),
        TokenError::ClaimTwice {
            name: "a".to_owned()
        }
    );
    assert_eq!(
        mint(&["exp:=1"]),
        TokenError::Mint(MintError::Reserved {
            name: "exp".to_owned()
        })
    );
}

#[test]
fn keys_are_listed_with_what_they_are_good_for() {
    let home = tempfile::tempdir().unwrap();
    let now = 1_800_000_000;
    let old = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let new =
        BuiltinIssuer::rotate(home.path(), Some(Duration::from_secs(24 * 3600)), now).unwrap();
    let list = |at| {
        let text = keys(&new, at);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = list(now);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[1].starts_with(new.key_id()) && lines[1].ends_with("Z  signs"),
        "{}",
        lines[1]
    );
    assert!(
        lines[2].starts_with(old.key_id())
            && lines[2].ends_with("verifies until 2027-01-16T08:00:00Z"),
        "{}",
        lines[2]
    );
    assert!(
        list(now + 24 * 3600)[2].ends_with("retired 2027-01-16T08:00:00Z"),
        "a key retires at its time"
    );
}

#[test]
fn times_are_calendar_dates() {
    assert_eq!(utc(0), "1970-01-01T00:00:00Z");
    assert_eq!(utc(1_709_164_800), "2024-02-29T00:00:00Z");
    assert_eq!(utc(u64::MAX), "-");
}
