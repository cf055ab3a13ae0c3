use super::*;

const NOW: u64 = 1_800_000_000;

fn made(expires: Option<u64>) -> (String, ApiKeyRecord) {
    let new = NewApiKey {
        subject: "ann".to_owned(),
        tenant: Some("acme".to_owned()),
        scopes: "chat  models".to_owned(),
        expires,
        note: Some("for the cron job".to_owned()),
    };
    let (key, record) = new.make(NOW).unwrap();
    (key.expose().clone(), record)
}

fn keys(records: &[ApiKeyRecord]) -> ApiKeys {
    let keys = ApiKeys::default();
    keys.replace(records, NOW);
    keys
}

fn detail(keys: &ApiKeys, key: &str, now: u64) -> String {
    let denied = keys.identity(key.as_bytes(), now).unwrap_err();
    assert_eq!(denied.reason(), Reason::InvalidApiKey);
    assert!(!denied.detail().contains(key), "{}", denied.detail());
    denied.detail().to_owned()
}

#[test]
fn a_key_is_its_makers_words_and_nothing_more() {
    let (key, record) = made(Some(NOW + 60));
    let identity = keys(std::slice::from_ref(&record))
        .identity(key.as_bytes(), NOW)
        .unwrap();
    assert_eq!(
        (identity.issuer(), identity.subject()),
        (KEYS_ISSUER, "ann")
    );
    assert_eq!(identity.tenant(), Some("acme"));
    assert_eq!(identity.scopes().collect::<Vec<_>>(), ["chat", "models"]);
    assert_eq!(identity.credential(), Credential::ApiKey);
    assert_eq!(identity.key_id(), Some(&*record.id));
    assert_eq!(identity.claim("key_id"), Some(&record.id.into()));
    assert_eq!(identity.claim("note"), None);
    let times = (identity.issued(), identity.expires());
    assert_eq!(times, (Some(NOW), Some(NOW + 60)));
}

#[test]
fn what_is_stored_does_not_tell_the_key() {
    let (key, record) = made(None);
    let stored = format!("{record:?}");
    assert!(!stored.contains(&key[12..55]), "{stored}");
    assert!(record.hash.iter().any(|&byte| byte != 0));
}

#[test]
fn whatever_is_wrong_with_a_key_the_reason_is_for_the_log_alone() {
    let (good, record) = made(None);
    let (expiring, expires) = made(Some(NOW + 60));
    let (taken, mut revoked) = made(None);
    revoked.revoked = Some(NOW);
    // A genuine key of another server.
    let (foreign, _) = made(None);
    let keys = keys(&[record.clone(), expires, revoked]);
    assert!(keys.identity(good.as_bytes(), u64::MAX).is_ok());
    assert!(keys.identity(expiring.as_bytes(), NOW + 59).is_ok());
    assert!(detail(&keys, &expiring, NOW + 60).ends_with("has expired"));
    assert!(detail(&keys, &taken, NOW).ends_with("was revoked"));
    assert!(detail(&keys, &foreign, NOW).ends_with("is known"));
    assert_eq!(
        detail(&keys, &good[..61], NOW),
        "the API key is mistyped or cut"
    );
    assert_eq!(detail(&keys, "mg_", NOW), "the API key is mistyped or cut");
}

#[test]
fn the_id_of_one_key_with_the_secret_of_another_is_nobody() {
    let ((one, first), (other, second)) = (made(None), made(None));
    // With a check that is right, as a forger would send it.
    let keys = keys(&[first, second]);
    let mixed = form::with_check(&format!("{}{}", &one[..12], &other[12..55]));
    assert!(detail(&keys, &mixed, NOW).ends_with("is known"));
}

#[test]
fn a_key_that_is_not_in_the_ledger_any_more_is_nobody() {
    let (key, record) = made(None);
    let keys = keys(&[record]);
    assert!(keys.identity(key.as_bytes(), NOW).is_ok());
    keys.replace(&[], NOW);
    assert!(detail(&keys, &key, NOW).ends_with("is known"));
}

#[test]
fn a_damaged_record_lets_nobody_in_and_harms_no_other() {
    let (good, record) = made(None);
    let (bad, mut damaged) = made(None);
    damaged.subject = "line\nbreak".to_owned();
    let keys = keys(&[damaged, record]);
    assert!(keys.identity(good.as_bytes(), NOW).is_ok());
    assert!(keys.identity(bad.as_bytes(), NOW).is_err());
}

#[test]
fn a_use_is_noted_once_a_day_across_reloads() {
    let (key, record) = made(None);
    let ledger = Ledger::in_memory();
    ledger.put_api_key(&record).unwrap();
    let last_used = || {
        ledger.flush();
        ledger.api_keys().unwrap()[0].last_used.clone()
    };
    // Takes the note away, so that a second one would show.
    let forget = || ledger.put_api_key(&record).unwrap();
    let keys = keys(&ledger.api_keys().unwrap());
    keys.write_to(&ledger);
    assert!(keys.identity(key.as_bytes(), NOW).is_ok());
    assert_eq!(last_used().as_deref(), Some("2027-01-15"));
    forget();
    assert!(keys.identity(key.as_bytes(), NOW + 60).is_ok());
    keys.replace(&ledger.api_keys().unwrap(), NOW + 60);
    assert!(keys.identity(key.as_bytes(), NOW + 61).is_ok());
    assert_eq!(last_used(), None);
    assert!(keys.identity(key.as_bytes(), NOW + DAY).is_ok());
    assert_eq!(last_used().as_deref(), Some("2027-01-16"));
}

#[test]
fn a_use_that_the_ledger_knows_of_is_not_told_again() {
    let (key, mut record) = made(None);
    let ledger = Ledger::in_memory();
    ledger.put_api_key(&record).unwrap();
    record.last_used = Some("2027-01-15".to_owned());
    let keys = keys(&[record]);
    keys.write_to(&ledger);
    assert!(keys.identity(key.as_bytes(), NOW).is_ok());
    ledger.flush();
    assert_eq!(ledger.api_keys().unwrap()[0].last_used, None);
}

#[test]
fn names_that_could_not_stand_in_a_log_and_a_past_end_make_no_key() {
    let with = |change: fn(&mut NewApiKey)| {
        let mut new = NewApiKey {
            subject: "ann".to_owned(),
            ..NewApiKey::default()
        };
        change(&mut new);
        new.make(NOW).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(with(|_| {}), Ok(()));
    let plain = |field| {
        Err(format!(
            "the {field} must have 1 to 256 bytes and no control characters"
        ))
    };
    assert_eq!(with(|new| new.subject.clear()), plain("subject"));
    assert_eq!(with(|new| new.tenant = Some("a\n".into())), plain("tenant"));
    assert_eq!(with(|new| new.note = Some("x".repeat(257))), plain("note"));
    assert!(with(|new| new.scopes = "a\tb".into()).is_err());
    assert!(with(|new| new.scopes = "s ".repeat(257)).is_err());
    let past = "the key would expire at Unix second 1800000000, now it is 1800000000";
    assert_eq!(with(|new| new.expires = Some(NOW)), Err(past.to_owned()));
}
