//! Loads dumps: a new database beside the one that stands there, then an exchange of names.

use std::fs;
use std::path::{Path, PathBuf};

use super::properties::{NAME, NEXT};
use super::session::Session;
use super::{DUMP, GLOBALS, PROPERTIES, PostgresSpec, SETTINGS};
use crate::{Error, Result};

/// Longest name of a database in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Where a server puts what names no tablespace.
const USUAL_TABLESPACE: &str = "pg_default";

/// A database that was loaded under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedDatabase {
    /// The name that it shall have.
    pub name: String,
    /// The name that it has.
    pub staged: String,
    /// The name that the one that stands there gets meanwhile.
    pub aside: String,
}

/// Which databases a dump's folder has, and the names that they get meanwhile, which end with `mark`.
pub fn plan(spec: &PostgresSpec, folder: &Path, mark: &str) -> Result<Vec<LoadedDatabase>> {
    let places = databases_in(folder)?;
    if let (Some(name), 2..) = (&spec.load_as, places.len()) {
        let held = places.iter().map(|place| Ok(Settings::read(place)?.name)).collect::<Result<Vec<_>>>()?;
        return Err(Error::Database {
            action: "loading",
            place: format!("the database {name:?}"),
            detail: format!(
                "the snapshot has {} of them, {}: deploy it as an application",
                held.len(),
                held.join(", ")
            ),
        });
    }
    let named = |(number, place): (usize, PathBuf)| {
        let name = spec.load_as.clone().map_or_else(|| Ok(Settings::read(&place)?.name), Ok)?;
        if name.len() > NAME_BYTES_MAX {
            let detail = format!("its name has {} bytes, and PostgreSQL keeps {NAME_BYTES_MAX} of them", name.len());
            return Err(Error::Database { action: "loading", place: format!("the database {name:?}"), detail });
        }
        let (staged, aside) = (marked(&name, mark, number, "new"), marked(&name, mark, number, "old"));
        Ok(LoadedDatabase { name, staged, aside })
    };
    places.into_iter().enumerate().map(named).collect()
}

/// Loads every database of a dump's folder under the name that [`plan`] gave it. Any error is a failure; what
/// was made stays.
pub fn load(spec: &PostgresSpec, folder: &Path, mark: &str, jobs: usize) -> Result<()> {
    if spec.globals {
        make_roles(spec, &folder.join(GLOBALS))?;
    }
    databases_in(folder)?
        .iter()
        .zip(plan(spec, folder, mark)?)
        .try_for_each(|(place, names)| load_one(spec, place, &names, jobs))
}

/// What a database is made with; dumps of before have the first five.
struct Settings {
    name: String,
    owner: String,
    encoding: String,
    collate: String,
    ctype: String,
    provider: String,
    locale: String,
    rules: String,
    tablespace: String,
}

impl Settings {
    fn read(place: &Path) -> Result<Self> {
        let path = place.join(SETTINGS);
        let text = fs::read_to_string(&path).map_err(|error| Error::io("reading", &path, error))?;
        let mut fields: Vec<String> = text.split('\u{1f}').map(ToOwned::to_owned).collect();
        if fields.len() == 5 {
            fields.resize(9, String::new());
        }
        let [name, owner, encoding, collate, ctype, provider, locale, rules, tablespace] =
            <[String; 9]>::try_from(fields).map_err(|_| Error::Corrupt {
                place: path.display().to_string(),
                detail: "it has other fields".into(),
            })?;
        Ok(Self { name, owner, encoding, collate, ctype, provider, locale, rules, tablespace })
    }

    /// The statement that makes it under another name. A tablespace that is not on this server is left to the
    /// server, and so is its usual one, which not everybody may name.
    fn creation(&self, name: &str, has_tablespace: bool) -> String {
        let mut statement = format!(
            "CREATE DATABASE {} OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {} TEMPLATE template0",
            quoted(name),
            quoted(&self.owner),
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype)
        );
        match self.provider.as_str() {
            "i" => statement.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(&self.locale))),
            "b" => statement.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {}", literal(&self.locale))),
            _ => {}
        }
        if !self.rules.is_empty() {
            statement.push_str(&format!(" ICU_RULES {}", literal(&self.rules)));
        }
        if has_tablespace && self.tablespace != USUAL_TABLESPACE {
            statement.push_str(&format!(" TABLESPACE {}", quoted(&self.tablespace)));
        }
        statement
    }
}

/// What was set for it, said again for the name that it has meanwhile.
fn set_properties(server: &mut Session, place: &Path, staged: &str) -> Result<()> {
    let path = place.join(PROPERTIES);
    let statements = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Dumps of before have none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("reading", &path, error)),
    };
    statements
        .split(NEXT)
        .filter(|statement| !statement.is_empty())
        .try_for_each(|statement| server.tell(&statement.replace(NAME, &quoted(staged))).map(drop))
}

fn databases_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("listing", folder, error);
    let mut places = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            places.push(path);
        }
    }
    places.sort();
    Ok(places)
}

fn load_one(spec: &PostgresSpec, place: &Path, names: &LoadedDatabase, jobs: usize) -> Result<()> {
    let settings = Settings::read(place)?;
    remove_database(spec, &names.staged)?;
    let mut server = Session::open(spec, Some("postgres"))?;
    let tablespace = literal(&settings.tablespace);
    let known = server.ask(&format!("SELECT count(*) FROM pg_tablespace WHERE spcname = {tablespace}"))?;
    server.ask(&settings.creation(&names.staged, known.trim() == "1"))?;
    let (jobs, dump) = (format!("--jobs={jobs}"), place.join(DUMP).display().to_string());
    let arguments = ["--exit-on-error", &jobs, &dump];
    spec.run("loading", (&names.name, Some(&names.staged)), "pg_restore", &arguments, None)?;
    // Last: what is set for a database may forbid to load it.
    set_properties(&mut server, place, &names.staged)
}

/// A name that only Copal gives, within what the server keeps of it: its number tells databases apart whose
/// names begin alike.
fn marked(name: &str, mark: &str, number: usize, what: &str) -> String {
    let suffix = match number {
        0 => format!("_copal_{what}_{mark}"),
        _ => format!("_{number}_copal_{what}_{mark}"),
    };
    let mut kept = name.len().min(NAME_BYTES_MAX.saturating_sub(suffix.len()));
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}{suffix}", &name[..kept])
}

/// Gives a database another name; who is connected to it is disconnected, and whoever knows the new name can
/// connect. One that is not there is no error: false.
pub fn rename_database(spec: &PostgresSpec, from: &str, to: &str) -> Result<bool> {
    let mut server = Session::open(spec, Some("postgres"))?;
    if !exists(&mut server, from)? {
        return Ok(false);
    }
    disconnect(&mut server, from)?;
    server.ask(&renaming(from, to))?;
    server.ask(&connections(to, true))?;
    Ok(true)
}

/// Gives a loaded database the name of the one that stands there, which is called `aside` from then on. Both
/// happen at once, so that nobody makes a database of that name in between. Nobody can connect to the new one
/// before it is opened, and nobody who knows only the old name to the old one: what is in it stays as it is.
/// False: there was none of that name, and nothing was done.
pub fn exchange_databases(spec: &PostgresSpec, database: &LoadedDatabase) -> Result<bool> {
    let LoadedDatabase { name, staged, aside } = database;
    let mut server = Session::open(spec, Some("postgres"))?;
    if !exists(&mut server, name)? {
        return Ok(false);
    }
    disconnect(&mut server, name)?;
    server.ask(&connections(staged, false))?;
    for statement in ["BEGIN", &renaming(name, aside), &renaming(staged, name), "COMMIT"] {
        server.ask(statement)?;
    }
    server.ask(&connections(aside, true))?;
    Ok(true)
}

/// Lets everybody connect to a database who may.
pub fn open_database(spec: &PostgresSpec, name: &str) -> Result<()> {
    Session::open(spec, Some("postgres"))?.ask(&connections(name, true)).map(drop)
}

/// Lets nobody connect to a database.
pub fn close_database(spec: &PostgresSpec, name: &str) -> Result<()> {
    Session::open(spec, Some("postgres"))?.ask(&connections(name, false)).map(drop)
}

/// Whether there is such a database, and it takes connections.
pub fn is_open_database(spec: &PostgresSpec, name: &str) -> Result<bool> {
    let mut server = Session::open(spec, Some("postgres"))?;
    let question = format!("SELECT count(*) FROM pg_database WHERE datallowconn AND datname = {}", literal(name));
    Ok(server.ask(&question)?.trim() == "1")
}

/// Ends all sessions of a database; there are no new ones until it is opened again.
fn disconnect(server: &mut Session, name: &str) -> Result<()> {
    server.ask(&connections(name, false))?;
    // What the server itself does there makes way for a new name, and not everybody may end it: it is of no
    // user.
    let sessions = format!(
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
         WHERE usesysid IS NOT NULL AND datname = {}",
        literal(name)
    );
    server.ask(&sessions).map(drop)
}

fn connections(name: &str, allowed: bool) -> String {
    format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {allowed}", quoted(name))
}

fn renaming(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", quoted(from), quoted(to))
}

/// Removes a database; one that is not there is no error.
pub fn remove_database(spec: &PostgresSpec, name: &str) -> Result<()> {
    let mut server = Session::open(spec, Some("postgres"))?;
    let template = format!("SELECT count(*) FROM pg_database WHERE datistemplate AND datname = {}", literal(name));
    if server.ask(&template)?.trim() == "1" {
        // The server removes no template.
        server.ask(&format!("ALTER DATABASE {} WITH IS_TEMPLATE false", quoted(name)))?;
    }
    server.ask(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name))).map(drop)
}

/// Whether there is such a database.
pub fn database_exists(spec: &PostgresSpec, name: &str) -> Result<bool> {
    exists(&mut Session::open(spec, Some("postgres"))?, name)
}

fn exists(server: &mut Session, name: &str) -> Result<bool> {
    let count = server.ask(&format!("SELECT count(*) FROM pg_database WHERE datname = {}", literal(name)))?;
    Ok(count.trim() == "1")
}

/// Makes the roles of a dump of globals that are not there; what is there stays as it is.
fn make_roles(spec: &PostgresSpec, globals: &Path) -> Result<()> {
    let text = fs::read_to_string(globals).map_err(|error| Error::io("reading", globals, error))?;
    let mut server = Session::open(spec, Some("postgres"))?;
    let mut made = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("CREATE ROLE ") else {
            // Attributes and memberships of roles that were made here.
            let is_of_new = made.iter().any(|role: &String| {
                line.starts_with(&format!("ALTER ROLE {role} ")) || line.starts_with(&format!("GRANT {role} "))
            });
            if is_of_new {
                server.ask(line)?;
            }
            continue;
        };
        let role = rest.trim_end_matches(';').to_owned();
        let name = role.trim_matches('"').replace("\"\"", "\"");
        let count = server.ask(&format!("SELECT count(*) FROM pg_roles WHERE rolname = {}", literal(&name)))?;
        if count.trim() == "0" {
            server.ask(line)?;
            made.push(role);
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn d09_databases_whose_names_begin_alike_are_told_apart() {
        let long = "n".repeat(60);
        let names = [format!("{long}aaa"), format!("{long}bbb"), "ö".repeat(31)];
        let given = names.iter().enumerate();
        let marked: BTreeSet<String> = given.map(|(at, name)| marked(name, "0123456789ab", at, "new")).collect();
        assert_eq!(marked.len(), names.len(), "{marked:?}");
        assert!(marked.iter().all(|name| name.len() <= NAME_BYTES_MAX), "{marked:?}");
    }
}
