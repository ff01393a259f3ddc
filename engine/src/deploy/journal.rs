//! The redo journal of a deploy in place: a folder beside the target with all new bytes and the list of what
//! to do with them.
//!
//! Until `commit` is there the target has not been touched and the journal may be thrown away; from then on
//! it has to be carried out, from the start, as often as it takes: every step can be repeated. `commit` binds
//! the list of steps, this very folder and the target, and bears the tag of the state folder's secret: a
//! journal that somebody else wrote, or moved, or copied, is none. A deploy at work holds a lock on the
//! folder.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use copal_source::read::Attribute;
use copal_source::scan::FileTime;
use copal_source::target::{TargetFile, TargetMetadata, TargetTree};
use serde::{Deserialize, Serialize};

use super::place::{WriteRoot, failed};
use crate::error::Result;
use crate::state::{Known, Record, StateSecret};

const VERSION: u16 = 2;
/// A commit record has a name and a few numbers.
const COMMIT_BYTES_MAX: u64 = 4096;
/// Longest encoded step: a path, attributes, or the ranges of one file.
const STEP_BYTES_MAX: u32 = 32 << 20;
/// Folders that staged files are spread over, so that several threads can make files at once.
pub(super) const SHARDS: u64 = 64;
/// Ranges of one step; more are several steps.
pub(super) const STEP_RANGES_MAX: usize = 64 << 10;

/// Ranges' bytes, one after the other.
pub(super) const RANGES: &str = "ranges";
const STEPS: &[u8] = b"steps";
pub(super) const COMMIT: &[u8] = b"commit";
const COMMIT_NEW: &[u8] = b"commit.new";

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

impl Step {
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Self::Remove { path }
            | Self::Folder { path }
            | Self::Place { path, .. }
            | Self::Link { path, .. }
            | Self::Patch { path, .. }
            | Self::Metadata { path, .. } => path,
        }
    }

    /// Whether it would change what is mounted at a path, or remove the folder that this is in.
    pub(super) fn reaches(&self, mount: &[u8]) -> bool {
        let is_below =
            |path: &[u8], above: &[u8]| path.strip_prefix(above).is_some_and(|rest| rest.first() == Some(&b'/'));
        let path = self.path();
        match self {
            Self::Folder { .. } => is_below(path, mount),
            Self::Metadata { .. } => path == mount || is_below(path, mount),
            Self::Remove { .. } | Self::Place { .. } | Self::Link { .. } | Self::Patch { .. } => {
                path == mount || is_below(path, mount) || is_below(mount, path)
            }
        }
    }
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
    /// The folder of the journal.
    journal: Known,
    /// The folder that the steps' paths are relative to.
    root: Known,
    /// None: that folder is the target. Else the target is the one file of this name in it.
    file: Option<Vec<u8>>,
    pub(super) steps: u64,
    steps_hash: [u8; 32],
}

impl Commit {
    pub(super) fn is_of_a_file(&self) -> bool {
        self.file.is_some()
    }

    /// Whether the folder that stands open, and the file in it, is the target of this record.
    pub(super) fn is_of(&self, root: &WriteRoot) -> Result<bool> {
        Ok(root.file == self.file && Known::from(root.tree.identity(b"")?) == self.root)
    }
}

/// Where a staged file stands in the journal.
pub(super) fn staged_path(number: u64) -> Vec<u8> {
    format!("{}/{number:x}", shard_name(number % SHARDS)).into_bytes()
}

pub(super) fn shard_name(shard: u64) -> String {
    format!("s{shard:02x}")
}

/// The open folder of a journal, and the open folder that it lies in.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    pub(super) folder: TargetTree,
    pub(super) above: TargetTree,
    pub(super) name: Vec<u8>,
    /// Whether it lies in the target itself.
    pub(super) inside: bool,
}

impl Journal {
    /// Removes what is left of it; the record is gone, or there never was one.
    pub(super) fn remove(&self) -> Result<()> {
        let known = [self.folder.identity(b"")?];
        self.above.remove_known(&self.name, &known)?;
        Ok(self.above.sync_directory(b"")?)
    }
}

/// Writes one byte after the other.
#[derive(Debug)]
struct Appending {
    file: TargetFile,
    end: u64,
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(self.end, bytes).map_err(io::Error::other)?;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the steps.
#[derive(Debug)]
pub(super) struct StepWriter {
    file: BufWriter<Appending>,
    hash: blake3::Hasher,
    pub(super) count: u64,
}

impl StepWriter {
    pub(super) fn create(folder: &TargetTree) -> Result<Self> {
        let file = Appending { file: folder.create_file(STEPS, 0, true)?, end: 0 };
        Ok(Self { file: BufWriter::with_capacity(256 << 10, file), hash: blake3::Hasher::new(), count: 0 })
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
            self.file.write_all(part).map_err(|error| failed("writing", Path::new("the journal's steps"), error))?;
        }
        self.count += 1;
        Ok(())
    }

    /// Makes the list durable and returns what commits it. Everything staged must be durable already.
    pub(super) fn finish(mut self, journal: Journal, root: &WriteRoot, secret: &StateSecret) -> Result<ReadyJournal> {
        self.file.flush().map_err(|error| failed("writing", Path::new("the journal's steps"), error))?;
        self.file.get_ref().file.sync()?;
        let commit = Commit {
            version: VERSION,
            journal: journal.folder.identity(b"")?.into(),
            root: root.tree.identity(b"")?.into(),
            file: root.file.clone(),
            steps: self.count,
            steps_hash: *self.hash.finalize().as_bytes(),
        };
        Ok(ReadyJournal { journal, commit, secret: secret.clone() })
    }
}

/// All is staged and durable; nothing is decided.
#[must_use]
pub(super) struct ReadyJournal {
    journal: Journal,
    commit: Commit,
    secret: StateSecret,
}

impl ReadyJournal {
    /// Decides: from here on the deploy will be finished. Returns the steps as well.
    pub(super) fn commit(self) -> Result<(Commit, File)> {
        let Self { journal: Journal { folder, above, name, .. }, commit, secret } = self;
        let steps = folder.open_regular(STEPS)?;
        let body = copal_store::codec::encode(&commit)?;
        let tag = secret.tag(Record::DeployJournal, &name, &body);
        let file = folder.create_file(COMMIT_NEW, 0, true)?;
        file.write_at(0, &[&tag[..], &body].concat())?;
        file.sync()?;
        // The names of what is staged, and this folder's own name, must be durable before the record's.
        folder.sync_directory(b"")?;
        above.sync_directory(b"")?;
        folder.replace_from(COMMIT, &folder, COMMIT_NEW)?;
        folder.sync_directory(b"")?;
        Ok((commit, steps))
    }
}

/// What a journal's folder says.
pub(super) enum Verdict {
    /// Never committed: the target is as it was.
    Undecided,
    /// To be carried out: the record, and the steps that it vouches for.
    Committed(Commit, File),
    /// Nothing vouches for it, or it cannot be carried out: why.
    Unvouched(String),
}

/// Reads the commit record of a journal and checks everything against it that a record can be of, and the
/// steps.
pub(super) fn judge(journal: &Journal, secret: Option<&StateSecret>) -> Verdict {
    match record_of(journal, secret) {
        Ok(Some((commit, steps))) => Verdict::Committed(commit, steps),
        Ok(None) => Verdict::Undecided,
        Err(detail) => Verdict::Unvouched(detail),
    }
}

fn record_of(journal: &Journal, secret: Option<&StateSecret>) -> Result<Option<(Commit, File)>, String> {
    let Journal { folder, name, .. } = journal;
    let said = |error: copal_source::Error| error.to_string();
    folder.check_own().map_err(said)?;
    let mut bytes = Vec::new();
    match folder.open_own_file(COMMIT, COMMIT_BYTES_MAX) {
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(said(error)),
        Ok(file) => file.take(COMMIT_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?,
    };
    let Some((tag, body)) = bytes.split_first_chunk() else { return Err("its commit record is too short".into()) };
    let secret = secret.ok_or("this state folder has no secret that could vouch for it")?;
    if !secret.vouches(Record::DeployJournal, name, body, tag) {
        return Err("the secret of this state folder does not vouch for its commit record".into());
    }
    // Only this program made it, so what follows is no question of trust: a newer version, another folder, a
    // disk that failed.
    let commit: Commit = copal_store::codec::decode("commit", body)
        .map_err(|_| "its commit record was written by another version of this program")?;
    if commit.version != VERSION {
        return Err("its commit record was written by another version of this program".into());
    }
    if Known::from(folder.identity(b"").map_err(said)?) != commit.journal {
        return Err("it is a copy of a journal, not the folder that was made for the deploy".into());
    }
    let mut steps = folder.open_own_file(STEPS, u64::MAX).map_err(said)?;
    let mut hash = blake3::Hasher::new();
    let read = hash.update_reader(&mut steps).and_then(|_| steps.rewind());
    read.map_err(|error| format!("its list of steps cannot be read: {error}"))?;
    if *hash.finalize().as_bytes() != commit.steps_hash {
        return Err("its list of steps does not verify".into());
    }
    Ok(Some((commit, steps)))
}

/// Reads the steps of a committed journal, in order.
pub(super) fn steps(file: File) -> impl Iterator<Item = Result<Step>> {
    let mut file = BufReader::with_capacity(256 << 10, file);
    std::iter::from_fn(move || read_step(&mut file, Path::new("the journal's steps")).transpose())
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

    /// The bytes 0, 1, 2 …
    #[derive(Debug)]
    struct Counting;

    impl copal_store::entropy::Entropy for Counting {
        fn fill(&self, buffer: &mut [u8]) -> copal_store::Result<()> {
            buffer.iter_mut().zip(0..).for_each(|(byte, number)| *byte = number);
            Ok(())
        }
    }

    #[test]
    fn the_page_of_the_format_says_what_is_written() {
        let place = tempfile::tempdir().unwrap();
        let above = TargetTree::open(place.path()).unwrap();
        let name = b".hub.copal-journal-0123456789abcdef".to_vec();
        let folder = above.new_folder(&name).unwrap();
        let journal = Journal { folder, above: above.clone(), name: name.clone(), inside: false };
        let steps_written = [
            Step::Folder { path: b"a".to_vec() },
            Step::Patch { path: b"a/b".to_vec(), bytes: 65_536, ranges: vec![(4096, 512, 0)], holes: Vec::new() },
        ];
        let mut writer = StepWriter::create(&journal.folder).unwrap();
        steps_written.iter().for_each(|step| writer.push(step).unwrap());
        let root = WriteRoot { tree: above, file: None };
        let secret = StateSecret::of_process(&Counting).unwrap();
        let (commit, _) = writer.finish(journal.clone(), &root, &secret).unwrap().commit().unwrap();
        let path = place.path().join(String::from_utf8(name.clone()).unwrap());
        check("steps", &std::fs::read(path.join("steps")).unwrap());
        let Verdict::Committed(found, steps_file) = judge(&journal, Some(&secret)) else { panic!("it is committed") };
        assert_eq!(found, commit);
        assert!(commit.is_of(&root).unwrap());
        let steps_read: Vec<Step> = steps(steps_file).map(Result::unwrap).collect();
        assert_eq!(steps_read, steps_written);
        // Where and when it was made differs each time.
        let known = |inode| copal_source::target::Identity { inode, born: Some((1_800_000_000, 5)) }.into();
        let commit = Commit { journal: known(9), root: known(7), ..commit };
        let body = copal_store::codec::encode(&commit).unwrap();
        check("commit", &[&secret.tag(Record::DeployJournal, &name, &body)[..], &body].concat());
    }
}
