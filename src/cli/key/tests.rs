use super::*;

const NOW: u64 = 1_800_000_000;

fn asked(expires: Option<&str>) -> Create {
    Create {
        sub: "ann".to_owned(),
        tenant: Some("acme".to_owned()),
        scope: "chat models".to_owned(),
        expires: expires.map(str::to_owned),
        note: None,
    }
}

fn rotating(id: &str, keep: &str) -> Rotate {
    Rotate {
        id: id.to_owned(),
        keep: keep.to_owned(),
    }
}

#[test]
fn a_key_is_handed_over_alone_and_stored_without_itself() {
    let ledger = Ledger::in_memory();
    let (key, record) = create(asked(Some("90d")), &ledger, NOW).unwrap();
    assert_eq!(record.expires, Some(NOW + 90 * 86_400));
    assert_eq!(ledger.api_keys().unwrap(), std::slice::from_ref(&record));
    let mut out = Vec::new();
    hand_over(&key, &record, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("{}\n", key.expose())
    );
}

#[test]
fn a_list_has_a_row_for_each_key_and_no_hash() {
    let ledger = Ledger::in_memory();
    let (_, first) = create(asked(None), &ledger, NOW).unwrap();
    let (_, second) = create(asked(Some("1d")), &ledger, NOW + 60).unwrap();
    let (_, third) = create(asked(None), &ledger, NOW + 120).unwrap();
    revoke(&third.id, &ledger, NOW + 180).unwrap();
    ledger.touch_api_key(&first.id, "2027-01-15");
    ledger.flush();
    let text = list(&ledger, NOW + 90_000).unwrap();
    let expected = format!(
        "ID        SUBJECT  TENANT  SCOPES       CREATED           EXPIRES           LAST USED   STATE    NOTE\n\
         {}  ann      acme    chat models  2027-01-15 08:00  never             2027-01-15  active   -\n\
         {}  ann      acme    chat models  2027-01-15 08:01  2027-01-16 08:01  never       expired  -\n\
         {}  ann      acme    chat models  2027-01-15 08:02  never             never       revoked  -\n",
        first.id, second.id, third.id
    );
    assert_eq!(text, expected);
}

#[test]
fn a_key_is_revoked_once_and_for_all() {
    let ledger = Ledger::in_memory();
    let (key, record) = create(asked(None), &ledger, NOW).unwrap();
    assert_eq!(
        revoke(&record.id, &ledger, NOW + 1).unwrap().revoked,
        Some(NOW + 1)
    );
    assert_eq!(
        revoke(&record.id, &ledger, NOW + 2).unwrap().revoked,
        Some(NOW + 1)
    );
    let unknown = revoke("zzzzzzzz", &ledger, NOW).unwrap_err().to_string();
    assert_eq!(
        unknown,
        "error: there is no key zzzzzzzz\nhint: mixgate key list shows all"
    );
    // People paste the whole key.
    let pasted = revoke(key.expose(), &ledger, NOW).unwrap_err().to_string();
    assert!(
        pasted.starts_with("error: that is no key's id\n"),
        "{pasted}"
    );
    assert!(!pasted.contains(&key.expose()[12..]), "{pasted}");
}

#[test]
fn a_rotated_key_says_the_same_and_the_old_one_ends() {
    let ledger = Ledger::in_memory();
    let (_, old) = create(asked(Some("90d")), &ledger, NOW).unwrap();
    let later = NOW + 10 * 86_400;
    let (_, new) = rotate(&rotating(&old.id, "12h"), &ledger, later).unwrap();
    assert_ne!((&new.id, new.hash), (&old.id, old.hash));
    let expected = ApiKeyRecord {
        id: new.id.clone(),
        hash: new.hash,
        created: later,
        expires: Some(later + 90 * 86_400),
        ..old.clone()
    };
    assert_eq!(new, expected);
    let kept = find(&old.id, &ledger).unwrap();
    assert_eq!(kept.expires, Some(later + 12 * 3600));
    let over = rotate(&rotating(&old.id, "12h"), &ledger, later + 12 * 3600);
    let over = over.unwrap_err().to_string();
    assert!(
        over.contains("is expired: there is nothing to carry over"),
        "{over}"
    );
}

#[test]
fn what_is_typed_amiss_makes_no_key() {
    let ledger = Ledger::in_memory();
    let failure = |typed: Create| create(typed, &ledger, NOW).unwrap_err().to_string();
    let unit = failure(asked(Some("90")));
    assert!(
        unit.starts_with("error: `90` is not a length of time\nhint: "),
        "{unit}"
    );
    let none = failure(asked(Some("0s")));
    assert!(
        none.starts_with("error: the key would expire at once\n"),
        "{none}"
    );
    let empty = failure(Create {
        sub: String::new(),
        ..asked(None)
    });
    assert_eq!(
        empty,
        "error: the subject must have 1 to 256 bytes and no control characters"
    );
    assert!(ledger.api_keys().unwrap().is_empty());
}
