use super::*;

fn is_public(method: &Method, path: &str) -> bool {
    literal_row(method, path).is_some_and(|row| row.access == Access::Public)
}

#[test]
fn only_the_health_probes_are_public() {
    let public: Vec<&str> = routes()
        .iter()
        .filter(|row| row.access == Access::Public)
        .map(|row| row.path)
        .collect();
    assert_eq!(public, ["/livez", "/readyz", "/health"]);
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
