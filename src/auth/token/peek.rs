//! Reads what names a token without believing a word of it: to revoke a token, one must be able to say which.

use serde_json::{Map, Value};

use super::compact::Compact;
use crate::auth::token::claims::{self, is_plain};
use crate::auth::{Denied, MAX_DEPTH};
use crate::strict_json;

/// What a token says of itself; nobody has checked its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified {
    /// Its issuer, by the name that identities have it by.
    pub issuer: String,
    /// What names the token: `jti`, or the claim that the issuer's configuration says.
    pub id: Option<String>,
    /// `exp`, in Unix seconds.
    pub expires: Option<u64>,
}

impl Unverified {
    /// Reads `token`, white space around it and a leading `Bearer` aside. `named` tells the issuer's proper name and
    /// the claim that names its tokens.
    ///
    /// # Errors
    /// If it is no signed token, or `named` knows no such issuer.
    pub(in crate::auth) fn read<'a>(
        token: &str,
        named: impl FnOnce(&Map<String, Value>) -> Result<(&'a str, &'a str), Denied>,
    ) -> Result<Self, Denied> {
        let token = token.trim();
        let token = match token.split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
            _ => token,
        };
        let token = Compact::split(token.as_bytes())?;
        let claims = strict_json::object(&token.payload, MAX_DEPTH)
            .map_err(|fault| Denied::token(format!("the claims are not clean JSON: {fault}")))?;
        let (issuer, id_claim) = named(&claims)?;
        let id = claims::find(&claims, id_claim).and_then(Value::as_str);
        Ok(Self {
            issuer: issuer.to_owned(),
            id: id.filter(|id| is_plain(id)).map(str::to_owned),
            expires: claims
                .get("exp")
                .and_then(|end| end.as_f64())
                .map(|end| end as u64),
        })
    }
}
