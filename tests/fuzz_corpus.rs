//! Every file of the fuzz corpus through the doors that the fuzz targets use: what was found once stays found.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::fs;
use std::path::Path;

use mixgate::auth::Identity;

#[path = "../fuzz/entries.rs"]
mod entries;

/// Calls `door` with each file of the target's corpus; their number.
fn run<T>(target: &str, door: impl Fn(&[u8]) -> T) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let files = fs::read_dir(folder.join(target)).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    for file in &files {
        door(&fs::read(file).unwrap());
    }
    files.len()
}

#[test]
fn no_file_of_the_corpus_breaks_anything() {
    assert!(run("token", entries::token) > 10);
    assert!(run("credential", entries::credential) > 5);
    assert!(run("claims", entries::claims) > 10);
    assert!(run("jwk", entries::jwk) > 10);
    assert!(run("jwks", entries::jwks) > 10);
    assert!(run("policy", entries::policy) > 8);
    assert!(run("forwarded", entries::forwarded) > 8);
    assert!(run("wire", entries::wire) > 10);
    assert!(run("host", entries::host) > 5);
}

#[test]
fn the_corpus_begins_with_what_is_accepted() {
    let read = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        fs::read(folder.join(name)).unwrap()
    };
    for name in [
        "good-hs",
        "good-rs",
        "good-p256",
        "good-p384",
        "good-ed",
        "auth0",
        "entra",
        "keycloak",
    ] {
        let token = read(&format!("token/{name}"));
        let accepted: Result<Identity, _> = entries::GATE.verify(&token);
        assert!(accepted.is_ok(), "{name}: {accepted:?}");
    }
    for name in [
        "plain", "stream", "sampling", "parts", "stop", "salt", "nulls",
    ] {
        assert!(
            mixgate::fuzz::chat_request(&read(&format!("wire/{name}"))),
            "{name}"
        );
    }
    for name in ["all", "auth0", "entra", "keycloak", "no-names", "twins"] {
        let keys = mixgate::fuzz::key_set(&read(&format!("jwks/{name}")));
        assert!(keys.is_some(), "{name}");
    }
    for name in [
        "everybody",
        "example",
        "matches",
        "nobody",
        "one-vm",
        "readme",
    ] {
        let text = String::from_utf8(read(&format!("policy/{name}"))).unwrap();
        let policy = mixgate::auth::Policy::parse(&text, &entries::VOCABULARY);
        assert!(policy.is_ok(), "{name}: {policy:?}");
    }
}
