//! `x-ratelimit-*`: where a caller stands with its limits, on each answer that it gets from a limited route.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::{Identity, RateLimits, Rights, Standing};

/// Who asks, if anything limits them.
pub(super) fn caller(request: &Request) -> Option<(Arc<Identity>, Arc<Rights>)> {
    let extensions = request.extensions();
    let rights = extensions.get::<Arc<Rights>>()?;
    let identity = extensions.get::<Arc<Identity>>()?;
    (!rights.limits.is_empty()).then(|| (identity.clone(), rights.clone()))
}

/// Writes the numbers of what limits; nothing where nothing does.
pub(super) fn write(limits: RateLimits, headers: &mut HeaderMap) {
    for (names, standing) in [(REQUESTS, limits.requests), (TOKENS, limits.tokens)] {
        let Some(Standing {
            limit,
            remaining,
            reset,
        }) = standing
        else {
            continue;
        };
        let values = [limit.to_string(), remaining.to_string(), duration(reset)];
        for (name, value) in names.into_iter().zip(values) {
            let value =
                HeaderValue::try_from(value).expect("digits and letters are fine. This is a bug.");
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// As OpenAI writes it: `20ms`, `1s`, `6m0s`, `3h0m5s`. Rounded up, so that who waits that long does not come too early.
fn duration(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    if (1..1000).contains(&millis) {
        return format!("{millis}ms");
    }
    let seconds = millis.div_ceil(1000);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

const REQUESTS: [&str; 3] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
];
const TOKENS: [&str; 3] = [
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        for (nanos, written) in [
            (0, "0s"),
            (1, "1ms"),
            (20_000_000, "20ms"),
            (999_000_001, "1s"),
            (1_000_000_000, "1s"),
            (1_000_000_001, "2s"),
            (59_999_000_000, "1m0s"),
            (360_000_000_000, "6m0s"),
            (3_605_000_000_000, "1h0m5s"),
            (90_000_000_000_000, "25h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), written);
        }
    }

    #[test]
    fn only_what_limits_is_written() {
        let mut headers = HeaderMap::new();
        write(RateLimits::default(), &mut headers);
        assert!(headers.is_empty());
        let standing = Standing {
            limit: 60,
            remaining: 59,
            reset: Duration::from_secs(1),
        };
        let limits = RateLimits {
            requests: Some(standing),
            tokens: None,
        };
        write(limits, &mut headers);
        let written: Vec<_> = REQUESTS.map(|name| headers[name].to_str().unwrap()).into();
        assert_eq!((written, headers.len()), (vec!["60", "59", "1s"], 3));
    }
}
