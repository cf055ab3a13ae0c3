//! The file: which one is read, and what each of its lines says.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, closest};
use super::layers::{Args, CONFIG, quoted};
use super::ledger::LedgerPlace;
use super::model::Model;
use super::settings::{Setting, TABLE};
use super::value::{TomlKind, parse_network};
use crate::server::OpenRoutes;

#[cfg(test)]
mod tests;

/// A file that was read, not yet understood.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// The path as a person wrote it or would.
    pub(super) shown: PathBuf,
    /// The folder that its relative paths are meant from.
    folder: PathBuf,
    text: String,
}

/// One `name = value` at the top of the file.
pub(super) struct Entry {
    pub(super) setting: &'static Setting,
    /// `None` for a value that no setting takes: an array, a table, a date, a fraction.
    pub(super) kind: Option<TomlKind>,
    pub(super) text: String,
    pub(super) line: usize,
}

impl Entry {
    /// The value for an error. A kind that the setting does not take is named.
    pub(super) fn given(&self) -> String {
        match self.kind {
            None => self.text.clone(),
            Some(kind) => {
                let value = match kind {
                    TomlKind::Text => quoted(&self.text),
                    TomlKind::List => format!("[{}]", self.text),
                    TomlKind::Integer | TomlKind::Boolean => self.text.clone(),
                };
                if self.setting.kinds.contains(&kind) {
                    value
                } else {
                    format!("the {kind} {value}")
                }
            }
        }
    }
}

impl File {
    /// The file that was named, or the first that exists of `./mixgate.toml`, the user's and the machine's.
    pub(super) fn find(args: &Args) -> Result<Option<Self>, ConfigError> {
        let from_variable = args.env.var(CONFIG).map(PathBuf::from);
        let named_by = if args.config.is_some() {
            "--config"
        } else {
            CONFIG
        };
        if let Some(path) = args.config.clone().or(from_variable) {
            return match Self::read(args, path.clone())? {
                Some(file) => Ok(Some(file)),
                None => Err(ConfigError::FileMissing { path, named_by }),
            };
        }
        let home = |path: &str| args.env.var("HOME").map(|home| Path::new(home).join(path));
        let user = args
            .env
            .var("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| home(".config"));
        let candidates = [
            Some(PathBuf::from("mixgate.toml")),
            user.map(|folder| folder.join("mixgate/config.toml")),
            Some(PathBuf::from("/etc/mixgate/config.toml")),
        ];
        for path in candidates.into_iter().flatten() {
            if let Some(file) = Self::read(args, path)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    fn read(args: &Args, shown: PathBuf) -> Result<Option<Self>, ConfigError> {
        let path = args.folder.join(&shown);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let folder = path.parent().map(PathBuf::from).unwrap_or_default();
                Ok(Some(Self {
                    shown,
                    folder,
                    text,
                }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::FileUnreadable {
                path: shown,
                source,
            }),
        }
    }

    /// What the lines say, from top to bottom; `[auth]` is left to [`File::auth`], `public_prefixes` to
    /// [`File::public_prefixes`], `[public.open]` to [`File::open`].
    pub(super) fn entries(&self) -> Result<Vec<Entry>, ConfigError> {
        let table = DeTable::parse(&self.text)
            .map_err(|error| self.syntax(&error))?
            .into_inner();
        let mut rows: Vec<_> = table.into_iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Vec::new();
        for (key, value) in rows {
            let line = self.line(key.span().start);
            let name = key.into_inner();
            if TABLES.contains(&&*name) {
                continue;
            }
            let Some(setting) = Setting::named(&name) else {
                return Err(self.unknown(&name, line, value.get_ref()));
            };
            let (kind, text) = match value.into_inner() {
                DeValue::String(text) => (Some(TomlKind::Text), text.into_owned()),
                DeValue::Boolean(value) => (Some(TomlKind::Boolean), value.to_string()),
                DeValue::Integer(number) => {
                    let value = i128::from_str_radix(number.as_str(), number.radix());
                    (
                        Some(TomlKind::Integer),
                        value.map_or_else(|_| number.to_string(), |value| value.to_string()),
                    )
                }
                DeValue::Float(number) => (None, number.as_str().to_owned()),
                DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_str()) => {
                    let texts: Vec<&str> = items
                        .iter()
                        .filter_map(|item| item.get_ref().as_str())
                        .collect();
                    (Some(TomlKind::List), texts.join(","))
                }
                other => (None, format!("of type {}", other.type_str())),
            };
            entries.push(Entry {
                setting,
                kind,
                text,
                line,
            });
        }
        Ok(entries)
    }

    /// The `[auth]` table, relative `…_file` paths already seen from the file's folder.
    pub(super) fn auth<T: DeserializeOwned + Default>(&self) -> Result<T, ConfigError> {
        #[derive(Deserialize)]
        struct AuthAlone<T> {
            auth: Option<T>,
        }
        // Twice: from the text for errors with their lines, then with its paths made good.
        if let Err(error) = toml::from_str::<AuthAlone<T>>(&self.text) {
            return Err(self.syntax(&error));
        }
        let Ok(AuthAlone {
            auth: Some(mut auth),
        }) = toml::from_str::<AuthAlone<toml::Value>>(&self.text)
        else {
            return Ok(T::default());
        };
        join_files(&self.folder, &mut auth);
        T::deserialize(auth).map_err(|error| self.syntax(&error))
    }

    /// The array `public_prefixes`.
    pub(super) fn public_prefixes(&self) -> Result<Vec<String>, ConfigError> {
        #[derive(Deserialize)]
        struct PrefixesAlone {
            #[serde(default)]
            public_prefixes: Vec<Spanned<String>>,
        }
        let PrefixesAlone { public_prefixes } =
            toml::from_str(&self.text).map_err(|error| self.syntax(&error))?;
        let blank = |prefix: &&Spanned<String>| prefix.get_ref().trim().is_empty();
        match public_prefixes.iter().find(blank) {
            Some(prefix) => Err(ConfigError::Syntax {
                path: self.shown.clone(),
                line: self.line(prefix.span().start),
                message: format!("an entry of {PUBLIC_PREFIXES} is empty"),
                misplaced: None,
                closest: None,
            }),
            None => Ok(public_prefixes
                .into_iter()
                .map(Spanned::into_inner)
                .collect()),
        }
    }

    /// The table `[public.open]`.
    pub(super) fn open(&self) -> Result<OpenRoutes, ConfigError> {
        #[derive(Deserialize)]
        struct PublicAlone {
            public: Option<Public>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Public {
            open: Option<Spanned<Open>>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Open {
            routes: Vec<String>,
            from: Vec<Spanned<String>>,
        }
        let PublicAlone { public } =
            toml::from_str(&self.text).map_err(|error| self.syntax(&error))?;
        let Some(open) = public.and_then(|public| public.open) else {
            return Ok(OpenRoutes::default());
        };
        let line = self.line(open.span().start);
        let Open { routes, from } = open.into_inner();
        let networks = from.into_iter().map(|entry| {
            parse_network(entry.get_ref()).ok_or_else(|| ConfigError::Syntax {
                path: self.shown.clone(),
                line: self.line(entry.span().start),
                message: format!(
                    "{} is no network such as 10.0.0.0/24",
                    quoted(entry.get_ref())
                ),
                misplaced: None,
                closest: None,
            })
        });
        let networks = networks.collect::<Result<_, _>>()?;
        OpenRoutes::new(&routes, networks).map_err(|source| ConfigError::Open {
            path: self.shown.clone(),
            line,
            source,
        })
    }

    /// The `[public]` table, if it says anything.
    pub(super) fn public_as_written(&self) -> Option<toml::Table> {
        let mut whole: toml::Table = toml::from_str(&self.text).ok()?;
        match whole.remove(PUBLIC) {
            Some(toml::Value::Table(table)) if !table.is_empty() => Some(table),
            _ => None,
        }
    }

    /// A path in a file is meant from the file's folder, wherever the server is started.
    pub(super) fn relative(&self, setting: &Setting, text: Option<String>) -> Option<String> {
        let is_name = text.as_deref().is_some_and(|text| match setting.name {
            "model" => Model::is_name(text),
            "ledger" => LedgerPlace::is_word(text),
            _ => false,
        });
        if !setting.is_path || is_name {
            return text;
        }
        text.map(|path| self.folder.join(path).to_string_lossy().into_owned())
    }

    fn unknown(&self, name: &str, line: usize, value: &DeValue<'_>) -> ConfigError {
        let known = |table: &DeTable<'_>| {
            let mut names = table.keys().map(|key| key.get_ref().to_string());
            names.find(|name| Setting::named(name).is_some())
        };
        ConfigError::UnknownKey {
            name: name.to_owned(),
            path: self.shown.clone(),
            line,
            closest: closest(
                name,
                TABLE
                    .iter()
                    .map(|setting| setting.name.to_owned())
                    .chain(TABLES.map(str::to_owned)),
            ),
            inside: value.as_table().and_then(known),
        }
    }

    /// Turns the parser's error into ours: one line, and a hint if it is about an unknown key.
    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let message = error
            .message()
            .lines()
            .next()
            .unwrap_or("not TOML")
            .to_owned();
        // serde's words: unknown field `given`, expected one of `a`, `b`; the same of a variant
        let mut words = message.split('`').skip(1).step_by(2).map(str::to_owned);
        let is_unknown =
            message.starts_with("unknown field") || message.starts_with("unknown variant");
        let unknown = is_unknown.then(|| words.next()).flatten();
        let (misplaced, closest) = match unknown {
            Some(name) if Setting::named(&name).is_some() || name == PUBLIC_PREFIXES => {
                (Some(name), None)
            }
            Some(name) => (None, closest(&name, words)),
            None => (None, None),
        };
        ConfigError::Syntax {
            path: self.shown.clone(),
            line: error.span().map_or(1, |span| self.line(span.start)),
            message,
            misplaced,
            closest,
        }
    }

    fn line(&self, offset: usize) -> usize {
        self.text
            .bytes()
            .take(offset)
            .filter(|&byte| byte == b'\n')
            .count()
            + 1
    }
}

/// Joins `folder` before every string whose key ends in `_file`.
fn join_files(folder: &Path, value: &mut toml::Value) {
    match value {
        toml::Value::Array(items) => items.iter_mut().for_each(|item| join_files(folder, item)),
        toml::Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                match value {
                    toml::Value::String(path) if name.ends_with("_file") => {
                        *path = folder.join(&*path).to_string_lossy().into_owned();
                    }
                    value => join_files(folder, value),
                }
            }
        }
        _ => {}
    }
}

const AUTH: &str = "auth";
const PUBLIC: &str = "public";
/// What stands in the file and is no setting of one line.
const TABLES: [&str; 3] = [AUTH, PUBLIC, PUBLIC_PREFIXES];
/// A list, so it has neither flag nor variable.
pub(super) const PUBLIC_PREFIXES: &str = "public_prefixes";
