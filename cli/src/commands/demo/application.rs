//! The sample application: a SQLite database and a bucket of objects, both made from a seed, with changes as
//! an application makes them.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::exit_code::ProgramError;

/// Objects in the bucket at first.
const OBJECTS: u64 = 400;
/// Largest object.
const OBJECT_BYTES_MAX: u64 = 96 << 10;
/// Length of a row's payload, about a quarter of a page.
const ROW_BYTES: u64 = 1000;

/// The application and its state.
#[derive(Debug)]
pub(super) struct Application {
    folder: PathBuf,
    random: Random,
    rows: u64,
}

impl Application {
    /// Makes it with a database of about so many bytes.
    pub(super) fn make(folder: &Path, seed: u64, database_bytes: u64) -> anyhow::Result<Self> {
        let mut application = Self { folder: folder.to_owned(), random: Random(seed), rows: 0 };
        write(&folder.join("bucket"), |path| fs::create_dir_all(path))?;
        for number in 0..OBJECTS {
            application.put_object(number)?;
        }
        let database = application.open()?;
        database
            .execute_batch("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, payload BLOB NOT NULL)")?;
        application.insert(&database, database_bytes / (ROW_BYTES + 40))?;
        close(database)?;
        Ok(application)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A day's work: one row in a hundred, some objects.
    pub(super) fn change(&mut self) -> anyhow::Result<String> {
        let changed = self.rows / 100;
        let mut database = self.open()?;
        let transaction = database.transaction()?;
        for _ in 0..changed {
            let id = i64::try_from(self.random.below(self.rows) + 1)?;
            let payload = self.random.bytes(ROW_BYTES);
            transaction.execute("UPDATE item SET payload = ?1 WHERE id = ?2", (payload, id))?;
        }
        transaction.commit()?;
        close(database)?;
        for number in OBJECTS..OBJECTS + 5 {
            self.put_object(number)?;
        }
        for number in 0..5 {
            let path = self.object(number);
            write(&path, |path| fs::remove_file(path))?;
        }
        self.put_object(17)?;
        Ok(format!("{changed} of {} rows, 5 objects more, 5 less, 1 rewritten", self.rows))
    }

    /// What hurts deduplication most: rows removed, the database packed anew, objects moved.
    pub(super) fn reorganise(&mut self) -> anyhow::Result<String> {
        let database = self.open()?;
        let removed = database.execute("DELETE FROM item WHERE id % 10 = 3", ())?;
        self.insert(&database, self.rows / 20)?;
        database.execute_batch("VACUUM")?;
        close(database)?;
        let archive = self.folder.join("bucket/archive");
        write(&archive, |path| fs::create_dir_all(path))?;
        for number in 100..150 {
            let (from, to) = (self.object(number), archive.join(number.to_string()));
            write(&from, |from| fs::rename(from, &to))?;
        }
        Ok(format!("{removed} rows removed, others added, VACUUM, 50 objects moved"))
    }

    fn insert(&mut self, database: &Connection, rows: u64) -> anyhow::Result<()> {
        let transaction = database.unchecked_transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO item (name, payload) VALUES (?1, ?2)")?;
            for _ in 0..rows {
                self.rows += 1;
                insert.execute((format!("item {}", self.rows), self.random.bytes(ROW_BYTES)))?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn open(&self) -> anyhow::Result<Connection> {
        Ok(Connection::open(self.folder.join("hub.db"))?)
    }

    fn object(&self, number: u64) -> PathBuf {
        self.folder.join(format!("bucket/{:02x}/{number:06}", number % 16))
    }

    fn put_object(&mut self, number: u64) -> anyhow::Result<()> {
        let path = self.object(number);
        let bytes = self.random.below(OBJECT_BYTES_MAX);
        let content = self.random.bytes(bytes);
        if let Some(folder) = path.parent() {
            write(folder, |folder| fs::create_dir_all(folder))?;
        }
        Ok(write(&path, |path| fs::write(path, content))?)
    }
}

fn close(database: Connection) -> anyhow::Result<()> {
    database.close().map_err(|(_, error)| error.into())
}

fn write(path: &Path, act: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), ProgramError> {
    act(path).map_err(|error| ProgramError::file("making", path, error))
}

/// Rows of a deployed database, after SQLite's own check of it.
pub(super) fn checked_rows(folder: &Path) -> anyhow::Result<u64> {
    let database = Connection::open_with_flags(folder.join("hub.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let verdict: String = database.query_row("PRAGMA integrity_check", (), |row| row.get(0))?;
    if verdict != "ok" {
        return Err(ProgramError::Demonstration(format!("SQLite finds the deployed database broken: {verdict}")).into());
    }
    let rows: i64 = database.query_row("SELECT count(*) FROM item", (), |row| row.get(0))?;
    close(database)?;
    Ok(u64::try_from(rows)?)
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same data from the same seed, and nothing secret.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Half noise, half words, as data are.
    fn bytes(&mut self, length: u64) -> Vec<u8> {
        const WORDS: [&[u8]; 8] =
            [b"amber ", b"resin ", b"forest ", b"insect ", b"snapshot ", b"copal ", b"tree ", b"2026-11-21 "];
        let length = usize::try_from(length).unwrap_or(0);
        let mut bytes = Vec::with_capacity(length + 16);
        while bytes.len() < length {
            let number = self.next();
            if bytes.len() < length / 2 {
                bytes.extend(number.to_le_bytes());
            } else {
                bytes.extend(WORDS[number as usize % WORDS.len()]);
            }
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::compare::Fingerprint;
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_application_and_changes_change_it() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, seed| Application::make(&folder.path().join(name), seed, 1 << 20).unwrap();
        let (mut a, b, c) = (make("a", 1), make("b", 1), make("c", 2));
        let look = |application: &Application| Fingerprint::of(application.folder()).unwrap();
        assert_eq!(look(&a).contents(), look(&b).contents());
        assert_ne!(look(&a).contents(), look(&c).contents());
        let before = look(&a);
        a.change().unwrap();
        assert_ne!(look(&a).contents(), before.contents());
        let rows = checked_rows(a.folder()).unwrap();
        a.reorganise().unwrap();
        assert!(checked_rows(a.folder()).unwrap() != rows);
    }
}
