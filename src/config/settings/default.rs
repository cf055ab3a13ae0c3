//! What a setting is where nobody gave it a value.

use crate::config::env::Env;

/// The value of a setting that nobody gave.
#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    /// This text.
    Is(&'static str),
    /// No value; the words say what happens then.
    Unset(&'static str),
    /// Found in the environment: the function gives the text and which variable it came from.
    Found(&'static str, fn(&Env) -> (String, &'static str)),
}

impl DefaultValue {
    /// The default in words, for help.
    pub fn words(&self) -> &'static str {
        match self {
            Self::Is(words) | Self::Unset(words) | Self::Found(words, _) => words,
        }
    }
}

/// systemd's `StateDirectory=`, else the user's state folder.
pub(super) fn state_dir(env: &Env) -> (String, &'static str) {
    if let Some(first) = env
        .var("STATE_DIRECTORY")
        .and_then(|all| all.split(':').next())
    {
        (first.to_owned(), "STATE_DIRECTORY")
    } else if let Some(base) = env.var("XDG_STATE_HOME") {
        (format!("{base}/mixgate"), "XDG_STATE_HOME")
    } else if let Some(home) = env.var("HOME") {
        (format!("{home}/.local/state/mixgate"), "HOME")
    } else {
        ("/var/lib/mixgate".to_owned(), "no HOME")
    }
}
