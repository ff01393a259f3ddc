//! Clones of what changed in a tree, made under the freeze by sharing extents; and what a tree has changed
//! since it was stored last.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use copal_engine::context::Context;
use copal_engine::create::left_out::LeftOut;
use copal_engine::create::{
    ContentIdentity, Creation, Exclusions, Input, InputContent, KeptClones, is_unchanged_since,
};
use copal_engine::deploy::private_folder;
use copal_engine::state::{Record, StateSecret};
use copal_manifest::entry::EntryPath;
use copal_manifest::snapshot::{SourceKind, SourceRecord};
use copal_manifest::tree::{EntryIter, TreeReader as ManifestReader};
use copal_source::read::TreeReader;
use copal_source::scan::{FileKind, FileStat, FileTime, ScanEntry, ScanOptions, scan};
use copal_source::settle::Settled;
use copal_source::target::{TargetMetadata, TargetTree};

use crate::capture::kept_clones;
use crate::capture::paths::{recorded_path, same_filesystem};
use crate::config::{Source, SourceSpec, TreeSpec};
use crate::error::{Error, Result, failed};

/// A file that changes while it is cloned is cloned so often.
const ATTEMPTS: usize = 3;

/// A folder on the filesystem of a source that can share extents with it.
#[derive(Clone, Debug)]
pub(crate) struct ClonePlace {
    path: PathBuf,
    state_folder: PathBuf,
}

impl ClonePlace {
    /// In the state folder when that is on the source's filesystem, else beside the source; none where
    /// nothing can be shared.
    pub(crate) fn find(state_folder: &Path, source: &Path, clones: &Path, label: &str) -> Result<Option<Self>> {
        private_folder(clones)?;
        let name = blake3::hash(label.as_bytes()).to_hex();
        let beside = match (source.parent(), StateSecret::find(state_folder)?) {
            (Some(parent), Some(secret)) => {
                // A name that nobody else can give to anything before it is seen.
                let tag = secret.tag(Record::KeptClones, source.as_os_str().as_bytes(), b"the name beside it");
                let mut hidden = b".".to_vec();
                hidden.extend_from_slice(source.file_name().unwrap_or_default().as_bytes());
                hidden.extend_from_slice(format!(".copal-clone-{}", hex::encode(&tag[..8])).as_bytes());
                Some((parent, OsString::from_vec(hidden)))
            }
            _ => None,
        };
        let places = [Some((clones, name.as_str()[..16].into())), beside];
        for (folder, name) in places.into_iter().flatten() {
            if !same_filesystem(folder, source) {
                continue;
            }
            if TargetTree::open(folder).and_then(|tree| tree.shares_extents()).unwrap_or(false) {
                return Ok(Some(Self { path: folder.join(name), state_folder: state_folder.to_owned() }));
            }
        }
        Ok(None)
    }
}

/// A tree as it was found under the freeze.
#[derive(Debug)]
pub(crate) struct Cloned {
    tree: TreeSpec,
    /// The folder that was made.
    root: PathBuf,
    state_folder: PathBuf,
    /// What stands for the source: that folder, or the one file in it.
    clone: PathBuf,
    entries: Vec<ScanEntry>,
}

impl Cloned {
    pub(crate) fn tree(&self) -> &TreeSpec {
        &self.tree
    }

    pub(crate) fn content(&self) -> InputContent {
        InputContent::Cloned { clone: self.clone.clone(), entries: self.entries.clone() }
    }

    /// Clones that the capture before has left for a comparison.
    pub(crate) fn kept_before(&self) -> Option<KeptClones> {
        kept_clones::load(&self.state_folder, &self.root)
    }

    /// Leaves clones for the comparison of the next capture, now that the snapshot is committed.
    pub(crate) fn keep_for_next(&self, contents: &[(Vec<u8>, ContentIdentity)]) -> Result<()> {
        kept_clones::keep(&self.state_folder, &self.root, &self.clone, &self.entries, contents)
    }

    pub(crate) fn bytes(&self) -> u64 {
        let of = |entry: &ScanEntry| if entry.stat.kind == FileKind::File { entry.stat.bytes } else { 0 };
        self.entries.iter().map(of).sum()
    }
}

/// What is written of an entry, so that an upload can go on from the clone.
#[derive(serde::Serialize, serde::Deserialize)]
struct KeptEntry(Vec<u8>, u8, [u32; 3], [u64; 4], [(i64, u32); 2], [u32; 3]);

impl KeptEntry {
    fn of(entry: &ScanEntry) -> Self {
        let FileStat { kind, mode, uid, gid, bytes, allocated_bytes, modified, changed, inode, links, device, special } =
            entry.stat;
        let times = [(modified.seconds, modified.nanoseconds), (changed.seconds, changed.nanoseconds)];
        let numbers = [bytes, allocated_bytes, inode, device];
        Self(entry.path.to_vec(), kind.number(), [mode, uid, gid], numbers, times, [links, special.0, special.1])
    }

    fn entry(self) -> Option<ScanEntry> {
        let Self(path, kind, [mode, uid, gid], [bytes, allocated_bytes, inode, device], times, [links, major, minor]) =
            self;
        let [modified, changed] = times.map(|(seconds, nanoseconds)| FileTime { seconds, nanoseconds });
        let (kind, special) = (FileKind::of_number(kind)?, (major, minor));
        let stat =
            FileStat { kind, mode, uid, gid, bytes, allocated_bytes, modified, changed, inode, links, device, special };
        Some(ScanEntry::plain(path.into(), stat))
    }
}

impl Cloned {
    /// Writes the list of entries, so that a later process can go on from the clone.
    pub(crate) fn keep(&self, list: &Path) -> Result<()> {
        let kept: Vec<KeptEntry> = self.entries.iter().map(KeptEntry::of).collect();
        let clone = self.clone.as_os_str().as_bytes().to_vec();
        let bytes = copal_store::codec::encode(&(clone, kept))?;
        let io = |error| failed("writing", list, error);
        fs::write(list, bytes).and_then(|()| fs::File::open(list)?.sync_all()).map_err(io)?;
        // The clone itself is no more durable than its filesystem makes it.
        Ok(TargetTree::open(self.clone.parent().unwrap_or(Path::new("/")))?.sync_filesystem()?)
    }
}

/// The source again, from its clone and the list of its entries.
pub(crate) fn input_again(
    state_folder: &Path,
    source: &Source,
    kind: SourceKind,
    list: &Path,
    before: Option<SourceRecord>,
) -> Result<Input> {
    let bytes = fs::read(list).map_err(|error| failed("reading", list, error))?;
    let (clone, kept): (Vec<u8>, Vec<KeptEntry>) = copal_store::codec::decode("a list of cloned entries", &bytes)?;
    let clone = PathBuf::from(OsString::from_vec(clone));
    // Of one file, the clone is in a folder of its own.
    let single = matches!(kept.first(), Some(KeptEntry(_, kind, ..)) if *kind == FileKind::File.number());
    let clones = kept_clones::load(state_folder, if single { clone.parent().unwrap_or(&clone) } else { &clone });
    let entries = kept.into_iter().map(KeptEntry::entry).collect::<Option<Vec<_>>>();
    let entries = entries.ok_or_else(|| Error::internal("a list of cloned entries has an unknown kind"))?;
    let exclusions = match &source.spec {
        SourceSpec::Tree(tree) => tree.exclusions.clone(),
        _ => Exclusions::default(),
    };
    Ok(Input {
        label: source.label.clone(),
        kind: (kind != SourceKind::Tree).then_some(kind),
        path: recorded_path(source)?,
        content: InputContent::Cloned { clone, entries },
        exclusions,
        only: None,
        page_structured: kind == SourceKind::Image,
        before,
        through_sqlite: false,
        clones,
    })
}

impl Drop for Cloned {
    fn drop(&mut self) {
        // What is left is removed by the next capture, before it makes its own.
        let _ = kept_clones::remove_own(&self.root);
    }
}

/// The parent's entries beside those of a scan.
struct Comparison<'p> {
    record: &'p SourceRecord,
    entries: std::iter::Peekable<EntryIter<'p>>,
}

impl Comparison<'_> {
    fn has_unchanged(&mut self, path: &[u8], stat: &FileStat) -> bool {
        let Some(path) = EntryPath::from_slashes(path) else { return false };
        loop {
            match self.entries.peek() {
                Some(Ok(entry)) if entry.path < path => drop(self.entries.next()),
                Some(Ok(entry)) if entry.path == path => return is_unchanged_since(self.record, entry, stat),
                _ => return false,
            }
        }
    }
}

fn comparison<'p>(creation: &'p Creation, record: Option<&'p SourceRecord>) -> Option<Comparison<'p>> {
    let record = record?;
    Some(Comparison { record, entries: ManifestReader::new(creation.session(), record.tree).entries().peekable() })
}

fn scan_options(context: &Context, tree: &TreeSpec) -> Result<ScanOptions> {
    let left_out = LeftOut::of(context, &tree.path, &tree.exclusions)?;
    Ok(left_out.scan_options(tree.exclusions.one_file_system, context.worker_threads()))
}

/// Files and bytes of a tree that are not as they were stored.
pub(crate) fn estimate(
    context: &Context,
    creation: &Creation,
    tree: &TreeSpec,
    record: Option<&SourceRecord>,
) -> Result<(u64, u64)> {
    let mut comparison = comparison(creation, record);
    let (mut files, mut bytes) = (0, 0);
    for entry in scan(&tree.path, &scan_options(context, tree)?)?.flatten() {
        context.check_interrupt()?;
        let same = comparison.as_mut().is_some_and(|parent| parent.has_unchanged(&entry.path, &entry.stat));
        if !same {
            files += 1;
            bytes += if entry.stat.kind == FileKind::File { entry.stat.bytes } else { 0 };
        }
    }
    Ok((files, bytes))
}

/// Notes every entry, and clones those that are not as they were stored. A path that cannot be read is an
/// error: what is held still can be read.
pub(crate) fn clone_changed(
    context: &Context,
    creation: &Creation,
    tree: &TreeSpec,
    before: Option<&SourceRecord>,
    place: ClonePlace,
) -> Result<Cloned> {
    kept_clones::remove_own(&place.path)?;
    let reader = TreeReader::open(&tree.path)?;
    let single = reader.stat(b"")?.kind != FileKind::Directory;
    let mut comparison = comparison(creation, before);
    let target = TargetTree::create(&place.path)?;
    target.check_own()?;
    // One file stands in the clone under a name of its own.
    let ClonePlace { path: root, state_folder } = place;
    let clone = if single { root.join("file") } else { root.clone() };
    let mut cloned = Cloned { tree: tree.clone(), root, state_folder, clone, entries: Vec::new() };
    let mut made: Vec<Vec<u8>> = Vec::new();
    for entry in scan(&tree.path, &scan_options(context, tree)?)? {
        context.check_interrupt()?;
        let mut entry = entry?;
        let unchanged = comparison.as_mut().is_some_and(|parent| parent.has_unchanged(&entry.path, &entry.stat));
        if !unchanged {
            let path: Vec<u8> = if single { b"file".to_vec() } else { entry.path.to_vec() };
            folders_above(&target, &path, &mut made)?;
            entry.stat = clone_one(&target, &reader, &entry, &path)?;
            if entry.stat.kind == FileKind::Directory {
                made.push(path);
            }
        }
        cloned.entries.push(entry);
    }
    Ok(cloned)
}

/// Makes the folders that lead to a path, as long as they are not there.
fn folders_above(target: &TargetTree, path: &[u8], made: &mut Vec<Vec<u8>>) -> Result<()> {
    while let Some(last) = made.last() {
        let leads = path.starts_with(last) && path.get(last.len()) == Some(&b'/');
        if leads {
            break;
        }
        made.pop();
    }
    let from = made.last().map_or(0, |last| last.len() + 1);
    let missing: Vec<usize> =
        path.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).collect();
    for end in missing {
        target.create_directory(&path[..end])?;
        made.push(path[..end].to_vec());
    }
    Ok(())
}

fn clone_one(target: &TargetTree, reader: &TreeReader, entry: &ScanEntry, path: &[u8]) -> Result<FileStat> {
    let ScanEntry { path: original, stat, .. } = entry;
    match stat.kind {
        FileKind::Directory if path.is_empty() => {}
        FileKind::Directory => target.create_directory(path)?,
        FileKind::Symlink => target.create_symlink(path, &reader.read_link(original)?)?,
        FileKind::File => return clone_file(target, reader, original, path),
        kind => target.create_special(path, kind, stat.special)?,
    }
    let attributes = reader.attributes(original)?;
    if !attributes.is_empty() {
        let found = target.reader().stat(path)?;
        let metadata =
            TargetMetadata { mode: found.mode, uid: found.uid, gid: found.gid, modified: found.modified, attributes };
        target.set_metadata(path, stat.kind, &metadata)?;
    }
    Ok(*stat)
}

fn clone_file(target: &TargetTree, reader: &TreeReader, original: &[u8], path: &[u8]) -> Result<FileStat> {
    let file = reader.open_file(original)?;
    for _ in 0..ATTEMPTS {
        // What vouches for the file later is this look, not the clone; nothing does if its pages cannot be
        // written out.
        file.write_out()?;
        let Settled { stat: before, moving, .. } = file.settle()?;
        let cloned = target.clone_from(path, &file)?;
        let after = file.stat()?;
        let still =
            !moving && (before.bytes, before.modified, before.changed) == (after.bytes, after.modified, after.changed);
        if still {
            let attributes = file.attributes()?;
            if !attributes.is_empty() {
                let found = target.reader().stat(path)?;
                let (mode, uid, gid, modified) = (found.mode, found.uid, found.gid, found.modified);
                cloned.set_metadata(&TargetMetadata { mode, uid, gid, modified, attributes })?;
            }
            return Ok(before);
        }
        target.remove(path)?;
    }
    let detail =
        format!("{} keeps changing while the application should hold still", String::from_utf8_lossy(original));
    Err(copal_source::Error::Refused { path: PathBuf::from("a source"), detail }.into())
}
