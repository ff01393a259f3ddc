//! `copal lock`: forgets what `copal unlock` kept.

use clap::Args;
use copal_store::repository::Repository;
use serde_json::json;

use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::keyring;

/// Forgets the key that `copal unlock` keeps
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  copal lock\n  copal lock --repo /srv/backup")]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let folder = invocation.repository_folder()?;
    let backend = invocation.backend_at(&folder)?;
    let id = Repository::peek_id(&*backend)?;
    let forgotten = keyring::forget(id).map_err(|error| ProgramError::NoKeyring(error.to_string()))?;
    if invocation.output.is_json() {
        invocation.output.document(&json!({ "locked": id.to_string(), "was_unlocked": forgotten }))?;
    } else {
        invocation.output.line(if forgotten { "the key is forgotten" } else { "no key was kept" })?;
    }
    Ok(ExitCode::Done)
}
