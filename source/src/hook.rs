//! Hooks: what is run around a capture or a deploy. A command without a shell, a freeze of a filesystem, or a
//! signal.
//!
//! Freezing and stopping have an inverse, which runs with the post hooks without being asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Ended, How, Program, run};

/// How long a hook may take when it does not say.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Where the freezer is.
const FREEZERS: &[&str] = &["/usr/sbin/fsfreeze", "/sbin/fsfreeze", "/usr/bin/fsfreeze"];

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// Before a capture: the application comes to hold still.
    Pre,
    /// After a capture: it goes on. Always runs.
    Post,
    /// Before a deploy switches: the application ends.
    Stop,
    /// After the switch: paths and addresses are rewritten to those of here.
    Rewrite,
    /// After the switch, when the snapshot's schema is older than the application's.
    Migrate,
    /// The application begins.
    Start,
    /// Tried until it succeeds or its timeout has passed.
    Health,
}

impl When {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::Pre, Self::Post, Self::Stop, Self::Rewrite, Self::Migrate, Self::Start, Self::Health];

    /// The word in configurations and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
            Self::Stop => "stop",
            Self::Rewrite => "rewrite",
            Self::Migrate => "migrate",
            Self::Start => "start",
            Self::Health => "health",
        }
    }
}

/// A signal of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookSignal {
    /// SIGSTOP; its inverse is SIGCONT.
    Stop,
    /// SIGCONT.
    Continue,
    /// SIGHUP.
    Hangup,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

impl HookSignal {
    /// From its name without `SIG`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Stop, Self::Continue, Self::Hangup, Self::User1, Self::User2].into_iter().find(|one| one.name() == name)
    }

    /// Its name without `SIG`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Hangup => "HUP",
            Self::User1 => "USR1",
            Self::User2 => "USR2",
        }
    }

    fn number(self) -> Signal {
        match self {
            Self::Stop => Signal::STOP,
            Self::Continue => Signal::CONT,
            Self::Hangup => Signal::HUP,
            Self::User1 => Signal::USR1,
            Self::User2 => Signal::USR2,
        }
    }
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Runs a program.
    Command(Vec<String>),
    /// Freezes the filesystem that is mounted there.
    Freeze(PathBuf),
    /// Thaws it.
    Thaw(PathBuf),
    /// Signals the process whose id a file holds.
    Signal {
        /// The signal.
        signal: HookSignal,
        /// The file with the process id.
        pid_file: PathBuf,
    },
}

impl Action {
    /// What undoes it, where that is known.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        match self {
            Self::Freeze(path) => Some(Self::Thaw(path.clone())),
            Self::Signal { signal: HookSignal::Stop, pid_file } => {
                Some(Self::Signal { signal: HookSignal::Continue, pid_file: pid_file.clone() })
            }
            _ => None,
        }
    }

    /// What is run, without arguments, which may be secret.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Command(argv) => argv.first().cloned().unwrap_or_default(),
            Self::Freeze(path) => format!("freeze {}", path.display()),
            Self::Thaw(path) => format!("thaw {}", path.display()),
            Self::Signal { signal, pid_file } => format!("signal {} {}", signal.name(), pid_file.display()),
        }
    }

    /// Does it.
    #[must_use]
    pub fn run(&self, timeout: Duration, environment: &[(String, String)]) -> Ended {
        match self {
            Self::Command(argv) => run(Program { argv, environment, input: None, output: None, timeout }),
            Self::Freeze(path) => freezer("--freeze", path, timeout),
            Self::Thaw(path) => freezer("--unfreeze", path, timeout),
            Self::Signal { signal, pid_file } => send(*signal, pid_file),
        }
    }
}

fn freezer(what: &str, path: &Path, timeout: Duration) -> Ended {
    let program = FREEZERS.iter().find(|program| Path::new(program).exists()).unwrap_or(&FREEZERS[0]);
    let argv = [(*program).to_owned(), what.to_owned(), path.display().to_string()];
    run(Program { argv: &argv, environment: &[], input: None, output: None, timeout })
}

fn send(signal: HookSignal, pid_file: &Path) -> Ended {
    let ended = |how| Ended { how, said: String::new(), took: Duration::ZERO };
    let text = match fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) => return ended(How::NotStarted(format!("{}: {error}", pid_file.display()))),
    };
    // 1 is init, and smaller numbers are groups: no pid file means those.
    let pid = text.trim().parse().ok().filter(|raw| *raw > 1).and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return ended(How::NotStarted(format!("{} holds no process id", pid_file.display())));
    };
    match kill_process(pid, signal.number()) {
        Ok(()) => ended(How::Exited(0)),
        Err(error) => ended(How::NotStarted(format!("process {}: {error}", pid.as_raw_nonzero()))),
    }
}

/// What happens when a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// The operation fails.
    #[default]
    Fail,
    /// It goes on; the result is recorded.
    Continue,
}

/// A hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
    /// For how long at most.
    pub timeout: Duration,
    /// What a failure means.
    pub on_error: OnError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopping_a_process_has_an_inverse() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&pid_file, format!("{}\n", child.id())).unwrap();
        let stop = Action::Signal { signal: HookSignal::Stop, pid_file: pid_file.clone() };
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
        };
        assert!(stop.run(HOOK_TIMEOUT, &[]).is_success());
        let waited = std::time::Instant::now();
        while state() != 'T' && waited.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        assert_eq!(state(), 'T');
        assert!(stop.inverse().unwrap().run(HOOK_TIMEOUT, &[]).is_success());
        while state() == 'T' && waited.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert_ne!(state(), 'T');
        child.kill().unwrap();
        child.wait().unwrap();
        fs::write(&pid_file, "1").unwrap();
        assert!(!stop.run(HOOK_TIMEOUT, &[]).is_success());
    }
}
