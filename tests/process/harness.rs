//! Starts the binary in a folder of its own, without anything of this machine's user in its environment.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::common::{said_by_a_server, secret, within};

/// What the start-up screen asks too.
pub const QUESTION: &str = "When do I sow carrots in a cold climate?";

/// A folder that stands for a user's home.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Not where `mixgate` would put it by itself, and a word that a shell takes apart unless it is quoted.
    pub fn state_dir(&self) -> PathBuf {
        self.path().join("it's mine")
    }

    /// Puts a file into the folder, in one step, as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.path().join(format!(".{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path().join(name)).unwrap();
    }

    pub fn key(&self) -> String {
        secret(std::fs::read_to_string(self.state_dir().join("issuer.ed25519.pem")).unwrap())
    }

    /// `mixgate …`, not started.
    pub fn mixgate(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mixgate"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .args(words)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path())
            .stdin(Stdio::null());
        if super::common::is_leak_check() {
            command.env("MIXGATE_LOG_LEVEL", "debug");
        }
        command
    }

    /// `mixgate …`, run to its end.
    pub fn run(&self, words: &[&str]) -> Said {
        let output = self.mixgate(words).output().unwrap();
        match words {
            ["token", "mint", ..] | ["key", "create", ..] => Said::secretly(output),
            _ => Said::from(output),
        }
    }

    pub fn token(&self, scopes: &str) -> String {
        self.token_of("you", scopes)
    }

    pub fn token_of(&self, subject: &str, scopes: &str) -> String {
        let state_dir = self.state_dir();
        let words = ["token", "mint", "--sub", subject, "--scope", scopes];
        let said = self.run(&[&words[..], &["--state-dir", state_dir.to_str().unwrap()]].concat());
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        said.stdout.trim_end().to_owned()
    }
}

impl Drop for Home {
    /// What stays on disk is written down too, but for the issuer's keys.
    fn drop(&mut self) {
        if !super::common::is_leak_check() {
            return;
        }
        for file in std::fs::read_dir(self.state_dir()).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|it| it != "pem") {
                let bytes = std::fs::read(path).unwrap_or_default();
                said_by_a_server(&String::from_utf8_lossy(&bytes));
            }
        }
    }
}

/// What a process printed, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Of a command whose stdout is a secret, and is meant to be.
    pub fn secretly(output: Output) -> Self {
        let said = Self::unheard(output);
        said.stdout
            .lines()
            .for_each(|it| drop(secret(it.to_owned())));
        said_by_a_server(&said.stderr);
        said
    }

    fn unheard(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let said = Self::unheard(output);
        said_by_a_server(&said.stdout);
        said_by_a_server(&said.stderr);
        said
    }
}

/// A running `mixgate serve`.
pub struct Mixgate {
    pub home: Home,
    /// The line that programs get.
    pub ready: Value,
    pub started: Instant,
    pub client: reqwest::Client,
    pub token: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Mixgate {
    pub fn serve(more: &[&str]) -> Self {
        Self::serve_at(Home::new(), more)
    }

    /// With a `mixgate.toml`.
    pub fn serve_with(file: &str) -> Self {
        let home = Home::new();
        std::fs::write(home.path().join("mixgate.toml"), file).unwrap();
        Self::serve_at(home, &[])
    }

    /// In a home that has been lived in.
    pub fn serve_in(home: Home, more: &[&str]) -> Self {
        Self::serve_at(home, more)
    }

    /// With a policy, and more of a `mixgate.toml`.
    pub fn serve_under(policy: &str, file: &str) -> Self {
        let home = Home::new();
        home.write("policy.toml", policy);
        home.write(
            "mixgate.toml",
            &format!("policy_file = \"policy.toml\"\n{file}"),
        );
        Self::serve_at(home, &[])
    }

    pub fn serve_at(home: Home, more: &[&str]) -> Self {
        let state_dir = home.state_dir();
        let words = ["serve", "--port", "0", "--state-dir"];
        let words = [&words[..], &[state_dir.to_str().unwrap()], more].concat();
        let started = Instant::now();
        let mut child = home
            .mixgate(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = read_all(child.stderr.take().unwrap());
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        said_by_a_server(&line);
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let _ = child.kill();
            panic!("{error} in {line:?}")
        });
        let token = home.token("chat models metrics");
        Self {
            home,
            ready,
            started,
            client: reqwest::Client::new(),
            token,
            child,
            stdout: Some(read_all(stdout)),
            stderr: Some(stderr),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.ready["url"].as_str().unwrap())
    }

    pub fn address(&self) -> SocketAddr {
        self.url("")
            .strip_prefix("http://")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// A chat request with a good token; `fields` are added to a minimal one.
    pub fn chat_request(&self, fields: &Value) -> reqwest::RequestBuilder {
        let mut body =
            json!({"model": "seedling", "messages": [{"role": "user", "content": QUESTION}]});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        self.post(body.to_string().into_bytes())
    }

    /// Sends a [`Self::chat_request`] and waits for the head of the answer.
    pub async fn chat(&self, fields: &Value) -> reqwest::Response {
        within(self.chat_request(fields).send()).await.unwrap()
    }

    /// Any bytes as a chat request.
    pub fn post(&self, body: Vec<u8>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url("/v1/chat/completions"));
        request
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .body(body)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(self.url(path)).bearer_auth(&self.token);
        within(request.send()).await.unwrap()
    }

    /// Status of `/readyz`, and what it says.
    pub async fn readiness(&self) -> (u16, Value) {
        let response = within(self.client.get(self.url("/readyz")).send())
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, within(response.json()).await.unwrap())
    }

    /// The value of a metric without labels but the model's.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = within(self.get("/metrics").await.text()).await.unwrap();
        said_by_a_server(&text);
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")))
            .unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until the metrics have this line.
    pub async fn tells(&self, line: &str) {
        within(async {
            loop {
                let text = self.get("/metrics").await.text().await.unwrap();
                if text.lines().any(|it| it == line) {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits until no sequence runs or waits and every KV block is free.
    pub async fn idle(&self) {
        within(async {
            for name in [
                "vllm:num_requests_running",
                "vllm:num_requests_waiting",
                "vllm:kv_cache_usage_perc",
            ] {
                while self.metric(name).await != 0.0 {}
            }
        })
        .await;
    }

    /// Sends bytes as they are and reads until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.address()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as a close.
        let _ = within(socket.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Resident memory now, in MiB.
    pub fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib / 1024
    }

    /// What the engine's thread has cost: how often it gave up or lost its processor, and processor time in ticks.
    pub fn engine_effort(&self) -> (u64, u64) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let engine = tasks
            .map(|task| task.unwrap().path())
            .find(|task| std::fs::read_to_string(task.join("comm")).unwrap() == "mixgate-engine\n")
            .unwrap();
        let status = std::fs::read_to_string(engine.join("status")).unwrap();
        let switches = status
            .lines()
            .filter_map(|line| line.split_once("voluntary_ctxt_switches:"))
            .map(|(_, count)| count.trim().parse::<u64>().unwrap())
            .sum();
        // User and system time are the 14th and 15th field; the second, the name, has no space in it.
        let stat = std::fs::read_to_string(engine.join("stat")).unwrap();
        let ticks = stat
            .split(' ')
            .skip(13)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap())
            .sum();
        (switches, ticks)
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the process to end by itself.
    pub async fn ended(mut self) -> Said {
        let (stdout, stderr) = (self.stdout.take().unwrap(), self.stderr.take().unwrap());
        // Its ends of the pipes close with the process.
        let read = tokio::task::spawn_blocking(|| (stdout.join().unwrap(), stderr.join().unwrap()));
        let (stdout, stderr) = within(read).await.unwrap();
        let code = self.child.wait().unwrap().code();
        Said {
            code,
            stdout,
            stderr,
        }
    }
}

impl Drop for Mixgate {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it said is written down once it is read to its end.
        for reader in [self.stdout.take(), self.stderr.take()]
            .into_iter()
            .flatten()
        {
            let _ = reader.join();
        }
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        said_by_a_server(&text);
        text
    })
}

/// The `data:` documents of a stream's text, in order; the last is `[DONE]` as a string.
pub fn events(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap_or(json!(data)))
        .collect()
}

/// The text that a stream's events add up to.
pub fn said(events: &[Value]) -> String {
    events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect()
}

/// How long a start may take. Without optimisation nothing is promised.
pub const START: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
