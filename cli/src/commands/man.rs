//! `copal man`: the manual pages, for packagers.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;

/// Prints the manual page, or writes the pages of all commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal man | man -l -
  copal man --folder /usr/share/man/man1")]
pub(crate) struct Arguments {
    /// Write copal.1 and a page for each command to this folder
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let command = crate::arguments::Arguments::command();
    let Some(folder) = &arguments.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(ProgramError::Output)?;
        invocation.output.line(page.trim_ascii_end())?;
        return Ok(ExitCode::Done);
    };
    let failed = |error| ProgramError::file("writing the manual to", folder, error);
    fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command, folder).map_err(failed)?;
    let mut line = b"wrote the manual to ".to_vec();
    line.extend(invocation.output.name(folder.as_os_str().as_encoded_bytes()));
    invocation.output.line(line)?;
    Ok(ExitCode::Done)
}
