//! `mixgate routes`: the route table, at which door each row is, and what it asks of its caller there.

use std::io::Write;

use super::Failure;
use crate::auth::Access;
use crate::server::{Doors, routes};

/// Prints the route table.
pub(super) fn run(out: &mut dyn Write) -> Result<(), Failure> {
    let mut line = |method: &str, path: &str, public: &str, internal: &str| {
        writeln!(out, "{method:<6} {path:<40} {public:<34} {internal}")
    };
    line("METHOD", "PATH", "PUBLIC PORT", "INTERNAL PORT")?;
    for route in routes() {
        let asks = words(route.access);
        let (public, internal) = match route.doors {
            Doors::Public => (&*asks, "-"),
            Doors::OpenInside => (&*asks, "open"),
            Doors::Admin => ("- (unless admin_on_public)", &*asks),
        };
        line(route.method, route.path, public, internal)?;
    }
    let rest = words(Access::Verified);
    Ok(line("*", "*", &rest, &rest)?)
}

fn words(access: Access) -> String {
    match access {
        Access::Public => "open".to_owned(),
        Access::Verified => "any valid token".to_owned(),
        Access::Scope(scope) => format!("a token with scope {scope}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_says_what_it_asks_at_either_door() {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let columns = |path: &str| -> Vec<&str> {
            let line = text.lines().find(|line| line.contains(path)).unwrap();
            line.split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect()
        };
        assert_eq!(columns("/livez"), ["GET    /livez", "open", "open"]);
        assert_eq!(
            columns("/metrics")[1..],
            ["a token with scope metrics", "open"]
        );
        assert_eq!(
            columns("/v1/chat/completions")[1..],
            ["a token with scope chat", "-"]
        );
    }

    #[test]
    fn the_table_ends_with_what_unknown_paths_ask_for() {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        let asks = ["any", "valid", "token"];
        assert_eq!(last, [&["*", "*"], &asks[..], &asks[..]].concat());
    }
}
