//! Databases of a PostgreSQL server, through its own programs: an exported snapshot pins the state at once,
//! the dump follows while writers go on, database by database in parallel. Dumps are uncompressed, one file
//! for each table, so that what did not change is found again.
//!
//! A load makes a new database beside the one that stands there; only names are exchanged in the end.

mod address;
mod load;
mod properties;
mod session;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Ended, Program, run};
use crate::{Error, Result};

use address::Address;
pub use address::named_database;
pub use load::{
    LoadedDatabase, close_database, database_exists, exchange_databases, is_open_database, load, open_database, plan,
    remove_database, rename_database,
};
use session::Session;

/// Roles and tablespaces in a dump's folder.
const GLOBALS: &str = "globals.sql";
/// What a database was made with, in its folder: its name first.
pub const SETTINGS: &str = "settings";
/// The dump of a database, in its folder.
const DUMP: &str = "dump";
/// What belongs to a database as a whole, in its folder: statements, [`properties::NAME`] standing for its
/// name.
const PROPERTIES: &str = "properties";

/// Databases of a PostgreSQL server as a source.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresSpec {
    /// Where the server is, and the database to begin with: a connection string as `libpq` takes it.
    pub dsn: String,
    /// Databases to take; none: the one that `dsn` names.
    pub databases: Vec<String>,
    /// Databases that have another name for the time being: their own names, and those.
    pub renamed: Vec<(String, String)>,
    /// The name that a load gives to the database of a dump; none: its own.
    pub load_as: Option<String>,
    /// Whether a deploy makes roles that are not there.
    pub globals: bool,
    /// A query whose first value is the schema's version, asked in the first database.
    pub version_query: Option<String>,
    /// The newest schema that the application here understands.
    pub schema_version: Option<String>,
    /// Folder of `psql`, `pg_dump` and the others; none: as the system finds them.
    pub bin: Option<PathBuf>,
    /// How long a dump or a load of one database may take.
    pub timeout: Duration,
}

impl fmt::Debug for PostgresSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection string may hold a password.
        formatter.debug_struct("PostgresSpec").field("databases", &self.databases).finish_non_exhaustive()
    }
}

impl PostgresSpec {
    /// A whole server, or a database, by its connection string.
    #[must_use]
    pub fn of_dsn(dsn: &str) -> Self {
        Self {
            dsn: dsn.to_owned(),
            databases: Vec::new(),
            renamed: Vec::new(),
            load_as: None,
            globals: false,
            version_query: None,
            schema_version: None,
            bin: None,
            timeout: Duration::from_secs(4 * 3600),
        }
    }

    /// What a database is called at present.
    fn present_name<'n>(&'n self, name: &'n str) -> &'n str {
        self.renamed.iter().find(|(own, _)| own == name).map_or(name, |(_, present)| present)
    }

    fn program(&self, name: &str) -> String {
        match &self.bin {
            Some(folder) => folder.join(name).display().to_string(),
            None => name.to_owned(),
        }
    }

    /// Runs one of the server's programs on a database; its failure is an error that names the database and
    /// never the connection string.
    fn run(
        &self,
        action: &'static str,
        (database, connect_to): (&str, Option<&str>),
        name: &str,
        arguments: &[&str],
        output: Option<File>,
    ) -> Result<()> {
        // Held to the end: parallel dumps and loads connect again and again.
        let address = Address::of(&self.dsn)?;
        let mut argv =
            vec![self.program(name), "--no-password".into(), format!("--dbname={}", address.text(connect_to))];
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let environment = address.environment();
        let ended = run(Program { argv: &argv, environment: &environment, input: None, output, timeout: self.timeout });
        check(action, database, &ended)
    }
}

fn check(action: &'static str, database: &str, ended: &Ended) -> Result<()> {
    if ended.is_success() {
        return Ok(());
    }
    Err(Error::Database { action, place: format!("the database {database:?}"), detail: ended.sentence() })
}

/// Connections that are ready.
#[derive(Debug)]
pub struct PreparedPostgres {
    spec: PostgresSpec,
    sessions: Vec<(String, Session)>,
}

/// A state of databases, as long as it is held.
#[derive(Debug)]
pub struct PostgresPin {
    spec: PostgresSpec,
    schema_version: Option<String>,
    held: Vec<HeldDatabase>,
}

#[derive(Debug)]
struct HeldDatabase {
    name: String,
    session: Session,
    /// The exported snapshot.
    snapshot: String,
    /// What it was made with, and what was set for it.
    settings: String,
    properties: String,
}

impl PreparedPostgres {
    /// Connects to each database.
    pub fn open(spec: &PostgresSpec) -> Result<Self> {
        let mut names = spec.databases.clone();
        if names.is_empty() {
            let mut first = Session::open(spec, None)?;
            names.push(first.ask("SELECT current_database()")?);
            let name = names[0].clone();
            return Ok(Self { spec: spec.clone(), sessions: vec![(name, first)] });
        }
        let sessions =
            names.into_iter().map(|name| Ok((name.clone(), Session::open(spec, Some(spec.present_name(&name)))?)));
        Ok(Self { spec: spec.clone(), sessions: sessions.collect::<Result<_>>()? })
    }

    /// Pins what is committed now.
    pub fn pin(self) -> Result<PostgresPin> {
        let mut pinned = Vec::new();
        for (name, mut session) in self.sessions {
            session.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
            let snapshot = session.ask("SELECT pg_export_snapshot()")?;
            let (settings, properties) = (String::new(), String::new());
            pinned.push(HeldDatabase { name, session, snapshot, settings, properties });
        }
        Ok(PostgresPin { spec: self.spec, schema_version: None, held: pinned })
    }
}

impl PostgresPin {
    /// Asks for what is wanted besides the data; within the pinned state, after the application goes on.
    pub fn describe(&mut self) -> Result<()> {
        for held in &mut self.held {
            held.settings = held.session.ask(properties::SETTINGS_QUERY)?;
            held.properties = properties::ask(&mut held.session)?;
        }
        if let (Some(query), Some(held)) = (&self.spec.version_query, self.held.first_mut()) {
            self.schema_version = Some(held.session.ask(query)?);
        }
        Ok(())
    }

    /// The schema's version, once described.
    #[must_use]
    pub fn schema_version(&self) -> Option<&str> {
        self.schema_version.as_deref()
    }

    /// The databases.
    pub fn databases(&self) -> impl Iterator<Item = &str> {
        self.held.iter().map(|held| held.name.as_str())
    }

    /// Dumps all databases into a new folder, in parallel, and the globals. Any error is a failure of all.
    pub fn dump(&self, folder: &Path, jobs: usize) -> Result<()> {
        let create = |path: &Path| fs::create_dir(path).map_err(|error| Error::io("creating", path, error));
        create(folder)?;
        let each = (jobs / self.held.len().max(1)).max(1).to_string();
        std::thread::scope(|scope| {
            let globals = scope.spawn(|| {
                let path = folder.join(GLOBALS);
                let dump = |arguments: &[&str]| {
                    let output = File::create(&path).map_err(|error| Error::io("creating", &path, error))?;
                    self.spec.run("dumping", ("globals", None), "pg_dumpall", arguments, Some(output))
                };
                // Who is no superuser may not see the passwords of roles, and sees the rest.
                dump(&["--globals-only"])
                    .or_else(|error| dump(&["--globals-only", "--no-role-passwords"]).map_err(|_| error))
            });
            let dumps: Vec<_> = self
                .held
                .iter()
                .enumerate()
                .map(|(number, HeldDatabase { name, snapshot, settings, properties, .. })| {
                    let (place, each) = (folder.join(format!("{number:04}")), &each);
                    scope.spawn(move || {
                        create(&place)?;
                        let write = |file: &str, text: &str| {
                            let path = place.join(file);
                            fs::write(&path, text).map_err(|error| Error::io("writing", &path, error))
                        };
                        write(SETTINGS, &format!("{name}\u{1f}{settings}"))?;
                        write(PROPERTIES, properties)?;
                        let (to, snapshot) = (place.join(DUMP).display().to_string(), format!("--snapshot={snapshot}"));
                        let (file, jobs) = (format!("--file={to}"), format!("--jobs={each}"));
                        let arguments = ["--format=directory", "--compress=0", &file, &jobs, &snapshot];
                        let present = self.spec.present_name(name);
                        self.spec.run("dumping", (name, Some(present)), "pg_dump", &arguments, None)
                    })
                })
                .collect();
            let died = || {
                Err(Error::Database { action: "dumping", place: "a database".into(), detail: "a thread died".into() })
            };
            let mut outcome = globals.join().unwrap_or_else(|_| died());
            for dump in dumps {
                outcome = outcome.and(dump.join().unwrap_or_else(|_| died()));
            }
            outcome
        })
    }
}

/// The name of a database, as the [`SETTINGS`] of its dump have it.
#[must_use]
pub fn named_in(settings: &str) -> &str {
    settings.split('\u{1f}').next().unwrap_or_default()
}

/// The name of the database that the connection string leads to.
pub fn database_led_to(spec: &PostgresSpec) -> Result<String> {
    Session::open(spec, None)?.ask("SELECT current_database()")
}

/// The schema's version of databases as they stand.
pub fn standing_version(spec: &PostgresSpec) -> Result<Option<String>> {
    match &spec.version_query {
        None => Ok(None),
        Some(query) => Session::open(spec, spec.databases.first().map(String::as_str))?.ask(query).map(Some),
    }
}
