//! SQLite databases, through SQLite only: a read transaction pins the state in an instant, its pages are read
//! afterwards while writers go on. Rows in the write-ahead log are part of that state.
//!
//! Every reading connection has a transaction of its own. They begin one after the other, and see the same
//! state if nobody has committed meanwhile, which another connection tells; no lock of a writer is asked for.
//! Where writers leave no such moment one connection reads alone. The main file is never read but by SQLite.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::read::{Attribute, OpenFile, PinnedBytes, TreeReader};
use crate::scan::{FileKind, FileStat, FileTime};
use crate::{Error, Result};

/// Page cache of one reading connection: each page is read once.
const READER_CACHE_KIB: i64 = 256;
/// How the pages are asked for.
const READ_PAGE: &str = "SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1";
/// A log begins so, but for its last bit, which tells the order of bytes.
const WAL_MAGIC: [u8; 4] = [0x37, 0x7f, 0x06, 0x82];
/// A rollback journal begins so.
const JOURNAL_MAGIC: [u8; LOG_MAGIC_BYTES] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// So often all readers begin, as long as somebody commits between the first and the last of them.
const BEGINNINGS_MAX: usize = 50;
/// Bytes that tell a log from other files.
pub const LOG_MAGIC_BYTES: usize = 8;
/// What stands beside a database.
pub const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Those that can hold rows which the database's file has not.
pub const LOGS: [&str; 2] = ["-wal", "-journal"];
/// What a database begins with.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A SQLite database as a source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SqliteSpec {
    /// The database file.
    pub path: PathBuf,
    /// A query whose first value is the schema's version; none: `PRAGMA user_version`.
    pub version_query: Option<String>,
    /// The newest schema that the application here understands; none: that of the database that stands there.
    pub schema_version: Option<String>,
    /// How the database is checked.
    pub check: Check,
}

/// How much is checked before a capture counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Check {
    /// `PRAGMA quick_check`: every page, but not that indexes agree with their tables.
    #[default]
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
    /// Only what reading meets.
    None,
}

/// Connections that are ready: what takes time has been done before the application holds still.
#[derive(Debug)]
pub struct PreparedSqlite {
    spec: SqliteSpec,
    stat: FileStat,
    attributes: Vec<Attribute>,
    /// Tells whether somebody has committed.
    witness: Connection,
    readers: Vec<Connection>,
}

/// A state of a database, as long as it is held.
pub struct SqlitePin {
    path: PathBuf,
    stat: FileStat,
    attributes: Vec<Attribute>,
    page_bytes: u64,
    schema_version: String,
    is_wal: bool,
    check: Check,
    idle: Mutex<Vec<Connection>>,
    freed: Condvar,
    /// Of one that was met: to close another descriptor of a file drops the locks that SQLite has on it, so
    /// it is closed last.
    _file: Option<OpenFile>,
}

impl PreparedSqlite {
    /// Opens the database with so many readers. `patience` is for who else holds it.
    pub fn open(spec: &SqliteSpec, readers: usize, patience: Duration) -> Result<Self> {
        let path = &spec.path;
        let found = fs::metadata(path).map_err(|error| Error::io("looking at", path, error))?;
        if !found.is_file() {
            return Err(Error::refused(path, "is no database file"));
        }
        let attributes = TreeReader::open(path)?.attributes(&[])?;
        let witness = connect(path, patience)?;
        let readers = (0..readers.max(1)).map(|_| connect(path, patience)).collect::<Result<Vec<_>>>()?;
        // Opens the files and reads the schema, so that a database that is none is refused here.
        for connection in readers.iter().chain([&witness]) {
            connection
                .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
                .map_err(|error| of_sqlite("opening", path, &error))?;
        }
        Ok(Self { spec: spec.clone(), stat: stat_of(path, 0)?, attributes, witness, readers })
    }

    /// Pins the state that is committed now.
    pub fn pin(self) -> Result<SqlitePin> {
        let Self { spec, stat, attributes, witness, mut readers } = self;
        let path = &spec.path;
        let failed = |error: &rusqlite::Error| of_sqlite("pinning", path, error);
        begin_together(&witness, &mut readers).map_err(|error| failed(&error))?;
        drop(witness);
        held(spec, stat, attributes, readers)
    }

    /// Pins a database that was met among the files below `root`, as it is committed now; nothing of it is
    /// written, and nobody is waited for. The file must be the one that is open: names are in others' hands.
    pub fn pin_met(root: &Path, relative: &[u8], file: &OpenFile) -> Result<SqlitePin> {
        let root = fs::canonicalize(root).map_err(|error| Error::io("looking for", root, error))?;
        let path = if relative.is_empty() { root } else { root.join(OsStr::from_bytes(relative)) };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let failed = |error: &rusqlite::Error| of_sqlite("reading", &path, error);
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let reader = Connection::open_with_flags(uri_of(&path), flags).map_err(|error| failed(&error))?;
        configure(&reader, Duration::ZERO, true).and_then(|()| begin(&reader)).map_err(|error| failed(&error))?;
        if !is_open_twice(file)? {
            return Err(Error::refused(path, "was replaced while it was opened"));
        }
        let found = file.own_stat()?;
        let stat = FileStat { inode: 0, changed: FileTime::default(), ..found };
        let spec = SqliteSpec { path, check: Check::None, ..SqliteSpec::default() };
        let pin = held(spec, stat, file.attributes()?, vec![reader])?;
        Ok(SqlitePin { _file: Some(file.clone()), ..pin })
    }
}

fn held(spec: SqliteSpec, stat: FileStat, attributes: Vec<Attribute>, readers: Vec<Connection>) -> Result<SqlitePin> {
    let failed = |error: &rusqlite::Error| of_sqlite("pinning", &spec.path, error);
    let first = &readers[0];
    let ask = |pragma: &str| {
        first
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
            .map_err(|error| failed(&error))
    };
    let page_bytes = ask("page_size")?;
    let bytes = page_bytes * ask("page_count")?;
    let mode: String =
        first.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(|error| failed(&error))?;
    Ok(SqlitePin {
        schema_version: schema_version(first, &spec)?,
        path: spec.path,
        stat: FileStat { bytes, allocated_bytes: bytes, ..stat },
        attributes,
        page_bytes,
        is_wal: mode.eq_ignore_ascii_case("wal"),
        check: spec.check,
        idle: Mutex::new(readers),
        freed: Condvar::new(),
        _file: None,
    })
}

/// Whether this process has the file open a second time, SQLite's own descriptor being the other.
fn is_open_twice(file: &OpenFile) -> Result<bool> {
    let listing = Path::new("/proc/self/fd");
    let failed = |error| Error::io("listing", listing, error);
    let identity = |found: &fs::Metadata| (found.dev(), found.ino());
    let Some(fd) = file.fd() else { return Ok(false) };
    let own = fs::metadata(listing.join(fd.as_raw_fd().to_string())).map_err(failed)?;
    // What was closed meanwhile is none of ours.
    let open = fs::read_dir(listing).map_err(failed)?.flatten().filter_map(|entry| fs::metadata(entry.path()).ok());
    Ok(open.filter(|found| identity(found) == identity(&own)).count() > 1)
}

/// Begins a transaction in each reader, all of one state, or in the first one alone: the others are closed
/// then.
fn begin_together(witness: &Connection, readers: &mut Vec<Connection>) -> rusqlite::Result<()> {
    let Some((first, others)) = readers.split_first() else { return Ok(()) };
    // Who waits for the first one to end would wait for ever: with a rollback journal a writer lets nobody in
    // before it.
    others.iter().try_for_each(|reader| reader.busy_timeout(Duration::ZERO))?;
    for _ in 0..BEGINNINGS_MAX {
        let before = commits_seen(witness)?;
        begin(first)?;
        let all = others.iter().try_for_each(begin);
        // Asked with all transactions open: a commit after this is in none of them.
        if all.is_ok() && commits_seen(witness).is_ok_and(|now| now == before) {
            return Ok(());
        }
        readers_end(others);
        if all.is_err() {
            break;
        }
        first.execute_batch("ROLLBACK")?;
    }
    if first.is_autocommit() {
        begin(first)?;
    }
    readers.truncate(1);
    Ok(())
}

/// A number that is another one when another connection has committed meanwhile.
fn commits_seen(witness: &Connection) -> rusqlite::Result<i64> {
    witness.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// A transaction has its state from its first read on.
fn begin(reader: &Connection) -> rusqlite::Result<()> {
    reader.execute_batch("BEGIN")?;
    reader.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

fn readers_end(readers: &[Connection]) {
    for reader in readers.iter().filter(|reader| !reader.is_autocommit()) {
        // One that cannot is closed with its transaction.
        let _ = reader.execute_batch("ROLLBACK");
    }
}

/// A connection that changes nothing by being there: a log that stands there is not emptied when it closes.
/// Without one the files that it makes for itself go with it.
fn connect(path: &Path, patience: Duration) -> Result<Connection> {
    connect_with(path, OpenFlags::empty(), patience)
}

/// The same for a database in a target: no link is followed, neither in its place nor above it.
fn connect_in_place(path: &Path, patience: Duration) -> Result<Connection> {
    connect_with(path, OpenFlags::SQLITE_OPEN_NOFOLLOW, patience)
}

fn connect_with(path: &Path, more: OpenFlags, patience: Duration) -> Result<Connection> {
    let has_log = sidecars(path).iter().any(|file| fs::metadata(file).is_ok_and(|found| found.len() > 0));
    let flags = more | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    // As a URI the name cannot be taken for anything else.
    let uri = uri_of(path);
    let open = |flags| Connection::open_with_flags(&uri, flags);
    let opened = open(flags | OpenFlags::SQLITE_OPEN_READ_WRITE).or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            open(flags | OpenFlags::SQLITE_OPEN_READ_ONLY)
        }
        _ => Err(error),
    });
    let connection = opened.map_err(|error| of_sqlite("opening", path, &error))?;
    configure(&connection, patience, has_log).map_err(|error| of_sqlite("opening", path, &error))?;
    Ok(connection)
}

fn configure(connection: &Connection, patience: Duration, keeps_log: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keeps_log)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.busy_timeout(patience)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)
}

fn uri_of(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut uri = "file://".to_owned();
    for &byte in absolute.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(byte.into()),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

fn schema_version(connection: &Connection, spec: &SqliteSpec) -> Result<String> {
    let query = spec.version_query.as_deref().unwrap_or("PRAGMA user_version");
    connection
        .query_row(query, [], |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                rusqlite::types::ValueRef::Real(number) => number.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                rusqlite::types::ValueRef::Null | rusqlite::types::ValueRef::Blob(_) => String::new(),
            })
        })
        .map_err(|error| of_sqlite("asking for the schema's version of", &spec.path, &error))
}

/// The file that the pages make: without inode and change time, so that nothing takes it for the main file as
/// it stands.
fn stat_of(path: &Path, bytes: u64) -> Result<FileStat> {
    let found = fs::metadata(path).map_err(|error| Error::io("looking at", path, error))?;
    Ok(FileStat {
        kind: FileKind::File,
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        bytes,
        allocated_bytes: bytes,
        modified: FileTime {
            seconds: found.mtime(),
            nanoseconds: u32::try_from(found.mtime_nsec()).unwrap_or_default(),
        },
        changed: FileTime::default(),
        inode: 0,
        links: 1,
        device: found.dev(),
        special: (0, 0),
    })
}

impl SqlitePin {
    /// The schema's version, as text.
    #[must_use]
    pub fn schema_version(&self) -> &str {
        &self.schema_version
    }

    /// Whether writers go on while the state is held: not so with a rollback journal.
    #[must_use]
    pub fn lets_writers_go_on(&self) -> bool {
        self.is_wal
    }

    /// Checks the pinned state as the source asks for; a damaged one is [`Error::Corrupt`]. `interrupted` is
    /// asked now and then.
    pub fn check(&self, interrupted: impl Fn() -> bool + Send + 'static) -> Result<()> {
        let pragma = match self.check {
            Check::None => return Ok(()),
            Check::Quick => "PRAGMA quick_check(1)",
            Check::Full => "PRAGMA integrity_check(1)",
        };
        let mut reader = self.take();
        let connection = reader.connection.as_mut().expect("it is taken by drop only");
        let checked = connection
            .progress_handler(100_000, Some(interrupted))
            .and_then(|()| connection.query_row(pragma, [], |row| row.get::<_, String>(0)));
        let _ = connection.progress_handler(0, None::<fn() -> bool>);
        match checked {
            Ok(verdict) if verdict == "ok" => Ok(()),
            Ok(detail) => Err(Error::Corrupt { place: self.path.display().to_string(), detail }),
            Err(error) => Err(of_sqlite("checking", &self.path, &error)),
        }
    }

    fn take(&self) -> Reader<'_> {
        let mut idle = lock(&self.idle);
        loop {
            if let Some(connection) = idle.pop() {
                return Reader { pin: self, connection: Some(connection) };
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read_pages(&self, reader: &Reader<'_>, offset: u64, buffer: &mut [u8]) -> rusqlite::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.stat.bytes.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut statement = reader.connection().prepare_cached(READ_PAGE)?;
        let mut filled = 0;
        while filled < wanted {
            let at = offset + filled as u64;
            let skipped = (at % self.page_bytes) as usize;
            let page = u32::try_from(at / self.page_bytes + 1).map_err(|_| rusqlite::Error::QueryReturnedNoRows)?;
            let mut rows = statement.query([page])?;
            let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            let page = row.get_ref(0)?.as_blob()?;
            if page.len() as u64 != self.page_bytes {
                return Err(rusqlite::Error::QueryReturnedNoRows);
            }
            let part = &page[skipped..page.len().min(skipped + wanted - filled)];
            buffer[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        Ok(filled)
    }
}

impl PinnedBytes for SqlitePin {
    fn stat(&self) -> FileStat {
        self.stat
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let reader = self.take();
        self.read_pages(&reader, offset, buffer).map_err(|error| of_sqlite("reading", &self.path, &error))
    }

    fn attributes(&self) -> Result<Vec<Attribute>> {
        Ok(self.attributes.clone())
    }
}

impl fmt::Debug for SqlitePin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqlitePin").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A connection in use; it goes back when dropped.
struct Reader<'p> {
    pin: &'p SqlitePin,
    connection: Option<Connection>,
}

impl Reader<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken by drop only")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        lock(&self.pin.idle).extend(self.connection.take());
        self.pin.freed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of_sqlite(action: &'static str, path: &Path, error: &rusqlite::Error) -> Error {
    let place = path.display().to_string();
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt { place, detail },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::InUse { place, detail },
        _ if detail.contains("no such table: sqlite_dbpage") => Error::Database {
            action,
            place,
            detail: "this program was built without SQLite's page table (LIBSQLITE3_FLAGS)".into(),
        },
        _ => Error::Database { action, place, detail },
    }
}

/// What a database has beside it: its log, the log's index, a rollback journal. They belong to the one file
/// that stands there.
#[must_use]
pub fn sidecars(path: &Path) -> Vec<PathBuf> {
    SIDECARS.iter().map(|suffix| beside(path, suffix)).filter(|path| fs::symlink_metadata(path).is_ok()).collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Logs beside a database that may hold rows which its file has not: those that are not empty. Asking changes
/// nothing.
#[must_use]
pub fn logs_with_rows(path: &Path) -> Vec<PathBuf> {
    let holds = |log: &PathBuf| {
        !log.as_os_str().as_bytes().ends_with(b"-shm") && fs::metadata(log).is_ok_and(|log| log.len() > 0)
    };
    sidecars(path).into_iter().filter(holds).collect()
}

/// Whether what is asked of a standing database may write beside it: an index of its log, what a crash left
/// undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Nothing is written, and not every state can be asked.
    WithoutWriting,
    /// It is opened as its own programs open it.
    AsItsPrograms,
}

/// The schema's version of a database as it stands. A link in its place is not followed.
pub fn standing_version(spec: &SqliteSpec, asking: Asking, patience: Duration) -> Result<String> {
    schema_version(&open_standing(&spec.path, asking, patience)?, spec)
}

/// Whether a database that stands somewhere is whole, as `PRAGMA quick_check` says; of one with more bytes
/// than so many, whether it opens. Nothing is written; one that cannot be asked so is [`Error::Refused`].
pub fn check_standing(path: &Path, bytes_max: u64, patience: Duration) -> Result<()> {
    let failed = |error| Error::io("looking at", path, error);
    let bytes = fs::metadata(path).map_err(failed)?.len();
    let mut head = [0; MAGIC.len()];
    let magic = fs::File::open(path).map_err(failed)?.read_at(&mut head, 0).map(|read| head[..read] == MAGIC[..read]);
    if !magic.map_err(failed)? {
        return Err(Error::Corrupt { place: path.display().to_string(), detail: "it is no database".into() });
    }
    let connection = open_standing(path, Asking::WithoutWriting, patience)?;
    let question = match bytes {
        bytes if bytes <= bytes_max => "PRAGMA quick_check(1)",
        _ => "SELECT iif(count(*) < 0, '', 'ok') FROM sqlite_schema",
    };
    let said: String =
        connection.query_row(question, [], |row| row.get(0)).map_err(|error| of_sqlite("checking", path, &error))?;
    if said == "ok" { Ok(()) } else { Err(Error::Corrupt { place: path.display().to_string(), detail: said }) }
}

fn open_standing(path: &Path, asking: Asking, patience: Duration) -> Result<Connection> {
    let failed = |error| Error::io("opening", path, error);
    let (parent, name) = (crate::beneath::parent_of(path), path.file_name().unwrap_or_default());
    // Links above it are those of whoever named it.
    let path = fs::canonicalize(parent).map_err(failed)?.join(name);
    refuse_other_kinds(&path)?;
    let quiet = without_writing(&path);
    match (quiet, asking) {
        (Some(how), _) => {
            let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NOFOLLOW;
            let uri = format!("{}?{how}", uri_of(&path));
            let opened = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_READ_ONLY);
            let connection = opened.map_err(|error| of_sqlite("opening", &path, &error))?;
            configure(&connection, patience, true).map_err(|error| of_sqlite("opening", &path, &error))?;
            Ok(connection)
        }
        (None, Asking::AsItsPrograms) => connect_in_place(&path, patience),
        (None, Asking::WithoutWriting) => {
            Err(Error::refused(path, "has a log that cannot be read without writing beside it"))
        }
    }
}

/// How a database is opened so that nothing is written beside it, as parameters of its URI; none: what stands
/// there cannot be read so.
fn without_writing(path: &Path) -> Option<&'static str> {
    let with = |suffix: &str| fs::symlink_metadata(beside(path, suffix)).ok();
    let holds = |suffix: &str| with(suffix).is_some_and(|found| found.len() > 0);
    match (holds("-journal"), holds("-wal"), with("-shm").is_some_and(|found| found.is_file())) {
        (true, _, _) | (_, true, false) => None,
        (false, true, true) => Some("mode=ro&readonly_shm=1"),
        (false, false, _) if writes_ahead(path) => Some("mode=ro&immutable=1"),
        (false, false, _) => Some("mode=ro"),
    }
}

/// Whether a database is one with a write-ahead log, which even a reader would make.
fn writes_ahead(path: &Path) -> bool {
    const VERSIONS_AT: u64 = 18;
    let mut versions = [0; 2];
    let read = fs::File::open(path).and_then(|file| file.read_exact_at(&mut versions, VERSIONS_AT));
    read.is_ok() && versions.contains(&2)
}

fn refuse_other_kinds(path: &Path) -> Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| Error::io("opening", path, error))?;
    if found.is_file() { Ok(()) } else { Err(Error::refused(path, "is no plain file")) }
}

/// The database to which a path would belong as its log, the log's index or its rollback journal: by the name
/// alone.
#[must_use]
pub fn database_of(path: &[u8]) -> Option<&[u8]> {
    let database = SIDECARS.iter().find_map(|suffix| path.strip_suffix(suffix.as_bytes()))?;
    (!database.is_empty() && !database.ends_with(b"/")).then_some(database)
}

/// Whether a file that begins so is a log of SQLite's.
#[must_use]
pub fn begins_as_log(head: [u8; LOG_MAGIC_BYTES]) -> bool {
    head[..3] == WAL_MAGIC[..3] && head[3] & !1 == WAL_MAGIC[3] || head == JOURNAL_MAGIC
}

/// Whether something beside a path is a log of SQLite's: it would be taken for that of whatever database
/// stands there next.
#[must_use]
pub fn has_log_beside(path: &Path) -> bool {
    let is_log = |beside: &PathBuf| {
        let mut head = [0; LOG_MAGIC_BYTES];
        let is_plain = fs::symlink_metadata(beside).is_ok_and(|found| found.is_file());
        let read = is_plain && fs::File::open(beside).and_then(|file| file.read_exact_at(&mut head, 0)).is_ok();
        read && begins_as_log(head)
    };
    sidecars(path).iter().any(is_log)
}

/// Has SQLite bring a standing database into its one file, so that it can be replaced by another: its log is
/// emptied into it and removed. Somebody who has it open is [`Error::InUse`]; a damaged one is
/// [`Error::Corrupt`]. The path is free of links above it, and one in its place is refused.
pub fn settle(path: &Path, patience: Duration) -> Result<()> {
    if sidecars(path).is_empty() {
        return Ok(());
    }
    let failed = |error: &rusqlite::Error| of_sqlite("settling", path, error);
    refuse_other_kinds(path)?;
    let connection = connect_in_place(path, patience)?;
    let restored = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    restored.map_err(|error| failed(&error))?;
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .map_err(|error| failed(&error))?;
    let in_use = |detail: &str| Error::InUse { place: path.display().to_string(), detail: detail.into() };
    if busy != 0 {
        return Err(in_use("its log cannot be emptied"));
    }
    connection.close().map_err(|(_, error)| failed(&error))?;
    match sidecars(path).as_slice() {
        [] => Ok(()),
        _ => Err(in_use("a process has it open")),
    }
}
