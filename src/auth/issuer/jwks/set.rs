//! Reads a JWK set as tolerantly as is safe: a bad key is dropped alone, and the others serve.

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::keys::{Key, KeySet};
use crate::auth::denied::quoted;
use crate::auth::key::{LoadedKey, jwk};
use crate::auth::token::claims::is_plain;
use crate::auth::{KeyError, MAX_DEPTH};
use crate::strict_json;

/// What a set holds.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The keys that may verify; never none.
    pub keys: KeySet,
    /// Why each other entry was dropped: sentences for the log.
    pub dropped: Vec<String>,
}

/// Why a whole set is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum SetError {
    #[error("the answer is no JSON object with an array `keys`")]
    NotASet,
    #[error("the set has {given} keys, at most {MAX_KEYS} are taken")]
    TooMany { given: usize },
    #[error("none of the {given} keys is usable{}", first(.dropped))]
    NoUsableKey { given: usize, dropped: Vec<String> },
}

/// Parses a JWK set for an issuer with these configured algorithms.
pub(super) fn parse(bytes: &[u8], configured: Option<&[Algorithm]>) -> Result<Parsed, SetError> {
    // Each entry stays text at first, so that a fault within one spoils that one only.
    let set: Set = serde_json::from_slice(bytes).map_err(|_| SetError::NotASet)?;
    let given = set.keys.len();
    if given > MAX_KEYS {
        return Err(SetError::TooMany { given });
    }
    let mut dropped = Vec::new();
    let mut usable: Vec<(Key, Identity)> = Vec::with_capacity(given);
    for (index, text) in set.keys.iter().enumerate() {
        match entry(text.get().as_bytes(), configured) {
            Ok(key) => usable.push(key),
            Err(fault) => dropped.push(format!("key {}: {fault}", index + 1)),
        }
    }
    let keys = without_conflicts(usable, &mut dropped);
    if keys.is_empty() {
        return Err(SetError::NoUsableKey { given, dropped });
    }
    Ok(Parsed {
        keys: KeySet::new(keys),
        dropped,
    })
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What makes two entries the same key.
type Identity = Vec<Option<Value>>;

fn entry(text: &[u8], configured: Option<&[Algorithm]>) -> Result<(Key, Identity), KeyError> {
    let members =
        strict_json::object(text, MAX_DEPTH).map_err(|fault| KeyError::JwkJson { fault })?;
    let loaded = jwk::of(&members)?;
    // Whoever publishes a secret has none: anybody could sign with it.
    if loaded.is_secret() {
        return Err(KeyError::PublishedSecret);
    }
    check_id(&loaded)?;
    Ok((Key::new(loaded, configured)?, identity(&members)))
}

fn check_id(loaded: &LoadedKey) -> Result<(), KeyError> {
    match &loaded.id {
        Some(id) if !is_plain(id) => Err(KeyError::BadId),
        _ => Ok(()),
    }
}

fn identity(members: &Map<String, Value>) -> Identity {
    ["kty", "crv", "n", "e", "x", "y", "alg", "issuer"]
        .iter()
        .map(|name| members.get(*name).cloned())
        .collect()
}

/// Keeps one of equal keys, and none of different keys with one name: which of them a token means cannot be told.
fn without_conflicts(usable: Vec<(Key, Identity)>, dropped: &mut Vec<String>) -> Vec<Key> {
    let conflicting: Vec<Option<Box<str>>> = usable
        .iter()
        .filter(|(key, identity)| {
            usable
                .iter()
                .any(|(other, others)| other.id == key.id && others != identity)
        })
        .map(|(key, _)| key.id.clone())
        .collect();
    let mut kept: Vec<Key> = Vec::new();
    for (key, _) in usable {
        match &key.id {
            Some(id) if conflicting.contains(&key.id) => dropped.push(format!(
                "several different keys have the `kid` {}; none of them is taken",
                quoted(id)
            )),
            Some(_) if kept.iter().any(|kept| kept.id == key.id) => {}
            _ => kept.push(key),
        }
    }
    kept
}

fn first(dropped: &[String]) -> String {
    dropped
        .first()
        .map_or_else(String::new, |first| format!(" ({first})"))
}

/// The largest genuine sets have some ten.
const MAX_KEYS: usize = 100;
