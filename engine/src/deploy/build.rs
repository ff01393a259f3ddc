//! Builds a whole tree beside the target, taking what it can from a donor: the standing target, or a kept
//! materialisation.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use copal_manifest::content::{FileContent, Piece, Pieces};
use copal_manifest::entry::{Entry, Metadata, Node};
use copal_source::read::{Attribute, TreeReader};
use copal_source::scan::{FileKind, FileTime};
use copal_source::target::{TargetMetadata, TargetTree};

use super::desired::Desired;
use super::fetch::{Fetcher, Origin, Slot, with_fetcher};
use super::place::WriteRoot;
use super::plan::{Action, Change, Plan, Range};
use super::run::Run;
use crate::error::Result;

/// Shorter files are not preallocated: it costs a call and avoids no fragment.
const PREALLOCATE_BYTES_MIN: u64 = 1 << 20;

/// A tree whose files can be shared.
pub(super) struct Donor<'p> {
    /// What it lacks of the wanted tree.
    pub(super) plan: &'p Plan,
    /// It, for reading.
    pub(super) reader: TreeReader,
    pub(super) sharing: Sharing,
}

/// How files of a donor are shared.
pub(super) enum Sharing {
    /// Extents.
    Reflink,
    /// Whole inodes, where nothing differs: links from this tree.
    HardLink(WriteRoot),
}

/// How what is built becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncing {
    /// Each file by its writer, each folder at the end: right for few files, since it does not wait for what
    /// others wrote.
    Each,
    /// By one call for the whole filesystem.
    Filesystem,
}

/// Builds `desired` in an empty place. Returns when all is written and durable but for the folder that the
/// tree stands in.
pub(super) fn build(
    run: &Run<'_>,
    desired: &Desired<'_>,
    root: &WriteRoot,
    donor: Option<&Donor<'_>>,
    syncing: Syncing,
) -> Result<()> {
    let mut builder = Builder { run, desired, root, donor, syncing, cursor: 0, folders: Vec::new(), links: Vec::new() };
    with_fetcher(desired.session(), run, |fetcher| {
        for item in desired.items() {
            let item = item?;
            run.context.check_interrupt()?;
            builder.entry(item.entry, item.synthetic, fetcher)?;
        }
        Ok(())
    })?;
    run.steps.reach("links and folders of the new tree")?;
    for (path, first) in std::mem::take(&mut builder.links) {
        root.tree.create_hard_link(&path, &first)?;
        run.file_done();
    }
    // From the bottom: a folder may come to forbid what is done below it.
    for (path, metadata) in builder.folders.iter().rev() {
        run.warn(root.tree.set_metadata(path, FileKind::Directory, metadata)?);
    }
    run.steps.reach("syncing the new tree")?;
    run.monitor().phase("committing");
    match syncing {
        Syncing::Filesystem => root.tree.sync_filesystem()?,
        Syncing::Each => {
            for (path, _) in builder.folders.iter().rev() {
                match root.tree.sync_directory(path) {
                    // Its own mode may keep a plain user from opening it.
                    Err(error) if error.is_permission_denied() => root.tree.sync_filesystem()?,
                    synced => synced?,
                }
            }
        }
    }
    Ok(())
}

struct Builder<'b, 'p> {
    run: &'b Run<'b>,
    desired: &'b Desired<'b>,
    root: &'b WriteRoot,
    donor: Option<&'b Donor<'p>>,
    syncing: Syncing,
    /// Place in the donor's plan.
    cursor: usize,
    folders: Vec<(Vec<u8>, TargetMetadata)>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Builder<'_, '_> {
    fn entry(&mut self, entry: Entry, synthetic: bool, fetcher: &mut Fetcher<'_>) -> Result<()> {
        let path = self.root.path(&entry.path);
        match &entry.node {
            Node::Directory => {
                if !path.is_empty() {
                    self.root.tree.create_directory(&path)?;
                }
                let metadata = if synthetic { self.synthetic_metadata()? } else { target_metadata(&entry.metadata) };
                self.folders.push((path, metadata));
                Ok(())
            }
            Node::HardLink(first) if self.run.has_skipped(first) => {
                self.run.skip(&entry.path);
                Ok(())
            }
            Node::HardLink(first) => {
                self.links.push((path, self.root.path(first)));
                Ok(())
            }
            Node::File(content) => self.file(&entry, content, path, fetcher),
            _ => {
                create_other(&self.root.tree, &path, &entry, self.run)?;
                self.run.file_done();
                Ok(())
            }
        }
    }

    /// The folder over labelled sources keeps what it has, or is like any new folder.
    fn synthetic_metadata(&self) -> Result<TargetMetadata> {
        let stat = match self.donor {
            Some(donor) => donor.reader.stat(b"")?,
            None => self.root.tree.reader().stat(b"")?,
        };
        let mode = if self.donor.is_some() { stat.mode } else { 0o755 };
        Ok(TargetMetadata { mode, uid: stat.uid, gid: stat.gid, modified: stat.modified, attributes: Vec::new() })
    }

    fn file(&mut self, entry: &Entry, content: &FileContent, path: Vec<u8>, fetcher: &mut Fetcher<'_>) -> Result<()> {
        let metadata = Some(target_metadata(&entry.metadata));
        let change = self.donor.map(|donor| donor.plan.change_at(&mut self.cursor, &entry.path));
        if let (Some(donor), Some(change)) = (self.donor, change)
            && !change.is_some_and(|change| matches!(change.action, Action::Create { .. }))
        {
            let origin = match (&donor.sharing, change) {
                (Sharing::Reflink, _) => Some(Origin::CloneOf {
                    reader: donor.reader.clone(),
                    path: entry.path.to_slashes(),
                    bytes: content.bytes,
                    holes: change.map(holes_of).unwrap_or_default(),
                }),
                (Sharing::HardLink(tree), None) => {
                    Some(Origin::LinkOf { tree: tree.tree.clone(), path: tree.path(&entry.path) })
                }
                (Sharing::HardLink(_), Some(_)) => None,
            };
            if let Some(origin) = origin {
                let slot = Slot::new(&self.root.tree, path, origin, metadata, self.syncing == Syncing::Each);
                put_pieces(self.desired, content, change.map(ranges_of).unwrap_or_default(), &slot, fetcher)?;
                return fetcher.close(slot);
            }
        }
        let origin = Origin::New { bytes: content.bytes, sparse: is_sparse(self.desired, content)? };
        let slot = Slot::new(&self.root.tree, path, origin, metadata, self.syncing == Syncing::Each);
        put_pieces(self.desired, content, &[Range::whole(content.bytes)], &slot, fetcher)?;
        fetcher.close(slot)
    }
}

fn ranges_of(change: &Change) -> &[Range] {
    match &change.action {
        Action::Patch { ranges, .. } => ranges,
        _ => &[],
    }
}

fn holes_of(change: &Change) -> Vec<(u64, u64)> {
    match &change.action {
        Action::Patch { holes, .. } => holes.iter().map(|hole| (hole.offset, hole.bytes)).collect(),
        _ => Vec::new(),
    }
}

/// Has the chunks of ranges, which ascend, written to their places.
pub(super) fn put_pieces(
    desired: &Desired<'_>,
    content: &FileContent,
    ranges: &[Range],
    slot: &std::sync::Arc<Slot>,
    fetcher: &mut Fetcher<'_>,
) -> Result<()> {
    for placed in content.pieces_of_ranges(desired.session(), ranges.iter().map(|range| range.offset..range.end())) {
        let placed = placed?;
        if let Piece::Chunk { id, bytes } = placed.piece {
            fetcher.piece(slot, placed.offset, id, bytes)?;
        }
    }
    Ok(())
}

/// Whether a file has holes, or is too short to be preallocated.
pub(super) fn is_sparse(desired: &Desired<'_>, content: &FileContent) -> Result<bool> {
    if content.bytes < PREALLOCATE_BYTES_MIN {
        return Ok(true);
    }
    let is_hole = |piece: &Piece| matches!(piece, Piece::Hole { .. });
    match &content.pieces {
        Pieces::Inline(pieces) => Ok(pieces.iter().any(is_hole)),
        Pieces::Tree(_) => {
            for placed in content.pieces(desired.session(), 0, content.bytes) {
                if is_hole(&placed?.piece) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// Makes a link, a FIFO, a socket's name or a device, with its metadata; false: it may not be made, and is
/// left out.
pub(super) fn create_other(tree: &TargetTree, path: &[u8], entry: &Entry, run: &Run<'_>) -> Result<bool> {
    let kind = match &entry.node {
        Node::Symlink(target) => {
            tree.create_symlink(path, target)?;
            FileKind::Symlink
        }
        other => {
            let kind = kind_of(other);
            match tree.create_special(path, kind, device_of(other)) {
                Err(error) if is_forbidden_device(kind, &error) => {
                    if !run.skip_devices {
                        let path = PathBuf::from(OsString::from_vec(entry.path.to_slashes()));
                        let detail = "is a device, and this user may make none: --skip-devices leaves devices out, and reports them";
                        return Err(copal_source::Error::Refused { path, detail: detail.into() }.into());
                    }
                    run.skip(&entry.path);
                    return Ok(false);
                }
                made => made?,
            }
            kind
        }
    };
    run.warn(tree.set_metadata(path, kind, &target_metadata(&entry.metadata))?);
    Ok(true)
}

/// Only the system's owner may make devices, and not everywhere.
fn is_forbidden_device(kind: FileKind, error: &copal_source::Error) -> bool {
    matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
        && matches!(error, copal_source::Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied)
}

/// The kind of file that an entry is; of another name: a file.
pub(super) fn kind_of(node: &Node) -> FileKind {
    match node {
        Node::Directory => FileKind::Directory,
        Node::File(_) | Node::HardLink(_) => FileKind::File,
        Node::Symlink(_) => FileKind::Symlink,
        Node::Fifo => FileKind::Fifo,
        Node::Socket => FileKind::Socket,
        Node::CharDevice { .. } => FileKind::CharDevice,
        Node::BlockDevice { .. } => FileKind::BlockDevice,
    }
}

fn device_of(node: &Node) -> (u32, u32) {
    match *node {
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => (major, minor),
        _ => (0, 0),
    }
}

/// What is put on a path of the target.
pub(super) fn target_metadata(metadata: &Metadata) -> TargetMetadata {
    TargetMetadata {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        modified: FileTime { seconds: metadata.modified.seconds, nanoseconds: metadata.modified.nanoseconds },
        attributes: metadata
            .xattrs
            .iter()
            .map(|xattr| Attribute { name: xattr.name.to_vec(), value: xattr.value.to_vec() })
            .collect(),
    }
}
