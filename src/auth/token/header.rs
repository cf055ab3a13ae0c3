//! Reads the three header members that count and refuses those that would change what the token is.
//!
//! `jwk`, `jku`, `x5u` and `x5c` are never read: a token does not bring its own key.

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::claims::is_plain;
use crate::auth::MAX_DEPTH;
use crate::auth::denied::{Denied, quoted};
use crate::auth::key::algorithm;
use crate::strict_json;

/// The header of a token, its signature unchecked.
pub(in crate::auth) struct Header {
    /// A supported algorithm; whether this issuer takes it is for the issuer to say.
    pub algorithm: Algorithm,
    /// Opaque: only ever compared with configured ids.
    pub key_id: Option<String>,
    /// The media type, if stated.
    pub token_type: Option<String>,
}

impl Header {
    /// Parses the decoded header bytes.
    ///
    /// # Errors
    /// `InvalidToken` with the member at fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, Denied> {
        let mut members = strict_json::object(bytes, MAX_DEPTH)
            .map_err(|fault| Denied::token(format!("the header is not clean JSON: {fault}")))?;
        // `crit` and `b64` announce extensions, of which none is implemented; `zip` and `enc` belong to encryption.
        if let Some(name) = ["crit", "b64", "zip", "enc"]
            .into_iter()
            .find(|name| members.contains_key(*name))
        {
            return Err(Denied::token(format!(
                "the header has `{name}`, an extension that is not taken"
            )));
        }
        let mut string = |name: &str| match members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if is_plain(&text) => Ok(Some(text)),
            Some(_) => Err(Denied::token(format!(
                "the header's `{name}` is not a string of 1 to 256 plain characters"
            ))),
        };
        let name = string("alg")?.ok_or_else(|| Denied::token("the header has no `alg`"))?;
        let algorithm = algorithm(&name).ok_or_else(|| {
            Denied::token(format!("the algorithm {} is not supported", quoted(&name)))
        })?;
        if let Some(content) = string("cty")?
            && ["jwt", "application/jwt"]
                .iter()
                .any(|nested| content.eq_ignore_ascii_case(nested))
        {
            return Err(Denied::token(
                "the header's `cty` announces a token within the token",
            ));
        }
        Ok(Self {
            algorithm,
            key_id: string("kid")?,
            token_type: string("typ")?,
        })
    }
}
