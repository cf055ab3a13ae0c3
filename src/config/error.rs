//! What can be wrong with a configuration, and what to do about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::layers::Origin;
use super::settings::Setting;
use crate::server::OpenError;

/// Why a configuration cannot be used. [`ConfigError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what each message names")]
pub enum ConfigError {
    /// A key at the top of the file that is no setting.
    #[error("{path}:{line}: unknown setting {name:?}", path = path.display())]
    UnknownKey {
        name: String,
        path: PathBuf,
        line: usize,
        closest: Option<String>,
        /// The key is a table, and this setting stands in it.
        inside: Option<String>,
    },
    /// A variable that begins with `MIXGATE_` and is no setting.
    #[error("unknown variable {name} in the environment")]
    UnknownVariable {
        name: String,
        closest: Option<String>,
    },
    /// A value that is not what its setting takes.
    #[error("{name} is {given}, wanted {wanted} (from {origin})")]
    Wrong {
        name: &'static str,
        given: String,
        wanted: &'static str,
        origin: Origin,
        hint: Option<String>,
    },
    /// Two settings that exclude each other, at the same layer.
    #[error("{one} and {other} exclude each other (from {one_origin} and {other_origin})")]
    Conflict {
        one: String,
        one_origin: Origin,
        other: String,
        other_origin: Origin,
    },
    /// A step budget that leaves running sequences without a token, and newcomers without any.
    #[error(
        "max_num_batched_tokens is {tokens}, max_num_seqs is {seqs}: a step must have room for more tokens than sequences"
    )]
    Budget { tokens: usize, seqs: usize },
    /// A file that was named and is not there.
    #[error("there is no file {path} (from {named_by})", path = path.display())]
    FileMissing {
        path: PathBuf,
        named_by: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}", path = path.display())]
    FileUnreadable { path: PathBuf, source: io::Error },
    /// A file that is not TOML, or whose `[auth]` is not what it should be.
    #[error("{path}:{line}: {message}", path = path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
        /// A setting of the whole server that stands inside a table.
        misplaced: Option<String>,
        closest: Option<String>,
    },
    /// Rows that cannot be opened to addresses.
    #[error("{path}:{line}: {source}", path = path.display())]
    Open {
        path: PathBuf,
        line: usize,
        source: OpenError,
    },
    /// A setting that means nothing without another.
    #[error("{given} is set (from {origin}), and {needs} is not")]
    Alone {
        given: &'static str,
        origin: Origin,
        needs: &'static str,
    },
    /// An address that others can reach, and nobody but ourselves to vouch for callers.
    #[error("{host} can be reached from other machines, and no issuer is configured")]
    PublicAddress { host: IpAddr },
}

impl ConfigError {
    pub(super) fn wrong(setting: &'static Setting, given: String, origin: Origin) -> Self {
        Self::Wrong {
            name: setting.name,
            given,
            wanted: setting.wanted,
            origin,
            hint: None,
        }
    }

    /// The same for a value of the right kind, `text`, of which more may be known.
    pub(super) fn wrong_text(
        setting: &'static Setting,
        text: &str,
        given: String,
        origin: Origin,
    ) -> Self {
        Self::Wrong {
            name: setting.name,
            given,
            wanted: setting.wanted,
            origin,
            hint: (setting.hint)(text),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey {
                inside: Some(setting),
                ..
            } => Some(format!(
                "settings stand at the top of the file, outside tables: write {setting} = …"
            )),
            Self::UnknownKey {
                closest: Some(name),
                ..
            }
            | Self::UnknownVariable {
                closest: Some(name),
                ..
            }
            | Self::Syntax {
                closest: Some(name),
                ..
            } => Some(format!("did you mean {name}?")),
            Self::UnknownKey { .. } => Some("`mixgate config show` lists every setting".to_owned()),
            Self::UnknownVariable { .. } => {
                Some("`mixgate serve --help` lists every variable; unset this one".to_owned())
            }
            Self::Syntax {
                misplaced: Some(name),
                ..
            } => Some(format!(
                "{name} is a setting of the whole server: move it above the first [table]"
            )),
            Self::Budget { seqs, .. } => Some(format!(
                "leave max_num_batched_tokens out, give at least {}, or lower max_num_seqs",
                seqs + 1
            )),
            Self::Conflict { one, other, .. } => Some(format!("give either {one} or {other}")),
            Self::FileMissing { .. } => Some(
                "without it, mixgate reads ./mixgate.toml if there is one, else its defaults"
                    .to_owned(),
            ),
            Self::PublicAddress { .. } => Some(
                "add [[auth.issuers]] to mixgate.toml, or listen on --host 127.0.0.1; \
                 --allow-public-builtin-issuer lets tokens of this machine's own key in"
                    .to_owned(),
            ),
            Self::Open { source, .. } => Some(source.hint().to_owned()),
            Self::Alone { given, needs, .. } => {
                Some(format!("give {needs} too, or leave {given} out"))
            }
            Self::Wrong { hint, .. } => hint.clone(),
            Self::FileUnreadable { .. } | Self::Syntax { .. } => None,
        }
    }

    /// Whether the command line itself is at fault.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Wrong {
                origin: Origin::Flag(_),
                ..
            } | Self::Conflict {
                one_origin: Origin::Flag(_),
                ..
            } | Self::Alone {
                origin: Origin::Flag(_),
                ..
            }
        )
    }
}

/// The candidate that `given` most likely was meant to be, if any is near: at most one slip in three letters.
pub(super) fn closest(given: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let given = plain(given);
    let (distance, candidate) = candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&given, &plain(&candidate)),
                candidate,
            )
        })
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= given.len().div_ceil(3)).then_some(candidate)
}
