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

fn main() -> std::process::ExitCode {
    completion::answer();
    invocation::run(&std::env::args_os().collect::<Vec<_>>()).into()
}
