//! Puts a changed policy in force: when its file changes, and at SIGHUP.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::auth::PolicyStore;
use crate::auth::policy::Reloaded;
use crate::watch::FileWatch;

/// What asks for a reload.
pub(super) struct Reloads {
    hangups: Signal,
    file: Option<FileWatch>,
}

impl Reloads {
    /// Listens from now on: SIGHUP no longer ends the process, and no change of the file is missed.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn listen(policy_file: Option<&Path>) -> Result<Self, Failure> {
        let hangups = signal(SignalKind::hangup())
            .map_err(|error| Failure::new("cannot listen for signals").caused_by(&error))?;
        let watch = |path: &Path| FileWatch::new(&[PathBuf::from(path)]);
        let file = policy_file.map(watch).transpose().map_err(|error| {
            Failure::new("cannot watch the folder of policy_file").caused_by(&error)
        })?;
        Ok(Self { hangups, file })
    }

    /// Reloads `store` for as long as this runs.
    pub(super) async fn run(mut self, store: Arc<PolicyStore>) -> Infallible {
        loop {
            let why = self.next().await;
            let reloading = store.clone();
            // Judging is quick, reading may not be.
            match tokio::task::spawn_blocking(move || reloading.reload()).await {
                Ok(Ok(Reloaded::Applied(generation))) => {
                    tracing::info!(why, generation, "a new policy is in force");
                }
                Ok(Ok(Reloaded::Unchanged)) => tracing::info!(why, "the policy has not changed"),
                Ok(Ok(Reloaded::NoFile)) => {
                    tracing::info!(why, "there is no policy file to read anew");
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    tracing::error!(why, error, "the old policy stays in force");
                }
                Err(_panicked) => tracing::error!(why, "reloading the policy has panicked"),
            }
        }
    }

    async fn next(&mut self) -> &'static str {
        let changed = async {
            match &mut self.file {
                Some(file) => file.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.hangups.recv() => "SIGHUP",
            () = changed => "the file has changed",
        }
    }
}
