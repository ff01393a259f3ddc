//! The coordinator: scan and parent side by side, jobs out, results back in path order.

mod database;
mod settle;

use std::collections::{HashMap, HashSet, VecDeque};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use copal_chunker::Cutter;
use copal_manifest::content::FileContent;
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::finder::NodeFinder;
use copal_manifest::snapshot::{Rule, SourceKind, SourceRecord};
use copal_manifest::tree::{EntryIter, TreeBuilder, TreeReader};
use copal_source::scan::{FileKind, FileStat, ScanEntry, ScanProblem};
use copal_store::session::Session;
use crossbeam_channel::{Sender, bounded};

use crate::context::Context;
use crate::create::clones::{ContentIdentity, KeptClones};
use crate::create::creation::Taken;
use crate::create::evidence::{is_present, is_unchanged, trusted_before};
use crate::create::extent::{Extent, ExtentDone};
use crate::create::input::{Entries, Input};
use crate::create::job::{Job, run};
use crate::create::large::{Assembly, HOLE_BYTES_MIN, LargeFile, Part};
use crate::create::left_out::LeftOut;
use crate::create::nodes::TreeSink;
use crate::create::parent::Parent;
use crate::create::small::{Outcome, SMALL_FILE_BYTES_MAX, SmallFile, Trouble};
use crate::create::worker::Shared;
use crate::error::{Error, Result};
use crate::storing::meter::Meter;
use crate::storing::promise::{Promise, promise};

/// Most entries that wait for their turn.
pub(super) const WINDOW_ITEMS: usize = 8192;
/// Most jobs of a worker that are not yet settled.
pub(super) const JOBS_PER_WORKER: usize = 16;
/// A batch is handed out when it has so many paths, or content of [`SMALL_FILE_BYTES_MAX`].
const BATCH_PATHS: usize = 256;

/// Anything but a folder with several names: its filesystem and inode.
type FileKey = (u64, u64);

/// A place in path order that is not settled.
enum Waiting {
    /// Settled, but not at its turn.
    Ready(Entry, Option<FileKey>),
    /// A path in a batch.
    Batched {
        batch: u64,
        key: Option<FileKey>,
    },
    /// Another name of a file that was met before.
    Link(Box<SmallFile>, FileKey),
    /// A large file: its parts and its end follow.
    Begin(Box<LargeFile>),
    Part(Promise<ExtentDone>),
    /// A part that is as the parent has it.
    Reuse {
        begin: u64,
        to: u64,
    },
    End(Option<FileKey>),
}

enum Batch {
    Out(Promise<Vec<Outcome>>),
    Back(VecDeque<Outcome>),
}

pub(super) struct Capture<'s, 'j> {
    shared: &'s Shared<'s>,
    reader: copal_source::read::TreeReader,
    jobs: Sender<Job>,
    jobs_open: usize,
    jobs_max: usize,
    window: VecDeque<Waiting>,
    batch: Vec<SmallFile>,
    batch_bytes: u64,
    batch_number: u64,
    batches: HashMap<u64, Batch>,
    assembly: Option<Assembly>,
    parent: Option<Peekable<EntryIter<'s>>>,
    parent_source: Option<&'j SourceRecord>,
    clones: Option<&'j KeptClones>,
    force_read: bool,
    /// The source, where databases in it are read through SQLite.
    databases_below: Option<PathBuf>,
    /// Those that were: what stands beside them is part of them.
    databases: HashSet<Vec<u8>>,
    /// What has several names: met by the scan, and put into the tree.
    met: HashMap<FileKey, ()>,
    placed: HashMap<FileKey, (EntryPath, Metadata)>,
    builder: TreeBuilder,
    /// The folders that hold the entry placed last, from the root.
    folders: Vec<EntryPath>,
    /// The last folder that is missing, with what is in it.
    missing: Option<EntryPath>,
    sink: TreeSink<'s>,
    files: u64,
    entries: u64,
    bytes: u64,
    warnings: Vec<String>,
    unread_files: u64,
    torn_files: u64,
    contents: Vec<(Vec<u8>, ContentIdentity)>,
    left_out: LeftOut,
    /// What paths of errors begin with.
    root: PathBuf,
}

impl Capture<'_, '_> {
    /// Captures one source with as many workers as the context says.
    pub(super) fn run(
        context: &Context,
        session: &Session,
        cutter: &Cutter,
        force_read: bool,
        input: &Input,
        parent: Option<&Parent>,
    ) -> Result<Taken> {
        let threads = context.worker_threads();
        let before = input.before.clone().map(Arc::new);
        let parent_source = before.or_else(|| parent.and_then(|parent| parent.source(&input.label, &input.path)));
        let begun = trusted_before(context.clock.now());
        let shared = Shared {
            context,
            session,
            cutter,
            parameters: &session.repository().config().parameters,
            meter: Meter::new(context),
            root: &input.path,
            begun,
            bytes_read: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
            page_structured: input.page_structured,
            cloned: input.is_clone(),
        };
        context.monitor.phase("storing");
        let (jobs, queue) = bounded(threads * 2);
        let left_out = input.left_out(context)?;
        let (entries, reader) = input.open(&left_out, threads)?;
        let boundary_key = session.repository().keys().tree_boundary_key();
        std::thread::scope(|scope| {
            for number in 0..threads {
                let (queue, shared) = (queue.clone(), &shared);
                std::thread::Builder::new()
                    .name(format!("store {number}"))
                    .spawn_scoped(scope, move || run(shared, &queue))
                    .map_err(|error| Error::Internal(format!("a worker could not be started: {error}")))?;
            }
            drop(queue);
            let iterator = parent_source.as_ref().map(|parent| TreeReader::new(session, parent.tree).entries());
            let finder = parent_source.as_ref().map(|parent| NodeFinder::new(session, parent.tree));
            let mut capture = Capture {
                shared: &shared,
                reader,
                jobs,
                jobs_open: 0,
                jobs_max: threads * JOBS_PER_WORKER,
                window: VecDeque::new(),
                batch: Vec::new(),
                batch_bytes: 0,
                batch_number: 0,
                batches: HashMap::new(),
                assembly: None,
                parent: iterator.map(Iterator::peekable),
                parent_source: parent_source.as_deref(),
                clones: input.clones.as_ref(),
                force_read: force_read && input.before.is_none(),
                databases_below: input.databases_below(),
                databases: HashSet::new(),
                met: HashMap::new(),
                placed: HashMap::new(),
                builder: TreeBuilder::new(&boundary_key),
                folders: Vec::new(),
                missing: None,
                sink: TreeSink::new(session, finder)?,
                files: 0,
                entries: 0,
                bytes: 0,
                warnings: Vec::new(),
                unread_files: 0,
                torn_files: 0,
                contents: Vec::new(),
                left_out,
                root: input.root(),
            };
            let outcome = capture.take_all(entries, input.exclusions.one_file_system);
            if outcome.is_err() {
                shared.abandoned.store(true, Ordering::Relaxed);
            }
            let (kind, device) = outcome?;
            capture.finish(input, kind, device, begun)
        })
    }

    /// Goes through the scan; returns what the root is, and on which filesystem.
    fn take_all(&mut self, entries: Entries, one_file_system: bool) -> Result<(SourceKind, u64)> {
        let mut root = None;
        for found in entries {
            self.shared.context.check_interrupt()?;
            match found {
                Ok(entry) => {
                    let (_, device) = *root.get_or_insert((entry.stat.kind, entry.stat.device));
                    if one_file_system && entry.stat.kind == FileKind::Directory && entry.stat.device != device {
                        self.left_out.add_mount_point(entry.path.to_vec());
                    }
                    if entry.stat.kind == FileKind::Directory {
                        self.left_out.add_if_named(&entry.path);
                    }
                    self.take(entry)?;
                }
                Err(problem) if root.is_none() => return Err(problem.into()),
                Err(problem) => self.unread_in_scan(&problem),
            }
            self.settle_what_is_ready()?;
        }
        self.shared.meter.all_found();
        self.name_what_is_not_there();
        self.end_batch()?;
        while !self.window.is_empty() {
            self.settle_front()?;
        }
        match root {
            Some((FileKind::Directory, device)) => Ok((SourceKind::Tree, device)),
            Some((FileKind::File, device)) => Ok((SourceKind::File, device)),
            Some((kind, _)) => Err(no_source(&self.root, kind)),
            None => Err(Error::Internal("a scan without a root".into())),
        }
    }

    /// What was named, and is not there.
    fn name_what_is_not_there(&mut self) {
        let only = self.left_out.only.clone();
        for path in only.iter().flat_map(|only| only.unmet()) {
            if let Err(error) = self.reader.stat(&path) {
                self.unread(error.to_string(), Some(Rule::Path(path.to_vec())));
            }
        }
    }

    fn finish(mut self, input: &Input, kind: SourceKind, device: u64, begun: Timestamp) -> Result<Taken> {
        let builder = std::mem::replace(&mut self.builder, TreeBuilder::new(&[0; 32]));
        let tree = builder.finish(&mut self.sink)?;
        self.shared.meter.tell();
        if self.entries == 0 {
            let why = self.warnings.first().cloned().unwrap_or_else(|| "it vanished".into());
            let path = self.root.clone();
            return Err(copal_source::Error::Io { action: "taking", path, source: std::io::Error::other(why) }.into());
        }
        let record = SourceRecord {
            label: input.label.clone(),
            kind: input.kind.unwrap_or(kind),
            path: input.path.clone(),
            tree,
            files: self.files,
            entries: self.entries,
            bytes: self.bytes,
            device,
            trusted_before: begun,
        };
        let bytes_read = self.shared.bytes_read.load(Ordering::Relaxed);
        let Self { warnings, unread_files, torn_files, contents, mut left_out, .. } = self;
        if record.kind != SourceKind::Tree {
            left_out = LeftOut::default();
        }
        left_out.add_units();
        Ok(Taken { record, bytes_read, warnings, unread_files, torn_files, contents, left_out })
    }

    /// What could not be read is left out by a rule: a deploy leaves it where it is.
    fn unread(&mut self, why: String, rule: Option<Rule>) {
        self.warnings.push(why);
        self.unread_files += 1;
        self.left_out.add_unread(rule);
    }

    /// A path that could not be looked at, or a folder whose names could not be read: that is in the
    /// snapshot, and what is in it is not.
    fn unread_in_scan(&mut self, problem: &ScanProblem) {
        let below = problem.path().and_then(|whole| self.below_root(whole));
        let rule = if problem.is_of_a_name() { Rule::Path } else { Rule::MountPoint };
        self.unread(problem.to_string(), below.map(rule));
    }

    /// A whole path as one from the root of what is captured; none for the root itself.
    fn below_root(&self, whole: &Path) -> Option<Vec<u8>> {
        let below = whole.strip_prefix(&self.root).ok()?.as_os_str().as_bytes();
        (!below.is_empty()).then(|| below.to_vec())
    }

    /// One path of the scan.
    fn take(&mut self, found: ScanEntry) -> Result<()> {
        let ScanEntry { path, stat, has_log, .. } = found;
        let Some(path) = EntryPath::from_slashes(&path) else {
            let why = format!("{}: the path is too long to be kept", String::from_utf8_lossy(&path));
            self.unread(why, Some(Rule::Path(path.to_vec())));
            return Ok(());
        };
        let is_file = stat.kind == FileKind::File;
        self.shared.meter.found(if is_file { stat.bytes } else { 0 });
        let parent = self.parent_entry(&path);
        let key = (stat.kind != FileKind::Directory && stat.links > 1).then_some((stat.device, stat.inode));
        if let Some(key) = key
            && self.met.insert(key, ()).is_some()
        {
            let again = SmallFile { reader: self.reader.clone(), path, stat, parent: None };
            return self.wait_for(Waiting::Link(Box::new(again), key));
        }
        if self.is_beside_a_database(&path) {
            self.shared.meter.file_done();
            return Ok(());
        }
        if is_file
            && (has_log || path.is_root())
            && let Some(pinned) = self.pin_database(&path, &stat)
        {
            return self.take_database(path, pinned, parent, key);
        }
        if let Some(parent) = &parent
            && self.can_be_reused(parent, &stat)?
        {
            self.shared.meter.file_done();
            self.shared.meter.bytes_done(if is_file { stat.bytes } else { 0 });
            return self.wait_for(Waiting::Ready(parent.clone(), key));
        }
        let parent = content_of(parent);
        let sparse = stat.allocated_bytes.saturating_add(HOLE_BYTES_MIN) <= stat.bytes;
        if is_file && (stat.bytes > SMALL_FILE_BYTES_MAX || sparse) {
            let reader = self.reader.clone();
            return self.take_large(&reader, path, stat, parent, key);
        }
        self.take_small(SmallFile { reader: self.reader.clone(), path, stat, parent }, key)
    }

    /// What the parent has at a path; paths are asked for in order. A parent that cannot be read is none from
    /// there on.
    fn parent_entry(&mut self, path: &EntryPath) -> Option<Entry> {
        let parent = self.parent.as_mut()?;
        loop {
            match parent.peek() {
                Some(Ok(entry)) if entry.path < *path => drop(parent.next()),
                Some(Ok(entry)) if entry.path == *path => return parent.next()?.ok(),
                Some(Err(error)) => {
                    let notice =
                        format!("the parent snapshot cannot be read from {path} on, so all is read again: {error}");
                    self.shared.context.monitor.notice(&notice);
                    self.parent = None;
                    return None;
                }
                _ => return None,
            }
        }
    }

    fn can_be_reused(&self, parent: &Entry, stat: &FileStat) -> Result<bool> {
        let Some(source) = self.parent_source else { return Ok(false) };
        if self.force_read && stat.kind == FileKind::File || !is_unchanged(parent, stat, source.trusted_before) {
            return Ok(false);
        }
        match &parent.node {
            Node::File(content) => Ok(is_present(self.shared.session, content)?),
            _ => Ok(true),
        }
    }

    /// Whether pieces of the parent may stand for bytes that were not read.
    fn may_reuse_parts_of(&self, content: &FileContent) -> Result<bool> {
        Ok(self.parent_source.is_some() && !self.force_read && is_present(self.shared.session, content)?)
    }

    fn take_small(&mut self, file: SmallFile, key: Option<FileKey>) -> Result<()> {
        self.batch_bytes += if file.stat.kind == FileKind::File { file.stat.bytes } else { 0 };
        self.batch.push(file);
        self.wait_for(Waiting::Batched { batch: self.batch_number, key })?;
        if self.batch.len() >= BATCH_PATHS || self.batch_bytes >= SMALL_FILE_BYTES_MAX {
            self.end_batch()?;
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<()> {
        self.make_room()?;
        // Making room may have come to this very batch.
        if self.batch.is_empty() { Ok(()) } else { self.end_batch_now() }
    }

    fn take_large(
        &mut self,
        reader: &copal_source::read::TreeReader,
        path: EntryPath,
        stat: FileStat,
        parent: Option<Arc<FileContent>>,
        key: Option<FileKey>,
    ) -> Result<()> {
        let cutter = self.shared.cutter;
        let clones = match (self.clones, &parent) {
            (Some(clones), Some(content)) if self.may_reuse_parts_of(content)? => Some(clones),
            _ => None,
        };
        match LargeFile::open(self.shared, reader, path, &stat, parent, clones) {
            Err(trouble) => self.place_outcome(Outcome::of(trouble)?, key),
            Ok(large) => {
                let parts: Vec<Part> = large.parts(cutter).collect();
                self.wait_for(Waiting::Begin(Box::new(large)))?;
                for part in parts {
                    self.make_room()?;
                    let waiting = match part {
                        Part::Read(extent) => Waiting::Part(self.send_extent(extent)?),
                        Part::Reuse { begin, to } => Waiting::Reuse { begin, to },
                    };
                    self.wait_for(waiting)?;
                }
                self.wait_for(Waiting::End(key))
            }
        }
    }

    fn send_extent(&mut self, extent: Extent) -> Result<Promise<ExtentDone>> {
        let (keeper, promise) = promise();
        self.send(Job::Extent(extent, keeper))?;
        Ok(promise)
    }

    fn send(&mut self, job: Job) -> Result<()> {
        self.jobs_open += 1;
        self.jobs.send(job).map_err(|_| Error::Internal("all workers have ended".into()))
    }

    /// Settles until another job may be handed out.
    fn make_room(&mut self) -> Result<()> {
        while self.jobs_open >= self.jobs_max && !self.window.is_empty() {
            self.settle_front()?;
        }
        Ok(())
    }

    fn wait_for(&mut self, waiting: Waiting) -> Result<()> {
        self.window.push_back(waiting);
        while self.window.len() > WINDOW_ITEMS {
            self.settle_front()?;
        }
        Ok(())
    }

    /// Hands the batch out as it is, room or not.
    fn end_batch_now(&mut self) -> Result<()> {
        let files = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let (keeper, promise) = promise();
        self.send(Job::Batch(files, keeper))?;
        self.batches.insert(self.batch_number, Batch::Out(promise));
        self.batch_number += 1;
        Ok(())
    }
}

/// What a file of the parent has.
fn content_of(parent: Option<Entry>) -> Option<Arc<FileContent>> {
    parent.and_then(|entry| match entry.node {
        Node::File(content) => Some(Arc::new(content)),
        _ => None,
    })
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Source(error) => error.into(),
            Trouble::Fatal(error) => error,
        }
    }
}

/// What is neither; of a link where it leads, since links to folders are followed.
fn no_source(path: &Path, kind: FileKind) -> Error {
    let leads = match std::fs::read_link(path) {
        Ok(target) if kind == FileKind::Symlink => format!(" to {}, and no folder: name that itself", target.display()),
        _ => String::new(),
    };
    Error::Usage(format!("{} is {}{leads}; a source is a folder or a regular file", path.display(), kind.name()))
}
