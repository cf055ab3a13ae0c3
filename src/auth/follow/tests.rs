use super::*;
use crate::auth::{Expiry, NewApiKey, Revocation, Rights, Withdrawn};

const NOW: u64 = 1_800_000_000;

fn followed() -> Followed {
    Followed::new(Clock::manual(NOW).0, Uptime::manual().0)
}

fn new_key(ledger: &Ledger) -> (String, crate::ledger::ApiKeyRecord) {
    let new = NewApiKey {
        subject: "ann".to_owned(),
        ..NewApiKey::default()
    };
    let (key, record) = new.make(NOW).unwrap();
    ledger.put_api_key(&record).unwrap();
    (key.expose().clone(), record)
}

#[test]
fn a_key_is_good_from_the_next_look_at_the_ledger_on_and_its_use_is_noted_there() {
    let (ledger, followed) = (Ledger::in_memory(), followed());
    let (key, _) = new_key(&ledger);
    assert!(followed.api_keys.identity(key.as_bytes(), NOW).is_err());
    followed.reload(&ledger).unwrap();
    assert!(followed.api_keys.identity(key.as_bytes(), NOW).is_ok());
    ledger.flush();
    let used = ledger.api_keys().unwrap()[0].last_used.clone();
    assert_eq!(used.as_deref(), Some("2027-01-15"));
}

#[test]
fn what_runs_under_a_key_ends_when_the_key_is_revoked() {
    let (ledger, followed) = (Ledger::in_memory(), followed());
    let ((key, record), (other, _)) = (new_key(&ledger), new_key(&ledger));
    followed.reload(&ledger).unwrap();
    let watched = [key, other].map(|key| {
        let identity = followed.api_keys.identity(key.as_bytes(), NOW).unwrap();
        let rights = Arc::new(Rights {
            on_expiry: Expiry::Finish,
            ..Rights::default()
        });
        let revocation = Revocation::default();
        let revoked = &followed.revoked;
        revoked.watch(&Arc::new(identity), &rights, revocation)
    });
    let revoked = crate::ledger::ApiKeyRecord {
        revoked: Some(NOW),
        ..record
    };
    ledger.put_api_key(&revoked).unwrap();
    followed.reload(&ledger).unwrap();
    let ends = watched.map(|watched| watched.withdrawn(true));
    assert_eq!(ends, [Some(Withdrawn::Revoked), None]);
}
