//! The commands, one file each: flags in, one call of the engine, a report out.

pub(crate) mod application;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod create;
mod database;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod deploy;
mod deployed;
pub(crate) mod diff;
pub(crate) mod dump;
mod excluding;
pub(crate) mod export;
pub(crate) mod filter;
pub(crate) mod find;
pub(crate) mod forget;
pub(crate) mod gc;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod key;
mod latest;
pub(crate) mod list;
mod listing;
pub(crate) mod lock;
pub(crate) mod ls;
pub(crate) mod man;
mod naming;
pub(crate) mod options;
pub(crate) mod pin;
mod rehearsed;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod snapshot;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod tag;
pub(crate) mod token;
mod unit;
pub(crate) mod unlock;
pub(crate) mod unpin;
pub(crate) mod verify;
pub(crate) mod watchdog;

use crate::arguments::Command;
use crate::exit_code::{ExitCode, Verb};
use crate::invocation::Invocation;

/// Does what the command line asks for.
pub(crate) fn run(command: Command, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(arguments) => init::run(&arguments, invocation),
        Command::Create(arguments) => create::run(&arguments, invocation),
        Command::List(arguments) => list::run(&arguments, invocation),
        Command::Show(arguments) => show::run(&arguments, invocation),
        Command::Ls(arguments) => ls::run(&arguments, invocation),
        Command::Dump(arguments) => dump::run(&arguments, invocation),
        Command::Diff(arguments) => diff::run(&arguments, invocation),
        Command::Deploy(arguments) => deploy::run(&arguments, invocation),
        Command::Restore(arguments) => restore::run(&arguments, invocation),
        Command::Verify(arguments) => verify::run(&arguments, invocation),
        Command::Delete(arguments) => delete::run(&arguments, invocation),
        Command::Forget(arguments) => forget::run(&arguments, invocation),
        Command::Gc(arguments) => gc::run(&arguments, invocation),
        Command::Tag(arguments) => tag::run(&arguments, invocation),
        Command::Pin(arguments) => pin::run(&arguments, invocation),
        Command::Unpin(arguments) => unpin::run(&arguments, invocation),
        Command::Find(arguments) => find::run(&arguments, invocation),
        Command::Export(arguments) => export::run(&arguments, invocation),
        Command::Import(arguments) => import::run(&arguments, invocation),
        Command::Copy(arguments) => copy::run(&arguments, invocation),
        Command::Key(arguments) => key::run(&arguments, invocation),
        Command::Status(arguments) => status::run(&arguments, invocation),
        Command::Watchdog(_) => watchdog::run(),
        Command::Options(_) => options::run(invocation),
        Command::Unlock(arguments) => unlock::run(&arguments, invocation),
        Command::Lock(arguments) => lock::run(&arguments, invocation),
        Command::Stats(arguments) => stats::run(&arguments, invocation),
        Command::Serve(arguments) => serve::run(&arguments, invocation),
        Command::Token(arguments) => token::run(&arguments, invocation),
        Command::Demo(arguments) => demo::run(&arguments, invocation),
        Command::Completions(arguments) => completions::run(&arguments, invocation),
        Command::Man(arguments) => man::run(&arguments, invocation),
    }
}

/// What a failure of the command is called when it has no code of its own.
pub(crate) fn operation(command: &Command) -> Verb {
    match command {
        Command::Create(_) => Verb::Create,
        Command::Deploy(_) | Command::Restore(_) => Verb::Deploy,
        _ => Verb::Other,
    }
}

/// Whether what the command prints only tells of what it has done: then it is done, whoever could not be
/// told.
pub(crate) fn only_reports(command: &Command) -> bool {
    match command {
        Command::Init(_)
        | Command::Create(_)
        | Command::Deploy(_)
        | Command::Restore(_)
        | Command::Delete(_)
        | Command::Forget(_)
        | Command::Gc(_)
        | Command::Tag(_)
        | Command::Pin(_)
        | Command::Unpin(_)
        | Command::Import(_)
        | Command::Copy(_)
        | Command::Unlock(_)
        | Command::Lock(_)
        | Command::Serve(_)
        | Command::Demo(_)
        | Command::Watchdog(_)
        // Its exit code is a verdict.
        | Command::Verify(_) => true,
        Command::Export(arguments) => !arguments.is_to_output(),
        Command::Key(arguments) => arguments.changes_something(),
        Command::Token(arguments) => arguments.only_reports(),
        Command::List(_)
        | Command::Show(_)
        | Command::Ls(_)
        | Command::Dump(_)
        | Command::Diff(_)
        | Command::Find(_)
        | Command::Status(_)
        | Command::Stats(_)
        | Command::Options(_)
        | Command::Completions(_)
        | Command::Man(_) => false,
    }
}

/// Whether what the command prints is what it was asked to make: then a reader who goes away has not got it.
pub(crate) fn delivers(command: &Command) -> bool {
    match command {
        Command::Export(arguments) => arguments.is_to_output(),
        Command::Token(arguments) => arguments.delivers(),
        _ => false,
    }
}
