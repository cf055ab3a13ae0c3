//! Where usage is written down.

use super::*;

#[test]
fn the_ledger_is_in_the_state_folder_unless_it_is_placed_or_off() {
    let path = |file: &str| load(file, [], []).unwrap().ledger.path;
    let path = |file: &str| path(&format!("state_dir = \"/s\"\n{file}"));
    assert_eq!(path("").as_deref(), Some(Path::new("/s/ledger.sqlite3")));
    assert_eq!(path("ledger = \"off\""), None);
    let placed = path("ledger = \"usage.db\"").unwrap();
    assert!(
        placed.is_absolute() && placed.ends_with("usage.db"),
        "{placed:?}"
    );
    let typed = load("ledger = \"usage.db\"", [], [("ledger", "off")]).unwrap();
    assert_eq!(typed.ledger.path, None);
}

#[test]
fn rows_are_kept_for_400_days_unless_it_says_otherwise() {
    let days = |file| load(file, [], []).unwrap().ledger.retention.as_secs() / 86_400;
    assert_eq!(days(""), 400);
    assert_eq!(days("ledger_retention = \"30d\""), 30);
    assert!(load("ledger_retention = \"0s\"", [], []).is_err());
}
