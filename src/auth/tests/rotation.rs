//! Rotation of the built-in issuer's key: files, running gates, and what retires when.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, json};

use super::kit::{accepted, assert_invalid};
use crate::auth::issuer::builtin::live::Live;
use crate::auth::{AuthConfig, BuiltinError, BuiltinIssuer, Gate, MintRequest};
use crate::clock::{Clock, ManualClock, Uptime};

const NOW: u64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn gate(issuer: &BuiltinIssuer) -> (Gate, ManualClock) {
    let (clock, hand) = Clock::manual(NOW);
    (
        Gate::new(&AuthConfig::default(), Some(issuer.clone()), clock).unwrap(),
        hand,
    )
}

fn token(issuer: &BuiltinIssuer, ttl: Duration) -> String {
    let request = MintRequest {
        subject: "you".to_owned(),
        ttl,
        scopes: "chat".to_owned(),
        claims: Map::new(),
    };
    issuer.mint(&request, NOW).unwrap()
}

fn ids(issuer: &BuiltinIssuer) -> Vec<String> {
    issuer.keys().map(|key| key.key_id().to_owned()).collect()
}

fn rotate(folder: &Path, keep: Option<Duration>) -> BuiltinIssuer {
    BuiltinIssuer::rotate(folder, keep, NOW).unwrap()
}

#[test]
fn tokens_of_the_old_key_are_good_until_it_retires_and_not_a_second_longer() {
    let home = tempfile::tempdir().unwrap();
    let old = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let held = token(&old, 10 * DAY);
    let new = rotate(home.path(), Some(DAY));
    assert_eq!(ids(&new), [new.key_id(), old.key_id()]);
    assert_ne!(new.key_id(), old.key_id());

    let (gate, hand) = gate(&BuiltinIssuer::load_or_create(home.path()).unwrap());
    assert_eq!(accepted(&gate, &held).key_id(), Some(old.key_id()));
    hand.advance(DAY - Duration::from_secs(1));
    accepted(&gate, &held);
    hand.advance(Duration::from_secs(1));
    assert_invalid(&gate, &held, "the key id is");
    // The new key is not touched by it.
    accepted(&gate, &token(&new, 10 * DAY));
}

#[test]
fn a_running_gate_takes_up_a_new_key_with_its_first_token() {
    let home = tempfile::tempdir().unwrap();
    let old = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let (gate, _) = gate(&old);
    let held = token(&old, DAY);
    accepted(&gate, &held);
    let new = rotate(home.path(), Some(DAY));
    // A look has just been; what is asked for here must not depend on how long ago.
    gate.reload_builtin();
    assert_eq!(
        accepted(&gate, &token(&new, DAY)).key_id(),
        Some(new.key_id())
    );
    accepted(&gate, &held);
}

#[test]
fn retiring_now_ends_every_token_of_before() {
    let home = tempfile::tempdir().unwrap();
    let first = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let second = rotate(home.path(), Some(DAY));
    let (gate, _) = gate(&second);
    let held = [token(&first, DAY), token(&second, DAY)];
    held.iter().for_each(|token| drop(accepted(&gate, token)));
    let third = rotate(home.path(), None);
    assert_eq!(ids(&third), [third.key_id()]);
    gate.reload_builtin();
    for token in &held {
        assert_invalid(&gate, token, "the key id is");
    }
    accepted(&gate, &token(&third, DAY));
}

#[test]
fn files_are_looked_at_once_a_second_and_sooner_for_an_unknown_key() {
    let home = tempfile::tempdir().unwrap();
    let first = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let (uptime, hand) = Uptime::manual();
    let live = Live::new(first.clone(), Clock::manual(NOW).0, uptime);
    let number_of_keys = |id: &str| {
        let in_force = live.for_key(Some(id));
        in_force.issuer.summary().keys
    };
    assert_eq!(number_of_keys(first.key_id()), 1);

    let second = rotate(home.path(), Some(DAY));
    hand.advance(Duration::from_millis(999));
    assert_eq!(number_of_keys(first.key_id()), 1);
    hand.advance(Duration::from_millis(1));
    assert_eq!(number_of_keys(first.key_id()), 2);

    let third = rotate(home.path(), Some(DAY));
    hand.advance(Duration::from_millis(49));
    assert_eq!(number_of_keys(third.key_id()), 2, "a flood is bounded");
    hand.advance(Duration::from_millis(1));
    assert_eq!(number_of_keys(third.key_id()), 3);
    let public = [&third, &second, &first].map(|issuer| issuer.keys().next().unwrap().jwk());
    assert_eq!(live.jwks(), json!({"keys": public}));
}

#[test]
fn a_bad_file_leaves_the_keys_in_force() {
    let home = tempfile::tempdir().unwrap();
    let issuer = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let (gate, _) = gate(&issuer);
    let held = token(&issuer, DAY);
    for content in ["", "not a key"] {
        std::fs::write(BuiltinIssuer::key_file(home.path()), content).unwrap();
        gate.reload_builtin();
        accepted(&gate, &held);
    }
    std::fs::remove_file(BuiltinIssuer::key_file(home.path())).unwrap();
    gate.reload_builtin();
    accepted(&gate, &held);
}

#[test]
fn a_list_that_others_could_write_or_that_is_broken_is_refused() {
    let home = tempfile::tempdir().unwrap();
    rotate(home.path(), Some(DAY));
    let list = home.path().join("issuer.earlier.json");
    std::fs::set_permissions(&list, std::fs::Permissions::from_mode(0o666)).unwrap();
    let error = BuiltinIssuer::load_or_create(home.path()).unwrap_err();
    assert!(error.to_string().contains("mode 0666"), "{error}");
    std::fs::set_permissions(&list, std::fs::Permissions::from_mode(0o600)).unwrap();
    for content in [
        "",
        "{}",
        r#"[{"x":"AAAA","retires":1}]"#,
        r#"[{"retires":1}]"#,
    ] {
        std::fs::write(&list, content).unwrap();
        let error = BuiltinIssuer::load_or_create(home.path()).unwrap_err();
        assert!(
            matches!(error, BuiltinError::BrokenList { .. }),
            "{content}: {error}"
        );
        assert!(BuiltinIssuer::rotate(home.path(), Some(DAY), NOW).is_err());
    }
}

#[test]
fn processes_that_rotate_at_once_lose_no_key() {
    let home = tempfile::tempdir().unwrap();
    let first = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let made: Vec<String> = std::thread::scope(|scope| {
        let rotations: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    // Whatever happens meanwhile, a reader finds the keys of all tokens that it could be shown.
                    let seen = BuiltinIssuer::load_or_create(home.path()).unwrap();
                    assert!(ids(&seen).contains(&first.key_id().to_owned()));
                    rotate(home.path(), Some(DAY)).key_id().to_owned()
                })
            })
            .collect();
        rotations.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let all = ids(&BuiltinIssuer::load_or_create(home.path()).unwrap());
    assert_eq!(all.len(), 9);
    assert!(made.iter().all(|id| all.contains(id)), "{made:?} {all:?}");
    // No drafts: the key and the list.
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn an_earlier_key_outlives_no_token_that_it_signed() {
    let home = tempfile::tempdir().unwrap();
    for keep in [
        Duration::ZERO,
        BuiltinIssuer::MAX_TTL + Duration::from_secs(1),
    ] {
        let error = BuiltinIssuer::rotate(home.path(), Some(keep), NOW).unwrap_err();
        assert!(matches!(error, BuiltinError::Keep { .. }), "{error}");
    }
    rotate(home.path(), Some(BuiltinIssuer::MAX_TTL));
    let later = NOW + BuiltinIssuer::MAX_TTL.as_secs();
    let after = BuiltinIssuer::rotate(home.path(), Some(DAY), later).unwrap();
    assert_eq!(
        after.keys().count(),
        2,
        "what has retired leaves the list with the next rotation"
    );
}

#[test]
fn too_many_earlier_keys_are_refused_and_the_key_in_use_stays() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..100 {
        rotate(home.path(), Some(DAY));
    }
    let before = BuiltinIssuer::load_or_create(home.path()).unwrap();
    let error = BuiltinIssuer::rotate(home.path(), Some(DAY), NOW).unwrap_err();
    assert_eq!(
        error.to_string(),
        "101 earlier keys still verify, at most 100 may"
    );
    let after = BuiltinIssuer::load_or_create(home.path()).unwrap();
    assert_eq!(ids(&before), ids(&after));
    rotate(home.path(), None);
}

#[test]
fn a_key_in_memory_has_nothing_to_follow() {
    let issuer = BuiltinIssuer::ephemeral().unwrap();
    let (gate, _) = gate(&issuer);
    gate.reload_builtin();
    accepted(&gate, &token(&issuer, DAY));
    let keys = gate.builtin_jwks().unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert_eq!(keys["keys"][0]["kid"], issuer.key_id());
}
