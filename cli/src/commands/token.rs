//! `copal token`: who may use the daemon.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use copal_service::access::{Role, Tokens};
use copal_store::entropy::OsEntropy;

use crate::commands::serve::{service_error, state_folder};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::output::{Align, Table};
use crate::shown::{count, escaped};

/// Makes, lists and removes the tokens of the daemon
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal token add alice --role deploy
  copal token list
  copal token remove alice

A running daemon knows of a change within a second. Only hashes of tokens are kept: what `add`
prints is not seen again.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Folder of the daemon [default: in the user's state folder]
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
}

impl Arguments {
    /// Whether what it prints only tells of what was done.
    pub(crate) fn only_reports(&self) -> bool {
        matches!(self.action, Action::Remove { .. })
    }

    /// Whether it prints what nobody else will ever tell.
    pub(crate) fn delivers(&self) -> bool {
        matches!(self.action, Action::Add { .. })
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a token and prints it
    #[command(after_help = "\
Examples:
  copal token add alice --role deploy
  copal token add ci --role create --app shop")]
    Add {
        /// Whose it is, for the audit log
        name: String,
        /// What it may do
        #[arg(long, value_enum, value_name = "ROLE")]
        role: RoleName,
        /// Only this application; may be given again
        #[arg(long, value_name = "APP")]
        app: Vec<String>,
    },
    /// Lists the tokens, without their secrets
    #[command(after_help = "Examples:\n  copal token list --json")]
    List,
    /// Removes a token; its sessions end with it
    #[command(after_help = "Examples:\n  copal token remove alice")]
    Remove {
        /// Its name or id
        name: String,
    },
}

/// Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// See snapshots, operations and figures
    View,
    /// Take, pin, tag and verify snapshots
    Create,
    /// Deploy snapshots, download files out of them
    Deploy,
    /// Delete, export, import; tokens and the audit log
    Administer,
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            Self::View => Role::View,
            Self::Create => Role::Create,
            Self::Deploy => Role::Deploy,
            Self::Administer => Role::Administer,
        }
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let folder = match &arguments.state {
        Some(folder) => folder.clone(),
        // The folder bears the repository's id, which only the open repository tells.
        None => state_folder(None, invocation, &invocation.open()?)?,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| ProgramError::file("making", &folder, error))?;
    let tokens = Tokens::open(&folder, Arc::new(OsEntropy)).map_err(service_error)?;
    let output = &mut invocation.output;
    match &arguments.action {
        Action::Add { name, role, app } => {
            let made = tokens.add(name, role.role(), app.clone()).map_err(service_error)?;
            let told = if output.is_json() { output.document(&made) } else { output.line(&made.token) };
            let told = told.and_then(|()| output.finish());
            if told.is_err() || output.is_closed() {
                // Nobody will ever know it.
                tokens.remove(name).map_err(service_error)?;
                told?;
                return Err(ProgramError::Output(std::io::ErrorKind::BrokenPipe.into()).into());
            }
        }
        Action::List => {
            let listed = tokens.list().map_err(service_error)?;
            if output.is_json() {
                output.document(&listed)?;
                return Ok(ExitCode::Done);
            }
            output.line(count(listed.len() as u64, "token", "tokens"))?;
            let mut table = Table::new(&[
                ("NAME", Align::Left),
                ("ROLE", Align::Left),
                ("APPLICATIONS", Align::Left),
                ("CREATED", Align::Left),
                ("ID", Align::Left),
            ]);
            for token in &listed {
                let apps = if token.apps.is_empty() { "all".to_owned() } else { token.apps.join(" ") };
                table.row(vec![
                    escaped(token.name.as_bytes()).into(),
                    token.role.name().into(),
                    escaped(apps.as_bytes()).into(),
                    token.created.clone().into(),
                    token.id.clone().into(),
                ]);
            }
            if !listed.is_empty() {
                output.table(&table)?;
            }
        }
        Action::Remove { name } => {
            tokens.remove(name).map_err(service_error)?;
            if !output.is_json() {
                output.line(format!("removed the token {}", escaped(name.as_bytes())))?;
            }
        }
    }
    Ok(ExitCode::Done)
}
