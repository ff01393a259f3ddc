//! The work behind a scan: tasks in path order, done ahead by a pool of threads, taken in order by the
//! consumer.
//!
//! A task is one folder (read its names, sort, look at each), or a part of a very large folder. Threads
//! always take the first waiting task in path order, so they stay near the consumer. They pause when too many
//! results wait; the consumer never does: a task that it needs and nobody began it does itself, so there is
//! no deadlock and the bound on memory holds.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, MutexGuard};

use rustix::fs::RawDir;
use rustix::io::Errno;

use super::by_content::{ByContent, Unreadable};
use super::exclude::Excludes;
use super::listed::{Listed, Standing};
use super::{Border, FileKind, FileStat, Keep, ScanEntry, ScanProblem, order_of};
use crate::beneath::Root;
use crate::beneath::parking::Lock;
use crate::error::LOOKING_AT;
use crate::sqlite::{LOGS, database_of};
use crate::stat::{kind, stat, stat_and_mount};

/// Found entries that may wait for the consumer: some 10 MiB of them.
const ENTRIES_AHEAD_MAX: usize = 64 * 1024;

/// Finished tasks that may wait for the consumer, for trees of nearly empty folders.
const TASKS_AHEAD_MAX: usize = 16 * 1024;

/// Names of a folder that one task looks at; a larger folder is shared between the threads.
const PART_NAMES_MAX: usize = 2048;

/// Buffer for `getdents64`: some 1000 names a call.
const NAMES_BUFFER_BYTES: usize = 64 * 1024;

/// What a finished task holds, in path order.
pub(super) enum Item {
    /// An entry; a folder that is to be entered with the task for it.
    Entry(ScanEntry, Option<Arc<Task>>),
    /// A path that could not be read.
    Problem(ScanProblem),
    /// Entries of the same folder, from another task.
    Part(Arc<Task>),
}

impl Item {
    fn task(self) -> Option<Arc<Task>> {
        match self {
            Self::Part(task) => Some(task),
            Self::Entry(_, task) => task,
            Self::Problem(_) => None,
        }
    }
}

/// A piece of work, and its result once done.
pub(super) struct Task {
    key: Key,
    work: Work,
    state: Lock<State>,
}

/// Tasks by the first path that they can give. Paths have a zero byte between components here, so that the
/// plain order of bytes is depth-first order; the second part tells a part of a folder from the subfolder
/// that it begins with.
type Key = (Box<[u8]>, u8);

enum Work {
    Folder { path: Box<[u8]>, device: u64, part: Part },
    Names { of: Arc<Folder>, folder: Arc<OwnedFd>, names: Vec<Name> },
}

/// What a folder is of its tree.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Whether a capture would have left all of it out.
    pub(super) left_out: bool,
    /// Whether all that is in it is wanted; else only what was named, and what leads there.
    pub(super) whole: bool,
}

/// A folder whose names are known.
struct Folder {
    path: Box<[u8]>,
    device: u64,
    part: Part,
    /// What says that the rest of it is left out.
    marks: Vec<CString>,
}

#[derive(Default)]
enum State {
    #[default]
    Waiting,
    Begun,
    Done(Vec<Item>),
    Taken,
    /// Nobody wants the result of who has begun it.
    Unwanted,
}

struct Name {
    name: CString,
    kind: Option<FileKind>,
    has_log: bool,
}

/// What a scan does not deliver, or does not enter.
pub(super) struct Rules {
    pub(super) excludes: Arc<Excludes>,
    pub(super) leave_out: HashSet<Box<[u8]>>,
    pub(super) by_content: Arc<ByContent>,
    pub(super) only: Option<Arc<Listed>>,
    pub(super) unwanted: Option<Arc<dyn Keep>>,
    pub(super) borders: Option<Arc<dyn Keep>>,
    pub(super) one_file_system: bool,
}

impl Rules {
    fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        let database = || database_of(path).filter(|_| !is_folder);
        self.leave_out.contains(path)
            || self.excludes.leaves_out(path, is_folder)
            || !self.leave_out.is_empty() && database().is_some_and(|database| self.leave_out.contains(database))
            || self.unwanted.as_ref().is_some_and(|unwanted| unwanted.keeps(path, is_folder))
    }

    /// What of a folder is left out by its content. Where nothing is left out, but something kept, what a
    /// capture would have left out is delivered as such.
    fn by_content(&self, folder: &[u8]) -> Option<&ByContent> {
        let rules = match &self.borders {
            Some(keep) => keep.by_content(folder),
            None => Some(&*self.by_content),
        };
        rules.filter(|rules| !rules.is_empty())
    }

    /// How a path in a folder stands to what was named; all of a whole one is.
    fn standing(&self, folder: Part, path: &[u8]) -> Standing {
        match &self.only {
            Some(only) if !folder.whole => only.standing(path),
            _ => Standing::Named,
        }
    }

    fn border(&self, path: &[u8], is_folder: bool, is_mount_point: bool) -> Option<Border> {
        let keep = self.borders.as_ref()?;
        if is_mount_point {
            return Some(Border::MountPoint);
        }
        keep.keeps(path, is_folder).then_some(Border::Kept)
    }
}

/// What the threads of a scan share.
pub(super) struct Shared {
    root: Root,
    rules: Rules,
    queue: Lock<Queue>,
    /// For threads: there is a task, or room again.
    work: Condvar,
    /// For the consumer: a task is done.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: BTreeMap<Key, Arc<Task>>,
    entries_ahead: usize,
    tasks_ahead: usize,
    consumer_waits: bool,
    idle_threads: usize,
    closed: bool,
}

impl Queue {
    fn is_full(&self) -> bool {
        self.entries_ahead > ENTRIES_AHEAD_MAX || self.tasks_ahead > TASKS_AHEAD_MAX
    }
}

impl Task {
    pub(super) fn folder(path: &[u8], device: u64, part: Part) -> Arc<Self> {
        Arc::new(Self {
            key: (order_of(path), 1),
            work: Work::Folder { path: path.into(), device, part },
            state: Lock::default(),
        })
    }
}

impl Shared {
    pub(super) fn new(root: Root, rules: Rules) -> Self {
        let (queue, work, done) = (Lock::default(), Condvar::new(), Condvar::new());
        Self { root, rules, queue, work, done }
    }

    /// What a thread does until the scan is closed.
    pub(super) fn run(&self) {
        let mut buffer = names_buffer();
        let mut queue = self.queue.hold();
        while !queue.closed {
            let first = if queue.is_full() { None } else { queue.waiting.pop_first() };
            if let Some((_, task)) = first {
                task.begin();
                drop(queue);
                self.perform(&task, &mut buffer);
                queue = self.queue.hold();
            } else {
                queue.idle_threads += 1;
                queue = wait(&self.work, queue);
                queue.idle_threads -= 1;
            }
        }
    }

    /// Ends the threads: what is still waiting is not done.
    pub(super) fn close(&self) {
        let mut queue = self.queue.hold();
        queue.closed = true;
        queue.waiting.clear();
        self.work.notify_all();
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.hold().waiting.is_empty()
    }

    /// For the consumer: the result of a task, done here and now when nobody began it.
    pub(super) fn take(&self, task: &Arc<Task>, buffer: &mut Vec<u8>) -> Vec<Item> {
        let mut queue = self.queue.hold();
        queue.waiting.remove(&task.key);
        let unbegun = task.begin();
        if unbegun {
            drop(queue);
            self.perform(task, buffer);
            queue = self.queue.hold();
        }
        loop {
            let state = std::mem::replace(&mut *task.state.hold(), State::Taken);
            match state {
                State::Done(items) => {
                    queue.entries_ahead -= items.len().min(queue.entries_ahead);
                    queue.tasks_ahead -= 1;
                    if !queue.is_full() && queue.idle_threads > 0 && !queue.waiting.is_empty() {
                        self.work.notify_one();
                    }
                    return items;
                }
                State::Taken | State::Unwanted => return Vec::new(),
                unfinished => *task.state.hold() = unfinished,
            }
            queue.consumer_waits = true;
            queue = wait(&self.done, queue);
            queue.consumer_waits = false;
        }
    }

    /// For the consumer: a task, and all that came of it, is not wanted.
    pub(super) fn discard(&self, task: &Arc<Task>) {
        let mut queue = self.queue.hold();
        let mut unwanted = vec![task.clone()];
        while let Some(task) = unwanted.pop() {
            queue.waiting.remove(&task.key);
            let mut state = task.state.hold();
            match std::mem::replace(&mut *state, State::Taken) {
                State::Begun => *state = State::Unwanted,
                State::Done(items) => {
                    queue.entries_ahead -= items.len().min(queue.entries_ahead);
                    queue.tasks_ahead -= 1;
                    unwanted.extend(items.into_iter().filter_map(Item::task));
                }
                State::Waiting | State::Taken | State::Unwanted => {}
            }
        }
        self.work.notify_all();
    }

    /// Does a task; its result counts as ahead until it is taken.
    fn perform(&self, task: &Arc<Task>, buffer: &mut Vec<u8>) {
        let mut finish = Finish { shared: self, task, items: Vec::new() };
        match &task.work {
            Work::Folder { path, device, part } => self.list(path, *device, *part, buffer, &mut finish.items),
            Work::Names { of, folder, names } => self.look_at(of, folder, names, &mut finish.items),
        }
    }

    /// Reads a folder's names; looks at each at once, or leaves a large folder to several tasks.
    fn list(&self, path: &[u8], device: u64, part: Part, buffer: &mut Vec<u8>, items: &mut Vec<Item>) {
        let folder = match self.root.open_listing(path) {
            Ok(folder) => folder,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let problem = ScanProblem::refused(self.root.whole(path), "was replaced while it was scanned");
                return items.push(Item::Problem(problem));
            }
            Err(error) => return items.push(Item::Problem(self.root.failed("reading the folder", path, error))),
        };
        let mut names = Vec::new();
        let mut listing = RawDir::new(&folder, buffer.spare_capacity_mut());
        let mut interrupted = None;
        while let Some(found) = listing.next() {
            match found {
                Ok(found) if matches!(found.file_name().to_bytes(), b"." | b"..") => {}
                Ok(found) => {
                    let kind = kind(found.file_type());
                    names.push(Name { name: found.file_name().to_owned(), kind, has_log: false });
                }
                Err(error) => {
                    interrupted = Some(self.root.failed("reading the folder", path, error));
                    break;
                }
            }
        }
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // A folder that changes while it is read may give a name twice.
        names.dedup_by(|a, b| a.name == b.name);
        mark_logs(&mut names);
        let has = |name: &CString| names.binary_search_by(|other| other.name.cmp(name)).is_ok();
        let unreadable = if self.rules.borders.is_some() { Unreadable::IsMark } else { Unreadable::IsNone };
        let marks = self.rules.by_content(path).map(|rules| rules.marks_of(&folder, unreadable, has));
        let of = Folder { path: path.into(), device, part, marks: marks.unwrap_or_default() };
        if !part.whole {
            names.retain(|name| self.rules.standing(part, &join(path, name.name.to_bytes())) != Standing::Unnamed);
        }
        if names.len() <= PART_NAMES_MAX {
            items.reserve(names.len());
            self.look_at(&of, &folder, &names, items);
        } else {
            let (folder, of) = (Arc::new(folder), Arc::new(of));
            while !names.is_empty() {
                let rest = names.split_off(names.len().min(PART_NAMES_MAX));
                let part = std::mem::replace(&mut names, rest);
                let key = (order_of(&join(&of.path, part[0].name.to_bytes())), 0);
                let work = Work::Names { of: of.clone(), folder: folder.clone(), names: part };
                items.push(Item::Part(Arc::new(Task { key, work, state: Lock::default() })));
            }
        }
        items.extend(interrupted.map(Item::Problem));
    }

    /// Looks at names of an open folder, in order.
    fn look_at(&self, of: &Folder, folder: &OwnedFd, names: &[Name], items: &mut Vec<Item>) {
        let names_what_stays = self.rules.borders.is_some();
        for Name { name, kind, has_log } in names {
            let whole = join(&of.path, name.to_bytes());
            let is_mark = of.marks.contains(name);
            let by_mark = !of.marks.is_empty() && !is_mark;
            if by_mark && !names_what_stays {
                continue;
            }
            if kind.is_some_and(|kind| self.rules.leaves_out(&whole, kind == FileKind::Directory)) {
                continue;
            }
            let (stat, is_mount_point) = match stat_and_mount(folder, name) {
                Ok(found) => found,
                // Removed since its name was read: as if the folder had been read a moment later.
                Err(Errno::NOENT) => continue,
                Err(error) => {
                    items.push(Item::Problem(self.root.failed(LOOKING_AT, &whole, error)));
                    continue;
                }
            };
            let is_folder = stat.kind == FileKind::Directory;
            let whole_too = self.rules.standing(of.part, &whole) == Standing::Named;
            if !is_folder && !whole_too {
                continue;
            }
            if kind.is_none() && self.rules.leaves_out(&whole, is_folder) {
                continue;
            }
            let by_content = by_mark || self.is_too_large(&of.path, folder, name, &stat);
            if by_content && !names_what_stays {
                continue;
            }
            let is_mount_point = is_mount_point.unwrap_or(stat.device != of.device);
            let border = self.rules.border(&whole, is_folder, is_mount_point);
            let enter = is_folder && border.is_none() && !(self.rules.one_file_system && stat.device != of.device);
            // With its folder a mark stays, too; what is in it was captured.
            let left_out = of.part.left_out || by_content || is_mark && names_what_stays;
            let part = Part { left_out: of.part.left_out || by_mark, whole: whole_too };
            let task = enter.then(|| Task::folder(&whole, of.device, part));
            items.push(Item::Entry(ScanEntry { path: whole, stat, has_log: *has_log, border, left_out }, task));
        }
    }

    /// Whether a file is too large, or part of a database that is.
    fn is_too_large(&self, path: &[u8], folder: &OwnedFd, name: &CString, found: &FileStat) -> bool {
        let Some(rules) = self.rules.by_content(path).filter(|rules| rules.has_largest()) else { return false };
        if found.kind != FileKind::File || rules.is_too_large(found.kind, found.bytes) {
            return found.kind == FileKind::File;
        }
        // A log without its database is of no use, and beside another state of it a danger.
        let base = database_of(name.to_bytes()).and_then(|base| CString::new(base).ok());
        let base = base.and_then(|base| stat(folder, &base).ok());
        base.is_some_and(|base| rules.is_too_large(base.kind, base.bytes))
    }
}

impl Task {
    /// Claims the task, under the queue's lock; false when somebody has.
    fn begin(&self) -> bool {
        let mut state = self.state.hold();
        let waiting = matches!(*state, State::Waiting);
        if waiting {
            *state = State::Begun;
        }
        waiting
    }
}

/// Hands a task's result over, also when the work on it panicked: the consumer must not wait for ever.
struct Finish<'a> {
    shared: &'a Shared,
    task: &'a Arc<Task>,
    items: Vec<Item>,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = match &self.task.work {
                Work::Folder { path, .. } => &path[..],
                Work::Names { of, .. } => &of.path[..],
            };
            let problem = ScanProblem::refused(self.shared.root.whole(path), "the scan of this folder failed");
            self.items = vec![Item::Problem(problem)];
        }
        let items = std::mem::take(&mut self.items);
        let mut queue = self.shared.queue.hold();
        if matches!(*self.task.state.hold(), State::Unwanted) {
            return;
        }
        queue.entries_ahead += items.len();
        queue.tasks_ahead += 1;
        let mut more: usize = 0;
        if !queue.closed {
            for item in &items {
                if let Item::Part(task) | Item::Entry(_, Some(task)) = item {
                    queue.waiting.insert(task.key.clone(), task.clone());
                    more += 1;
                }
            }
        }
        *self.task.state.hold() = State::Done(items);
        // This thread takes one itself.
        for _ in 0..more.min(queue.idle_threads) {
            self.shared.work.notify_one();
        }
        if queue.consumer_waits {
            self.shared.done.notify_one();
        }
    }
}

/// Marks the names beside which a database's log of that name stands; names are sorted.
fn mark_logs(names: &mut [Name]) {
    for at in 0..names.len() {
        let of = LOGS.iter().find_map(|suffix| names[at].name.to_bytes().strip_suffix(suffix.as_bytes()));
        if let Some(base) = of
            && let Ok(found) = names.binary_search_by(|name| name.name.to_bytes().cmp(base))
        {
            names[found].has_log = true;
        }
    }
}

pub(super) fn names_buffer() -> Vec<u8> {
    Vec::with_capacity(NAMES_BUFFER_BYTES)
}

fn wait<'a>(condition: &Condvar, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
    condition.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn join(folder: &[u8], name: &[u8]) -> Box<[u8]> {
    if folder.is_empty() {
        return name.into();
    }
    let mut path = Vec::with_capacity(folder.len() + 1 + name.len());
    path.extend_from_slice(folder);
    path.push(b'/');
    path.extend_from_slice(name);
    path.into()
}
