//! Mints tokens with the built-in issuer: RFC 9068 access tokens, never anything wider than asked.

use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Map, Value};

use super::builtin::BuiltinIssuer;
use crate::auth::token::claims::is_plain;
use crate::auth::token::compact::MAX_TOKEN_BYTES;

/// What a new token shall say.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// `sub`: whom the token stands for.
    pub subject: String,
    /// From now to `exp`; at least 1 s, at most [`BuiltinIssuer::MAX_TTL`].
    pub ttl: Duration,
    /// `scope`, separated by spaces; empty for none.
    pub scopes: String,
    /// Further claims: `tenant` and `client_id` mean something to the gate.
    pub claims: Map<String, Value>,
}

impl BuiltinIssuer {
    /// Mints a token at Unix second `now`.
    ///
    /// # Errors
    /// [`MintError`] for what the gate would refuse later.
    pub fn mint(&self, request: &MintRequest, now: u64) -> Result<String, MintError> {
        let MintRequest {
            subject,
            ttl,
            scopes,
            claims: further,
        } = request;
        if !is_plain(subject) {
            return Err(MintError::Subject);
        }
        if *ttl < Duration::from_secs(1) || *ttl > Self::MAX_TTL {
            return Err(MintError::Ttl {
                given: ttl.as_secs(),
                limit: Self::MAX_TTL.as_secs(),
            });
        }
        if scopes.chars().any(char::is_control) || scopes.split(' ').any(|scope| scope.len() > 256)
        {
            return Err(MintError::Scope);
        }
        if let Some(name) = further
            .keys()
            .find(|name| RESERVED.contains(&name.as_str()))
        {
            return Err(MintError::Reserved { name: name.clone() });
        }
        for name in ["tenant", "client_id"] {
            if further
                .get(name)
                .is_some_and(|value| !value.as_str().is_some_and(is_plain))
            {
                return Err(MintError::NotText { name });
            }
        }
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| MintError::NoRandomness)?;

        let mut claims = Map::new();
        claims.insert("iss".into(), Self::ISSUER.into());
        claims.insert("sub".into(), subject.as_str().into());
        claims.insert("aud".into(), Self::AUDIENCE.into());
        claims.insert("iat".into(), now.into());
        claims.insert("exp".into(), (now + ttl.as_secs()).into());
        claims.insert("jti".into(), URL_SAFE_NO_PAD.encode(id).into());
        claims.insert("scope".into(), scopes.as_str().into());
        claims.extend(further.clone());

        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.key_id().to_owned());
        let token = jsonwebtoken::encode(&header, &claims, self.signing_key())
            .expect("the issuer's own key signs its own algorithm. This is a bug.");
        if token.len() > MAX_TOKEN_BYTES {
            return Err(MintError::TooLong {
                given: token.len(),
                limit: MAX_TOKEN_BYTES,
            });
        }
        Ok(token)
    }
}

/// Claims that the issuer sets itself, or that would make the gate refuse the token.
const RESERVED: [&str; 15] = [
    "iss",
    "sub",
    "aud",
    "iat",
    "nbf",
    "exp",
    "jti",
    "scope",
    "cnf",
    "typ",
    "token_use",
    "nonce",
    "at_hash",
    "c_hash",
    "events",
];

/// Why no token was minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// An unusable `sub`.
    #[error("the subject must have 1 to 256 bytes and no control characters")]
    Subject,
    /// A life too short or too long.
    #[error("the token would live {given} s, 1 s to {limit} s are possible")]
    Ttl {
        /// Seconds asked for.
        given: u64,
        /// Most seconds.
        limit: u64,
    },
    /// An unusable scope.
    #[error("each scope may have at most 256 bytes and no control characters")]
    Scope,
    /// A claim that is not free.
    #[error("the claim `{name}` is reserved")]
    Reserved {
        /// Which one.
        name: String,
    },
    /// A claim that the gate reads as text.
    #[error("the claim `{name}` must be text of 1 to 256 bytes")]
    NotText {
        /// Which one.
        name: &'static str,
    },
    /// More than the gate takes.
    #[error("the token would have {given} bytes, the gate takes {limit}")]
    TooLong {
        /// Bytes of the token.
        given: usize,
        /// Most bytes.
        limit: usize,
    },
    /// The system's random source.
    #[error("the system gave no random bytes")]
    NoRandomness,
}
