//! `copal deploy SNAPSHOT postgres:DSN`: loads a database of a snapshot, under the name that the connection
//! string has.

use std::ffi::OsStr;

use copal_application::RestoreRequest;
use copal_application::config::SourceSpec;
use copal_engine::catalogue::{Catalogue, Filter};
use copal_engine::create::Exclusions;
use copal_manifest::snapshot::{Snapshot, SourceKind};
use copal_source::postgres::{PostgresSpec, database_exists, named_database};

use crate::commands::application::unnamed;
use crate::commands::unit::{carry_out, print};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::{Invocation, Run};

/// What a command line asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// What `latest` chooses among.
    pub(crate) filter: Filter,
    /// Which source of the snapshot; none: the only one of its kind.
    pub(crate) label: Option<&'a str>,
    pub(crate) dsn: &'a str,
    pub(crate) yes: bool,
    pub(crate) dry_run: bool,
}

/// The connection string of a target that is a database.
pub(crate) fn dsn_of(word: &OsStr) -> Option<String> {
    let word = word.to_str()?;
    if word.starts_with("postgres://") || word.starts_with("postgresql://") {
        return Some(word.to_owned());
    }
    word.strip_prefix("postgres:").map(str::to_owned)
}

/// What stands under that name becomes a snapshot of its own first.
pub(crate) fn deploy(wanted: &Wanted<'_>, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let hint = "write postgres:dbname=NAME, with host=, port= and user= as needed";
    let database = named_database(wanted.dsn)
        .map_err(|error| match error {
            // What is wrong is the word on the command line: nobody was asked.
            copal_source::Error::Database { detail, .. } => {
                ProgramError::usage(format!("the connection string of the target cannot be used: {detail}"), hint)
            }
            other => ProgramError::usage(other.to_string(), hint),
        })?
        .ok_or_else(|| ProgramError::usage("the connection string of the target names no database", hint))?;
    let question = format!("Replace the database {database} by that of {}?", wanted.name);
    let context = invocation.open_for(Run::of(wanted.dry_run))?;
    let catalogue = Catalogue::load(&context)?;
    let snapshot = &catalogue.find_among(wanted.name, &wanted.filter)?.snapshot;
    let spec = PostgresSpec { load_as: Some(database.clone()), ..PostgresSpec::of_dsn(wanted.dsn) };
    let label = label_in(snapshot, wanted)?;
    let exists = database_exists(&spec, &database).map_err(copal_engine::Error::from)?;
    let must_ask = exists && !wanted.yes && !wanted.dry_run;
    if must_ask {
        invocation.refuse_without_terminal(&question)?;
    }
    let application = unnamed(vec![(label, SourceSpec::Postgres(spec))], &Exclusions::default());
    let request = RestoreRequest {
        reference: snapshot.id.to_string(),
        safety: exists,
        dry_run: wanted.dry_run,
        ..RestoreRequest::default()
    };
    let report = carry_out(&context, &application, &request, must_ask.then_some(question.as_str()), invocation)?;
    let said = format!("{} to the database {database}", report.name);
    print(&report, &format!("postgres:{database}"), &said, &request, invocation)?;
    Ok(ExitCode::Done)
}

fn label_in(snapshot: &Snapshot, wanted: &Wanted<'_>) -> Result<String, ProgramError> {
    let databases = snapshot.sources.iter().filter(|source| source.kind == SourceKind::Postgres);
    let labels: Vec<&str> = databases.map(|source| source.label.as_str()).collect();
    let refused = |what: String, hint: &'static str| Err(ProgramError::usage(what, hint));
    match (wanted.label, labels.as_slice()) {
        (_, []) => refused(format!("{} holds no database of a PostgreSQL server", wanted.name), "deploy it to a path"),
        (Some(label), labels) if labels.contains(&label) => Ok(label.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (_, labels) => {
            refused(format!("{} has the databases {}", wanted.name, labels.join(", ")), "say which: --path LABEL")
        }
    }
}
