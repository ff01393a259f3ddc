//! `copal help options`: what every command understands, in one place.

use clap::Args;

use crate::exit_code::ExitCode;
use crate::invocation::Invocation;

/// Shows the options that every command has, before or after its name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal list --repo /srv/backup --json
  copal --repo /srv/backup --key-file /etc/copal/key list")]
pub(crate) struct Arguments {}

pub(crate) fn run(invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let mut command = crate::arguments::Arguments::with_short_help();
    let options = command.find_subcommand_mut("options").map(clap::Command::render_help);
    invocation.output.line(options.unwrap_or_default().to_string().trim_end().as_bytes())?;
    Ok(ExitCode::Done)
}
