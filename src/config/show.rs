//! The configuration as TOML that could be a file again.

use std::fmt::Write;

use super::Config;
use super::settings::{Setting, TABLE};

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
        if let Some(mut auth) = self.layers.auth_as_written() {
            hide_secrets(&mut auth);
            let whole = toml::Table::from_iter([("auth".to_owned(), toml::Value::Table(auth))]);
            let origin = match &self.file {
                Some(file) if origins => format!("# {}\n", file.display()),
                _ => String::new(),
            };
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

/// Replaces what could be a key: any string that is not known to be harmless by its name.
fn hide_secrets(table: &mut toml::Table) {
    for (name, value) in table.iter_mut() {
        hide_in(name, value);
    }
}

fn hide_in(name: &str, value: &mut toml::Value) {
    match value {
        toml::Value::Table(table) => hide_secrets(table),
        toml::Value::Array(items) => items.iter_mut().for_each(|item| hide_in(name, item)),
        toml::Value::String(text) if !is_harmless(name) => *text = "[not shown]".to_owned(),
        _ => {}
    }
}

fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
        || name.ends_with("_file")
        || name.ends_with("_path")
        || name.ends_with("_url")
}

const HARMLESS: [&str; 16] = [
    "issuer",
    "iss",
    "name",
    "audience",
    "audiences",
    "aud",
    "algorithm",
    "algorithms",
    "alg",
    "kid",
    "kty",
    "crv",
    "typ",
    "leeway",
    "file",
    "path",
];

const COLUMN: usize = 40;
