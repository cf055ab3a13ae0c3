//! The configuration as TOML that could be a file again.

use std::fmt::Write;

use super::Config;
use super::file::PUBLIC_PREFIXES;
use super::settings::{DefaultValue, Setting, TABLE};
use super::value::quoted;

impl Config {
    /// Every setting's value as a TOML file; with `origins`, each with the place that it comes from.
    ///
    /// Keys and secrets never appear: those written into the file itself are replaced by a remark.
    pub fn show(&self, origins: bool) -> String {
        let mut out = String::new();
        let mut group = None;
        for setting in TABLE {
            if group != Some(setting.group) {
                let gap = if group.is_some() { "\n" } else { "" };
                let _ = writeln!(out, "{gap}# {}", setting.group.heading());
                group = Some(setting.group);
            }
            let _ = writeln!(out, "{}", self.line(setting, origins));
        }
        let origin = match &self.file {
            Some(file) if origins => format!("# {}\n", file.display()),
            _ => String::new(),
        };
        if !self.public_prefixes.is_empty() {
            let prefixes: Vec<_> = self.public_prefixes.iter().map(|it| quoted(it)).collect();
            let list = prefixes.join(",\n    ");
            let _ = write!(out, "\n{origin}{PUBLIC_PREFIXES} = [\n    {list},\n]\n");
        }
        if let Some(public) = self.layers.public_as_written() {
            let whole = toml::Table::from_iter([("public".to_owned(), toml::Value::Table(public))]);
            let _ = write!(out, "\n{origin}{whole}");
        }
        if let Some(mut auth) = self.layers.auth_as_written() {
            hide_secrets(&mut auth);
            let whole = toml::Table::from_iter([("auth".to_owned(), toml::Value::Table(auth))]);
            let _ = write!(out, "\n{origin}{whole}");
        }
        out
    }

    fn line(&self, setting: &'static Setting, origins: bool) -> String {
        let resolved = self.layers.value(setting.name);
        let Some(value) = resolved.text.as_deref().and_then(setting.check) else {
            return format!("# {} is not set: {}", setting.name, setting.default.words());
        };
        let line = format!("{} = {value}", setting.name);
        if origins {
            format!("{line:<COLUMN$}  # {}", resolved.origin)
        } else {
            line
        }
    }
}

/// A file with every setting at its default, each explained and commented out.
pub fn template() -> String {
    let mut out = String::from(
        "# Mixgate's settings. Remove the # before a line to change it; `mixgate config check` checks the file.\n\
         # A flag or a variable (--port, MIXGATE_PORT) wins over this file. Relative paths start at this folder.\n",
    );
    let mut group = None;
    for setting in TABLE {
        if group != Some(setting.group) {
            let _ = writeln!(out, "\n# {}", setting.group.heading());
            group = Some(setting.group);
        }
        let (value, remark) = match setting.default {
            DefaultValue::Is(text) => ((setting.check)(text).unwrap_or_default(), String::new()),
            DefaultValue::Unset(words) | DefaultValue::Found(words, _) => {
                ("…".to_owned(), format!(" (default: {words})"))
            }
        };
        let line = format!("# {} = {value}", setting.name);
        let _ = writeln!(out, "{line:<COLUMN$}  # {}{remark}", setting.summary());
    }
    out + TABLES_TEMPLATE
}

const TABLES_TEMPLATE: &str = r#"
# System prompts whose computed beginning all tenants share. Each must be one that anybody may know.
# public_prefixes = ["You are a helpful gardener."]

# Probes that have no token, and the addresses that they come from.
# [public.open]
# routes = ["/health", "/metrics"]
# from = ["10.0.0.0/24"]

# Whose tokens to believe. Without an issuer, `mixgate token mint` makes them, for this machine alone.
# [[auth.issuers]]
# issuer = "https://login.example.com/"
# audiences = ["https://api.example.com"]
# discovery = true                             # or preset, or jwks_url, or keys of your own:
# [[auth.issuers.keys]]
# pem_file = "login.example.com.pem"

# Who gets more of the machine, or goes first; the first entry that fits a caller's token counts.
# [[auth.shares]]
# scope = "batch"
# priority = "low"
"#;

/// Replaces what could be a key: any string that is not known to be harmless by its name.
fn hide_secrets(table: &mut toml::Table) {
    for (name, value) in table.iter_mut() {
        if !is_harmless(name) {
            hide(value);
        }
    }
}

fn hide(value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => hide_secrets(table),
        toml::Value::Array(items) => items.iter_mut().for_each(hide),
        toml::Value::String(text) => *text = "[not shown]".to_owned(),
        _ => {}
    }
}

fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name) || HARMLESS_ENDS.iter().any(|end| name.ends_with(end))
}

const HARMLESS: [&str; 15] = [
    "issuer",
    "subject",
    "tenant",
    "client",
    "scope",
    "priority",
    "audiences",
    "algorithms",
    "kid",
    "token_types",
    "required_claims",
    "preset",
    "tenants",
    "discovery",
    "scope_prefix",
];
const HARMLESS_ENDS: [&str; 5] = ["_file", "_url", "_claim", "_claims", "_scopes"];

const COLUMN: usize = 44;
