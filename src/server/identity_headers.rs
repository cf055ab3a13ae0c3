//! Takes away headers in which proxies say who a caller is. Here the token says so, and nothing behind the gate may
//! ever mistake a caller's own words for it.

use axum::http::{HeaderMap, HeaderName};

/// Removes every header that asserts an identity.
pub(super) fn strip(headers: &mut HeaderMap) {
    let spoken: Vec<HeaderName> = headers
        .keys()
        .filter(|name| asserts_identity(name.as_str()))
        .cloned()
        .collect();
    for name in spoken {
        headers.remove(name);
    }
}

/// Names are in lower case already.
fn asserts_identity(name: &str) -> bool {
    NAMES.contains(&name) || BEGINNINGS.iter().any(|start| name.starts_with(start))
}

const NAMES: [&str; 15] = [
    "remote-user",
    "remote-groups",
    "remote-email",
    "remote-name",
    "x-client-id",
    "x-email",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-groups",
    "x-roles",
    "x-scopes",
];
const BEGINNINGS: [&str; 17] = [
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authenticated-",
    "x-client-cert",
    "x-consumer-",
    "x-credential-",
    "x-goog-authenticated-user-",
    "x-goog-iap-jwt-",
    "x-jwt-",
    "x-ms-client-principal",
    "x-principal",
    "x-remote-",
    "x-ssl-client-",
    "x-subject",
    "x-tenant",
    "x-user",
    "x-webauth-",
];

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn who_the_caller_claims_to_be_is_forgotten_and_all_else_is_kept() {
        let mut headers = HeaderMap::new();
        let said = [
            "X-Forwarded-User",
            "X-User",
            "X-User-Id",
            "X-Tenant-Id",
            "X-Consumer-Username",
            "X-Auth-Request-Email",
            "X-MS-CLIENT-PRINCIPAL-ID",
            "X-Forwarded-Client-Cert",
            "Remote-User",
        ];
        let kept = [
            "authorization",
            "x-api-key",
            "api-key",
            "user-agent",
            "x-request-id",
            "x-forwarded-for",
            "x-stainless-lang",
            "content-type",
            "origin",
        ];
        for name in said.iter().chain(&kept) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(&name, HeaderValue::from_static("one"));
            headers.append(&name, HeaderValue::from_static("two"));
        }
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, kept);
        assert_eq!(headers.len(), 2 * kept.len());
    }
}
