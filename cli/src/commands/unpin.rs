//! `copal unpin`: takes the protection of `copal pin` away.

use clap::Args;

use crate::commands::pin::protect;
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::Invocation;

/// Takes the protection from removal away
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal unpin release-7")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    protect(&arguments.name, false, invocation)
}
