//! A policy is replaced whole, or not at all.

use std::fs;

use super::super::{PolicyError, PolicyStatus, PolicyStore, Reloaded};
use super::*;

const ONE: &str = "[[rules]]\nname = \"one\"\nmax_tokens = 1\n";
const TWO: &str = "[[rules]]\nname = \"two\"\nmax_tokens = 2\n";

fn most(store: &PolicyStore) -> Option<u32> {
    let rights = store.current().rights(&identity(anybody()), here());
    rights.unwrap().max_tokens
}

#[test]
fn a_good_file_takes_the_place_of_the_old_and_a_bad_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    fs::write(&path, ONE).unwrap();
    let store = PolicyStore::open(&path, vocabulary()).unwrap();
    let before = store.current();
    assert_eq!(store.reload().unwrap(), Reloaded::Unchanged);

    fs::write(&path, TWO).unwrap();
    assert_eq!(most(&store), Some(1), "nobody has asked for it");
    assert_eq!(store.reload().unwrap(), Reloaded::Applied(2));
    assert_eq!(most(&store), Some(2));

    fs::write(&path, "[[rules]]\nnmae = \"two\"\nmax_tokens = 3\n").unwrap();
    let error = store.reload().unwrap_err();
    assert_eq!(error.faults().len(), 1, "what is left out is not missed");
    assert_eq!(most(&store), Some(2));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        store.reload(),
        Err(PolicyError::Unreadable { .. })
    ));
    assert_eq!(most(&store), Some(2));
    let status = PolicyStatus {
        generation: 2,
        applied: 1,
        unchanged: 1,
        refused: 2,
        last_succeeded: false,
    };
    assert_eq!(store.status(), status);

    fs::write(&path, TWO).unwrap();
    assert_eq!(store.reload().unwrap(), Reloaded::Unchanged);
    assert!(store.status().last_succeeded);
    let kept = before.rights(&identity(anybody()), here()).unwrap();
    assert_eq!(kept.max_tokens, Some(1), "who has it keeps it");
}

#[test]
fn a_file_that_is_bad_at_the_start_is_an_error_that_names_each_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    let shown = path.display();
    let error = PolicyStore::open(&path, vocabulary()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot read the policy {shown}: ")),
        "{text}"
    );

    fs::write(&path, "[[rules]]\nname = \"a\"\nweight = 0\nmax_n = 0\n").unwrap();
    let error = PolicyStore::open(&path, vocabulary()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the policy has 2 faults\n{shown}:3: `weight` is 0, it must be 1 to 1000\n\
             {shown}:4: `max_n` is 0, it must be 1 to 4294967295"
        )
    );
    fs::write(&path, "[[rules]]\nname = \"a\"\nwieght = 1\n").unwrap();
    let error = PolicyStore::open(&path, vocabulary()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{shown}:3: unknown key `wieght`\n  hint: did you mean `weight`?")
    );
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let store = PolicyStore::default();
    assert_eq!(store.reload().unwrap(), Reloaded::NoFile);
    assert_eq!(store.status().generation, 0);
}
