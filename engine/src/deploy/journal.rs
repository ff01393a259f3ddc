//! The redo journal of a deploy in place: a folder beside the target with all new bytes and the list of what to do with them.
//!
//! Until `commit` is there the target has not been touched and the journal may be thrown away; from then on it has to be
//! carried out, from the start, as often as it takes: every step can be repeated. `commit` binds the list of steps by its
//! BLAKE3 and the target by its path and inode. A deploy at work holds a lock on the folder.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use copal_source::read::Attribute;
use copal_source::scan::FileTime;
use copal_source::target::TargetMetadata;
use serde::{Deserialize, Serialize};

use super::place::failed;
use crate::error::Result;

const VERSION: u16 = 1;
/// Longest encoded step: a path, attributes, or the ranges of one file.
const STEP_BYTES_MAX: u32 = 32 << 20;
/// Folders that staged files are spread over, so that several threads can make files at once.
pub(super) const SHARDS: u64 = 64;
/// Ranges of one step; more are several steps.
pub(super) const STEP_RANGES_MAX: usize = 64 << 10;

/// Ranges' bytes, one after the other.
pub(super) const RANGES: &str = "ranges";
const STEPS: &str = "steps";
const COMMIT: &str = "commit";
const COMMIT_NEW: &str = "commit.new";

/// One step on the target; paths are relative to the open folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// What the snapshot lacks goes, with all below it.
    Remove { path: Vec<u8> },
    /// A folder is there, and can be written in.
    Folder { path: Vec<u8> },
    /// A staged file, link or device takes the place.
    Place { path: Vec<u8>, staged: u64, over_folder: bool },
    /// Another name for a file that stands by now.
    Link { path: Vec<u8>, first: Vec<u8> },
    /// Ranges `(offset, bytes, offset in RANGES)` and holes of a file are written.
    Patch { path: Vec<u8>, bytes: u64, ranges: Vec<(u64, u64, u64)>, holes: Vec<(u64, u64)> },
    /// Owner, mode, attributes, times.
    Metadata { path: Vec<u8>, kind: u8, metadata: Put },
}

/// A [`TargetMetadata`] as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Put {
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanoseconds: u32,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From<TargetMetadata> for Put {
    fn from(metadata: TargetMetadata) -> Self {
        Self {
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            seconds: metadata.modified.seconds,
            nanoseconds: metadata.modified.nanoseconds,
            attributes: metadata.attributes.into_iter().map(|a| (a.name, a.value)).collect(),
        }
    }
}

impl From<Put> for TargetMetadata {
    fn from(put: Put) -> Self {
        Self {
            mode: put.mode,
            uid: put.uid,
            gid: put.gid,
            modified: FileTime { seconds: put.seconds, nanoseconds: put.nanoseconds },
            attributes: put.attributes.into_iter().map(|(name, value)| Attribute { name, value }).collect(),
        }
    }
}

/// The commit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    version: u16,
    /// The folder that the steps' paths are relative to.
    pub(super) root: Vec<u8>,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) steps: u64,
    steps_hash: [u8; 32],
}

/// Where a staged file stands in the journal.
pub(super) fn staged_path(number: u64) -> Vec<u8> {
    format!("{}/{number:x}", shard_name(number % SHARDS)).into_bytes()
}

pub(super) fn shard_name(shard: u64) -> String {
    format!("s{shard:02x}")
}

/// Writes the steps.
#[derive(Debug)]
pub(super) struct StepWriter {
    folder: PathBuf,
    file: BufWriter<File>,
    hash: blake3::Hasher,
    pub(super) count: u64,
}

impl StepWriter {
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(STEPS);
        let file = File::create_new(&path).map_err(|error| failed("creating", &path, error))?;
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(Self { folder: folder.to_owned(), file, hash: blake3::Hasher::new(), count: 0 })
    }

    pub(super) fn push(&mut self, step: &Step) -> Result<()> {
        let bytes = copal_store::codec::encode(step)?;
        let length = u32::try_from(bytes.len()).ok().filter(|&length| length <= STEP_BYTES_MAX);
        let length = length.ok_or_else(|| copal_store::Error::Limit {
            what: "a step of a deploy".into(),
            limit: STEP_BYTES_MAX.into(),
        })?;
        for part in [&length.to_le_bytes()[..], &bytes] {
            self.hash.update(part);
            self.file.write_all(part).map_err(|error| failed("writing", &self.folder, error))?;
        }
        self.count += 1;
        Ok(())
    }

    /// Makes the list durable and returns what commits it. Everything staged must be durable already.
    pub(super) fn finish(mut self, root: &Path) -> Result<ReadyJournal> {
        let io = |error| failed("writing", &self.folder, error);
        self.file.flush().map_err(io)?;
        self.file.get_ref().sync_all().map_err(io)?;
        let found = fs::symlink_metadata(root).map_err(|error| failed("looking at", root, error))?;
        let commit = Commit {
            version: VERSION,
            root: std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str()).to_vec(),
            device: found.dev(),
            inode: found.ino(),
            steps: self.count,
            steps_hash: *self.hash.finalize().as_bytes(),
        };
        Ok(ReadyJournal { folder: self.folder, commit })
    }
}

/// All is staged and durable; nothing is decided.
#[must_use]
pub(super) struct ReadyJournal {
    folder: PathBuf,
    commit: Commit,
}

impl ReadyJournal {
    /// Decides: from here on the deploy will be finished.
    pub(super) fn commit(self) -> Result<()> {
        let io = |error| failed("committing", &self.folder, error);
        let body = copal_store::codec::encode(&self.commit)?;
        let new = self.folder.join(COMMIT_NEW);
        let mut file = File::create(&new).map_err(io)?;
        file.write_all(blake3::hash(&body).as_bytes()).and_then(|()| file.write_all(&body)).map_err(io)?;
        file.sync_all().map_err(io)?;
        // The names of what is staged, and this folder's own name, must be durable before the record's.
        sync_folder(&self.folder)?;
        if let Some(parent) = self.folder.parent() {
            sync_folder(parent)?;
        }
        fs::rename(&new, self.folder.join(COMMIT)).map_err(io)?;
        sync_folder(&self.folder)
    }
}

pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| failed("syncing", folder, error))
}

/// What a journal's folder says.
pub(super) enum Verdict {
    /// Never committed: the target is as it was.
    Undecided,
    /// To be carried out.
    Committed(Commit),
    /// Committed by a newer version, or damaged since: it needs a person.
    Unreadable(String),
}

/// Reads the commit record of a journal and checks the steps against it.
pub(super) fn judge(folder: &Path) -> Verdict {
    let bytes = match fs::read(folder.join(COMMIT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Verdict::Undecided,
        Err(error) => return Verdict::Unreadable(format!("its commit record cannot be read: {error}")),
    };
    let unsound = || Verdict::Unreadable("its commit record does not verify".into());
    let Some((sum, body)) = bytes.split_at_checked(32) else { return unsound() };
    if blake3::hash(body).as_bytes() != sum {
        return unsound();
    }
    // The version stands first, so that a newer record is told from a damaged one.
    match copal_store::codec::decode::<Commit>("commit", body) {
        Ok(commit) if commit.version == VERSION => match hash_steps(folder) {
            Ok(hash) if hash == commit.steps_hash => Verdict::Committed(commit),
            Ok(_) => Verdict::Unreadable("its list of steps does not verify".into()),
            Err(error) => Verdict::Unreadable(format!("its list of steps cannot be read: {error}")),
        },
        _ if body.first().is_some_and(|&version| u16::from(version) > VERSION) => {
            Verdict::Unreadable("it was written by a newer version of this program".into())
        }
        _ => unsound(),
    }
}

fn hash_steps(folder: &Path) -> std::io::Result<[u8; 32]> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(File::open(folder.join(STEPS))?)?;
    Ok(*hash.finalize().as_bytes())
}

/// Reads the steps of a committed journal, in order.
pub(super) fn steps(folder: &Path) -> Result<impl Iterator<Item = Result<Step>>> {
    let path = folder.join(STEPS);
    let file = File::open(&path).map_err(|error| failed("reading", &path, error))?;
    let mut file = BufReader::with_capacity(256 << 10, file);
    Ok(std::iter::from_fn(move || read_step(&mut file, &path).transpose()))
}

fn read_step(file: &mut impl Read, path: &Path) -> Result<Option<Step>> {
    let mut length = [0; 4];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome.map_err(|error| failed("reading", path, error))?,
    }
    let length = u32::from_le_bytes(length);
    if length > STEP_BYTES_MAX {
        return Err(copal_store::Error::damaged(path.display(), "a step is too long").into());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes).map_err(|error| failed("reading", path, error))?;
    Ok(Some(copal_store::codec::decode("a step of a deploy", &bytes)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The bytes of a fenced block of `docs/format/deploy-journal.md`, and how it should read.
    fn check(block: &str, bytes: &[u8]) {
        let page = include_str!("../../../docs/format/deploy-journal.md");
        let lines = bytes.chunks(32).enumerate();
        let dump: String =
            lines.map(|(number, line)| format!("{:04x}  {}\n", number * 32, hex::encode(line))).collect();
        let expected = format!("```hex {block}\n{dump}```");
        assert!(page.contains(&expected), "docs/format/deploy-journal.md should say:\n{expected}");
    }

    #[test]
    fn the_page_of_the_format_says_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let steps_written = [
            Step::Folder { path: b"a".to_vec() },
            Step::Patch { path: b"a/b".to_vec(), bytes: 65_536, ranges: vec![(4096, 512, 0)], holes: Vec::new() },
        ];
        let mut writer = StepWriter::create(folder.path()).unwrap();
        steps_written.iter().for_each(|step| writer.push(step).unwrap());
        let mut ready = writer.finish(folder.path()).unwrap();
        ready.commit.root = b"/srv/hub".to_vec();
        (ready.commit.device, ready.commit.inode) = (2049, 7);
        let commit = ready.commit.clone();
        ready.commit().unwrap();
        check("steps", &fs::read(folder.path().join(STEPS)).unwrap());
        check("commit", &fs::read(folder.path().join(COMMIT)).unwrap());
        assert!(matches!(judge(folder.path()), Verdict::Committed(found) if found == commit));
        let steps_read: Vec<Step> = steps(folder.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(steps_read, steps_written);
    }
}
