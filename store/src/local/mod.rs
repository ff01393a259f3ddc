//! A repository in a local folder: objects are files.
//!
//! An object is written into an unnamed file (`O_TMPFILE`; where the filesystem has none, a locked file in
//! `tmp/`), synced, and only then given its name by `link`, which never replaces. A crash leaves no half
//! object under any name. Sessions and leases are files held by `flock`: the kernel lets go when the process
//! dies. Access times and file names of others mean nothing.

mod files;
mod folders;
mod real;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use folders::FOLDERS;

pub use files::{EntryKind, Files, FolderEntry, LockKind, OpenFile};
pub use real::RealFiles;

use crate::backend::{Backend, FinishedObject, Hold, ObjectKind, ObjectName, ObjectStat, ObjectWriter};
use crate::{Error, Result};

/// Where unpublished objects live when the filesystem has no unnamed files.
const TEMPORARY: &str = "tmp";
/// Open descriptors kept for reading.
const DESCRIPTORS_MAX: usize = 128;
/// The device is given so many bytes of an object at once while the next ones come.
const WRITE_OUT_BYTES: u64 = 8 << 20;
/// Attempts to take a lease whose file is removed by its last holder at the same moment.
const HOLD_ATTEMPTS: usize = 16;

/// Objects as files below one folder.
pub struct LocalBackend {
    root: PathBuf,
    files: Arc<dyn Files>,
    descriptors: Mutex<Descriptors>,
    ticks: AtomicU64,
}

/// Files open for reading, with the time of their last use.
type Descriptors = HashMap<ObjectName, (Arc<dyn OpenFile>, u64)>;

impl fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalBackend({})", self.root.display())
    }
}

impl LocalBackend {
    /// A backend at a folder, which need not exist yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self::on(folder, Arc::new(RealFiles::beneath(folder)))
    }

    /// The same on a given filesystem.
    #[must_use]
    pub fn on(folder: &Path, files: Arc<dyn Files>) -> Self {
        Self { root: folder.to_owned(), files, descriptors: Mutex::default(), ticks: AtomicU64::new(0) }
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    fn descriptors(&self) -> MutexGuard<'_, Descriptors> {
        self.descriptors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor for reading, kept for the next time; the one used longest ago makes room.
    fn open(&self, name: &ObjectName) -> Result<Arc<dyn OpenFile>> {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        if let Some((file, used)) = self.descriptors().get_mut(name) {
            *used = tick;
            return Ok(Arc::clone(file));
        }
        let file: Arc<dyn OpenFile> =
            Arc::from(self.files.open(&self.path(name)).map_err(|error| read_error(name, error))?);
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
        if let Some(file) = self.new_file_if_possible(name)? {
            return Ok(file);
        }
        self.make_lost_folders()?;
        self.new_file_if_possible(name)?.ok_or_else(|| Error::NotARepository { place: self.place() })
    }

    /// `None` where the folder for it is not there.
    fn new_file_if_possible(&self, name: &ObjectName) -> Result<Option<NewFile>> {
        let folder = self.root.join(TEMPORARY);
        match self.files.create_unnamed(&folder) {
            Ok(file) => Ok(Some(NewFile { file, files: Arc::clone(&self.files), named: None })),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.new_named_file(&folder, name).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("creating", name, error)),
        }
    }

    /// Gives a file its name, in a folder that may have been lost.
    fn link(&self, file: &NewFile, to: &Path) -> Result<io::Result<()>> {
        match file.link(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_lost_folders()?;
                Ok(file.link(to))
            }
            linked => Ok(linked),
        }
    }

    fn new_named_file(&self, folder: &Path, name: &ObjectName) -> Result<NewFile> {
        self.remove_dead_temporaries(folder);
        let number = self.ticks.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}-{number}-{}", std::process::id(), name.name()));
        let file = self.files.create_new(&path).map_err(|error| Error::io("creating", path.display(), error))?;
        let new = NewFile { file, files: Arc::clone(&self.files), named: Some(path) };
        new.lock(name)?;
        Ok(new)
    }

    /// A temporary file that nobody holds belongs to a process that died; one just being made may be lost
    /// with it, and its writer then fails cleanly when it asks for a name.
    fn remove_dead_temporaries(&self, folder: &Path) {
        for entry in self.files.entries(folder).unwrap_or_default() {
            let path = folder.join(&entry.name);
            let dead = self.files.open(&path).is_ok_and(|file| file.try_lock(LockKind::Exclusive).unwrap_or(false));
            if dead {
                // Not being able to tidy is no reason to fail a create.
                let _ = self.files.remove(&path);
            }
        }
    }

    fn sync_folders(&self, folders: &BTreeSet<PathBuf>) -> Result<()> {
        for folder in folders {
            self.files.sync_folder(folder).map_err(|error| Error::io("syncing", folder.display(), error))?;
        }
        Ok(())
    }

    /// The folder of an object; a pack's is made when it is first needed.
    fn folder_of(&self, name: &ObjectName, touched: &mut BTreeSet<PathBuf>) -> Result<PathBuf> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        if name.kind() == ObjectKind::Pack && touched.insert(folder.clone()) {
            // Also where it stands: whoever made it may not have synced its name yet.
            touched.insert(self.root.join("packs"));
            if !self.create_folder_in(&folder)? {
                self.make_lost_folders()?;
                self.create_folder(&folder)?;
            }
        }
        if name.kind() == ObjectKind::Parity && touched.insert(folder.clone()) {
            // Most repositories have none.
            touched.insert(self.root.clone());
            self.create_folder(&folder)?;
        }
        touched.insert(folder.clone());
        Ok(folder)
    }

    fn list_folder(&self, folder: &Path, kind: ObjectKind, found: &mut Vec<ObjectStat>) -> Result<()> {
        for entry in self.entries(folder)? {
            let Some(name) = entry.name.to_str().and_then(|name| ObjectName::new(kind, name)) else { continue };
            if let EntryKind::File(bytes) = entry.kind {
                found.push(ObjectStat { name, bytes });
            }
        }
        Ok(())
    }

    /// A folder that is not there has nothing in it.
    fn entries(&self, folder: &Path) -> Result<Vec<FolderEntry>> {
        match self.files.entries(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("listing", folder.display(), error)),
            Ok(entries) => Ok(entries),
        }
    }
}

/// A file that no name leads to yet, or only one in `tmp/`.
struct NewFile {
    file: Box<dyn OpenFile>,
    files: Arc<dyn Files>,
    named: Option<PathBuf>,
}

impl NewFile {
    fn write(&mut self, name: &ObjectName, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.file.append(bytes) {
                Ok(0) => return Err(Error::io("writing", name, io::ErrorKind::WriteZero.into())),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("writing", name, error)),
            }
        }
        Ok(())
    }

    /// Nobody else knows this file, so the lock is free.
    fn lock(&self, name: &ObjectName) -> Result<()> {
        match self.file.try_lock(LockKind::Exclusive) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Busy { what: name.to_string() }),
            Err(error) => Err(Error::io("locking", name, error)),
        }
    }

    /// Gives it its name; fails where the name is taken.
    fn link(&self, to: &Path) -> io::Result<()> {
        self.file.link(self.named.as_deref(), to)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            // A leftover is removed by the next writer.
            let _ = self.files.remove(path);
        }
    }
}

struct LocalWriter {
    name: ObjectName,
    file: NewFile,
    bytes: u64,
    /// From here on nothing was asked to be written out.
    kept_back: u64,
}

impl ObjectWriter for LocalWriter {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write(&self.name, bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.kept_back >= WRITE_OUT_BYTES {
            self.file.file.write_out(self.kept_back, self.bytes - self.kept_back);
            self.kept_back = self.bytes;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<FinishedObject> {
        Ok(FinishedObject { name: self.name, bytes: self.bytes, token: Box::new(self.file) })
    }
}

struct LocalHold {
    name: ObjectName,
    path: PathBuf,
    file: NewFile,
    /// Whether the filesystem says that the name has this file. Some that stand before others number a file
    /// anew for each name.
    identified: bool,
}

impl Hold for LocalHold {
    fn name(&self) -> &ObjectName {
        &self.name
    }

    fn is_current(&self) -> Result<bool> {
        let folder = self.path.parent().unwrap_or(&self.path);
        // Listed: a look at one name may be answered from memory for a while after another machine has
        // removed it.
        let names = match self.file.files.names(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            names => names.map_err(|error| Error::io("listing", folder.display(), error))?,
        };
        let listed = names.iter().any(|name| name.to_str() == Some(self.name.name()));
        Ok(listed && (!self.identified || self.is_at_its_name()?))
    }

    fn release(self: Box<Self>) -> Result<()> {
        // Removed while still locked: nobody can take over a file that is about to vanish.
        remove(&*self.file.files, &self.path)
    }
}

impl LocalHold {
    fn is_at_its_name(&self) -> Result<bool> {
        match self.file.file.is_at(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            at => at.map_err(|error| Error::io("looking at", &self.name, error)),
        }
    }
}

impl Backend for LocalBackend {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn prepare(&self) -> Result<()> {
        let mut touched = self.create_root()?;
        if !self.is_free()? {
            return Err(Error::NotEmpty { place: self.place() });
        }
        for folder in FOLDERS {
            let path = self.root.join(folder);
            self.create_folder(&path)?;
            touched.insert(path);
        }
        for leftover in self.list(ObjectKind::KeySlot)? {
            remove(&*self.files, &self.path(&leftover.name))?;
        }
        self.sync_folders(&touched)
    }

    fn create(&self, name: &ObjectName, _bytes_hint: u64) -> Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(LocalWriter { name: name.clone(), file: self.new_file(name)?, bytes: 0, kept_back: 0 }))
    }

    fn publish(&self, objects: Vec<FinishedObject>) -> Result<()> {
        let mut new = Vec::with_capacity(objects.len());
        for object in objects {
            let file: Box<NewFile> = object
                .token
                .downcast()
                .map_err(|_| Error::damaged(&object.name, "it was written to another backend"))?;
            new.push((object.name, file));
        }
        let files: Vec<&dyn OpenFile> = new.iter().map(|(_, file)| &*file.file).collect();
        for ((name, _), synced) in new.iter().zip(self.files.sync_files(&files)) {
            synced.map_err(|error| Error::io("syncing", name, error))?;
        }
        let mut touched = BTreeSet::new();
        for (name, file) in &new {
            let folder = self.folder_of(name, &mut touched)?;
            self.link(file, &folder.join(name.name()))?.map_err(|error| Error::io("naming", name, error))?;
        }
        self.sync_folders(&touched)
    }

    fn read_range(&self, name: &ObjectName, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.open(name)?;
        read_exact_at(&*file, name, buffer, offset)
    }

    fn read(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>> {
        let file = self.files.open(&self.path(name)).map_err(|error| read_error(name, error))?;
        let bytes = file.bytes().map_err(|error| read_error(name, error))?;
        if bytes > bytes_max {
            return Err(Error::damaged(name, format!("it has {bytes} bytes, more than its kind may have")));
        }
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        read_exact_at(&*file, name, &mut content, 0)?;
        Ok(content)
    }

    fn stat(&self, name: &ObjectName) -> Result<ObjectStat> {
        let bytes = self.files.file_bytes(&self.path(name)).map_err(|error| read_error(name, error))?;
        Ok(ObjectStat { name: name.clone(), bytes })
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
                let folders = match self.files.entries(&packs) {
                    // Lost as an empty one; the whole repository gone is no repository without packs.
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && !self.list(ObjectKind::Config)?.is_empty() =>
                    {
                        Vec::new()
                    }
                    entries => entries.map_err(|error| Error::io("listing", packs.display(), error))?,
                };
                for folder in folders.into_iter().filter(|folder| folder.kind == EntryKind::Folder) {
                    self.list_folder(&packs.join(&folder.name), kind, &mut found)?;
                }
            }
            _ => self.list_folder(&self.root.join(kind.folder()), kind, &mut found)?,
        }
        Ok(found)
    }

    fn names(&self, kind: ObjectKind) -> Result<Vec<ObjectName>> {
        match kind {
            // Few, or in folders of their own.
            ObjectKind::Config | ObjectKind::Pack => {
                Ok(self.list(kind)?.into_iter().map(|object| object.name).collect())
            }
            _ => {
                let folder = self.root.join(kind.folder());
                let names = match self.files.names(&folder) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                    names => names.map_err(|error| Error::io("listing", folder.display(), error))?,
                };
                Ok(names.iter().filter_map(|name| ObjectName::new(kind, name.to_str()?)).collect())
            }
        }
    }

    fn delete(&self, names: &[ObjectName]) -> Result<()> {
        let mut touched = BTreeSet::new();
        for name in names {
            self.descriptors().remove(name);
            let path = self.path(name);
            remove(&*self.files, &path)?;
            // Also where it was gone already: whoever removed it may not have synced yet.
            touched.extend(path.parent().map(Path::to_owned));
        }
        for folder in &touched {
            match self.files.sync_folder(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("syncing", folder.display(), error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn hold(&self, name: &ObjectName, bytes: &[u8]) -> Result<Box<dyn Hold>> {
        let path = self.path(name);
        let busy = || Error::Busy { what: name.to_string() };
        for _ in 0..HOLD_ATTEMPTS {
            // Locked before it has its name: whoever sees it sees it held.
            let mut file = self.new_file(name)?;
            file.lock(name)?;
            file.write(name, bytes)?;
            match self.link(&file, &path)? {
                Ok(()) => {
                    let identified = file.file.is_at(&path).unwrap_or(false);
                    return Ok(Box::new(LocalHold { name: name.clone(), path, file, identified }));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("naming", name, error)),
            }
            // Whoever may write into the folder can hold a file of his own there for as long as he likes.
            if self.files.is_foreign(&path).unwrap_or(false) {
                remove(&*self.files, &path)?;
                continue;
            }
            // Somebody's, alive or dead. A dead one's file is removed under its lock, then the name is free.
            let old = match self.files.open(&path) {
                Ok(old) => old,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // A pipe, a link, a folder: nobody holds that.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    remove(&*self.files, &path)?;
                    continue;
                }
                Err(error) => return Err(read_error(name, error)),
            };
            if !old.try_lock(LockKind::Exclusive).map_err(|error| Error::io("locking", name, error))? {
                return Err(busy());
            }
            // Locked, but perhaps renewed by another between the two: only the file that has the name may go.
            if old.is_at(&path).unwrap_or(false) {
                remove(&*self.files, &path)?;
            }
        }
        Err(busy())
    }

    fn is_held(&self, name: &ObjectName) -> Result<bool> {
        match self.files.open(&self.path(name)) {
            Ok(file) => {
                let free = file.try_lock(LockKind::Shared).map_err(|error| Error::io("locking", name, error))?;
                Ok(!free)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(read_error(name, error)),
        }
    }

    fn free_bytes(&self) -> Result<Option<u64>> {
        self.files.free_bytes(&self.root).map(Some).map_err(|error| Error::io("measuring", self.place(), error))
    }
}

/// Reads the whole buffer, in as many parts as the filesystem gives it.
fn read_exact_at(file: &dyn OpenFile, name: &ObjectName, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => {
                return Err(Error::damaged(name, format!("it ends before {}", offset + buffer.len() as u64)));
            }
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(name, error)),
        }
    }
    Ok(())
}

fn read_error(name: &ObjectName, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Missing { object: name.to_string() },
        // A pipe, a link, a folder: somebody put it there.
        io::ErrorKind::InvalidData => Error::damaged(name, error.to_string()),
        _ => Error::io("reading", name, error),
    }
}

/// What is gone already is no error.
fn remove(files: &dyn Files, path: &Path) -> Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("removing", path.display(), error)),
        _ => Ok(()),
    }
}
