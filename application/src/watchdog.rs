//! The watchdog: a process of its own that lets an application go on when Copal cannot.
//!
//! It gets its orders as one line of JSON on its standard input, and listens there. `check` asks whether it
//! has acted; `done` tells it that nothing is left to do. When the input ends without that, the process that
//! gave the orders is dead: the watchdog acts at once. When the deadline passes, it acts too. It never
//! touches a repository.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use copal_source::process::without_secrets;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::Tools;
use crate::error::{Error, Result};
use crate::hooks::run_step;
use crate::record::ResumeStep;

/// Longest orders.
const ORDERS_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    /// Milliseconds from now on.
    deadline: u64,
    steps: Vec<ResumeStep>,
    /// Made when it has acted.
    mark: PathBuf,
}

/// The watchdog as seen by the process that it watches. Dropping it without [`Watchdog::done`] makes it act.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Watchdog {
    /// Starts one, when there are steps and a program for it.
    pub(super) fn start(
        tools: &Tools,
        steps: Vec<ResumeStep>,
        deadline: Duration,
        mark: PathBuf,
    ) -> Result<Option<Self>> {
        let Some((program, arguments)) = tools.watchdog.as_deref().and_then(<[_]>::split_first) else {
            return Ok(None);
        };
        if steps.is_empty() {
            return Ok(None);
        }
        let failed = |error: io::Error| Error::internal(format!("the watchdog could not be started: {error}"));
        let mut child = without_secrets(&mut Command::new(program))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::internal("the watchdog has no pipes"));
        };
        let orders = Orders { deadline: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX), steps, mark };
        let mut line = serde_json::to_vec(&orders).map_err(|error| Error::internal(error.to_string()))?;
        line.push(b'\n');
        input.write_all(&line).map_err(failed)?;
        let mut watchdog = Self { child, orders: Some(input), answers: BufReader::new(output) };
        // It watches from here on, or nothing is frozen.
        match watchdog.answer().as_deref() {
            Some("watching") => Ok(Some(watchdog)),
            other => Err(Error::internal(format!("the watchdog says {other:?}"))),
        }
    }

    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim().to_owned())
    }

    /// Whether it has acted already, or is gone: then the application was not held still.
    pub(super) fn has_acted(&mut self) -> bool {
        let asked = self.orders.as_mut().map(|orders| orders.write_all(b"check\n"));
        !matches!(asked, Some(Ok(()))) || self.answer().as_deref() != Some("held")
    }

    /// Nothing is left to do.
    pub(super) fn done(mut self) {
        if let Some(mut orders) = self.orders.take() {
            // One that is gone needs no telling.
            let _ = orders.write_all(b"done\n");
        }
        let _ = self.child.wait();
    }
}

/// The watchdog's whole life.
pub(super) fn live() -> Result<()> {
    // Signals of a terminal are for the process that is watched.
    let _ = rustix::process::setsid();
    let failed = |error: io::Error| Error::internal(format!("the watchdog: {error}"));
    let mut input = BufReader::new(File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?));
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut line = Vec::new();
    (&mut input).take(ORDERS_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
    let orders: Orders =
        serde_json::from_slice(&line).map_err(|error| Error::usage(format!("the orders of a watchdog: {error}")))?;
    output.write_all(b"watching\n").map_err(failed)?;
    let begun = Instant::now();
    let deadline = Duration::from_millis(orders.deadline);
    let mut acted = false;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        if !acted && left.is_zero() {
            act(&orders);
            acted = true;
        }
        if input.buffer().is_empty() && !is_readable(&input, (!acted).then_some(left)) {
            continue;
        }
        let mut word = String::new();
        match (&mut input).take(64).read_line(&mut word) {
            Ok(0) | Err(_) => {
                if !acted {
                    act(&orders);
                }
                return Ok(());
            }
            Ok(_) if word == "done\n" => return Ok(()),
            Ok(_) => {
                let answer: &[u8] = if acted { b"acted\n" } else { b"held\n" };
                // The end of the input is what tells that nobody listens.
                let _ = output.write_all(answer);
            }
        }
    }
}

fn is_readable(input: &BufReader<File>, patience: Option<Duration>) -> bool {
    let mut polled = [PollFd::new(input.get_ref(), PollFlags::IN)];
    let limit = patience.and_then(|patience| Timespec::try_from(patience).ok());
    match poll(&mut polled, limit.as_ref()) {
        Ok(ready) => ready > 0,
        Err(_) => false,
    }
}

fn act(orders: &Orders) {
    for step in &orders.steps {
        // Each is tried, whatever became of the one before; there is nobody to tell.
        let _ = run_step(step);
    }
    let _ = fs::write(&orders.mark, b"");
}
