//! `copal copy`: snapshots into another repository.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use copal_bundle::{CopyRequest, copy};

use crate::commands::import::{Document, Line, report};
use crate::commands::snapshot::full_name;
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::Invocation;
use crate::password::{Ask, CredentialFlags, TARGET, obtain};
use crate::place;

/// Copies snapshots to another repository, only what it lacks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal copy --to /media/disk/backup                        all that is not there
  copal copy monday tuesday --to /media/disk/backup --to-key-file /etc/copal/disk.key

Names, ids and times stay. The other repository has a password of its own: flags --to-…, or
COPAL_TO_PASSWORD, COPAL_TO_PASSWORD_FILE, COPAL_TO_PASSWORD_COMMAND,
COPAL_TO_KEY_FILE, or a question.")]
pub(crate) struct Arguments {
    /// Snapshots; none: all
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    names: Vec<String>,
    /// The other repository
    #[arg(long, required = true, value_name = "REPO", value_hint = ValueHint::DirPath)]
    to: OsString,
    /// File whose content is the other repository's password
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
    /// Command, given to the shell, that prints it
    #[arg(long, value_name = "COMMAND")]
    to_password_command: Option<OsString>,
    /// File of 32 random bytes that opens it
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let folder = place::local_folder(Some(&arguments.to))?;
    let backend = invocation.backend_at(&folder)?;
    let from = invocation.open()?;
    let flags = CredentialFlags {
        password_file: arguments.to_password_file.clone(),
        password_command: arguments.to_password_command.clone(),
        key_file: arguments.to_key_file.clone(),
    };
    let credential = obtain(&flags, TARGET, Ask::Once)?;
    let to = invocation.context(invocation.open_at(backend, &credential)?);
    let copied = copy(&from, &to, &CopyRequest { references: arguments.names.clone() })?;
    invocation.monitor.finish();
    let names: Vec<String> = copied.snapshots.iter().map(|imported| full_name(&imported.snapshot)).collect();
    let document = Document {
        snapshots: copied.snapshots.iter().map(Line::new).collect(),
        bytes: copied.bytes_read,
        bytes_new: copied.bytes_new,
        stored_new: copied.stored_new,
        chunks_new: copied.chunks_new,
        duration_ms: copied.duration_ms,
        warnings: Vec::new(),
    };
    report("copied", &document, &names, invocation)?;
    Ok(ExitCode::Done)
}
