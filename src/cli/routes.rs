//! `mixgate routes`: the route table, how a policy calls each row, and what it asks of its caller.

use std::io::Write;

use super::Failure;
use crate::auth::Access;
use crate::server::routes;

/// Prints the route table.
pub(super) fn run(out: &mut dyn Write) -> Result<(), Failure> {
    for route in routes() {
        let (method, path) = (route.method, route.path);
        let asks = words(route.access);
        writeln!(out, "{method:<6} {path:<40} {:<12} {asks}", route.name())?;
    }
    Ok(writeln!(
        out,
        "{:<6} {:<40} {:<12} {}",
        "*",
        "*",
        "",
        words(Access::Verified)
    )?)
}

fn words(access: Access) -> String {
    match access {
        Access::Public => "public".to_owned(),
        Access::Verified => "any valid token".to_owned(),
        Access::Scope(scope) => format!("a token with scope {scope}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_what_unknown_paths_ask_for() {
        let mut out = Vec::new();
        run(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["*", "*", "any", "valid", "token"]);
    }
}
