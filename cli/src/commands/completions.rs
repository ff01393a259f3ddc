//! `copal completions`: for packagers and shells.

use clap::Args;
use clap_complete::Shell;

use crate::completion::script;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;

/// Prints what makes a shell complete commands, options, and names of snapshots
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal completions bash > /usr/share/bash-completion/completions/copal
  copal completions zsh > ~/.zfunc/_copal
  copal completions fish > ~/.config/fish/completions/copal.fish

For oneself, a line of ~/.bashrc does: source <(copal completions bash). Names of snapshots are
offered where the repository opens without a question: by a password file, a key file, or after
`copal unlock`.")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let script = script(arguments.shell).map_err(ProgramError::Output)?;
    invocation.output.line(script.trim_ascii_end())?;
    Ok(ExitCode::Done)
}
