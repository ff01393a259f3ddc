//! The cache of root and label payloads: one redb file for each repository.
//!
//! It saves reading, and nothing rests on it: every entry carries a tag that only the repository's keys make, and what does not
//! verify makes the whole file worthless. A file that another process has open is done without. Readers share the file and sync
//! nothing; only a command that learned of a new snapshot writes. A new file is built beside and renamed into place.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use copal_store::RepositoryId;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::context::Context;

/// Version of everything in the file.
const CACHE_VERSION: u16 = 1;
const FILE_NAME: &str = "state.redb";
/// End of the name of a file that is being built.
const UNFINISHED: &str = ".new";
/// A longer payload is read from the repository each time.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// What redb may hold in memory; a thousand snapshots are one MiB.
const MEMORY_BYTES: usize = 16 << 20;
/// Object (`snapshots/…`, `labels/…`) → [`Record`]; [`META`] → [`Meta`].
const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("catalogue");
const META: &[u8] = b"meta";

/// A payload by the name of its object.
pub(super) type Entries = BTreeMap<String, Cached>;

/// A payload that was opened once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cached {
    /// SHA-256, in hexadecimal.
    pub(super) digest: String,
    pub(super) payload: Vec<u8>,
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

/// Says which repository the file is of.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    version: u16,
    repository: RepositoryId,
}

/// An entry as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    digest: String,
    payload: Vec<u8>,
    /// Over all of it and its key.
    tag: [u8; 32],
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
    let database = builder().open_read_only(path)?;
    let table = database.begin_read()?.open_table(TABLE)?;
    let meta = table.get(META)?.ok_or_else(|| Failure::Damaged("it does not say of which repository it is".into()))?;
    let meta: Meta = decode(meta.value())?;
    if meta.version != CACHE_VERSION {
        return Err(Failure::OtherVersion);
    }
    if meta.repository != context.repository.config().repository {
        return Err(Failure::Damaged(format!("it is of the repository {}", meta.repository)));
    }
    let mut entries = Entries::new();
    for row in table.iter()? {
        let (object, record) = row?;
        if object.value() != META {
            let object = std::str::from_utf8(object.value()).map_err(|_| does_not_verify("an entry"))?;
            entries.insert(object.to_owned(), open_record(context, object, record.value())?);
        }
    }
    Ok(entries)
}

fn update(context: &Context, path: &Path, added: &Entries, gone: &Entries) -> Result<(), Failure> {
    let database = builder().open(path)?;
    write(context, &database, added, gone)
}

/// Beside, then renamed: nobody ever opens half a file, and a damaged one needs no repair.
fn build(context: &Context, path: &Path, entries: &Entries) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    remove_unfinished(folder)?;
    let mut number = [0; 8];
    context.repository.entropy().fill(&mut number).map_err(|error| Failure::Unusable(error.to_string()))?;
    let beside = folder.join(format!("{FILE_NAME}.{}{UNFINISHED}", hex::encode(number)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&beside)?;
    let database = builder().create_file(file)?;
    write(context, &database, entries, &Entries::new())?;
    drop(database);
    Ok(fs::rename(&beside, path)?)
}

/// What a killed process left; one that is at work notices that its file is gone, and does without.
fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
            let removed = fs::remove_file(entry.path());
            removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(())
}

fn write(context: &Context, database: &Database, added: &Entries, gone: &Entries) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TABLE)?;
        let meta = Meta { version: CACHE_VERSION, repository: context.repository.config().repository };
        table.insert(META, encode(&meta)?.as_slice())?;
        for object in gone.keys() {
            table.remove(object.as_bytes())?;
        }
        for (object, cached) in added.iter().filter(|(_, cached)| cached.payload.len() <= PAYLOAD_BYTES_MAX) {
            let tag = tag_of(context, object, &cached.digest, &cached.payload);
            let record = Record { digest: cached.digest.clone(), payload: cached.payload.clone(), tag };
            table.insert(object.as_bytes(), encode(&record)?.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

fn open_record(context: &Context, object: &str, bytes: &[u8]) -> Result<Cached, Failure> {
    let Record { digest, payload, tag } = decode(bytes)?;
    if tag != tag_of(context, object, &digest, &payload) {
        return Err(does_not_verify(object));
    }
    Ok(Cached { digest, payload })
}

/// Neither an object's name nor a digest has a zero byte, so no two inputs are spelled alike.
fn tag_of(context: &Context, object: &str, digest: &str, payload: &[u8]) -> [u8; 32] {
    let bytes = [b"catalogue", object.as_bytes(), digest.as_bytes(), payload].join(&0);
    context.repository.keys().local_state_tag(&bytes)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(MEMORY_BYTES);
    builder
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    copal_store::codec::encode(value).map_err(|error| Failure::Unusable(error.to_string()))
}

fn decode<T: Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    copal_store::codec::decode("an entry", bytes).map_err(|error| Failure::Damaged(error.to_string()))
}

fn does_not_verify(what: &str) -> Failure {
    Failure::Damaged(format!("{what} does not verify"))
}

/// redb does not check the pages that it reads, and panics at bytes that cannot be.
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
