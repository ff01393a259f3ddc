//! Small files and everything without content, in batches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_manifest::content::{Cutting, FileContent, Piece, Pieces, PiecesBuilder};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Xattr};
use copal_source::read::{Attribute, OpenFile, TreeReader};
use copal_source::scan::{FileKind, FileStat};

use crate::create::evidence::{is_same_content, timestamp};
use crate::create::worker::Worker;
use crate::error::{Error, Result};
use crate::storing::bases::Bases;
use crate::storing::cutting::{by_its_head, is_small};

/// Larger files are read by extents.
pub(super) const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
/// A file that changes while it is read is read so often.
pub(super) const ATTEMPTS: usize = 3;
/// Most bytes of a file that says that it has none: some never end.
const UNSAID_BYTES_MAX: usize = 16 << 20;
/// Files that are written out at the same time, by all workers together.
const WRITE_OUT_AT_ONCE: usize = 16;
/// What was changed longer ago the system has written out by itself: after 30 seconds, looking every 5.
const DIRTY_SECONDS_MAX: i64 = 60;

/// A path to be captured.
pub(super) struct SmallFile {
    pub(super) reader: TreeReader,
    pub(super) path: EntryPath,
    pub(super) stat: FileStat,
    /// What the parent has there.
    pub(super) parent: Option<Arc<FileContent>>,
}

/// What became of a path.
pub(super) enum Outcome {
    /// Captured.
    Taken(Entry),
    /// Captured, but it changed while it was read.
    Changing(Entry, String),
    /// It could not be read: why, and its whole path where that is known.
    Unread(String, Option<PathBuf>),
    /// It is gone: not part of the snapshot.
    Vanished,
}

/// What befalls one path, apart from what ends the capture.
pub(super) enum Trouble {
    Source(copal_source::Error),
    Fatal(Error),
}

impl From<copal_source::Error> for Trouble {
    fn from(error: copal_source::Error) -> Self {
        Self::Source(error)
    }
}

impl From<copal_store::Error> for Trouble {
    fn from(error: copal_store::Error) -> Self {
        Self::Fatal(error.into())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl Outcome {
    pub(super) fn of(trouble: Trouble) -> Result<Self> {
        match trouble {
            Trouble::Fatal(error) => Err(error),
            Trouble::Source(error) if error.is_not_found() => Ok(Self::Vanished),
            Trouble::Source(error) => Ok(Self::Unread(error.to_string(), error.path().map(Path::to_owned))),
        }
    }
}

pub(super) fn metadata_of(stat: &FileStat, attributes: Vec<Attribute>) -> Metadata {
    let xattrs =
        attributes.into_iter().map(|xattr| Xattr { name: xattr.name.into(), value: xattr.value.into() }).collect();
    Metadata {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        modified: timestamp(stat.modified),
        changed: timestamp(stat.changed),
        inode: stat.inode,
        xattrs,
    }
}

/// A folder that is away for an instant is asked again: all that is in it depends on it.
fn attributes_of(reader: &TreeReader, path: &[u8], kind: FileKind) -> copal_source::Result<Vec<Attribute>> {
    let mut asked = reader.attributes(path);
    for _ in 1..ATTEMPTS {
        match asked {
            Err(_) if kind == FileKind::Directory => asked = reader.attributes(path),
            other => return other,
        }
    }
    asked
}

/// Anything but a regular file.
pub(super) fn capture_without_content(file: &SmallFile) -> Result<Outcome, Trouble> {
    let SmallFile { reader, path, stat, .. } = file;
    let slashes = path.to_slashes();
    let (major, minor) = stat.special;
    let node = match stat.kind {
        FileKind::File => return Err(Trouble::Fatal(Error::Internal(format!("{path} is a file with content")))),
        FileKind::Directory => Node::Directory,
        FileKind::Symlink => Node::Symlink(reader.read_link(&slashes)?.into()),
        FileKind::Fifo => Node::Fifo,
        FileKind::Socket => Node::Socket,
        FileKind::CharDevice => Node::CharDevice { major, minor },
        FileKind::BlockDevice => Node::BlockDevice { major, minor },
    };
    let metadata = metadata_of(stat, attributes_of(reader, &slashes, stat.kind)?);
    Ok(Outcome::Taken(Entry { path: path.clone(), metadata, node }))
}

impl Worker<'_> {
    pub(super) fn batch(&mut self, files: Vec<SmallFile>) -> Result<Vec<Outcome>> {
        self.write_out_ahead(&files);
        let mut outcomes = Vec::with_capacity(files.len());
        for file in &files {
            outcomes.push(self.capture(file).or_else(Outcome::of)?);
            self.shared.meter.file_done();
        }
        // Before anybody hears of the chunks in it.
        self.store_frame()?;
        Ok(outcomes)
    }

    /// Files that were just made are not on the disk yet, and each is waited for before it is read: side by
    /// side that takes a fraction of the time.
    fn write_out_ahead(&self, files: &[SmallFile]) {
        let helpers = WRITE_OUT_AT_ONCE / self.shared.context.worker_threads();
        let since = self.shared.begun.seconds - DIRTY_SECONDS_MAX;
        let is_new = |file: &&SmallFile| file.stat.kind == FileKind::File && file.stat.changed.seconds >= since;
        let new: Vec<&SmallFile> = files.iter().filter(is_new).collect();
        if helpers < 2 || new.len() < helpers || self.shared.cloned {
            return;
        }
        std::thread::scope(|scope| {
            for share in new.chunks(new.len().div_ceil(helpers)) {
                scope.spawn(move || {
                    for file in share {
                        // What fails here fails again where the file is read, and is told there.
                        let _ = file.reader.open_file(&file.path.to_slashes()).and_then(|open| open.write_out());
                    }
                });
            }
        });
    }

    fn capture(&mut self, file: &SmallFile) -> Result<Outcome, Trouble> {
        match file.stat.kind {
            FileKind::File => self.capture_file(file),
            _ => capture_without_content(file),
        }
    }

    fn capture_file(&mut self, file: &SmallFile) -> Result<Outcome, Trouble> {
        let mut attempt = 1;
        let (metadata, changing) = loop {
            let open = self.shared.open(&file.reader, &file.path, &file.stat)?;
            let settled = open.settle()?;
            let before = settled.stat;
            // One byte more than it should have, so that growth is seen even where times are coarse.
            let mut wanted = before.bytes.min(2 * SMALL_FILE_BYTES_MAX) as usize;
            self.buffer.resize(wanted + 1, 0);
            let mut read = open.read_at(0, &mut self.buffer)?;
            if before.bytes == 0 && read > 0 {
                (read, wanted) = self.read_to_the_end(&open, &file.path, read)?;
            }
            self.shared.count_read(read);
            let attributes = open.attributes()?;
            let changed = settled.moving || read != wanted || !is_same_content(&before, &open.stat()?);
            self.buffer.truncate(read);
            if !changed || attempt == ATTEMPTS {
                break (metadata_of(&settled.evidence(), attributes), changed);
            }
            attempt += 1;
        };
        let plain = std::mem::take(&mut self.buffer);
        let content = self.store_small(&plain, file.parent.as_deref());
        self.shared.meter.bytes_done(plain.len() as u64);
        self.buffer = plain;
        let entry = Entry { path: file.path.clone(), metadata, node: Node::File(content?) };
        if changing {
            let warning = format!("{}: it changed while it was read", self.shared.named(&file.path));
            return Ok(Outcome::Changing(entry, warning));
        }
        Ok(Outcome::Taken(entry))
    }

    /// Files that the system makes up as they are read say that they have no bytes. Of one that does now, the
    /// end is a change.
    fn read_to_the_end(
        &mut self,
        open: &OpenFile,
        path: &EntryPath,
        mut read: usize,
    ) -> Result<(usize, usize), Trouble> {
        loop {
            self.buffer.resize((2 * read).max(1 << 16), 0);
            let more = open.read_at(read as u64, &mut self.buffer[read..])?;
            read += more;
            if more == 0 {
                let says_so = open.stat()?.bytes == 0;
                return Ok((read, if says_so { read } else { 0 }));
            }
            if read >= UNSAID_BYTES_MAX {
                let detail = format!("it says that it is empty, and has more than {UNSAID_BYTES_MAX} bytes");
                let path = self.shared.named(path).into();
                return Err(copal_source::Error::Refused { path, detail }.into());
            }
        }
    }

    fn store_small(&mut self, plain: &[u8], parent: Option<&FileContent>) -> Result<FileContent> {
        if plain.is_empty() {
            return Ok(FileContent::empty());
        }
        if is_small(plain.len() as u64, self.shared.parameters) {
            let piece = Piece::Chunk { id: self.frame_chunk(plain)?, bytes: plain.len() as u32 };
            let pieces = Pieces::Inline(vec![piece]);
            return Ok(FileContent { bytes: plain.len() as u64, cutting: Cutting::Small, pieces });
        }
        let mut bases = Bases::around(parent, self.shared.session, 0, plain.len() as u64);
        let mut builder = PiecesBuilder::new();
        let cutting = by_its_head(plain, self.shared.parameters);
        let mut start = 0;
        for end in self.ends(plain, cutting) {
            let id = self.chunks.chunk(start as u64, &plain[start..end], &mut bases)?;
            builder.push(Piece::Chunk { id, bytes: (end - start) as u32 }, self.chunks.sink())?;
            start = end;
        }
        Ok(builder.finish(cutting, self.chunks.sink())?)
    }

    /// Where the chunks of a whole file end.
    fn ends(&self, plain: &[u8], cutting: Cutting) -> Vec<usize> {
        if let Cutting::Fixed(bytes) = cutting {
            let inner = (1..).map(|chunk| chunk * bytes as usize).take_while(|end| *end < plain.len());
            return inner.chain([plain.len()]).collect();
        }
        let mut cuts = Vec::new();
        let mut run = self.shared.cutter.start();
        run.feed(plain, &mut cuts);
        run.finish(&mut cuts);
        cuts.iter().map(|cut| cut.offset as usize).collect()
    }
}
