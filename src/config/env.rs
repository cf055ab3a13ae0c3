//! The environment as a value, so that tests bring their own.

use std::collections::BTreeMap;

/// Environment variables, read once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The process's environment. Bytes that are not UTF-8 become replacement characters, which no setting accepts.
    pub fn system() -> Self {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        Self(
            std::env::vars_os()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        )
    }

    /// The value of `name`; `None` if it is not set or empty.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The variables that are meant for Mixgate's settings: every name that begins with `MIXGATE_`, but not the
    /// load generator's token, which is no setting.
    ///
    /// Kubernetes gives each pod variables about the services beside it. A service that is called `mixgate` makes
    /// `MIXGATE_SERVICE_HOST`, `MIXGATE_PORT=tcp://…` and `MIXGATE_PORT_8000_TCP…`: those are left out.
    pub fn mixgate(&self) -> impl Iterator<Item = (&str, &str)> {
        let in_kubernetes = self.0.contains_key("MIXGATE_SERVICE_HOST");
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| name.starts_with(PREFIX) && *name != BENCH_TOKEN)
            .filter(move |(name, value)| !(in_kubernetes && is_service_variable(name, value)))
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Env {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }
}

fn is_service_variable(name: &str, value: &str) -> bool {
    name.starts_with("MIXGATE_SERVICE_")
        || name.starts_with("MIXGATE_PORT_")
        || (name == "MIXGATE_PORT" && value.contains("://"))
}

/// What the name of each of our variables begins with.
pub const PREFIX: &str = "MIXGATE_";

/// Holds the token that `mixgate bench` shows to the servers that it measures.
pub const BENCH_TOKEN: &str = "MIXGATE_BENCH_TOKEN";
