//! Splits the compact form of a JWS: three canonical base64url parts, nothing else.
//!
//! Sizes, separators and alphabet are checked before a byte is decoded. Five parts are an encrypted token (JWE): it is
//! refused here, so no key is ever derived for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::auth::denied::Denied;

/// A token taken apart, its signature unchecked.
pub(in crate::auth) struct Compact<'a> {
    /// The decoded header bytes.
    pub header: Vec<u8>,
    /// The decoded claims bytes.
    pub payload: Vec<u8>,
    /// The signature, still base64url.
    pub signature: &'a str,
    /// Header and payload exactly as received, with the dot between: what was signed.
    pub signing_input: &'a [u8],
}

impl<'a> Compact<'a> {
    /// Takes `token` apart.
    ///
    /// # Errors
    /// `InvalidToken`, whose detail names the part and the fault.
    pub fn split(token: &'a [u8]) -> Result<Self, Denied> {
        if token.len() > MAX_TOKEN_BYTES {
            let given = token.len();
            return Err(Denied::token(format!(
                "the token has {given} bytes, at most {MAX_TOKEN_BYTES} are taken"
            )));
        }
        let text = std::str::from_utf8(token)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte == b'.' || is_base64url(byte)))
            .ok_or_else(|| Denied::token("the token has characters outside base64url"))?;
        let parts: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            let given = parts.len();
            return Err(Denied::token(format!(
                "the token has {given} parts, a signed JWT has 3"
            )));
        };
        if signature.is_empty() {
            return Err(Denied::token("the signature is empty"));
        }
        if header.len() > MAX_HEADER_BYTES.div_ceil(3) * 4 {
            return Err(Denied::token(format!(
                "the header has more than {MAX_HEADER_BYTES} bytes"
            )));
        }
        Ok(Self {
            header: decode(header, "header")?,
            payload: decode(payload, "payload")?,
            signature,
            signing_input: &token[..header.len() + 1 + payload.len()],
        })
    }
}

/// Decodes canonical base64url: no padding, and the spare bits of the last character zero.
fn decode(part: &str, name: &str) -> Result<Vec<u8>, Denied> {
    if part.is_empty() {
        return Err(Denied::token(format!("the {name} is empty")));
    }
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Denied::token(format!("the {name} is not canonical base64url")))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// 16 KiB: the largest genuine tokens (Entra with 200 groups) have about 8 KiB.
pub(in crate::auth) const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// 2 KiB of decoded header: `alg`, `kid`, `typ` and a thumbprint fit in 300 bytes.
const MAX_HEADER_BYTES: usize = 2 * 1024;
