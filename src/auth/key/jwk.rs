//! Reads one JWK (RFC 7517), enforcing the labels that say what it is for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Curve, LoadedKey, Material, algorithm};
use crate::auth::KeyError;
use crate::auth::MAX_DEPTH;
use crate::strict_json;

/// Parses one key from JSON text.
///
/// # Errors
/// [`KeyError::Jwk`] naming the member at fault, [`KeyError::PrivateKey`] for a key with private members.
pub(in crate::auth) fn parse(text: &[u8]) -> Result<LoadedKey, KeyError> {
    let jwk = strict_json::object(text, MAX_DEPTH).map_err(|fault| KeyError::JwkJson { fault })?;
    of(&jwk)
}

/// The key of these members.
///
/// # Errors
/// As [`parse`].
pub(in crate::auth) fn of(jwk: &Map<String, Value>) -> Result<LoadedKey, KeyError> {
    let kty = string(jwk, "kty")?.ok_or(KeyError::Jwk {
        member: "kty",
        expected: "RSA, EC, OKP or oct",
    })?;
    if kty != "oct"
        && PRIVATE_MEMBERS
            .iter()
            .any(|member| jwk.contains_key(*member))
    {
        return Err(KeyError::PrivateKey);
    }
    if !matches!(string(jwk, "use")?, None | Some("sig")) {
        return Err(KeyError::Jwk {
            member: "use",
            expected: "absent or `sig`",
        });
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(uses)) if uses.iter().any(|op| op == "verify") => {}
        Some(_) => {
            return Err(KeyError::Jwk {
                member: "key_ops",
                expected: "absent or a list with `verify`",
            });
        }
    }
    let pinned = match string(jwk, "alg")? {
        None => None,
        Some(name) => {
            let expected = "absent or a supported signature algorithm";
            Some(algorithm(name).ok_or(KeyError::Jwk {
                member: "alg",
                expected,
            })?)
        }
    };
    let material = match kty {
        "RSA" => Material::rsa(&number(jwk, "n")?, &number(jwk, "e")?)?,
        "EC" => match string(jwk, "crv")? {
            Some("P-256") => point(jwk, Curve::P256, 32)?,
            Some("P-384") => point(jwk, Curve::P384, 48)?,
            _ => {
                return Err(KeyError::Jwk {
                    member: "crv",
                    expected: "P-256 or P-384",
                });
            }
        },
        "OKP" => match string(jwk, "crv")? {
            Some("Ed25519") => Material::curve(Curve::Ed25519, &sized(jwk, "x", 32)?)?,
            _ => {
                return Err(KeyError::Jwk {
                    member: "crv",
                    expected: "Ed25519",
                });
            }
        },
        "oct" => Material::secret(&number(jwk, "k")?)?,
        _ => {
            return Err(KeyError::Jwk {
                member: "kty",
                expected: "RSA, EC, OKP or oct",
            });
        }
    };
    let key = LoadedKey {
        id: string(jwk, "kid")?.map(str::to_owned),
        material,
        pinned,
        issuer: string(jwk, "issuer")?.map(str::to_owned),
    };
    // A key whose `alg` belongs to another family could serve nothing: better said now than found out later.
    match pinned {
        Some(algorithm) if key.serves(&[algorithm])?.is_empty() => Err(KeyError::Jwk {
            member: "alg",
            expected: "an algorithm of the key's own type",
        }),
        _ => Ok(key),
    }
}

fn string<'a>(
    jwk: &'a Map<String, Value>,
    member: &'static str,
) -> Result<Option<&'a str>, KeyError> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyError::Jwk {
            member,
            expected: "a string",
        }),
    }
}

/// The bytes of a canonical base64url member.
fn number(jwk: &Map<String, Value>, member: &'static str) -> Result<Vec<u8>, KeyError> {
    string(jwk, member)?
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(KeyError::Jwk {
            member,
            expected: "canonical base64url",
        })
}

fn sized(jwk: &Map<String, Value>, member: &'static str, len: usize) -> Result<Vec<u8>, KeyError> {
    let bytes = number(jwk, member)?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(KeyError::Jwk {
            member,
            expected: "as long as the curve says",
        })
    }
}

/// The uncompressed point: 4, x, y.
fn point(jwk: &Map<String, Value>, curve: Curve, len: usize) -> Result<Material, KeyError> {
    let point = [vec![4], sized(jwk, "x", len)?, sized(jwk, "y", len)?].concat();
    Material::curve(curve, &point)
}

/// RFC 7518 §6: what only the signer may know.
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];
