//! Where the parts of a server are put together: gate, model, engine, listener, in this order.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Failure;
use super::startup::{Facts, mint_command};
use crate::auth::Access;
use crate::config::{Args, Config, Origin};
use crate::telemetry::Secret;

/// The rooms behind the door: a gate, a loaded model, a running engine.
pub(super) struct Rooms {}

impl Rooms {
    /// Opens the gate, loads the model and starts the engine. Cheap checks come first.
    ///
    /// # Errors
    /// Whatever part could not start.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        config.check_exposure()?;
        Err(Failure::new("this build has no model to serve"))
    }

    /// Binds the address.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub(super) async fn listen(self, config: &Config) -> Result<Listening, Failure> {
        Ok(Listening {
            address: SocketAddr::new(config.server.host, config.server.port),
        })
    }
}

/// A server that listens and does not answer yet.
pub(super) struct Listening {
    address: SocketAddr,
}

impl Listening {
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

    /// Answers. Once `draining` completes, running streams may finish until `shutdown_timeout`, then it returns.
    pub(super) async fn serve(self, draining: oneshot::Receiver<()>) {
        let _ = draining.await;
    }
}

/// A token of the built-in issuer.
///
/// # Errors
/// If its key cannot be read, or the token would be refused.
pub(super) fn mint(config: &Config, subject: &str, ttl: &str) -> Result<Secret<String>, Failure> {
    let _ = (config, subject, ttl);
    Err(Failure::new("this build has no issuer"))
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
