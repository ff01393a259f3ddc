//! `copal dump`: one file to stdout, or a folder as an archive.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use copal_engine::inspect::{dump, walk};

use crate::commands::filter::FilterArguments;
use crate::commands::latest;
use crate::completion::snapshots;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;

mod archive;

/// Writes one file of a snapshot, or a folder as a tar archive, to stdout
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal dump monday etc/hosts
  copal dump monday hub.db > hub.db
  copal dump monday photos --tar | tar x
  copal dump latest / --tar | zstd > all.tar.zst

An archive is in the POSIX (pax) format, with times to the nanosecond and extended attributes;
`tar --acls --xattrs --xattrs-include='*' -xp` brings back ACLs and all of them.")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
    /// A path in it; with labelled sources it begins with the label
    path: OsString,
    /// Write an archive of the path and all below it
    #[arg(long)]
    tar: bool,
    #[command(flatten)]
    filter: FilterArguments,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if arguments.tar && invocation.output.is_terminal() {
        return Err(ProgramError::usage(
            "an archive cannot be shown on a terminal",
            "send it to a file or a program: copal dump NAME PATH --tar > FILE",
        )
        .into());
    }
    let context = invocation.open()?;
    let name = latest::meant(&context, &arguments.name, &arguments.filter.filter()?)?;
    let path = arguments.path.as_bytes();
    if arguments.tar {
        let mut archive = archive::Archive::new(&mut invocation.output, invocation.monitor.as_ref());
        walk(&context, &name, path, &mut archive)?;
        archive.finish()?;
    } else {
        dump(&context, &name, path, &mut invocation.output)?;
    }
    invocation.output.flush().map_err(ProgramError::Output)?;
    Ok(ExitCode::Done)
}
