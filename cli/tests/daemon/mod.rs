//! The daemon as a process of its own, and a client that speaks to it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod browser;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::blocking::{Client, ClientBuilder, RequestBuilder, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::World;

/// Longer than any operation of these tests takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running `copal serve`. Killed when dropped.
pub struct Daemon {
    child: Child,
    pub url: String,
    pub client: Client,
}

impl Daemon {
    /// On a free port, without tokens and limits.
    pub fn start(world: &World, more: &[&str]) -> Self {
        let arguments = [&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"], more].concat();
        Self::of(world.command(&arguments))
    }

    pub fn of(command: Command) -> Self {
        Self::with_log(command, &std::env::temp_dir().join(format!("copal-serve-{}.log", std::process::id())))
    }

    /// Its log is added to a file.
    pub fn with_log(mut command: Command, log: &Path) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("serving at ").unwrap_or_else(|| panic!("the daemon said {line:?}"));
        let client = client().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url: url.to_owned(), child, client }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().unwrap()
    }

    pub fn post(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().unwrap()
    }

    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        let response = self.get(path);
        let status = response.status();
        let text = response.text().unwrap();
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A POST that is waited for and succeeds.
    #[track_caller]
    pub fn done(&self, path: &str) -> Value {
        let response = self.post(&format!("{path}?wait=true"));
        let status = response.status();
        let text = response.text().unwrap();
        assert!(status == 200 || status == 201, "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// SIGTERM, and the exit code.
    pub fn end(mut self) -> i32 {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the daemon did not end");
    }

    /// SIGKILL, and its last breath.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Peak of its memory in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of HTTP. Its library wants to know of a provider of TLS, also where there is none.
pub fn client() -> ClientBuilder {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}

/// SQL by Debian's own shell.
#[track_caller]
pub fn sql(database: &Path, statement: &str) -> String {
    let output =
        Command::new("sqlite3").arg(database).arg(statement).output().expect("cargo xtask setup installs sqlite3");
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
