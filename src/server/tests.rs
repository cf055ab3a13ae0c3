use super::*;

fn is_public(method: &Method, path: &str) -> bool {
    literal_row(method, path).is_some_and(|row| row.access == Access::Public)
}

#[test]
fn public_are_the_probes_and_what_one_needs_to_get_a_token() {
    let public: Vec<&str> = routes()
        .iter()
        .filter(|row| row.access == Access::Public)
        .map(|row| row.path)
        .collect();
    assert_eq!(
        public,
        [
            "/livez",
            "/readyz",
            "/health",
            "/.well-known/oauth-protected-resource",
            "/.well-known/jwks.json"
        ]
    );
}

#[test]
fn public_means_the_literal_path_and_method_of_the_table() {
    assert!(is_public(&Method::GET, "/livez"));
    assert!(is_public(&Method::HEAD, "/readyz"));
    for (method, path) in [
        (Method::POST, "/livez"),
        (Method::OPTIONS, "/health"),
        (Method::GET, "/livez/"),
        (Method::GET, "//livez"),
        (Method::GET, "/LIVEZ"),
        (Method::GET, "/livez%20"),
        (Method::GET, "/livez/../v1/models"),
        (Method::GET, "/v1/models"),
        (Method::GET, "/metrics"),
        (Method::GET, "/.well-known/jwks.json/"),
        (Method::GET, "/.well-known/"),
        (Method::GET, "/.well-known/oauth-protected-resource/v1"),
        (Method::GET, "/"),
    ] {
        assert!(!is_public(&method, path), "{method} {path}");
    }
}

#[test]
fn no_row_hides_another() {
    for (at, row) in routes().iter().enumerate() {
        let twin = routes()[..at]
            .iter()
            .find(|other| (other.method, other.path) == (row.method, row.path));
        assert!(
            twin.is_none(),
            "{} {} stands twice in the table",
            row.method,
            row.path
        );
    }
}

#[test]
fn a_path_belongs_to_one_row_or_none() {
    for (path, row) in [
        ("/livez", "/livez"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/a/b", "/v1/models/{*id}"),
        ("/v1/models/", "none"),
        ("/v1/modelsx", "none"),
        ("/", "none"),
    ] {
        assert_eq!(row_of(path), row, "{path}");
    }
}

#[test]
fn what_generates_or_commands_is_never_open_at_the_internal_door() {
    for row in routes().iter().filter(|row| row.doors == Doors::OpenInside) {
        assert_eq!(row.method, "GET", "{}", row.path);
        assert!(!row.path.contains('{'), "{} has no literal path", row.path);
    }
    for row in routes().iter().filter(|row| row.doors == Doors::Admin) {
        assert!(
            matches!(row.access, Access::Scope(_)),
            "{} asks for no scope",
            row.path
        );
    }
}
