//! `mixgate demo`: a server on a free port, refused without a token, answered with one.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, process};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::rooms::{Rooms, mint};
use super::startup::QUESTION;
use super::{Failure, http, serve};
use crate::auth::AuthConfig;
use crate::config::{Args, Config};
use crate::telemetry::{self, Secret};

/// Shows the refusal, mints, asks and streams.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let state = Scratch::new(args.env.var("TMPDIR").unwrap_or("/tmp"))?;
    let mut args = args.clone();
    let folder = state.0.to_string_lossy().into_owned();
    args.typed.insert("state_dir", folder);
    args.typed
        .entry("log_level")
        .or_insert_with(|| "warn".to_owned());
    let mut config = Config::load(&args)?;
    // Its own server for its own eyes, whatever the file says.
    config.server.host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    config.server.port = 0;
    config.server.tls = None;
    config.server.internal = None;
    config.auth.gate = AuthConfig::default();
    config.ledger.path = Some(config.auth.state_dir.join("ledger.sqlite3"));
    telemetry::init(&config.log);

    let rooms = Rooms::open(&config)?;
    let token = mint(&config, "you", TTL)?;
    let runtime = serve::runtime()?;
    let server = runtime.block_on(rooms.listen(&config))?;
    let address = server.address();
    let (drain, draining) = oneshot::channel();
    let serving = runtime.spawn(server.serve(draining));
    let shown = show(
        out,
        &config.model.served_model_name,
        &token,
        |token, body| http::post(address, PATH, token, body),
    );
    let _ = drain.send(());
    // If it panicked, what was shown has failed already.
    let _ = runtime.block_on(serving);
    shown
}

fn show(
    out: &mut dyn Write,
    model: &str,
    token: &Secret<String>,
    post: impl Fn(Option<&Secret<String>>, &str) -> io::Result<http::Response>,
) -> Result<(), Failure> {
    let ask = |token| {
        post(token, &body(model))
            .map_err(|error| Failure::new("the demo's server does not answer").caused_by(&error))
    };
    writeln!(out, "Without a token:")?;
    let refused = ask(None)?;
    writeln!(out, "  HTTP {}", refused.status)?;
    if let Some(challenge) = refused.header("www-authenticate") {
        writeln!(out, "  www-authenticate: {challenge}")?;
    }
    let text = refused.text().map_err(|error| broken(&error))?;
    writeln!(out, "  {}\n", text.trim_end())?;

    writeln!(
        out,
        "With a token for \"you\" (mixgate token mint --sub you --ttl 5m):"
    )?;
    let start = Instant::now();
    let answer = ask(Some(token))?;
    if !answer.status.starts_with("200") {
        return Err(Failure::new(format!("the server says {}", answer.status)));
    }
    writeln!(out, "  > {QUESTION}")?;
    write!(out, "  ")?;
    let mut telling = Telling::default();
    for event in answer.events() {
        let event = event.map_err(|error| broken(&error))?;
        if event == "[DONE]" {
            break;
        }
        if let Some(text) = telling.hear(&event, start)? {
            write!(out, "{}", text.replace('\n', "\n  "))?;
            out.flush()?;
        }
    }
    Ok(writeln!(out, "\n\n{}", telling.summary(start.elapsed()))?)
}

/// What a stream has told so far.
#[derive(Default)]
struct Telling {
    first_text: Option<Duration>,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Telling {
    /// The text that `event` adds.
    fn hear(&mut self, event: &str, start: Instant) -> Result<Option<String>, Failure> {
        let chunk: Value = serde_json::from_str(event).map_err(|error| {
            Failure::new("the stream holds something that is not JSON").caused_by(&error)
        })?;
        if let Some(message) = chunk.pointer("/error/message").and_then(Value::as_str) {
            return Err(Failure::new(message));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or_default();
            self.completion_tokens = usage["completion_tokens"].as_u64().unwrap_or_default();
        }
        let text = chunk
            .pointer("/choices/0/delta/content")
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        if text.is_some() {
            self.first_text.get_or_insert_with(|| start.elapsed());
        }
        Ok(text.map(str::to_owned))
    }

    fn summary(&self, total: Duration) -> String {
        let first = self.first_text.unwrap_or(total);
        format!(
            "{} prompt tokens, {} completion tokens; first after {} ms, all after {} ms",
            self.prompt_tokens,
            self.completion_tokens,
            first.as_millis(),
            total.as_millis()
        )
    }
}

fn body(model: &str) -> String {
    json!({
        "model": model,
        "stream": true,
        "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": QUESTION }],
    })
    .to_string()
}

fn broken(error: &io::Error) -> Failure {
    Failure::new("the stream broke off").caused_by(error)
}

/// A folder for the demo's key, gone when the demo is.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &str) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let path = Path::new(parent).join(format!("mixgate-demo-{}", process::id()));
        // Fails if it exists: nobody can have prepared it for us. Only we may look inside.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| {
                Failure::new(format!("cannot make the folder {}", path.display())).caused_by(&error)
            })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PATH: &str = "/v1/chat/completions";
const TTL: &str = "5m";

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(telling: &mut Telling, event: &str) -> Result<Option<String>, Failure> {
        telling.hear(event, Instant::now())
    }

    #[test]
    fn text_usage_and_errors_are_told_apart() {
        let mut telling = Telling::default();
        let role =
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#;
        assert_eq!(hear(&mut telling, role).unwrap(), None);
        assert!(telling.first_text.is_none());
        let text = r#"{"choices":[{"index":0,"delta":{"content":"Sow"}}]}"#;
        assert_eq!(hear(&mut telling, text).unwrap().as_deref(), Some("Sow"));
        assert!(telling.first_text.is_some());
        hear(
            &mut telling,
            r#"{"choices":[],"usage":{"prompt_tokens":23,"completion_tokens":41}}"#,
        )
        .unwrap();
        assert!(
            telling
                .summary(Duration::ZERO)
                .starts_with("23 prompt tokens, 41 completion tokens;")
        );
        let error = hear(&mut telling, r#"{"error":{"message":"the engine failed"}}"#).unwrap_err();
        assert_eq!(error.to_string(), "error: the engine failed");
    }

    #[test]
    fn the_scratch_folder_is_private_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path().to_str().unwrap()).unwrap();
        let path = scratch.0.clone();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(Scratch::new(parent.path().to_str().unwrap()).is_err());
        drop(scratch);
        assert!(!path.exists());
    }
}
