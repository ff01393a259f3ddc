//! The cache of root and label payloads: one redb file for each repository.
//!
//! It saves reading, and nothing rests on it: its seal is one that only the repository's keys make, and where
//! that does not hold the whole file is worthless. A file that another process has is done without. Readers
//! share the file and sync nothing; only a command that learned of a new snapshot writes. A new file is built
//! beside and renamed into place.

mod seal;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use copal_store::signing::SignerId;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::catalogue::cache::seal::Sharing;
use crate::context::Context;

/// Version of everything in the file.
const CACHE_VERSION: u16 = 3;
const FILE_NAME: &str = "state.redb";
/// A longer payload is read from the repository each time.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// What redb may hold in memory; a thousand snapshots are one MiB.
const MEMORY_BYTES: usize = 16 << 20;
/// Object (`snapshots/…`, `labels/…`) → [`Cached`].
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("catalogue");

/// A payload by the name of its object.
pub(super) type Entries = BTreeMap<String, Cached>;

/// A payload that was opened once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cached {
    /// SHA-256, in hexadecimal.
    pub(super) digest: String,
    pub(super) payload: Vec<u8>,
    /// Of a root.
    pub(super) signer: Option<SignerId>,
    /// The change of keys, by its number, before which the signer was read: a later one may have signed the
    /// root again.
    pub(super) seen: u32,
}

/// What was found.
pub(super) struct CacheRead {
    pub(super) entries: Entries,
    pub(super) state: CacheState,
}

impl CacheRead {
    /// Of no cache.
    pub(super) fn none() -> Self {
        Self { entries: Entries::new(), state: CacheState::Unusable }
    }
}

/// What [`keep`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheState {
    /// Nothing: there is none, or another process has it.
    Unusable,
    /// Write the differences.
    Sound,
    /// Build it anew.
    Absent,
}

/// Why there is nothing to be had from a file.
enum Failure {
    Missing,
    /// Another process has it.
    Busy,
    /// Of another version of the program: no damage.
    OtherVersion,
    Damaged(String),
    Unusable(String),
}

/// Reads everything that the cache knows. Says so when what should be there is not.
pub(super) fn read(context: &Context, has_snapshots: bool) -> CacheRead {
    let Some(path) = path_of(context) else { return CacheRead::none() };
    let shown = path.display();
    match caught(|| read_file(context, &path)) {
        Ok(entries) => return CacheRead { entries, state: CacheState::Sound },
        Err(Failure::Busy) => return CacheRead::none(),
        Err(Failure::Unusable(detail)) => {
            context.monitor.notice(&format!("the cache {shown} cannot be used: {detail}"));
            return CacheRead::none();
        }
        Err(Failure::Damaged(detail)) => {
            context.monitor.notice(&format!("the cache {shown} is damaged and is made anew: {detail}"));
        }
        Err(Failure::Missing) if has_snapshots => {
            context.monitor.notice(&format!("the cache {shown} is missing and is made anew"));
        }
        Err(Failure::Missing | Failure::OtherVersion) => {}
    }
    CacheRead { entries: Entries::new(), state: CacheState::Absent }
}

/// Adds what was read and removes what is gone. A failure costs time later, nothing else.
pub(super) fn keep(context: &Context, state: CacheState, added: &Entries, gone: &Entries) {
    let Some(path) = path_of(context) else { return };
    let kept = match state {
        CacheState::Unusable => return,
        CacheState::Sound if added.is_empty() && gone.is_empty() => return,
        CacheState::Sound => caught(|| update(context, &path, added, gone)),
        CacheState::Absent => caught(|| build(context, &path, added)),
    };
    if let Err(Failure::Damaged(detail) | Failure::Unusable(detail)) = kept {
        context.monitor.notice(&format!("the cache {} cannot be written: {detail}", path.display()));
    }
}

fn path_of(context: &Context) -> Option<PathBuf> {
    let repository = context.repository.config().repository;
    context.cache_folder.as_ref().map(|folder| folder.join(repository.to_string()).join(FILE_NAME))
}

fn read_file(context: &Context, path: &Path) -> Result<Entries, Failure> {
    let _locked = seal::lock(path, Sharing::Readers)?;
    seal::check(context, path)?;
    let database = builder().open_read_only(path)?;
    let table = database.begin_read()?.open_table(TABLE)?;
    let mut entries = Entries::new();
    for row in table.iter()? {
        let (object, cached) = row?;
        let object = String::from_utf8(object.value().to_vec()).map_err(|error| Failure::Damaged(error.to_string()))?;
        let cached = copal_store::codec::decode(&object, cached.value());
        entries.insert(object, cached.map_err(|error| Failure::Damaged(error.to_string()))?);
    }
    Ok(entries)
}

fn update(context: &Context, path: &Path, added: &Entries, gone: &Entries) -> Result<(), Failure> {
    let _locked = seal::lock(path, Sharing::Alone)?;
    // Another process may have written since it was read.
    seal::check(context, path)?;
    let database = builder().open(path)?;
    seal::break_seal(path)?;
    write(&database, added, gone)?;
    drop(database);
    seal::seal(context, path)
}

/// Beside, then renamed: nobody ever opens half a file, and a damaged one needs no repair.
fn build(context: &Context, path: &Path, entries: &Entries) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let _locked = seal::lock(path, Sharing::Alone)?;
    let beside = path.with_extension("new");
    remove_if_there(&beside)?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
    let database = builder().create_file(file)?;
    write(&database, entries, &Entries::new())?;
    drop(database);
    seal::break_seal(path)?;
    fs::rename(&beside, path)?;
    seal::seal(context, path)
}

fn write(database: &Database, added: &Entries, gone: &Entries) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        for object in gone.keys() {
            table.remove(object.as_bytes())?;
        }
        for (object, cached) in added.iter().filter(|(_, cached)| cached.payload.len() <= PAYLOAD_BYTES_MAX) {
            let bytes = copal_store::codec::encode(cached).map_err(|error| Failure::Unusable(error.to_string()))?;
            table.insert(object.as_bytes(), bytes.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

/// What a killed process left is in nobody's hands: the lock says so.
fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(MEMORY_BYTES);
    builder
}

/// redb panics at pages that cannot be. The seal keeps such pages from it, but no cache is worth a command.
fn caught<T>(act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(Failure::Damaged("its pages contradict each other".into())))
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Unusable(error.to_string()),
        }
    }
}

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Busy,
            redb::Error::Io(error) => error.into(),
            redb::Error::RepairAborted => Self::Damaged("it was not closed, or is cut off".into()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// redb has an error type for each of its types; one of them holds all.
macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);
