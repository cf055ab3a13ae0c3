//! Checks the three time claims, as whole Unix seconds without overflow.

use serde_json::{Map, Value};

use crate::auth::denied::{Denied, Reason};

/// How far an issuer's times are trusted.
#[derive(Debug, Clone, Copy)]
pub(in crate::auth) struct TimeRules {
    /// Seconds by which the issuer's clock may differ from ours.
    pub skew: u64,
    /// Most seconds between issue and expiry.
    pub max_lifetime: u64,
}

impl TimeRules {
    /// Checks `exp`, `nbf` and `iat` at Unix second `now` and returns `exp`.
    ///
    /// ```text
    ///        iat, nbf - skew ≤ now < exp + skew          exp - iat ≤ max_lifetime
    /// ```
    pub fn check(self, claims: &Map<String, Value>, now: u64) -> Result<u64, Denied> {
        let Self { skew, max_lifetime } = self;
        // Fractions are rounded towards refusal.
        let expires = date(claims, "exp", f64::floor)?
            .ok_or_else(|| Denied::claims("the claim `exp` is missing"))?;
        let not_before = date(claims, "nbf", f64::ceil)?;
        let issued = date(claims, "iat", f64::ceil)?;

        // RFC 7519 §4.1.4: valid before `exp`, no longer at it.
        if now >= expires + skew {
            let ago = span(now - expires);
            return Err(Denied::new(
                Reason::TokenExpired,
                format!("the token expired {ago} ago (skew {skew} s)"),
            ));
        }
        for (name, date) in [("nbf", not_before), ("iat", issued)] {
            let Some(date) = date else { continue };
            if date > expires {
                return Err(Denied::claims(format!("`{name}` is after `exp`")));
            }
            if date > now + skew {
                let ahead = span(date - now);
                return Err(Denied::new(
                    Reason::TokenNotActive,
                    format!("`{name}` is {ahead} in the future (skew {skew} s)"),
                ));
            }
        }
        let lifetime = issued.map(|issued| expires - issued);
        // Without `iat`, what is left must fit; with it, that still bounds a token that claims to be from the future.
        if lifetime.is_some_and(|lifetime| lifetime > max_lifetime)
            || expires > now + max_lifetime + skew
        {
            // Within the skew, `exp` may be over.
            let given = span(lifetime.unwrap_or(expires.saturating_sub(now)));
            let limit = span(max_lifetime);
            return Err(Denied::claims(format!(
                "the token lives {given}, this issuer's tokens may live {limit} (max_lifetime_s)"
            )));
        }
        Ok(expires)
    }
}

/// The `iat` of claims that [`TimeRules::check`] has passed.
pub(in crate::auth) fn issued(claims: &Map<String, Value>) -> Option<u64> {
    date(claims, "iat", f64::ceil).ok().flatten()
}

/// A NumericDate claim, if present: a number from 0 to the end of the year 9999.
fn date(
    claims: &Map<String, Value>,
    name: &str,
    round: fn(f64) -> f64,
) -> Result<Option<u64>, Denied> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = match value.as_u64() {
        Some(seconds) => seconds as f64,
        None => value
            .as_f64()
            .ok_or_else(|| Denied::claims(format!("`{name}` is not a number")))?,
    };
    // NaN fails the comparison too.
    if !(0.0..=YEAR_9999).contains(&seconds) {
        let hint = if seconds > YEAR_9999 {
            "; are these milliseconds?"
        } else {
            ""
        };
        return Err(Denied::claims(format!(
            "`{name}` is no date in Unix seconds{hint}"
        )));
    }
    Ok(Some(round(seconds) as u64))
}

/// Seconds as people say them: the largest unit that leaves at least 2.
pub(in crate::auth) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// 9999-12-31T23:59:59Z in Unix seconds; exact in an `f64`, and any sum of such dates fits a `u64`.
const YEAR_9999: f64 = 253_402_300_799.0;
