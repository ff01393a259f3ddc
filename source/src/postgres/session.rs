//! A conversation with the server: `psql` held open, one statement at a time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::PostgresSpec;
use super::address::Address;
use crate::process::command;
use crate::{Error, Result};

/// Ends the answer to a statement; no value of ours is this.
const END: &str = "\u{1}copal-end\u{1}";

/// What the server ends by itself after a time: a state is held for as long as its dump takes. Not every
/// version has each.
const WITHOUT_TIMEOUTS: &str = "SELECT count(set_config(name, '0', false)) FROM pg_settings WHERE name IN \
    ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')";

/// An open session. It ends, and lets go of what it held, when dropped.
#[derive(Debug)]
pub(super) struct Session {
    database: String,
    /// For as long as the program may ask for its password.
    _address: Address,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Connects to a database, or to the one that the connection string names.
    pub(super) fn open(spec: &PostgresSpec, database: Option<&str>) -> Result<Self> {
        let name = database.unwrap_or("of the connection string").to_owned();
        let failed = |detail: String| Error::Database {
            action: "connecting to",
            place: format!("the database {name:?}"),
            detail,
        };
        let address = Address::of(&spec.dsn)?;
        let argv: Vec<String> = [
            spec.program("psql").as_str(),
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--set=ON_ERROR_STOP=1",
            &format!("--dbname={}", address.text(database)),
        ]
        .map(ToOwned::to_owned)
        .to_vec();
        let mut child = command(&argv)
            .ok_or_else(|| failed("psql has no name".into()))?
            .envs(address.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("psql: {error}")))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("psql has no pipes".into()));
        };
        let mut session =
            Self { database: name, _address: address, child, input: Some(input), output: BufReader::new(output) };
        session.ask(WITHOUT_TIMEOUTS)?;
        Ok(session)
    }

    /// Asks one statement; returns its first value, without the end of the line. A failure ends the session.
    pub(super) fn ask(&mut self, statement: &str) -> Result<String> {
        self.tell(&statement.trim().trim_end_matches(';').replace('\n', " "))
    }

    /// The same, with the ends of lines that are in it.
    pub(super) fn tell(&mut self, line: &str) -> Result<String> {
        let asked = match &mut self.input {
            Some(input) => {
                input.write_all(format!("{line};\n\\echo '{END}'\n").as_bytes()).and_then(|()| input.flush())
            }
            None => Ok(()),
        };
        let mut answer = Vec::new();
        let mut complete = false;
        while asked.is_ok() {
            let mut text = String::new();
            match self.output.read_line(&mut text) {
                Ok(read) if read > 0 && text.trim_end() == END => {
                    complete = true;
                    break;
                }
                Ok(read) if read > 0 => answer.push(text.trim_end_matches('\n').to_owned()),
                _ => break,
            }
        }
        if complete {
            return Ok(answer.into_iter().next().unwrap_or_default());
        }
        self.input = None;
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            // What cannot be read is only missing from the message.
            let _ = std::io::Read::read_to_string(&mut errors, &mut said);
        }
        let place = format!("the database {:?}", self.database);
        Err(Error::Database { action: "asking", place, detail: in_one_line(&said) })
    }
}

/// All that was said, but for where the password came from: that file is ours, and gone.
fn in_one_line(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let told: Vec<&str> = lines.filter(|line| !line.starts_with("password retrieved from file")).collect();
    if told.is_empty() { "the session ended".into() } else { told.join("; ") }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
