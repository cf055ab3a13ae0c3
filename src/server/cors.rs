//! Lets web pages of listed origins call this server. Off unless the operator lists some.
//!
//! Preflights are answered here, from the list alone; no handler ever sees one. Credentials that a browser adds by
//! itself (cookies) are never allowed: a page sends its token as a header.

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;

/// The origin of web pages, exactly as browsers send it: `https://app.example`, `http://localhost:5173`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(HeaderValue);

impl WebOrigin {
    /// `None` for what no browser ever sends: a path, a trailing slash, capitals, a scheme's usual port, `*`, `null`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let usual_port = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        let uri: Uri = text.parse().ok()?;
        let plain = uri.authority()?.as_str() == authority
            && !authority.contains(['@', '*'])
            && !authority.ends_with([':', '.'])
            && !authority.ends_with(usual_port)
            && !authority.bytes().any(|byte| byte.is_ascii_uppercase());
        plain.then(|| HeaderValue::from_str(text).ok().map(Self))?
    }

    /// As browsers send it.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// What pages may do. Borrowed from the configuration for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cors<'a> {
    /// `None`: no page may do anything, and nothing is said about it.
    origin: Option<&'a WebOrigin>,
    is_on: bool,
}

impl<'a> Cors<'a> {
    /// What the page that a request comes from may do, if it comes from one.
    pub(super) fn of(headers: &HeaderMap, allowed: &'a [WebOrigin]) -> Self {
        let mut sent = headers.get_all(ORIGIN).iter();
        let origin = match (sent.next(), sent.next()) {
            (Some(origin), None) => allowed.iter().find(|known| known.0 == origin),
            _ => None,
        };
        Self {
            origin,
            is_on: !allowed.is_empty(),
        }
    }

    /// The answer to a listed page's question whether it may call. Any other question is an ordinary request.
    pub(super) fn preflight(self, request: &Parts) -> Option<Response> {
        let asks = request.method == Method::OPTIONS
            && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.origin.is_none() {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, TEN_MINUTES);
        Some(response)
    }

    /// Tells the browser that the page may read this response, refusals included.
    pub(super) fn mark(self, response: &mut HeaderMap) {
        if !self.is_on {
            return;
        }
        // Of every response: a cache must not give one page's to another.
        response.append(VARY, ORIGIN_NAME);
        if let Some(origin) = self.origin {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.0.clone());
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// The star stands for every header but `Authorization`, which must be named.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, *");
const TEN_MINUTES: HeaderValue = HeaderValue::from_static("600");
const ORIGIN_NAME: HeaderValue = HeaderValue::from_static("origin");
/// Nothing in a response is secret from a page that holds the token.
const EXPOSED: HeaderValue = HeaderValue::from_static("*");

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn allowed() -> [WebOrigin; 2] {
        ["https://app.example", "http://localhost:5173"].map(|text| WebOrigin::parse(text).unwrap())
    }

    fn parts(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/v1/models");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The headers of the answer to a preflight, or of any other response, from `origin`.
    fn marked(origin: &[(&str, &str)]) -> Vec<(String, String)> {
        let allowed = allowed();
        let mut headers = HeaderMap::new();
        Cors::of(&parts(Method::GET, origin).headers, &allowed).mark(&mut headers);
        let pairs = headers.iter();
        pairs
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn only_what_browsers_send_is_an_origin() {
        for fine in [
            "https://app.example",
            "https://app.example:8443",
            "http://localhost:5173",
            "https://[2001:db8::1]:444",
            "http://app.example:443",
        ] {
            let known = WebOrigin::parse(fine).unwrap();
            assert_eq!(known.as_str(), fine);
        }
        for never in [
            "*",
            "null",
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://app.example/path",
            "https://App.example",
            "https://app.example:443",
            "http://127.0.0.1:80",
            "https://app.example:",
            "https://me@app.example",
            "https://*.example",
            "ftp://app.example",
            "https://app.example ",
            "https://app.example?x",
        ] {
            assert_eq!(WebOrigin::parse(never), None, "{never:?}");
        }
    }

    #[test]
    fn a_listed_origin_may_read_the_answer_and_others_are_told_nothing() {
        let vary = ("vary".to_owned(), "origin".to_owned());
        let page = marked(&[("origin", "https://app.example")]);
        let exposed = "access-control-expose-headers".to_owned();
        assert_eq!(
            page,
            [
                vary.clone(),
                (
                    "access-control-allow-origin".to_owned(),
                    "https://app.example".to_owned()
                ),
                (exposed, "*".to_owned()),
            ]
        );
        for other in [
            "https://app.example.evil.example",
            "https://evil.example",
            "http://app.example",
            "https://APP.example",
            "https://app.example:443",
            "https://sub.app.example",
            "null",
            "*",
            "",
        ] {
            assert_eq!(
                marked(&[("origin", other)]),
                std::slice::from_ref(&vary),
                "{other}"
            );
        }
        assert_eq!(marked(&[]), std::slice::from_ref(&vary));
        let two = [
            ("origin", "https://app.example"),
            ("origin", "https://evil.example"),
        ];
        assert_eq!(marked(&two), std::slice::from_ref(&vary));
    }

    #[test]
    fn without_a_list_nothing_is_ever_said() {
        let asked = parts(
            Method::OPTIONS,
            &[
                ("origin", "https://app.example"),
                ("access-control-request-method", "POST"),
            ],
        );
        let cors = Cors::of(&asked.headers, &[]);
        let mut headers = HeaderMap::new();
        cors.mark(&mut headers);
        assert!(headers.is_empty());
        assert!(cors.preflight(&asked).is_none());
    }

    #[test]
    fn a_preflight_is_answered_from_the_list_and_never_allows_credentials() {
        let allowed = allowed();
        let origin = ("origin", "https://app.example");
        let method = ("access-control-request-method", "POST");
        let asked = parts(Method::OPTIONS, &[origin, method]);
        let answer = Cors::of(&asked.headers, &allowed)
            .preflight(&asked)
            .unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(
            answer.headers()["access-control-allow-methods"],
            "GET, POST, DELETE"
        );
        assert_eq!(
            answer.headers()["access-control-allow-headers"],
            "authorization, *"
        );
        let credentials = "access-control-allow-credentials";
        assert!(!answer.headers().contains_key(credentials));
        for (verb, headers) in [
            (Method::OPTIONS, &[origin][..]),
            (Method::OPTIONS, &[method]),
            (
                Method::OPTIONS,
                &[("origin", "https://evil.example"), method],
            ),
            (Method::POST, &[origin, method]),
        ] {
            let asked = parts(verb, headers);
            let cors = Cors::of(&asked.headers, &allowed);
            assert!(cors.preflight(&asked).is_none(), "{headers:?}");
        }
    }
}
