//! The bytes of a token: one canonical JWS of two clean JSON objects, its claims typed strictly. Nothing here is
//! believed before [`super::issuer`] has checked the signature.

pub(in crate::auth) mod claims;
pub(in crate::auth) mod compact;
pub(in crate::auth) mod header;
pub(in crate::auth) mod peek;
pub(in crate::auth) mod time;
