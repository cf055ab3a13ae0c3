//! What `serve` says once it is ready: a screen for people, one JSON line for programs.
//!
//! Pure: facts in, text out. Nothing here is secret.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::auth::IssuerSummary;
use crate::config::Env;

/// What there is to say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    /// Ours.
    pub version: &'static str,
    /// The name that clients ask for.
    pub model: String,
    /// Weights in the model.
    pub parameters: u64,
    /// How weights are stored, such as `bf16`.
    pub dtype: &'static str,
    /// Where it runs, such as `cpu, 2 threads, avx512`.
    pub device: String,
    /// The issuers whose tokens are believed; never empty.
    pub issuers: Vec<IssuerSummary>,
    /// How a token can be minted here: `None` if only others can.
    pub mint: Option<String>,
    /// Size of the KV cache.
    pub kv_cache_tokens: usize,
    /// Size of the KV cache.
    pub kv_cache_bytes: usize,
    /// What a reader must know before believing an answer or a number.
    pub caution: Option<String>,
    /// Longest prompt and completion together.
    pub max_model_len: usize,
    /// From the start of the process to now.
    pub load: Duration,
    /// Where it really listens.
    pub address: SocketAddr,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// Where it listens for the operator's own machines.
    pub internal: Option<SocketAddr>,
}

impl Facts {
    /// At most 12 lines for people. The last two work when pasted.
    pub(super) fn screen(&self) -> String {
        let mut lines = vec![format!(
            "mixgate {}  ·  {} ({} parameters, {})  ·  {}",
            self.version,
            self.model,
            short_count(self.parameters),
            self.dtype,
            self.device
        )];
        lines.extend(
            self.caution
                .iter()
                .map(|caution| format!("  null      {caution}")),
        );
        let room = MAX_ISSUERS - self.caution.iter().len() - self.internal.iter().len();
        let shown = if self.issuers.len() > room {
            room - 1
        } else {
            self.issuers.len()
        };
        lines.extend(
            self.issuers[..shown]
                .iter()
                .map(|issuer| format!("  auth      {}", issuer_line(issuer))),
        );
        if shown < self.issuers.len() {
            lines.push(format!(
                "  auth      and {} more issuers",
                self.issuers.len() - shown
            ));
        }
        lines.push(format!(
            "  kv cache  {} tokens, {}  ·  up to {} per request",
            self.kv_cache_tokens,
            short_bytes(self.kv_cache_bytes),
            self.max_model_len
        ));
        if let Some(address) = self.internal {
            lines.push(format!(
                "  internal  http://{address}  ·  probes, metrics, admin"
            ));
        }
        lines.push(format!(
            "  ready     in {:.1} s at {}",
            self.load.as_secs_f64(),
            self.url()
        ));
        lines.push(String::new());
        lines.push(format!("  export TOKEN={}", self.token()));
        lines.push(format!("  {}", self.curl()));
        lines.join("\n") + "\n"
    }

    /// The same facts as one line of JSON.
    pub(super) fn json_line(&self) -> String {
        let issuers: Vec<_> = self
            .issuers
            .iter()
            .map(|issuer| {
                json!({
                    "issuer": issuer.issuer,
                    "audiences": issuer.audiences,
                    "algorithms": issuer.algorithms,
                    "keys": issuer.keys,
                    "keys_url": issuer.keys_url,
                })
            })
            .collect();
        let line = json!({
            "event": "ready",
            "version": self.version,
            "url": self.url(),
            "port": self.address.port(),
            "internal_url": self.internal.map(|address| format!("http://{address}")),
            "model": self.model,
            "parameters": self.parameters,
            "dtype": self.dtype,
            "device": self.device,
            "issuers": issuers,
            "kv_cache_tokens": self.kv_cache_tokens,
            "kv_cache_bytes": self.kv_cache_bytes,
            "caution": self.caution,
            "max_model_len": self.max_model_len,
            "load_seconds": (self.load.as_secs_f64() * 1000.0).round() / 1000.0,
        });
        format!("{line}\n")
    }

    /// An address that this machine can open: listening everywhere includes loopback.
    pub(super) fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ip => ip,
        };
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", SocketAddr::new(ip, self.address.port()))
    }

    fn token(&self) -> String {
        match &self.mint {
            Some(command) => format!("$({command} --sub you)"),
            None => {
                let issuer = self
                    .issuers
                    .first()
                    .map_or("your issuer", |issuer| &issuer.issuer);
                shell_word(&format!("paste a token from {issuer}"))
            }
        }
    }

    /// One line, so that pasting needs no continuation. `-N` shows tokens as they come.
    fn curl(&self) -> String {
        let body = json!({
            "model": self.model,
            "stream": true,
            "messages": [{ "role": "user", "content": QUESTION }],
        });
        format!(
            "curl -N {} -H \"Authorization: Bearer $TOKEN\" -H 'content-type: application/json' -d {}",
            shell_word(&format!("{}/v1/chat/completions", self.url())),
            shell_word(&body.to_string())
        )
    }
}

fn issuer_line(issuer: &IssuerSummary) -> String {
    let keys = match (&issuer.keys_url, issuer.keys) {
        (Some(url), _) => format!("keys from {url}"),
        (None, 1) => "1 key".to_owned(),
        (None, several) => format!("{several} keys"),
    };
    let mut facts = vec![
        issuer.issuer.clone(),
        format!("aud={}", issuer.audiences.join(",")),
    ];
    // Those of fetched keys may not be known yet.
    if !issuer.algorithms.is_empty() {
        facts.push(issuer.algorithms.join(","));
    }
    facts.push(keys);
    facts.join("  ")
}

/// The command that mints a token in another terminal: `mixgate token mint`, with what it takes to reach this very
/// program and this very key.
pub(super) fn mint_command(program: &Path, env: &Env, state_dir: Option<&Path>) -> String {
    let on_path = env
        .var("PATH")
        .is_some_and(|path| is_first_on_path(program, path));
    let name = if on_path {
        "mixgate".to_owned()
    } else {
        shell_word(&program.to_string_lossy())
    };
    match state_dir {
        None => format!("{name} token mint"),
        Some(folder) => {
            let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            format!(
                "{name} token mint --state-dir {}",
                shell_word(&folder.to_string_lossy())
            )
        }
    }
}

/// Whether a shell that is told `mixgate` starts `program`.
fn is_first_on_path(program: &Path, path: &str) -> bool {
    let first = std::env::split_paths(path)
        .map(|folder| folder.join("mixgate"))
        .find(|file| file.is_file());
    let real = |file: PathBuf| file.canonicalize().ok();
    first
        .and_then(real)
        .is_some_and(|found| Some(found) == real(program.to_owned()))
}

/// `text` as one word of a POSIX shell.
pub(super) fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `9.4 M`, `46.7 B`.
fn short_count(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} B", n as f64 / 1e9),
    }
}

/// `96.0 MiB`, `41.8 GiB`.
fn short_bytes(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 {
        format!("{mib:.1} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// What the screen and the demo ask.
pub(super) const QUESTION: &str = "When do I sow carrots in a cold climate?";

/// 12 lines: the title, issuers, cache, readiness, a gap, two to paste.
const MAX_ISSUERS: usize = 6;

#[cfg(test)]
pub(super) mod tests;
