use std::fs;
use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use super::kit::{Shelf, closed, end, request, sum};
use crate::clock::Clock;
use crate::ledger::{Ledger, LedgerError, UsageQuery};

/// Message and hint of the refusal to open, with `PATH` for the file.
fn refusal(shelf: &Shelf) -> (String, Option<&'static str>) {
    let error = Ledger::open(&shelf.path(), Clock::system()).unwrap_err();
    let path = shelf.path().display().to_string();
    let folder = shelf.path().parent().unwrap().display().to_string();
    let text = error.to_string().replace(&path, "PATH");
    (text.replace(&folder, "FOLDER"), error.hint())
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn its_files_are_their_owner_s_alone() {
    let shelf = Shelf::new();
    let ledger = shelf.open();
    drop(ledger.begin(request("a"), closed(1, 0, 1)));
    ledger.flush();
    let folder = shelf.path().parent().unwrap().to_owned();
    assert_eq!(mode(&folder), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let wanted = ["", "-recording", "-shm", "-wal"].map(|end| format!("ledger.sqlite3{end}"));
    assert_eq!(names, wanted);
}

#[test]
fn what_others_may_write_to_is_refused() {
    let shelf = Shelf::new();
    drop(shelf.open());
    let hint = Some("chmod go-w it, or choose another place (--ledger)");
    set_mode(&shelf.path(), 0o660);
    let text = "PATH has mode 0660: others could change the ledger".to_owned();
    assert_eq!(refusal(&shelf), (text, hint));
    set_mode(&shelf.path(), 0o600);
    set_mode(shelf.path().parent().unwrap(), 0o777);
    let text = "FOLDER has mode 0777: others could change the ledger".to_owned();
    assert_eq!(refusal(&shelf), (text, hint));
}

#[test]
fn a_file_that_is_something_else_is_refused_and_left_alone() {
    let shelf = Shelf::new();
    fs::create_dir(shelf.path().parent().unwrap()).unwrap();
    let refused = (
        "PATH is not a ledger of Mixgate".to_owned(),
        Some("move the file away, or choose another (--ledger)"),
    );
    let poem = "Roses are red.\n".repeat(100);
    fs::write(shelf.path(), &poem).unwrap();
    set_mode(&shelf.path(), 0o600);
    assert_eq!(refusal(&shelf), refused);
    assert_eq!(fs::read_to_string(shelf.path()).unwrap(), poem);

    fs::remove_file(shelf.path()).unwrap();
    let theirs = Connection::open(shelf.path()).unwrap();
    theirs.execute_batch("CREATE TABLE mine (x)").unwrap();
    set_mode(&shelf.path(), 0o600);
    assert_eq!(refusal(&shelf), refused);
    assert_eq!(
        shelf.ask::<i64>("SELECT count(*) FROM sqlite_schema"),
        1,
        "nothing was added"
    );
}

#[test]
fn a_newer_program_s_ledger_is_refused_by_readers_too() {
    let shelf = Shelf::new();
    drop(shelf.open());
    let connection = Connection::open(shelf.path()).unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    let text = "the ledger PATH has version 7, this program knows up to 1";
    let hint = "use the newer program, or another file (--ledger)";
    assert_eq!(refusal(&shelf), (text.to_owned(), Some(hint)));
    let read = Ledger::read_usage(&shelf.path(), &UsageQuery::default());
    assert!(
        matches!(read, Err(LedgerError::Newer { found: 7, .. })),
        "{read:?}"
    );
}

#[test]
fn a_reader_makes_no_file() {
    let shelf = Shelf::new();
    let error = Ledger::read_usage(&shelf.path(), &UsageQuery::default()).unwrap_err();
    let path = shelf.path();
    assert_eq!(
        error.to_string(),
        format!("there is no ledger at {}", path.display())
    );
    assert_eq!(
        error.hint(),
        Some("`mixgate serve` makes it; name the server's with --state-dir or --ledger")
    );
    assert!(!path.exists() && !path.parent().unwrap().exists());
}

#[test]
fn a_folder_that_cannot_be_made_says_which() {
    let shelf = Shelf::new();
    let folder = shelf.path().parent().unwrap().to_owned();
    fs::write(&folder, "a file").unwrap();
    let (text, hint) = refusal(&shelf);
    assert_eq!(
        text,
        "cannot use the ledger PATH: File exists (os error 17)"
    );
    assert_eq!(
        hint,
        Some("choose a file in a folder that you may write to (--ledger), or \"off\"")
    );
}

#[test]
fn many_may_make_and_use_it_at_once() {
    let shelf = Shelf::new();
    let path = shelf.path();
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let path = path.clone();
            std::thread::spawn(move || {
                let ledger = Ledger::open(&path, Clock::system()).unwrap();
                for at in 0..20 {
                    let open = ledger.begin(request(&format!("{number}-{at}")), closed(2, 1, 3));
                    open.ended(end("stop", 200));
                    ledger.flush();
                }
                assert_eq!(ledger.stats().failed_writes, 0);
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let all = sum(&shelf.open());
    assert_eq!((all.requests, all.prompt, all.completion), (160, 320, 480));
    assert_eq!(shelf.ask::<String>("PRAGMA integrity_check"), "ok");
}
