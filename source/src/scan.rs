//! Scans a file tree in path order, in parallel, with bounded memory.

use std::fmt;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::vec;

pub use self::by_content::{ByContent, CACHE_MARK_BEGINS, CACHE_MARK_NAME, Mark};
pub use self::exclude::{Excludes, Expansion};
pub use self::listed::Listed;
use self::walk::{Item, Part, Rules, Shared, Task};
use crate::Result;
use crate::beneath::Root;
use crate::stat::stat;

mod by_content;
mod exclude;
mod listed;
mod walk;

/// Time as the filesystem has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileTime {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// Nanoseconds below 10^9.
    pub nanoseconds: u32,
}

/// What kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl FileKind {
    /// Every kind, at the place of its number.
    const ALL: [Self; 7] =
        [Self::Directory, Self::File, Self::Symlink, Self::Fifo, Self::Socket, Self::CharDevice, Self::BlockDevice];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "a folder",
            Self::File => "a regular file",
            Self::Symlink => "a symbolic link",
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::CharDevice => "a character device",
            Self::BlockDevice => "a block device",
        }
    }

    /// Its number in what is written to disk: it never changes.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Directory => 0,
            Self::File => 1,
            Self::Symlink => 2,
            Self::Fifo => 3,
            Self::Socket => 4,
            Self::CharDevice => 5,
            Self::BlockDevice => 6,
        }
    }

    /// The kind of a number; `None` for none.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// One `statx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// Allocated bytes (fewer than `bytes`: sparse).
    pub allocated_bytes: u64,
    /// Last change of the content.
    pub modified: FileTime,
    /// Last change of the inode.
    pub changed: FileTime,
    /// Inode number.
    pub inode: u64,
    /// Number of names.
    pub links: u32,
    /// Device of the filesystem (major << 32 | minor).
    pub device: u64,
    /// Of a device file: major, minor.
    pub special: (u32, u32),
}

/// Why a path is named by a scan, and nothing beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// [`Keep::keeps`] says so.
    Kept,
    /// Something is mounted there.
    MountPoint,
}

/// A path found by a scan, relative to the root, slash-separated raw bytes; the root is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanEntry {
    /// Relative path.
    pub path: Box<[u8]>,
    /// Its metadata.
    pub stat: FileStat,
    /// Whether something in the same folder is called as the log of a database of this name would be.
    pub has_log: bool,
    /// Only where [`ScanOptions::borders`] asks for it.
    pub border: Option<Border>,
    /// A capture would have left it out by [`Keep::by_content`].
    pub left_out: bool,
}

impl ScanEntry {
    /// A path with its metadata, and nothing more.
    #[must_use]
    pub fn plain(path: Box<[u8]>, stat: FileStat) -> Self {
        Self { path, stat, has_log: false, border: None, left_out: false }
    }
}

/// Which paths of a tree are to be named and left alone; asked from several threads.
pub trait Keep: Send + Sync + fmt::Debug {
    /// Whether this path (not the root) is one. What is beneath such a folder is never asked about.
    fn keeps(&self, path: &[u8], is_folder: bool) -> bool;
    /// By what else a capture of this folder would have left something out.
    fn by_content(&self, folder: &[u8]) -> Option<&ByContent>;
}

/// What a scan leaves out.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Patterns against the path from the root. A folder left out is not entered.
    pub exclude: Arc<Excludes>,
    /// Paths to leave out, whatever the patterns say.
    pub leave_out: Vec<Vec<u8>>,
    /// What is left out for what it is. The root itself is taken, whatever its length; of a folder that is
    /// marked only the mark is.
    pub by_content: Arc<ByContent>,
    /// Deliver only these paths, with what is beneath them and the folders that lead to them.
    pub only: Option<Arc<Listed>>,
    /// Leave out what this keeps as well.
    pub unwanted: Option<Arc<dyn Keep>>,
    /// Name what this keeps, and mount points, with their [`Border`], and enter neither.
    pub borders: Option<Arc<dyn Keep>>,
    /// Do not enter other filesystems (the mount point itself is kept as an empty folder).
    pub one_file_system: bool,
    /// Threads; 0: as many as cores.
    pub threads: usize,
}

/// A path that could not be read; the scan goes on.
pub type ScanProblem = crate::Error;

/// Scans `root` (a folder, or one file) in depth-first order with siblings sorted by name bytes.
/// Memory is bounded by the largest folders in flight, not by the tree. A missing root is an error at once.
///
/// A root that is a symbolic link to a folder is followed; no other link is. A name that vanishes between
/// being read and being looked at is left out without a word; a folder that vanishes or is replaced after
/// that is a problem.
pub fn scan(root: &Path, options: &ScanOptions) -> Result<Scan> {
    let root = Root::open(root)?;
    let place = root.place(&[])?;
    let stat = stat(place.fd(), &place.name).map_err(|error| root.failed("looking at", &[], error))?;
    let first = root
        .is_folder()
        .then(|| Task::folder(&[], stat.device, Part { left_out: false, whole: options.only.is_none() }));
    let entry = ScanEntry::plain(Box::default(), stat);
    let leave_out = options.leave_out.iter().map(|path| path.as_slice().into()).collect();
    let rules = Rules {
        excludes: Arc::clone(&options.exclude),
        leave_out,
        by_content: Arc::clone(&options.by_content),
        only: options.only.clone(),
        unwanted: options.unwanted.clone(),
        borders: options.borders.clone(),
        one_file_system: options.one_file_system,
    };
    Ok(Scan {
        shared: Arc::new(Shared::new(root, rules)),
        threads: Vec::new(),
        threads_wanted: match options.threads {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            given => given,
        },
        stack: vec![vec![Item::Entry(entry, first)].into_iter()],
        buffer: walk::names_buffer(),
    })
}

/// A scan under way: entries in order, problems among them.
pub struct Scan {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    threads_wanted: usize,
    /// What is left of each folder on the way to the current entry.
    stack: Vec<vec::IntoIter<Item>>,
    buffer: Vec<u8>,
}

impl Scan {
    /// Does not go into the folder that was delivered last.
    pub fn pass_over(&mut self) {
        let Some([Item::Part(task)]) = self.stack.last().map(vec::IntoIter::as_slice) else { return };
        self.shared.discard(task);
        self.stack.pop();
    }

    /// Goes on with the result of a task before what is left here.
    fn enter(&mut self, task: &Arc<Task>) {
        let items = self.shared.take(task, &mut self.buffer);
        self.stack.push(items.into_iter());
        // The first folder is read here: a tree without subfolders needs no threads.
        if self.threads.is_empty() && self.shared.has_waiting() {
            let start = |_| {
                let shared = self.shared.clone();
                std::thread::Builder::new().name("scan".into()).spawn(move || shared.run()).ok()
            };
            // Without threads the consumer does all of the work.
            self.threads = (0..self.threads_wanted).filter_map(start).collect();
        }
    }
}

impl Iterator for Scan {
    type Item = Result<ScanEntry, ScanProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.stack.last_mut()?.next() {
                None => {
                    self.stack.pop();
                }
                Some(Item::Part(task)) => self.enter(&task),
                Some(Item::Problem(problem)) => return Some(Err(problem)),
                Some(Item::Entry(entry, task)) => {
                    if let Some(task) = task {
                        // Entered by the next call: the folder itself comes first.
                        self.stack.push(vec![Item::Part(task)].into_iter());
                    }
                    return Some(Ok(entry));
                }
            }
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked has reported its folder as a problem.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Scan").field("depth", &self.stack.len()).finish_non_exhaustive()
    }
}

/// As paths are ordered: a folder's content before whatever its name begins.
fn order_of(path: &[u8]) -> Box<[u8]> {
    path.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect()
}
