//! Four layers of values, each setting taking the topmost: flags, environment, file, defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::env::{Env, PREFIX};
use super::error::{ConfigError, closest};
use super::file::File;
use super::settings::{DefaultValue, Setting, TABLE};
use super::value::{TomlKind, Value};
use crate::auth::AuthConfig;
use crate::server::OpenRoutes;

/// What was typed, and what stands around it.
#[derive(Debug, Clone, Default)]
pub struct Args {
    /// Values given as flags, by the name of the setting.
    pub typed: BTreeMap<&'static str, String>,
    /// The file given with `--config`.
    pub config: Option<PathBuf>,
    /// The environment.
    pub env: Env,
    /// The folder that relative paths are meant from; empty: the process's own.
    pub folder: PathBuf,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// Nobody gave one; it follows from this variable of the system.
    System(&'static str),
    /// A line of the file, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// A variable of ours.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Default | Self::System(_) => 0,
            Self::File { .. } => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::System(variable) => write!(f, "default, from {variable}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The value that won, checked, as text.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) text: Option<String>,
    pub(super) origin: Origin,
}

/// Every setting's winning value.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    values: BTreeMap<&'static str, Resolved>,
    file: Option<File>,
}

impl Layers {
    /// Lays the layers over each other. Every layer is checked whole, also where a higher one hides it: a wrong line
    /// in the file is found on the day it is written, not on the day the flag is dropped.
    pub(super) fn resolve(args: &Args) -> Result<Self, ConfigError> {
        let mut values: BTreeMap<_, _> = TABLE
            .iter()
            .map(|setting| (setting.name, default(setting, args)))
            .collect();
        let file = File::find(args)?;
        if let Some(file) = &file {
            for entry in file.entries()? {
                let origin = Origin::File {
                    path: file.shown.clone(),
                    line: entry.line,
                };
                if !entry
                    .kind
                    .is_some_and(|kind| entry.setting.kinds.contains(&kind))
                {
                    return Err(ConfigError::wrong(entry.setting, entry.given(), origin));
                }
                let checked = check(entry.setting, &entry.text, entry.given(), origin)?;
                let text = file.relative(entry.setting, checked.text);
                values.insert(entry.setting.name, Resolved { text, ..checked });
            }
        }
        for (name, value) in args
            .env
            .mixgate()
            .filter(|(name, value)| *name != CONFIG && !value.is_empty())
        {
            let setting =
                Setting::named(&name[PREFIX.len()..].to_lowercase()).ok_or_else(|| {
                    ConfigError::UnknownVariable {
                        name: name.to_owned(),
                        closest: closest(
                            name,
                            TABLE
                                .iter()
                                .map(Setting::variable)
                                .chain([CONFIG.to_owned()]),
                        ),
                    }
                })?;
            let origin = Origin::Environment(name.to_owned());
            values.insert(setting.name, check(setting, value, quoted(value), origin)?);
        }
        for (name, value) in &args.typed {
            let setting = Setting::named(name)
                .expect("flags are made from the table of settings. This is a bug.");
            let origin = Origin::Flag(format!("--{}", setting.flag()));
            values.insert(setting.name, check(setting, value, quoted(value), origin)?);
        }
        Ok(Self { values, file })
    }

    /// Which of two settings that exclude each other was given at the higher layer.
    pub(super) fn stronger<'a>(
        &self,
        one: &'a str,
        other: &'a str,
    ) -> Result<Option<&'a str>, ConfigError> {
        let rank = |name| {
            Some(&self.values[name])
                .filter(|value| value.text.is_some())
                .map(|v| v.origin.rank())
        };
        match (rank(one), rank(other)) {
            (None, None) => Ok(None),
            (Some(a), Some(b)) if a == b => Err(ConfigError::Conflict {
                one: one.to_owned(),
                one_origin: self.origin(one).clone(),
                other: other.to_owned(),
                other_origin: self.origin(other).clone(),
            }),
            (a, b) => Ok(Some(if a > b { one } else { other })),
        }
    }

    /// The value of `name`, as the type that its entry in the table has.
    pub(super) fn typed<T: Value>(&self, name: &str) -> T {
        let text = self.values[name].text.as_deref();
        text.map_or_else(T::unset, T::parse)
            .expect("values were checked as they were laid down. This is a bug.")
    }

    pub(super) fn value(&self, name: &str) -> &Resolved {
        &self.values[name]
    }

    pub(super) fn origin(&self, name: &str) -> &Origin {
        &self.values[name].origin
    }

    pub(super) fn file_path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.shown.as_path())
    }

    pub(super) fn auth(&self) -> Result<AuthConfig, ConfigError> {
        self.file
            .as_ref()
            .map_or_else(|| Ok(AuthConfig::default()), File::auth)
    }

    pub(super) fn public_prefixes(&self) -> Result<Vec<String>, ConfigError> {
        self.file
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), File::public_prefixes)
    }

    /// What `[public.open]` says.
    pub(super) fn open(&self) -> Result<OpenRoutes, ConfigError> {
        self.file
            .as_ref()
            .map_or_else(|| Ok(OpenRoutes::default()), File::open)
    }

    /// The `[public]` table as it was written.
    pub(super) fn public_as_written(&self) -> Option<toml::Table> {
        self.file.as_ref().and_then(File::public_as_written)
    }

    /// The `[auth]` table as it was written.
    pub(super) fn auth_as_written(&self) -> Option<toml::Table> {
        self.file
            .as_ref()
            .and_then(|file| file.auth::<toml::Table>().ok())
            .filter(|table| !table.is_empty())
    }
}

fn default(setting: &Setting, args: &Args) -> Resolved {
    match setting.default {
        DefaultValue::Is(text) => Resolved {
            text: Some(text.to_owned()),
            origin: Origin::Default,
        },
        DefaultValue::Unset(_) => Resolved {
            text: None,
            origin: Origin::Default,
        },
        DefaultValue::Found(_, find) => {
            let (text, variable) = find(&args.env);
            Resolved {
                text: Some(text),
                origin: Origin::System(variable),
            }
        }
    }
}

fn check(
    setting: &'static Setting,
    text: &str,
    given: String,
    origin: Origin,
) -> Result<Resolved, ConfigError> {
    match (setting.check)(text) {
        Some(_) => Ok(Resolved {
            text: Some(text.to_owned()),
            origin,
        }),
        None => Err(ConfigError::wrong_text(setting, text, given, origin)),
    }
}

/// How a value is shown in an error.
pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// The variable that stands for `--config`.
pub(super) const CONFIG: &str = "MIXGATE_CONFIG";

/// How a value of this kind is called in an error.
impl fmt::Display for TomlKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "string",
            Self::Integer => "number",
            Self::Boolean => "boolean",
            Self::List => "list",
        })
    }
}
