//! Runs a program without a shell, for a limited time, in a process group of its own, and keeps the first and
//! the last of what it says.
//!
//! Passwords of Copal are never in its environment.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Most bytes kept of the first that a program says, and of the last: an error stands before a long
/// statement, or after many lines.
const SAID_BYTES_MAX: usize = 8000;
/// Stands for what was said between.
const UNKEPT: &str = "\n[…]\n";
/// Most that the system lets a pipe hold.
const PIPE_BYTES_MAX: usize = 1 << 20;
/// After the polite signal, before the other one.
const GRACE: Duration = Duration::from_secs(1);
/// What the variables with Copal's secrets begin with: the repository's, new ones, those of a second
/// repository, a bundle's.
const SECRETS_OF: [&str; 4] = ["COPAL_", "COPAL_NEW_", "COPAL_TO_", "COPAL_BUNDLE_"];
/// And how they end.
const SECRETS: [&str; 4] = ["PASSWORD", "PASSWORD_FILE", "PASSWORD_COMMAND", "KEY_FILE"];

/// Variables that no other program shall see: they hold secrets of Copal, or say where those are.
pub fn secret_variables() -> impl Iterator<Item = String> {
    SECRETS_OF.iter().flat_map(|of| SECRETS.iter().map(move |secret| format!("{of}{secret}")))
}

/// Takes Copal's secrets out of the environment of a program: every program that is started goes through
/// here.
pub fn without_secrets(command: &mut Command) -> &mut Command {
    secret_variables().fold(command, |command, variable| command.env_remove(variable))
}

/// A program to be run.
#[derive(Debug)]
pub struct Program<'p> {
    /// Program and arguments.
    pub argv: &'p [String],
    /// Added to what this process has.
    pub environment: &'p [(String, String)],
    /// Its standard input; none: nothing.
    pub input: Option<File>,
    /// Where its standard output goes; none: it is kept with what it says.
    pub output: Option<File>,
    /// It is ended after this.
    pub timeout: Duration,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub how: How,
    /// The first and the last of its standard error (and output, where that went nowhere else).
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Here, at its deadline.
    TimedOut,
    /// It could not be started.
    NotStarted(String),
}

impl Ended {
    /// Whether it did what it should.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.how == How::Exited(0)
    }

    /// A sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let how = match &self.how {
            How::Exited(code) => format!("ended with {code}"),
            How::Killed(signal) => format!("was killed by signal {signal}"),
            How::TimedOut => format!("was ended at its deadline, after {:.1} s", self.took.as_secs_f64()),
            How::NotStarted(why) => format!("could not be started: {why}"),
        };
        // Line ends and tabs of a program are spaces in a sentence.
        let last = self.said.split_whitespace().collect::<Vec<_>>().join(" ");
        if last.is_empty() { how } else { format!("{how}: {last}") }
    }
}

/// A command of which secrets have been taken out of the environment, without standard input.
pub(crate) fn command(argv: &[String]) -> Option<Command> {
    let (program, arguments) = argv.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    without_secrets(&mut command);
    Some(command)
}

/// Runs to the end, or to the deadline. A program that it leaves behind must have its output elsewhere.
#[must_use]
pub fn run(program: Program<'_>) -> Ended {
    let begun = Instant::now();
    let ended = |how, said| Ended { how, said, took: begun.elapsed() };
    let Some(mut command) = command(program.argv) else {
        return ended(How::NotStarted("it has no name".into()), String::new());
    };
    command.envs(program.environment.iter().map(|(name, value)| (name, value))).process_group(0);
    let piped = io::pipe().and_then(|(reader, writer)| {
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK)?;
        match program.output {
            Some(output) => command.stdout(output),
            None => command.stdout(writer.try_clone()?),
        };
        if let Some(input) = program.input {
            command.stdin(input);
        }
        command.stderr(writer);
        Ok(reader)
    });
    let (reader, child) = match piped.and_then(|reader| Ok((reader, command.spawn()?))) {
        Ok(started) => started,
        Err(error) => return ended(How::NotStarted(error.to_string()), String::new()),
    };
    // This end of the pipe is held by the command too.
    drop(command);
    let mut tail = Tail { reader: Some(reader), first: Vec::new(), has_gap: false, kept: Vec::new() };
    let how = wait(child, begun, program.timeout, &mut tail);
    tail.drain();
    ended(how, tail.text())
}

fn wait(mut child: Child, begun: Instant, timeout: Duration, tail: &mut Tail) -> How {
    let Ok(pid) = i32::try_from(child.id()).map_err(drop).and_then(|raw| Pid::from_raw(raw).ok_or(())) else {
        return How::NotStarted("it has no process id".into());
    };
    let watched = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(watched) => watched,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return How::NotStarted(format!("it cannot be watched: {error}"));
        }
    };
    if ends_before(&watched, begun, timeout, tail) {
        return status(child.wait());
    }
    let _ = kill_process_group(pid, Signal::TERM);
    let ended = ends_before(&watched, Instant::now(), GRACE, tail);
    // Also what it started, whether or not the program itself has gone.
    let _ = kill_process_group(pid, Signal::KILL);
    if !ended {
        let _ = child.kill();
    }
    if ended || ends_before(&watched, Instant::now(), GRACE, tail) {
        let _ = child.wait();
    } else {
        // It hangs in the system, as a write to a frozen filesystem does: it dies when that goes on, which
        // must not wait for it.
        let _ = std::thread::Builder::new().name("await its end".into()).spawn(move || child.wait());
    }
    How::TimedOut
}

fn status(waited: io::Result<ExitStatus>) -> How {
    match waited {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => How::Exited(code),
            (None, signal) => How::Killed(signal.unwrap_or_default()),
        },
        Err(error) => How::NotStarted(format!("it cannot be waited for: {error}")),
    }
}

/// Reads along until the process has ended, or the time is over.
fn ends_before(watched: &OwnedFd, begun: Instant, timeout: Duration, tail: &mut Tail) -> bool {
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        let limit = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut polled = vec![PollFd::new(watched, PollFlags::IN)];
        if let Some(reader) = &tail.reader {
            polled.push(PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN));
        }
        let ready = poll(&mut polled, Some(&limit));
        let has_ended = polled[0].revents().contains(PollFlags::IN);
        let is_heard = polled.get(1).is_some_and(|reader| !reader.revents().is_empty());
        match ready {
            _ if has_ended => return true,
            // Whoever writes without an end is always heard.
            _ if left.is_zero() => return false,
            Ok(0) => return false,
            Err(error) if error != rustix::io::Errno::INTR => return false,
            _ if is_heard => tail.drain(),
            _ => {}
        }
    }
}

/// The first and the last bytes that came through a pipe.
struct Tail {
    reader: Option<io::PipeReader>,
    first: Vec<u8>,
    has_gap: bool,
    kept: Vec<u8>,
}

impl Tail {
    /// Takes what is there without waiting: at most what a pipe holds, for somebody may go on writing as fast
    /// as this reads.
    fn drain(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..PIPE_BYTES_MAX / buffer.len() {
            let Some(reader) = &mut self.reader else { return };
            match reader.read(&mut buffer) {
                Ok(0) => self.reader = None,
                Ok(read) => {
                    let room = SAID_BYTES_MAX.saturating_sub(self.first.len()).min(read);
                    self.first.extend_from_slice(&buffer[..room]);
                    self.kept.extend_from_slice(&buffer[room..read]);
                    let surplus = self.kept.len().saturating_sub(SAID_BYTES_MAX);
                    self.kept.drain(..surplus);
                    self.has_gap |= surplus > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.reader = None,
            }
        }
    }

    fn text(&self) -> String {
        let between = if self.has_gap { UNKEPT.as_bytes() } else { b"" };
        String::from_utf8_lossy(&[&self.first, between, &self.kept].concat()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every way to end is told, in time. Method: real programs.

    use super::*;

    fn check(argv: &[&str], milliseconds: u64) -> Ended {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let timeout = Duration::from_millis(milliseconds);
        let environment = [("COPAL_HOOK".to_owned(), "pre".to_owned())];
        run(Program { argv: &argv, environment: &environment, input: None, output: None, timeout })
    }

    #[test]
    fn exits_signals_and_absences_are_told_apart() {
        assert_eq!(check(&["true"], 5000).how, How::Exited(0));
        let failed = check(&["sh", "-c", "echo first; echo $COPAL_HOOK >&2; exit 3"], 5000);
        assert_eq!((failed.how, failed.said.as_str()), (How::Exited(3), "first\npre\n"));
        assert_eq!(check(&["sh", "-c", "kill -9 $$"], 5000).how, How::Killed(9));
        assert!(matches!(check(&["/nowhere/at/all"], 5000).how, How::NotStarted(_)));
        assert!(matches!(check(&[], 5000).how, How::NotStarted(_)));
    }

    #[test]
    fn a_deadline_ends_what_was_started_too() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let script = format!("trap '' TERM; (sleep 2; touch {}) & sleep 60", mark.display());
        let ended = check(&["sh", "-c", &script], 100);
        assert_eq!(ended.how, How::TimedOut);
        assert!(ended.took < Duration::from_secs(2), "{ended:?}");
        std::thread::sleep(Duration::from_secs(2));
        assert!(!mark.exists(), "a child of the program outlived it");
    }

    /// Without an end to the reading neither would ever return.
    #[test]
    fn whoever_writes_without_an_end_is_ended_in_time_and_not_waited_for() {
        let ended = check(&["yes"], 200);
        assert!(ended.how == How::TimedOut && ended.said.starts_with("y\n"), "{:?}", ended.how);
        assert_eq!(check(&["sh", "-c", "yes & echo started"], 60_000).how, How::Exited(0));
    }

    #[test]
    fn what_is_left_running_is_not_waited_for() {
        let ended = check(&["sh", "-c", "sleep 3 & echo started"], 5000);
        assert_eq!((ended.how, ended.said.as_str()), (How::Exited(0), "started\n"));
        assert!(ended.took < Duration::from_secs(2));
    }

    #[test]
    fn the_first_and_the_last_words_are_kept() {
        let ended = check(&["sh", "-c", "echo begin; yes | head -c 1000000; echo end"], 20_000);
        assert!(ended.said.len() <= 2 * SAID_BYTES_MAX + UNKEPT.len());
        assert!(ended.said.starts_with("begin\ny\n") && ended.said.contains(UNKEPT) && ended.said.ends_with("end\n"));
        let ended = check(&["sh", "-c", "yes | head -c 12000"], 20_000);
        assert_eq!(ended.said, "y\n".repeat(6000));
    }
}
