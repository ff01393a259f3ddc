//! Goes through a hub-tar, judging every member before its bytes are handed on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use copal_manifest::entry::EntryPath;
use flate2::bufread::GzDecoder;
use tar::EntryType;

use crate::error::{Error, Result};
use crate::hub_tar::manifest::MANIFEST_BYTES_MAX;
use crate::hub_tar::{BUCKET, DATABASE, MANIFEST, SQLITE_HEADER_BYTES, SQLITE_MAGIC};

/// What a hub-tar may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// Bytes of all members together.
    pub bytes_max: u64,
    /// Members.
    pub members_max: u64,
    /// How many times longer than the file its contents may be, beyond 64 MiB. Databases and objects stay far
    /// below; gzip reaches 1030 with zeros.
    pub ratio_max: u64,
}

/// Up to here any ratio is taken: it costs little.
const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Bytes of all paths together.
const PATH_BYTES_MAX: u64 = 256 << 20;
/// What may stand behind the archive in the compressed stream: records of `tar` are 10 KiB, or as large as
/// somebody chose.
const TAIL_BYTES_MAX: u64 = 16 << 20;
/// What may stand before a member that says more of it (a long name, records of PAX): the archive's reader
/// keeps all that in memory.
const METADATA_BYTES_MAX: u64 = 1 << 20;
/// Length of a block of tar.
const BLOCK_BYTES: u64 = 512;

impl Default for HubLimits {
    fn default() -> Self {
        Self { bytes_max: 1 << 40, members_max: 4 << 20, ratio_max: 200 }
    }
}

/// Which part a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Manifest,
    Database,
    /// A path of the bucket; the empty one is the bucket itself.
    Bucket(EntryPath),
}

/// A member that was judged.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) part: Part,
    pub(super) is_folder: bool,
    pub(super) bytes: u64,
    pub(super) mode: u32,
    pub(super) modified_seconds: i64,
}

/// Takes a member and its bytes.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&Member, &mut dyn Read) -> Result<()>;

/// Goes through the archive; `compressed_bytes` is its length. Whatever `visit` leaves of a member is read
/// and judged all the same.
pub(super) fn scan(source: impl Read, compressed_bytes: u64, limits: &HubLimits, visit: Visit<'_>) -> Result<()> {
    let (position, metadata_ends) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(METADATA_BYTES_MAX)));
    let metered = Metered {
        inner: GzDecoder::new(BufReader::with_capacity(256 << 10, source)),
        position: Rc::clone(&position),
        most: RATIO_FREE_BYTES.max(compressed_bytes.saturating_mul(limits.ratio_max)),
        metadata_ends: Rc::clone(&metadata_ends),
    };
    let mut archive = tar::Archive::new(metered);
    let mut seen = Seen::default();
    let mut end = 0;
    let mut members = archive.entries().map_err(broken)?;
    loop {
        metadata_ends.set(position.get() + METADATA_BYTES_MAX);
        let Some(member) = members.next() else { break };
        let mut entry = member.map_err(broken)?;
        metadata_ends.set(u64::MAX);
        let member = judge(&entry, limits, &mut seen)?;
        end = entry.raw_file_position() + entry.size().div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        let mut taken = Exact { inner: &mut entry, left: member.bytes };
        match member.part {
            Part::Database => {
                let mut head = vec![0; SQLITE_HEADER_BYTES];
                taken.read_exact(&mut head).map_err(|error| bad_database_or(broken(error)))?;
                check_database(&head, member.bytes)?;
                visit(&member, &mut io::Cursor::new(head).chain(&mut taken))?;
            }
            _ => visit(&member, &mut taken)?,
        }
        io::copy(&mut taken, &mut io::sink()).map_err(broken)?;
        if taken.left > 0 {
            return Err(bad("it is cut off"));
        }
    }
    metadata_ends.set(u64::MAX);
    seen.check()?;
    finish(archive.into_inner(), &position, end)
}

/// The rest of the stream: two empty blocks at least, nothing but zeros, the right sum, and nothing behind.
fn finish<R: Read>(mut metered: Metered<BufReader<R>>, position: &Cell<u64>, end: u64) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut tail = 0;
    loop {
        let read = metered.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            break;
        }
        tail += read as u64;
        if tail > TAIL_BYTES_MAX || buffer[..read].iter().any(|byte| *byte != 0) {
            return Err(bad("something stands behind its end"));
        }
    }
    if position.get() < end + 2 * BLOCK_BYTES {
        return Err(bad("it is cut off"));
    }
    let rest = metered.inner.get_mut().fill_buf().map_err(broken)?;
    if rest.is_empty() { Ok(()) } else { Err(bad("something stands behind its end")) }
}

/// What was met so far.
#[derive(Default)]
struct Seen {
    members: u64,
    path_bytes: u64,
    bytes: u64,
    manifest: bool,
    database: bool,
    /// Paths of the bucket, and whether they are folders.
    bucket: BTreeMap<EntryPath, bool>,
}

impl Seen {
    fn check(&self) -> Result<()> {
        for (there, name) in [(self.manifest, MANIFEST), (self.database, DATABASE)] {
            if !there {
                return Err(bad(&format!("it has no {name}")));
            }
        }
        for path in self.bucket.keys() {
            let parents = std::iter::successors(path.parent(), EntryPath::parent);
            for parent in parents {
                if self.bucket.get(&parent) == Some(&false) {
                    return Err(bad(&format!("{parent} is a file, and holds {path}")));
                }
            }
        }
        Ok(())
    }
}

fn judge<R: Read>(entry: &tar::Entry<'_, R>, limits: &HubLimits, seen: &mut Seen) -> Result<Member> {
    let name = entry.path_bytes();
    let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
    let refuse = |why: &str| Err(bad(&format!("{shown}: {why}")));
    seen.members += 1;
    seen.path_bytes += name.len() as u64;
    seen.bytes = seen.bytes.saturating_add(entry.size());
    if seen.members > limits.members_max || seen.path_bytes > PATH_BYTES_MAX {
        return Err(bad("it has too many members"));
    }
    if seen.bytes > limits.bytes_max {
        return Err(bad(&format!("its members have more than {} bytes", limits.bytes_max)));
    }
    let is_folder = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => false,
        EntryType::Directory => true,
        EntryType::Symlink | EntryType::Link => return refuse("it is a link"),
        _ => return refuse("it is neither a file nor a folder"),
    };
    if is_folder && entry.size() > 0 {
        return refuse("a folder with content");
    }
    let Some(part) = part_of(&name)? else {
        // The folder that was archived.
        let member = Member {
            part: Part::Bucket(EntryPath::root()),
            is_folder: true,
            bytes: 0,
            mode: 0o755,
            modified_seconds: 0,
        };
        return if is_folder { Ok(Member { mode: u32::MAX, ..member }) } else { refuse("it has no name") };
    };
    match &part {
        Part::Manifest if is_folder || std::mem::replace(&mut seen.manifest, true) => {
            return refuse("it is no file, or there twice");
        }
        Part::Manifest if entry.size() > MANIFEST_BYTES_MAX => return refuse("it is too long"),
        Part::Database if is_folder || std::mem::replace(&mut seen.database, true) => {
            return refuse("it is no file, or there twice");
        }
        Part::Bucket(path) if path.is_root() && !is_folder => return refuse("it is no folder"),
        Part::Bucket(path) => {
            // A folder may be named again, as some programs do; nothing else may.
            if let Some(was_folder) = seen.bucket.insert(path.clone(), is_folder)
                && !(was_folder && is_folder)
            {
                return refuse("it is there twice");
            }
        }
        _ => {}
    }
    let header = entry.header();
    let mode = header.mode().map_err(broken)? & 0o777;
    let modified_seconds = i64::try_from(header.mtime().map_err(broken)?).map_err(|_| bad("a time that is none"))?;
    Ok(Member { part, is_folder, bytes: entry.size(), mode, modified_seconds })
}

/// Which part a name is; `None`: `./`. Absolute names and those with `..` are refused, as is everything else.
fn part_of(name: &[u8]) -> Result<Option<Part>> {
    let shown = String::from_utf8_lossy(name).escape_debug().to_string();
    let refuse = |why: &str| Err(bad(&format!("{shown}: {why}")));
    if name.starts_with(b"/") {
        return refuse("its name is absolute");
    }
    if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return refuse("its name leads out");
    }
    let mut rest = name;
    while let Some(shorter) = rest.strip_prefix(b"./") {
        rest = shorter;
    }
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    if rest.is_empty() || rest == b"." {
        return Ok(None);
    }
    let Some(path) = EntryPath::from_slashes(rest) else { return refuse("its name cannot be that of a file") };
    let mut names = path.names();
    let first = names.next().unwrap_or_default();
    let below = names.next().is_some();
    match first {
        _ if first == MANIFEST.as_bytes() && !below => Ok(Some(Part::Manifest)),
        _ if first == DATABASE.as_bytes() && !below => Ok(Some(Part::Database)),
        _ if first == BUCKET.as_bytes() => {
            let inner = rest.get(BUCKET.len() + 1..).unwrap_or_default();
            let inner = EntryPath::from_slashes(inner).ok_or_else(|| bad("a name that cannot be"))?;
            Ok(Some(Part::Bucket(inner)))
        }
        _ => refuse("it does not belong into such a bundle"),
    }
}

/// The header of a database: magic, a page size, and as many bytes as pages have.
fn check_database(head: &[u8], bytes: u64) -> Result<()> {
    let page = match u16::from_be_bytes([head[16], head[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let sound = head.starts_with(SQLITE_MAGIC) && page >= 512 && page.is_power_of_two() && bytes.is_multiple_of(page);
    if sound { Ok(()) } else { Err(bad("hub.db is no SQLite database")) }
}

fn bad_database_or(error: Error) -> Error {
    match error {
        Error::BadBundle(_) => bad("hub.db is no SQLite database, or cut off"),
        other => other,
    }
}

/// Reads a member's bytes and knows how many are missing.
struct Exact<'e, R> {
    inner: &'e mut R,
    left: u64,
}

impl<R: Read> Read for Exact<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

/// Counts what comes out of the decompressor, and stops a bomb.
struct Metered<B> {
    inner: GzDecoder<B>,
    position: Rc<Cell<u64>>,
    most: u64,
    /// As far as a member's bytes, it has to have come to; without a bound while these are read.
    metadata_ends: Rc<Cell<u64>>,
}

impl<B: BufRead> Read for Metered<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.position.set(self.position.get() + read as u64);
        if self.position.get() > self.most {
            return Err(io::Error::other("it becomes far too large when it is decompressed"));
        }
        if self.position.get() > self.metadata_ends.get() {
            return Err(io::Error::other("the name of a member, or what else is said of it, is too long"));
        }
        Ok(read)
    }
}

/// What the archive's reader says is the archive's fault, but for the disk's.
pub(super) fn broken(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => copal_source::Error::Io { action: "reading", path: "the bundle".into(), source: error }.into(),
        None => match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => bad(&error.to_string()),
        },
    }
}

pub(super) fn bad(detail: &str) -> Error {
    Error::BadBundle(detail.to_owned())
}
