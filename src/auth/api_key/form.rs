//! What an API key looks like: `mg_<id>_<secret>_<check>`.
//!
//! | part | characters | what it is |
//! |---|---|---|
//! | `mg` | 2 | says what it is to people, to scanners and to the gate |
//! | id | 8 | names the key; stands in lists and logs |
//! | secret | 43 | 256 random bits, base64url |
//! | check | 6 | CRC-32 of all before it, base62: tells a typo, or a find that is none, without a look-up |

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::telemetry::Secret;

/// How every key begins. No signed token does: the header of one is base64url of `{`, which is `e`.
pub(in crate::auth) const PREFIX: &str = "mg_";

/// A key that is well-formed; whether it is anybody's is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    /// Its public part.
    pub id: &'a str,
}

/// Takes a key apart. `None` for a typo: a wrong length, separator, alphabet or check.
pub(super) fn parse(key: &[u8]) -> Option<Parsed<'_>> {
    let key = std::str::from_utf8(key).ok().filter(|key| key.is_ascii())?;
    if key.len() != LENGTH {
        return None;
    }
    // By place, since the secret may hold underscores.
    let (body, end) = key.split_at(CHECK_AT);
    let id = body.strip_prefix(PREFIX)?.get(..ID)?;
    let secret = body.get(SECRET_AT..)?;
    let is_form = id.bytes().all(|byte| ID_ALPHABET.contains(&byte))
        && &body[SECRET_AT - 1..SECRET_AT] == "_"
        && URL_SAFE_NO_PAD.decode(secret).is_ok();
    (is_form && end.strip_prefix('_') == Some(&check(body))).then_some(Parsed { id })
}

/// A new key and its id. `None` if the system gives no random bytes.
pub(super) fn random() -> Option<(Secret<String>, String)> {
    let (mut name, mut secret) = ([0; ID], [0; 32]);
    rand::fill(&mut name).ok()?;
    rand::fill(&mut secret).ok()?;
    // 32 letters: each byte picks one of them evenly.
    let id: String = name
        .iter()
        .map(|byte| char::from(ID_ALPHABET[usize::from(byte % 32)]))
        .collect();
    let body = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    Some((Secret::new(with_check(&body)), id))
}

/// The key that begins like this.
pub(super) fn with_check(body: &str) -> String {
    format!("{body}_{}", check(body))
}

/// What is stored of a key. A fast hash is right for 256 random bits: there is nothing to guess.
pub(super) fn hash(key: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    hash
}

/// Whether `id` may be a key's.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == ID && id.bytes().all(|byte| ID_ALPHABET.contains(&byte))
}

fn check(body: &str) -> String {
    let mut rest = crc32(body.as_bytes());
    let mut digits = [b'0'; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().copied().map(char::from).collect()
}

/// CRC-32 as in gzip and PNG, bit by bit: a key is short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Without the letters that are mistaken for digits.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID: usize = 8;
const SECRET: usize = 43;
/// 62^6 > 2^32
const CHECK: usize = 6;
const SECRET_AT: usize = PREFIX.len() + ID + 1;
/// Of the underscore before the check.
const CHECK_AT: usize = SECRET_AT + SECRET;
const LENGTH: usize = CHECK_AT + 1 + CHECK;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_the_crc_that_everybody_computes() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        // 0xCBF43926 = 3421780262 in base 62.
        assert_eq!(check("123456789"), "3jZRME");
    }

    #[test]
    fn a_new_key_has_62_characters_and_parses_to_its_id() {
        let (key, id) = random().unwrap();
        let key = key.expose();
        assert_eq!((key.len(), &key[..3], &key[3..11]), (62, "mg_", &*id));
        assert_eq!(parse(key.as_bytes()), Some(Parsed { id: &id }));
        assert!(is_id(&id));
        let (other, _) = random().unwrap();
        assert_ne!(key, other.expose());
    }

    #[test]
    fn a_key_with_any_one_character_changed_lost_or_added_is_no_key() {
        let (key, _) = random().unwrap();
        let key = key.expose().as_bytes();
        for at in 0..key.len() {
            for other in [b'a', b'B', b'7', b'_', b'-', b'=', b' ', 0x80] {
                let mut typo = key.to_vec();
                typo[at] = other;
                assert_eq!(parse(&typo).is_some(), key[at] == other, "{at} {other}");
            }
            let mut lost = key.to_vec();
            lost.remove(at);
            assert_eq!(parse(&lost), None);
            let mut added = key.to_vec();
            added.insert(at, b'x');
            assert_eq!(parse(&added), None);
        }
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"mg_"), None);
        assert_eq!(parse(&[b'_'; LENGTH]), None);
        assert_eq!(parse("ä".repeat(31).as_bytes()), None);
    }
}
