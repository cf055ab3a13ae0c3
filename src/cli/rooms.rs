//! Where the parts of a server are put together: gate, model, engine, listener, in this order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Failure;
use super::startup::{Facts, mint_command};
use crate::auth::Access;
use crate::config::{Args, Config, Origin};
use crate::telemetry::Secret;

/// A server that listens and does not answer yet.
pub(super) struct Rooms {
    address: SocketAddr,
}

impl Rooms {
    /// Opens the gate, loads the model, starts the engine and binds the address. Cheap checks come first.
    ///
    /// # Errors
    /// Whatever part could not start.
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        config.check_exposure()?;
        let address = SocketAddr::new(config.server.host, config.server.port);
        Err(Failure::new(format!(
            "nothing can be served at {address} yet"
        )))
    }

    /// Where it listens; the port is the real one.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the start-up screen tells.
    pub(super) fn facts(&self, config: &Config, args: &Args, load: Duration) -> Facts {
        Facts {
            version: env!("CARGO_PKG_VERSION"),
            model: config.model.served_model_name.clone(),
            parameters: 0,
            dtype: String::new(),
            device: String::new(),
            issuers: Vec::new(),
            mint: minting(config, args),
            kv_cache_tokens: 0,
            kv_cache_bytes: 0,
            max_model_len: 0,
            load,
            address: self.address,
        }
    }

    /// A token of the built-in issuer for `subject`.
    ///
    /// # Errors
    /// If there is no built-in issuer, or its key cannot be read.
    pub(super) fn mint(
        &self,
        config: &Config,
        subject: &str,
        ttl: Duration,
    ) -> Result<Secret<String>, Failure> {
        let _ = (config, subject, ttl);
        Err(Failure::new("no tokens can be minted yet"))
    }

    /// Ways to end the server while [`Rooms::serve`] runs.
    pub(super) fn ending(&self) -> Ending {
        Ending {}
    }

    /// Answers until it is drained.
    pub(super) fn serve(self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        std::future::ready(Ok(()))
    }
}

/// Ends a server from outside.
#[derive(Clone)]
pub(super) struct Ending {}

impl Ending {
    /// Refuses new requests, lets running ones finish; [`Rooms::serve`] then returns.
    pub(super) fn drain(&self) {}

    /// Ends running requests as well.
    pub(super) fn stop(&self) {}
}

/// The rows of the route table.
pub(super) fn routes() -> Vec<(&'static str, &'static str, Access)> {
    Vec::new()
}

/// The command that mints a token for this server, if it has the built-in issuer.
fn minting(config: &Config, args: &Args) -> Option<String> {
    if config.has_issuers() {
        return None;
    }
    // Another terminal of the same user finds the same folder only if it follows from the user's home.
    let follows = matches!(
        config.origin("state_dir"),
        Origin::System("HOME" | "XDG_STATE_HOME")
    );
    let folder = (!follows).then_some(config.auth.state_dir.as_path());
    let program = std::env::current_exe().unwrap_or_else(|_| "mixgate".into());
    Some(mint_command(&program, &args.env, folder))
}
