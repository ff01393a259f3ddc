//! Processes that are killed at random times, from a seed, within a budget.

use std::env;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Run, finish};

/// Seconds that each test of kills goes on; `cargo xtask kill --minutes N` asks for more.
const SECONDS: u64 = 6;

/// How long a test goes on, and what it has done. It tells its figures when it is dropped.
pub struct Budget {
    name: &'static str,
    seed: u64,
    until: Instant,
    pub started: u64,
    pub killed: u64,
    pub ended: u64,
}

impl Budget {
    pub fn new(name: &'static str) -> (Self, Random) {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
        let seconds = number("COPAL_KILL_SECONDS").unwrap_or(SECONDS);
        let seed = number("COPAL_KILL_SEED").unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |since| since.subsec_nanos().into())
        });
        let until = Instant::now() + Duration::from_secs(seconds);
        (Self { name, seed, until, started: 0, killed: 0, ended: 0 }, Random(seed))
    }

    pub fn lasts(&self) -> bool {
        Instant::now() < self.until
    }

    /// Counts a process that was meant to be killed.
    pub fn count(&mut self, run: &Run) {
        self.note(run.was_killed());
    }

    /// Counts something that was started, and whether it was killed before its end.
    pub fn note(&mut self, killed: bool) {
        self.started += 1;
        *if killed { &mut self.killed } else { &mut self.ended } += 1;
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        let Self { name, seed, started, killed, ended, .. } = self;
        println!("kills: {name}: {started} started, {killed} killed, {ended} ended first (COPAL_KILL_SEED={seed})");
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit.max(1)
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A moment within a span, or a little after its end.
    pub fn moment(&mut self, span: Duration) -> Duration {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanoseconds.saturating_add(nanoseconds / 5)))
    }
}

/// Runs a command and kills it after a time; it may have ended before.
pub fn run_and_kill(mut command: Command, after: Duration) -> Run {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    // Only a child that was not waited for can be signalled: its number cannot have gone to another process.
    let pid = Pid::from_child(&child);
    thread::sleep(after);
    kill_process(pid, Signal::KILL).expect("a child that was not waited for");
    finish(child.wait_with_output().expect("the child is ours"))
}
