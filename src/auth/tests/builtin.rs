//! The built-in issuer: its file, its tokens, their limits.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::kit::{accepted, b64, refused};
use crate::auth::{AuthConfig, BuiltinIssuer, Gate, MintError, MintRequest};
use crate::clock::{Clock, ManualClock};

const NOW: u64 = 1_800_000_000;

fn gate(issuer: &BuiltinIssuer) -> (Gate, ManualClock) {
    let (clock, hand) = Clock::manual(NOW);
    (
        Gate::new(&AuthConfig::default(), Some(issuer.clone()), clock).unwrap(),
        hand,
    )
}

fn request() -> MintRequest {
    MintRequest {
        subject: "you".to_owned(),
        ttl: Duration::from_secs(3600),
        scopes: "chat models".to_owned(),
        claims: Map::new(),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn first_start_makes_a_key_that_only_its_owner_can_read() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let first = BuiltinIssuer::load_or_create(&state).unwrap();
    assert_eq!(
        (mode(&state), mode(&BuiltinIssuer::key_file(&state))),
        (0o700, 0o600)
    );
    let second = BuiltinIssuer::load_or_create(&state).unwrap();
    assert_eq!(first.key_id(), second.key_id());
    let token = first.mint(&request(), NOW).unwrap();
    assert_eq!(accepted(&gate(&second).0, &token).subject(), "you");
    // Nothing but the key stays in the folder.
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
}

#[test]
fn processes_that_start_at_once_end_with_the_same_key() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    BuiltinIssuer::load_or_create(&state)
                        .unwrap()
                        .key_id()
                        .to_owned()
                })
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_could_read_or_replace_is_refused_with_a_remedy() {
    let home = tempfile::tempdir().unwrap();
    BuiltinIssuer::load_or_create(home.path()).unwrap();
    let file = BuiltinIssuer::key_file(home.path());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = BuiltinIssuer::load_or_create(home.path()).unwrap_err();
    assert!(
        error.to_string().contains("mode 0640") && error.hint().unwrap().contains("chmod 600"),
        "{error}"
    );
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = BuiltinIssuer::load_or_create(home.path()).unwrap_err();
    assert!(
        error.to_string().contains("mode 0777") && error.hint().unwrap().contains("chmod go-w"),
        "{error}"
    );
}

#[test]
fn a_broken_key_file_is_an_error_and_never_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let file = BuiltinIssuer::key_file(home.path());
    for content in [
        "",
        "not a key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(BuiltinIssuer::load_or_create(home.path()).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
    }
}

#[test]
fn a_minted_token_is_an_rfc_9068_access_token() {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let mut request = request();
    request.claims = json!({"tenant": "acme", "client_id": "notebook", "level": 3})
        .as_object()
        .unwrap()
        .clone();
    let token = issuer.mint(&request, NOW).unwrap();
    let part = |index: usize| -> Value {
        use base64::Engine as _;
        let text = token.split('.').nth(index).unwrap();
        serde_json::from_slice(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(text)
                .unwrap(),
        )
        .unwrap()
    };
    assert_eq!(
        part(0),
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": issuer.key_id()})
    );
    let mut claims = part(1);
    let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(id.as_str().unwrap().len(), 22);
    assert_eq!(
        claims,
        json!({
            "iss": "mixgate:local", "sub": "you", "aud": "mixgate", "iat": NOW, "exp": NOW + 3600,
            "scope": "chat models", "tenant": "acme", "client_id": "notebook", "level": 3,
        })
    );
    let identity = accepted(&gate(&issuer).0, &token);
    assert_eq!(
        (identity.tenant(), identity.client()),
        (Some("acme"), Some("notebook"))
    );
    assert_ne!(
        token,
        issuer.mint(&request, NOW).unwrap(),
        "each token has its own id"
    );
}

#[test]
fn a_minted_token_lives_as_long_as_asked() {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let (gate, hand) = gate(&issuer);
    let token = issuer.mint(&request(), NOW).unwrap();
    let month = issuer
        .mint(
            &MintRequest {
                ttl: BuiltinIssuer::MAX_TTL,
                ..request()
            },
            NOW,
        )
        .unwrap();
    accepted(&gate, &month);
    hand.advance(Duration::from_secs(3604));
    accepted(&gate, &token);
    hand.advance(Duration::from_secs(1));
    assert_eq!(refused(&gate, &token).code(), "token_expired");
    accepted(&gate, &month);
}

#[test]
fn another_installations_tokens_are_refused() {
    let ours = BuiltinIssuer::ephemeral().unwrap();
    let theirs = BuiltinIssuer::ephemeral().unwrap();
    let denied = refused(&gate(&ours).0, &theirs.mint(&request(), NOW).unwrap());
    assert_eq!(denied.code(), "invalid_token");
    assert!(denied.detail().contains("the key id is"));
}

#[test]
fn what_the_gate_would_refuse_is_not_minted() {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let mint = |request: MintRequest| issuer.mint(&request, NOW).unwrap_err();
    for name in [
        "iss",
        "sub",
        "aud",
        "iat",
        "nbf",
        "exp",
        "jti",
        "scope",
        "cnf",
        "typ",
        "token_use",
        "nonce",
        "at_hash",
        "c_hash",
        "events",
    ] {
        let claims = json!({name: "x"}).as_object().unwrap().clone();
        assert_eq!(
            mint(MintRequest {
                claims,
                ..request()
            }),
            MintError::Reserved {
                name: name.to_owned()
            }
        );
    }
    for claims in [
        json!({"tenant": 7}),
        json!({"client_id": ""}),
        json!({"tenant": "a\nb"}),
    ] {
        let claims = claims.as_object().unwrap().clone();
        assert!(matches!(
            mint(MintRequest {
                claims,
                ..request()
            }),
            MintError::NotText { .. }
        ));
    }
    for subject in [String::new(), "a\nb".to_owned(), "x".repeat(257)] {
        assert_eq!(
            mint(MintRequest {
                subject,
                ..request()
            }),
            MintError::Subject
        );
    }
    for ttl in [
        Duration::ZERO,
        BuiltinIssuer::MAX_TTL + Duration::from_secs(1),
        Duration::MAX,
    ] {
        assert!(matches!(
            mint(MintRequest { ttl, ..request() }),
            MintError::Ttl { .. }
        ));
    }
    assert_eq!(
        mint(MintRequest {
            scopes: "a\tb".to_owned(),
            ..request()
        }),
        MintError::Scope
    );
    let claims = json!({"pad": "x".repeat(20_000)})
        .as_object()
        .unwrap()
        .clone();
    assert!(matches!(
        mint(MintRequest {
            claims,
            ..request()
        }),
        MintError::TooLong { .. }
    ));
}

#[test]
fn the_key_is_in_no_debug_output() {
    let home = tempfile::tempdir().unwrap();
    let issuer = BuiltinIssuer::load_or_create(home.path()).unwrap();
    assert_eq!(
        format!("{issuer:?}"),
        format!("BuiltinIssuer {{ key_id: {:?}, .. }}", issuer.key_id())
    );
    assert_eq!(issuer.key_id().len(), b64([0; 32]).len());
}
