//! The program `copal`: snapshots of files and databases in a content-addressed, encrypted repository.
//!
//! Flags are parsed into plain values first ([`arguments`]), resources are acquired second ([`invocation`]),
//! one file of [`commands`] does each command by calling the engine, and [`exit_code`] says how it ended. It
//! never knows a format.

mod arguments;
mod commands;
mod completion;
mod configuration;
mod environment;
mod exit_code;
mod interrupt;
mod invocation;
mod keyring;
mod output;
mod password;
mod place;
mod progress;
mod quantities;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod reference;
mod shown;
mod stdin;

/// No image of this process is written when it dies: keys are in it. One byte instead of none, because the
/// kernel gives images to a program that collects them whatever the limit is, but not at this one.
fn leave_no_core() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Core);
    let current = limit.maximum.map_or(Some(1), |maximum| Some(maximum.min(1)));
    // A process that may not even lower it has nothing to lose by going on.
    let _ = setrlimit(Resource::Core, rustix::process::Rlimit { current, ..limit });
}

fn main() -> std::process::ExitCode {
    leave_no_core();
    completion::answer();
    invocation::run(&std::env::args_os().collect::<Vec<_>>()).into()
}
