//! Processes of the test world: each sees the disk through doors that count effects, fail as planned, wait
//! for their turn, and shut when the process dies.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use copal_store::local::{EntryKind, Files, FolderEntry, LockKind, OpenFile};

use crate::disk::Disk;
use crate::schedule::Turn;
use crate::seeded::Choices;

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The device fails: nothing happened.
    Eio,
    /// The disk is full: nothing happened.
    NoSpace,
    /// It happened, and the answer is an error all the same.
    LostResponse,
    /// Fewer bytes are read or written than asked for.
    Short,
    /// One bit of what is read is wrong.
    BitFlip,
    /// It takes long: others run meanwhile.
    Slow,
}

/// How often what goes wrong: one in so many operations, 0 for never. A seed decides when.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// See [`Trouble::Eio`].
    pub eio: u64,
    /// See [`Trouble::NoSpace`].
    pub no_space: u64,
    /// See [`Trouble::LostResponse`].
    pub lost_response: u64,
    /// See [`Trouble::Short`].
    pub short: u64,
    /// See [`Trouble::BitFlip`].
    pub bit_flip: u64,
    /// See [`Trouble::Slow`].
    pub slow: u64,
}

/// A fault that was built in on purpose, to see whether the checks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkippedSync {
    /// Files below this folder are not synced.
    OfFiles(PathBuf),
    /// The names in this folder and below are not synced.
    OfNames(PathBuf),
}

#[derive(Debug, Default)]
struct Fate {
    dead: bool,
    effects: u64,
    /// Dies before the effect with this number (from 0).
    dies_at: Option<u64>,
    troubles: Troubles,
    choices: Choices,
    faults: u64,
    skipped: Option<SkippedSync>,
    turn: Option<Turn>,
    interruption: Option<Interruption>,
}

/// What happens elsewhere in the midst of a process's work.
struct Interruption {
    place: Moment,
    others: Box<dyn FnOnce() + Send>,
}

/// When others act in the midst of a process's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before its next operation but so many.
    Operation(u64),
    /// Before it next lists this folder, or gives or takes a name in it, but for so many times.
    Name(PathBuf, u64),
}

impl fmt::Debug for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interruption({:?})", self.place)
    }
}

/// One process. Clones are the same process.
#[derive(Clone, Debug)]
pub struct Process {
    disk: Disk,
    fate: Arc<Mutex<Fate>>,
}

/// Kinds of operations, as far as troubles tell them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// Changes something, or makes a change durable.
    Effect,
    /// An effect that takes room.
    Write,
    Read,
    Look,
}

fn died() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the process is dead")
}

impl Process {
    /// A process that nothing befalls.
    #[must_use]
    pub fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), fate: Arc::default() }
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dies before its `effect`th change of the disk, counted from 0.
    pub fn die_at(&self, effect: u64) {
        self.fate().dies_at = Some(effect);
    }

    /// Dies now: every door is shut, every lock is let go. What it wrote stays.
    pub fn kill(&self) {
        self.fate().dead = true;
    }

    /// Whether it died.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.fate().dead
    }

    /// Changes of the disk so far.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.fate().effects
    }

    /// Faults that befell it so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.fate().faults
    }

    /// Plans faults.
    pub fn trouble(&self, troubles: Troubles, seed: u64) {
        let mut fate = self.fate();
        fate.troubles = troubles;
        fate.choices = Choices::new(seed);
    }

    /// Builds a fault in.
    pub fn skip(&self, sync: SkippedSync) {
        self.fate().skipped = Some(sync);
    }

    /// From now on it waits for its turn before each operation.
    pub fn wait_for(&self, turn: Turn) {
        self.fate().turn = Some(turn);
    }

    /// At that moment others act.
    pub fn interrupt(&self, place: Moment, others: Box<dyn FnOnce() + Send>) {
        self.fate().interruption = Some(Interruption { place, others });
    }

    /// Nobody interrupts it any more.
    pub fn go_on(&self) {
        self.fate().interruption = None;
    }

    /// Lets others act when their moment has come. `name` is what is listed or named; `None` at every
    /// operation.
    fn be_interrupted(&self, name: Option<&Path>) {
        let mut fate = self.fate();
        let left = match (&mut fate.interruption, name) {
            (Some(Interruption { place: Moment::Operation(left), .. }), None) => left,
            (Some(Interruption { place: Moment::Name(folder, left), .. }), Some(name))
                if name.starts_with(&*folder) =>
            {
                left
            }
            _ => return,
        };
        if *left > 0 {
            *left -= 1;
            return;
        }
        let interruption = fate.interruption.take();
        drop(fate);
        if let Some(interruption) = interruption {
            (interruption.others)();
        }
    }

    /// Its view of the disk.
    #[must_use]
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::new(ProcessFiles { process: self.clone() })
    }

    /// Waits for its turn, counts, and decides what goes wrong.
    fn enter(&self, operation: Operation) -> io::Result<Option<Trouble>> {
        let turn = self.fate().turn.clone();
        if let Some(turn) = &turn {
            turn.wait();
        }
        self.be_interrupted(None);
        let slow = {
            let mut fate = self.fate();
            if fate.dead {
                return Err(died());
            }
            if matches!(operation, Operation::Effect | Operation::Write) {
                if fate.dies_at == Some(fate.effects) {
                    fate.dead = true;
                    return Err(died());
                }
                fate.effects += 1;
            }
            let Fate { troubles, choices, .. } = &mut *fate;
            let mut happens = |chances: u64| chances > 0 && choices.one_in(chances);
            let trouble = match operation {
                _ if happens(troubles.slow) => Some(Trouble::Slow),
                _ if happens(troubles.eio) => Some(Trouble::Eio),
                Operation::Write if happens(troubles.no_space) => Some(Trouble::NoSpace),
                Operation::Write | Operation::Read if happens(troubles.short) => Some(Trouble::Short),
                Operation::Read if happens(troubles.bit_flip) => Some(Trouble::BitFlip),
                Operation::Effect if happens(troubles.lost_response) => Some(Trouble::LostResponse),
                _ => None,
            };
            match trouble {
                Some(Trouble::Slow) => true,
                Some(trouble) => {
                    fate.faults += 1;
                    return match trouble {
                        Trouble::Eio => Err(io::Error::from_raw_os_error(5)),
                        Trouble::NoSpace => Err(io::ErrorKind::StorageFull.into()),
                        trouble => Ok(Some(trouble)),
                    };
                }
                None => false,
            }
        };
        if slow && let Some(turn) = turn {
            for _ in 0..SLOW_TURNS {
                turn.wait();
            }
            if self.is_dead() {
                return Err(died());
            }
        }
        Ok(None)
    }

    fn effect<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let trouble = self.enter(Operation::Effect)?;
        let done = act()?;
        match trouble {
            Some(Trouble::LostResponse) => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(done),
        }
    }

    fn look<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.enter(Operation::Look)?;
        act()
    }

    fn skips(&self, folder: &Path, file: bool) -> bool {
        match &self.fate().skipped {
            Some(SkippedSync::OfFiles(of)) => file && folder.starts_with(of),
            Some(SkippedSync::OfNames(of)) => !file && folder.starts_with(of),
            None => false,
        }
    }

    fn opened(&self, inode: u64) -> Box<dyn OpenFile> {
        Box::new(ProcessFile { process: self.clone(), inode, open: self.disk.open(), synced: Mutex::new(true) })
    }
}

/// Turns that a slow operation lets pass.
const SLOW_TURNS: u64 = 40;

#[derive(Debug)]
struct ProcessFiles {
    process: Process,
}

impl Files for ProcessFiles {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.process.effect(|| self.process.disk.create_folder(path))
    }

    fn create_unnamed(&self, folder: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.process.look(|| Ok(self.process.opened(self.process.disk.create_unnamed(folder)?)))
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.process.effect(|| Ok(self.process.opened(self.process.disk.create_new(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.process.look(|| Ok(self.process.opened(self.process.disk.find(path)?)))
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        let disk = &self.process.disk;
        self.process.look(|| disk.bytes(disk.find(path)?))
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<FolderEntry>> {
        self.process.be_interrupted(Some(folder));
        let entries = self.process.look(|| self.process.disk.entries(folder))?;
        let kind = |bytes: Option<u64>| bytes.map_or(EntryKind::Folder, EntryKind::File);
        Ok(entries.into_iter().map(|(name, bytes)| FolderEntry { name, kind: kind(bytes) }).collect())
    }

    fn is_foreign(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.process.be_interrupted(Some(path));
        self.process.effect(|| self.process.disk.remove(path))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let skips = self.process.skips(folder, false);
        self.process.effect(|| if skips { Ok(()) } else { self.process.disk.sync_folder(folder) })
    }

    /// One after the other, so that a run can be repeated.
    fn sync_files(&self, files: &[&dyn OpenFile]) -> Vec<io::Result<()>> {
        files.iter().map(|file| file.sync()).collect()
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        self.process.look(|| Ok(self.process.disk.free_bytes()))
    }
}

struct ProcessFile {
    process: Process,
    inode: u64,
    open: u64,
    /// `false` when a mutant's sync was put off until it is known where the file goes.
    synced: Mutex<bool>,
}

impl OpenFile for ProcessFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match self.process.enter(Operation::Write)? {
            Some(Trouble::Short) => bytes.len().div_ceil(2),
            _ => bytes.len(),
        };
        self.process.disk.append(self.inode, &bytes[..count])
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let trouble = self.process.enter(Operation::Read)?;
        let count = if trouble == Some(Trouble::Short) { buffer.len().div_ceil(2) } else { buffer.len() };
        let read = self.process.disk.read_at(self.inode, &mut buffer[..count], offset)?;
        if trouble == Some(Trouble::BitFlip) && read > 0 {
            let bit = self.process.fate().choices.below(read as u64 * 8) as usize;
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(read)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.process.look(|| self.process.disk.bytes(self.inode))
    }

    fn write_out(&self, _offset: u64, _bytes: u64) {
        // What reaches the disk unsynced is chosen at the crash.
    }

    fn sync(&self) -> io::Result<()> {
        let skipped = matches!(self.process.fate().skipped, Some(SkippedSync::OfFiles(_)));
        self.process.effect(|| {
            // Where an unnamed file will go is known when it gets its name.
            if skipped {
                *self.synced.lock().unwrap_or_else(PoisonError::into_inner) = false;
                return Ok(());
            }
            self.process.disk.sync(self.inode)
        })
    }

    fn link(&self, _from: Option<&Path>, to: &Path) -> io::Result<()> {
        let put_off = !*self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if put_off && !self.process.skips(to, true) {
            self.process.disk.sync(self.inode)?;
        }
        self.process.be_interrupted(Some(to));
        self.process.effect(|| self.process.disk.link(self.inode, to))
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.process.look(|| Ok(self.process.disk.try_lock(self.inode, self.open, kind == LockKind::Exclusive)))
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.process.look(|| Ok(self.process.disk.find(path)? == self.inode))
    }
}

impl Drop for ProcessFile {
    fn drop(&mut self) {
        self.process.disk.unlock(self.inode, self.open);
    }
}
