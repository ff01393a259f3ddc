//! `copal completions`: for packagers and shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::exit_code::ExitCode;
use crate::invocation::Invocation;

/// Prints the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal completions bash > /usr/share/bash-completion/completions/copal
  copal completions zsh > ~/.zfunc/_copal
  copal completions fish > ~/.config/fish/completions/copal.fish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::arguments::Arguments::command(), "copal", &mut script);
    invocation.output.line(script.trim_ascii_end())?;
    Ok(ExitCode::Done)
}
