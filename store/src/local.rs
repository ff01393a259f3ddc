//! A repository in a local folder: objects are files.
//!
//! An object is written into an unnamed file (`O_TMPFILE`; where the filesystem has none, a locked file in `tmp/`), synced, and
//! only then given its name by `link`, which never replaces. A crash leaves no half object under any name. Sessions and leases
//! are files held by `flock`: the kernel lets go when the process dies. Access times and file names of others mean nothing.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FlockOperation, OFlags, flock, linkat, statvfs};

use crate::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};
use crate::{Error, Result};

/// Folders of a repository, made by `prepare`.
const FOLDERS: &[&str] =
    &["keys", "packs", "index", "snapshots", "labels", "condemned", "sessions", "leases", TEMPORARY];
/// Where unpublished objects live when the filesystem has no unnamed files.
const TEMPORARY: &str = "tmp";
/// Open descriptors kept for reading.
const DESCRIPTORS_MAX: usize = 128;
/// Attempts to take a lease whose file is removed by its last holder at the same moment.
const HOLD_ATTEMPTS: usize = 16;

/// Objects as files below one folder.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    descriptors: Mutex<HashMap<ObjectName, (Arc<File>, u64)>>,
    ticks: AtomicU64,
}

impl LocalBackend {
    /// A backend at a folder, which need not exist yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { root: folder.to_owned(), descriptors: Mutex::default(), ticks: AtomicU64::new(0) }
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    fn descriptors(&self) -> MutexGuard<'_, HashMap<ObjectName, (Arc<File>, u64)>> {
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor for reading, kept for the next time; the one used longest ago makes room.
    fn open(&self, name: &ObjectName) -> Result<Arc<File>> {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        if let Some((file, used)) = self.descriptors().get_mut(name) {
            *used = tick;
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(File::open(self.path(name)).map_err(|error| read_error(name, error))?);
        let mut open = self.descriptors();
        if open.len() >= DESCRIPTORS_MAX
            && let Some(oldest) = open.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone())
        {
            open.remove(&oldest);
        }
        open.insert(name.clone(), (Arc::clone(&file), tick));
        Ok(file)
    }

    fn new_file(&self, name: &ObjectName) -> Result<NewFile> {
        let folder = self.root.join(TEMPORARY);
        let unnamed =
            OpenOptions::new().write(true).mode(0o600).custom_flags(OFlags::TMPFILE.bits() as i32).open(&folder);
        match unnamed {
            Ok(file) => Ok(NewFile { file, named: None }),
            Err(error) if lacks_unnamed_files(&error) => {
                self.remove_dead_temporaries(&folder);
                let number = self.ticks.fetch_add(1, Ordering::Relaxed);
                let path = folder.join(format!("{}-{number}-{}", std::process::id(), name.name()));
                let file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(|error| Error::io("creating", path.display(), error))?;
                let named = Some(path);
                flock(&file, FlockOperation::NonBlockingLockExclusive)
                    .map_err(|error| Error::io("locking", name, error.into()))?;
                Ok(NewFile { file, named })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotARepository { place: self.place() }),
            Err(error) => Err(Error::io("creating", name, error)),
        }
    }

    /// A temporary file that nobody holds belongs to a process that died; one just being made may be lost with it, and its
    /// writer then fails cleanly when it asks for a name.
    fn remove_dead_temporaries(&self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let dead = File::open(entry.path())
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
            if dead {
                // Not being able to tidy is no reason to fail a create.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn sync_folders(&self, folders: &BTreeSet<PathBuf>) -> Result<()> {
        for folder in folders {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| Error::io("syncing", folder.display(), error))?;
        }
        Ok(())
    }

    /// The folder of an object; a pack's is made when it is first needed.
    fn folder_of(&self, name: &ObjectName, touched: &mut BTreeSet<PathBuf>) -> Result<PathBuf> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        if name.kind() == ObjectKind::Pack && !folder.is_dir() {
            match folder_builder().create(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("creating", folder.display(), error));
                }
                _ => drop(touched.insert(self.root.join("packs"))),
            }
        }
        touched.insert(folder.clone());
        Ok(folder)
    }

    fn list_folder(&self, folder: &Path, kind: ObjectKind, found: &mut Vec<ObjectStat>) -> Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("listing", folder.display(), error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("listing", folder.display(), error))?;
            let Some(name) = entry.file_name().to_str().and_then(|name| ObjectName::new(kind, name)) else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => found.push(ObjectStat { name, bytes: metadata.len() }),
                Ok(_) => {}
                // Removed while listing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("listing", entry.path().display(), error)),
            }
        }
        Ok(())
    }

    /// Whether a place without configuration is only what an interrupted `init` left.
    fn is_unfinished_init(&self) -> Result<bool> {
        for entry in fs::read_dir(&self.root).map_err(|error| Error::io("listing", self.place(), error))? {
            let entry = entry.map_err(|error| Error::io("listing", self.place(), error))?;
            let name = entry.file_name();
            let ours = FOLDERS.iter().any(|folder| name == *folder);
            let harmless = name == "keys" || name == TEMPORARY || is_empty_folder(&entry.path());
            if !ours || !harmless {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A file that no name leads to yet, or only one in `tmp/`.
struct NewFile {
    file: File,
    named: Option<PathBuf>,
}

impl NewFile {
    /// Gives it its name; fails where the name is taken.
    fn link(&self, to: &Path) -> io::Result<()> {
        let result = match &self.named {
            None => {
                let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)
            }
            Some(from) => linkat(CWD, from, CWD, to, AtFlags::empty()),
        };
        Ok(result?)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            // A leftover is removed by the next writer.
            let _ = fs::remove_file(path);
        }
    }
}

struct LocalWriter {
    name: ObjectName,
    file: NewFile,
    bytes: u64,
}

impl ObjectWriter for LocalWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.file.write_all(bytes).map_err(|error| Error::io("writing", &self.name, error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<FinishedObject> {
        Ok(FinishedObject { name: self.name, bytes: self.bytes, token: Box::new(self.file) })
    }
}

struct LocalHold {
    name: ObjectName,
    path: PathBuf,
    _file: NewFile,
}

impl Hold for LocalHold {
    fn name(&self) -> &ObjectName {
        &self.name
    }

    fn release(self: Box<Self>) -> Result<()> {
        // Removed while still locked: nobody can take over a file that is about to vanish.
        remove(&self.path)
    }
}

impl Backend for LocalBackend {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn prepare(&self) -> Result<()> {
        match folder_builder().recursive(true).create(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::NotEmpty { place: self.place() });
            }
            Err(error) => return Err(Error::io("creating", self.place(), error)),
            Ok(()) => {}
        }
        if !is_empty_folder(&self.root) && !self.is_unfinished_init()? {
            return Err(Error::NotEmpty { place: self.place() });
        }
        let mut touched = BTreeSet::from([self.root.clone()]);
        for folder in FOLDERS {
            let path = self.root.join(folder);
            folder_builder()
                .recursive(true)
                .create(&path)
                .map_err(|error| Error::io("creating", path.display(), error))?;
            touched.insert(path);
        }
        for leftover in self.list(ObjectKind::KeySlot)? {
            remove(&self.path(&leftover.name))?;
        }
        if let Some(parent) = self.root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            touched.insert(parent.to_owned());
        }
        self.sync_folders(&touched)
    }

    fn create(&self, name: &ObjectName, _bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(LocalWriter { name: name.clone(), file: self.new_file(name)?, bytes: 0 }))
    }

    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()> {
        let mut files = Vec::with_capacity(objects.len());
        for object in objects {
            let file: Box<NewFile> = object
                .token
                .downcast()
                .map_err(|_| Error::damaged(&object.name, "it was written to another backend"))?;
            files.push((object.name, file));
        }
        // Each sync waits for the device: side by side they share its queue.
        files
            .par_iter()
            .try_for_each(|(name, file)| file.file.sync_all().map_err(|error| Error::io("syncing", name, error)))?;
        let mut touched = BTreeSet::new();
        for (name, file) in &files {
            let folder = self.folder_of(name, &mut touched)?;
            file.link(&folder.join(name.name())).map_err(|error| Error::io("naming", name, error))?;
        }
        self.sync_folders(&touched)
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.open(name)?;
        file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::damaged(name, format!("it ends before {}", offset + buffer.len() as u64))
            }
            _ => read_error(name, error),
        })
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        let file = File::open(self.path(name)).map_err(|error| read_error(name, error))?;
        let bytes = file.metadata().map_err(|error| read_error(name, error))?.len();
        if bytes > bytes_max {
            return Err(Error::damaged(name, format!("it has {bytes} bytes, more than its kind may have")));
        }
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut content, 0).map_err(|error| read_error(name, error))?;
        Ok(content)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        let metadata = fs::metadata(self.path(name)).map_err(|error| read_error(name, error))?;
        Ok(ObjectStat { name: name.clone(), bytes: metadata.len() })
    }

    fn list(&self, kind: ObjectKind) -> Result<Vec<ObjectStat>> {
        let mut found = Vec::new();
        match kind {
            ObjectKind::Config => {
                for name in crate::config::config_names() {
                    match self.stat(&name) {
                        Ok(stat) => found.push(stat),
                        Err(Error::Missing { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            ObjectKind::Pack => {
                let packs = self.root.join("packs");
                let folders = fs::read_dir(&packs).map_err(|error| Error::io("listing", packs.display(), error))?;
                for folder in folders {
                    let folder = folder.map_err(|error| Error::io("listing", packs.display(), error))?;
                    if folder.file_type().is_ok_and(|kind| kind.is_dir()) {
                        self.list_folder(&folder.path(), kind, &mut found)?;
                    }
                }
            }
            _ => self.list_folder(&self.root.join(kind.folder()), kind, &mut found)?,
        }
        Ok(found)
    }

    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        let mut touched = BTreeSet::new();
        for name in names {
            self.descriptors().remove(name);
            let path = self.path(name);
            remove(&path)?;
            if let Some(folder) = path.parent().filter(|folder| folder.is_dir()) {
                touched.insert(folder.to_owned());
            }
        }
        self.sync_folders(&touched)
    }

    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        let path = self.path(name);
        let busy = || Error::Busy { what: name.to_string() };
        for _ in 0..HOLD_ATTEMPTS {
            // Locked before it has its name: whoever sees it sees it held.
            let mut new = self.new_file(name)?;
            match flock(&new.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(error) => return Err(Error::io("locking", name, error.into())),
            }
            new.file.write_all(bytes).map_err(|error| Error::io("writing", name, error))?;
            match new.link(&path) {
                Ok(()) => return Ok(Box::new(LocalHold { name: name.clone(), path, _file: new })),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("naming", name, error)),
            }
            // Somebody's, alive or dead. A dead one's file is removed under its lock, then the name is free.
            let old = match File::open(&path) {
                Ok(old) => old,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(read_error(name, error)),
            };
            if flock(&old, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(busy());
            }
            let same = match (old.metadata(), fs::metadata(&path)) {
                (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
                _ => false,
            };
            if same {
                remove(&path)?;
            }
        }
        Err(busy())
    }

    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        match File::open(self.path(name)) {
            Ok(file) => Ok(flock(&file, FlockOperation::NonBlockingLockShared).is_err()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(read_error(name, error)),
        }
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        let stat = statvfs(&self.root).map_err(|error| Error::io("measuring", self.place(), error.into()))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}

fn folder_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn lacks_unnamed_files(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::ISDIR, rustix::io::Errno::INVAL]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn read_error(name: &ObjectName, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Missing { object: name.to_string() },
        _ => Error::io("reading", name, error),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", path.display(), error)),
        _ => Ok(()),
    }
}
