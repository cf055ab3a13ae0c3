//! The start-up screen, as a person sees it and uses it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;

use super::common::{said_by_a_server, secret, within};
use super::harness::{Home, Said, events, said};

#[tokio::test]
async fn the_last_two_lines_of_the_screen_work_when_pasted() {
    let home = Home::new();
    let state_dir = home.state_dir();
    let words = [
        "serve",
        "--port",
        "0",
        "--state-dir",
        state_dir.to_str().unwrap(),
    ];
    let (_server, screen) = on_a_terminal(home.mixgate(&words));
    assert!(screen.len() <= 12, "{screen:#?}");
    assert!(screen[0].starts_with("mixgate "), "{screen:#?}");
    let [.., export, curl] = &screen[..] else {
        panic!("{screen:#?}")
    };
    let (export, curl) = (export.trim_start(), curl.trim_start());
    assert!(export.starts_with("export TOKEN="), "{export}");
    assert!(curl.starts_with("curl -N http://127.0.0.1:"), "{curl}");

    // The words that curl gets, whether or not there is a curl.
    let words = shell(
        &home,
        &format!("curl() {{ printf '%s\\0' \"$@\"; }}\n{export}\n{curl}"),
    );
    assert_eq!((words.code, &*words.stderr), (Some(0), ""));
    let words: Vec<&str> = words.stdout.split_terminator('\0').collect();
    let [
        "-N",
        url,
        "-H",
        authorization,
        "-H",
        content_type,
        "-d",
        body,
    ] = words[..]
    else {
        panic!("{words:?}")
    };
    let (authorization, token) = authorization.split_once(": Bearer ").unwrap();
    assert_eq!(
        (authorization, content_type),
        ("Authorization", "content-type: application/json")
    );
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["stream"], true);
    secret(token.to_owned());
    let request = reqwest::Client::new().post(url).bearer_auth(token);
    let response = within(request.json(&body).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    is_an_answer(&within(response.text()).await.unwrap());

    // A fresh machine may lack curl; its words have been tried above.
    if shell(&home, "command -v curl").code == Some(0) {
        let pasted = shell(&home, &format!("{export}\n{curl}"));
        assert_eq!(pasted.code, Some(0), "{}", pasted.stderr);
        is_an_answer(&pasted.stdout);
    }
}

#[tokio::test]
async fn at_home_the_pasted_line_needs_no_folder() {
    let home = Home::new();
    let (_server, screen) = on_a_terminal(home.mixgate(&["serve", "--port", "0"]));
    let export = screen[screen.len() - 2].trim();
    assert!(export.ends_with(" token mint --sub you)"), "{export}");
    let token = secret(shell(&home, &format!("{export}\nprintf %s \"$TOKEN\"")).stdout);
    assert_eq!(home.run(&["token", "verify", &token]).code, Some(0));
}

#[test]
fn the_demo_shows_a_refusal_a_token_and_an_answer() {
    let home = Home::new();
    let said = home.run(&["demo"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("401"), "{}", said.stdout);
    assert!(said.stdout.contains("completion tokens"), "{}", said.stdout);
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        0,
        "it leaves nothing"
    );
}

fn is_an_answer(stream: &str) {
    let events = events(stream);
    assert!(events.len() > 8, "{stream}");
    assert_eq!(events.last().unwrap(), "[DONE]");
    assert!(!said(&events).trim().is_empty(), "{stream}");
}

/// Runs lines as a person's shell would, in the same home.
fn shell(home: &Home, lines: &str) -> Said {
    let mut command = Command::new("sh");
    command
        .args(["-c", lines])
        .current_dir(home.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .stdin(Stdio::null());
    // The token may be among it.
    let output = command.output().unwrap();
    said_by_a_server(&String::from_utf8_lossy(&output.stderr));
    Said {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A process that is killed when its test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `command` with its stdout on a pseudo-terminal and reads up to the line with `curl` in it.
fn on_a_terminal(mut command: Command) -> (Killed, Vec<String>) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
    let child = command
        .stdout(theirs)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It holds our copy of their end, without which reading ends when the process does.
    drop(command);
    let mut screen = Vec::new();
    for line in BufReader::new(File::from(ours)).lines() {
        // An end of file is an error on a terminal: the process has gone.
        let line = line.unwrap_or_else(|error| panic!("{error} after {screen:#?}"));
        said_by_a_server(&line);
        let is_last = line.trim_start().starts_with("curl ");
        screen.push(line);
        if is_last {
            break;
        }
    }
    (Killed(child), screen)
}
