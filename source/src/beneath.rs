//! An open root, and the way from it to every path beneath: never through a symbolic link, never above the
//! root.
//!
//! `openat2` resolves a path in one call; where the kernel (or a sandbox) lacks it, the folders are opened
//! one after the other with `O_NOFOLLOW`, with the same guarantee. A bounded cache of open parent folders
//! makes the usual case, many names of one folder, cost no resolution at all, and a deep path only the part
//! below a cached folder.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking::Lock;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{self, Errno};

use crate::stat::Mount;
use crate::{Error, Result};

/// How many folders stay open: enough for the working set of some dozen threads, few against the usual limit
/// of 1024 descriptors of a process. Where the limit is lower, so is this.
const OPEN_FOLDERS_MAX: usize = 128;
/// The part of all descriptors that one root's open folders may take: several roots are open at a time.
const DESCRIPTORS_PART: u64 = 8;

/// Longest part of a path given to the kernel at once, below `PATH_MAX` (4096 with the final zero). Deeper
/// trees are walked in such steps.
const STEP_BYTES_MAX: usize = 4000;

/// How often an `openat2` that met a rename elsewhere in the system is tried again before the slower walk.
const RETRIES_MAX: u32 = 16;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open root: a folder, or a single name in its folder.
#[derive(Debug)]
pub(crate) struct Root {
    folder: Arc<OwnedFd>,
    /// The name in `folder` when the root is no folder itself.
    name: Option<CString>,
    path: PathBuf,
    cache: Lock<Cache>,
    lacks_openat2: AtomicBool,
    /// The mount that nothing is reached beyond; none: what is mounted below the root is part of it.
    mount: Option<Mount>,
}

/// An open folder and a name in it; an empty name is the folder itself.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: Arc<OwnedFd>,
    pub(crate) name: CString,
}

impl Place {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// A descriptor that names the file without opening it: no FIFO blocks, no device is touched, no link is
    /// followed.
    pub(crate) fn pin(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if self.name.is_empty() { c"." } else { self.name.as_c_str() };
        rustix::fs::openat(&self.folder, name, flags, Mode::empty())
    }
}

impl Root {
    /// Opens what a user named as a source: a final link is followed when it leads to a folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error: Errno| Error::io("opening", path, error);
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, path, folder, Mode::empty()) {
            Ok(fd) => Ok(Self::new(fd, None, path)),
            // A file, or a link that leads to none or to no folder: then the link itself is the source.
            Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => {
                let name = path.file_name().ok_or_else(|| failed(Errno::NOENT))?;
                let name = c_string(path, name.as_bytes())?;
                let parent = rustix::fs::openat(CWD, parent_of(path), folder, Mode::empty()).map_err(failed)?;
                crate::stat::stat(&parent, &name).map_err(failed)?;
                Ok(Self::new(parent, Some(name), path))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens a folder that is to be written to: a final link is refused.
    pub(crate) fn open_folder(path: &Path) -> Result<Self> {
        // A trailing slash would follow the link.
        let bytes = path.as_os_str().as_bytes();
        let end = bytes.iter().rposition(|&byte| byte != b'/').map_or(bytes.len().min(1), |last| last + 1);
        let bare = Path::new(OsStr::from_bytes(&bytes[..end]));
        match rustix::fs::openat(CWD, bare, FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Self::new(fd, None, path)),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::refused(path, "is not a folder")),
            Err(error) => Err(Error::io("opening", path, error)),
        }
    }

    /// A folder that is open already; the path is for messages.
    pub(crate) fn of_folder(folder: OwnedFd, path: &Path) -> Self {
        Self::new(folder, None, path)
    }

    /// The same root, beneath which nothing is reached that is mounted there, now or later.
    pub(crate) fn on_one_mount(&self) -> Result<Self> {
        let failed = |error| self.failed("opening", b"", error);
        let mount = Mount::of(&self.folder, c"").map_err(failed)?;
        let folder = self.folder.try_clone().map_err(|error| Error::io("opening", &self.path, error))?;
        Ok(Self { mount: Some(mount), ..Self::new(folder, self.name.clone(), &self.path) })
    }

    /// Refuses what was opened beneath the root and is on another mount, where that is not to be reached.
    pub(crate) fn check_mount(&self, opened: impl AsFd) -> io::Result<()> {
        match self.mount {
            Some(mount) if !Mount::of(opened, c"")?.same_mount(mount) => Err(Errno::XDEV),
            _ => Ok(()),
        }
    }

    fn new(folder: OwnedFd, name: Option<CString>, path: &Path) -> Self {
        Self {
            mount: None,
            folder: Arc::new(folder),
            name,
            path: path.to_owned(),
            cache: Lock::default(),
            lacks_openat2: AtomicBool::new(false),
        }
    }

    /// The whole path, for messages only.
    pub(crate) fn whole(&self, path: &[u8]) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(OsStr::from_bytes(path)) }
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.name.is_none()
    }

    /// The error of a failed call on a path; what means "there is a link where a folder was" is said in
    /// words.
    pub(crate) fn failed(&self, action: &'static str, path: &[u8], error: Errno) -> Error {
        match error {
            Errno::LOOP | Errno::XDEV if action != RENAMING && action != LINKING => {
                Error::refused(self.whole(path), LEADS_AWAY)
            }
            error => Error::io(action, self.whole(path), error),
        }
    }

    /// The open parent and the last name of a path.
    pub(crate) fn place(&self, path: &[u8]) -> Result<Place> {
        self.check(path)?;
        if path.is_empty() {
            return Ok(Place { folder: self.folder.clone(), name: self.name.clone().unwrap_or_default() });
        }
        let (parent, name) = split(path);
        let name = c_string(&self.path, name)?;
        let folder = self.folder(parent).map_err(|error| self.failed("opening the folder of", path, error))?;
        Ok(Place { folder, name })
    }

    /// Opens a folder for reading its names, past the cache: a scan visits each folder once.
    pub(crate) fn open_listing(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        without_atime(flags, |flags| match path {
            [] => rustix::fs::openat(&self.folder, c".", flags, Mode::empty()),
            path if path.len() <= STEP_BYTES_MAX => self.step(self.folder.as_fd(), path, flags),
            path => {
                let (parent, name) = split(path);
                self.step(self.folder(parent)?.as_fd(), name, flags)
            }
        })
    }

    /// The open folder of a checked path, from the cache or opened below the nearest cached one.
    fn folder(&self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.folder.clone());
        }
        let (mut done, mut folder) = match self.cache.hold().nearest(path) {
            Some((length, folder)) if length == path.len() => return Ok(folder),
            Some((length, folder)) => (length + 1, folder),
            None => (0, self.folder.clone()),
        };
        while done < path.len() {
            let end = step_end(path, done);
            folder = Arc::new(self.step(folder.as_fd(), &path[done..end], FOLDER)?);
            self.check_mount(&folder)?;
            done = end + 1;
        }
        self.cache.hold().insert(path, folder.clone());
        Ok(folder)
    }

    /// Opens a relative path of at most [`STEP_BYTES_MAX`] below an open folder.
    fn step(&self, folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if !path.contains(&b'/') {
            return rustix::fs::openat(folder, path, flags, Mode::empty());
        }
        let mut tries = 0;
        while !self.lacks_openat2.load(Ordering::Relaxed) && tries < RETRIES_MAX {
            match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
                // Sandboxes without the call answer EPERM or ENOSYS; EPERM is also what O_NOATIME is refused
                // with.
                Err(Errno::NOSYS) => self.lacks_openat2.store(true, Ordering::Relaxed),
                Err(Errno::AGAIN) => tries += 1,
                Err(Errno::PERM) if !flags.contains(OFlags::NOATIME) => break,
                other => return other,
            }
        }
        walk(folder, path, flags)
    }

    /// Forgets open folders at and below a path that is moved or removed.
    pub(crate) fn forget(&self, path: &[u8]) {
        self.cache.hold().forget(path);
    }

    /// Refuses what no path of a tree can be, before any system call.
    fn check(&self, path: &[u8]) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        if self.name.is_some() {
            return Err(Error::refused(self.whole(path), "the source is one file and has nothing beneath it"));
        }
        if path.contains(&0) {
            return Err(Error::refused(self.whole(path), "a zero byte in a name"));
        }
        for component in path.split(|&byte| byte == b'/') {
            if matches!(component, b"" | b"." | b"..") {
                return Err(Error::refused(self.whole(path), "a name that would leave the tree"));
            }
        }
        Ok(())
    }
}

const LEADS_AWAY: &str = "leads through a symbolic link, out of the tree, or into what is mounted in it";

pub(crate) const RENAMING: &str = "renaming";
pub(crate) const LINKING: &str = "linking";

/// `openat2` by hand: each folder by its own call, none through a link.
fn walk(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut open: Option<OwnedFd> = None;
    let mut components = path.split(|&byte| byte == b'/').peekable();
    while let Some(component) = components.next() {
        let flags = if components.peek().is_some() { FOLDER } else { flags };
        let below = open.as_ref().map_or(folder, AsFd::as_fd);
        open = Some(rustix::fs::openat(below, component, flags, Mode::empty())?);
    }
    open.ok_or(Errno::NOENT)
}

/// Opens with `O_NOATIME` where the file's owner or a capability permits it, otherwise without.
pub(crate) fn without_atime<T>(flags: OFlags, open: impl Fn(OFlags) -> io::Result<T>) -> io::Result<T> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}

/// Parent and last name of a path that is not empty.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(crate) fn c_string(path: &Path, bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::refused(path, "a zero byte in a name"))
}

/// The path by which the kernel reaches an open descriptor, or a name in it.
pub(crate) fn descriptor_path(fd: impl AsFd, name: &[u8]) -> CString {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into_bytes();
    if !name.is_empty() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    CString::new(path).unwrap_or_default()
}

/// Where a step that begins at `start` ends: at a slash or the end of the path.
fn step_end(path: &[u8], start: usize) -> usize {
    if path.len() - start <= STEP_BYTES_MAX {
        return path.len();
    }
    let window = &path[start..start + STEP_BYTES_MAX];
    // A single name longer than a step can't exist; the kernel says so when it gets it.
    let within = window.iter().rposition(|&byte| byte == b'/');
    within.map_or_else(
        || path[start..].iter().position(|&byte| byte == b'/').map_or(path.len(), |slash| start + slash),
        |slash| start + slash,
    )
}

/// Open folders by path; the one inserted first goes first.
#[derive(Debug)]
struct Cache {
    folders: HashMap<Box<[u8]>, Arc<OwnedFd>>,
    order: VecDeque<Box<[u8]>>,
    most: usize,
}

impl Default for Cache {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let part = limit.map_or(u64::MAX, |limit| limit / DESCRIPTORS_PART);
        let most = usize::try_from(part).unwrap_or(usize::MAX).clamp(1, OPEN_FOLDERS_MAX);
        Self { folders: HashMap::new(), order: VecDeque::new(), most }
    }
}

impl Cache {
    /// The longest cached prefix of a path, and its folder.
    fn nearest(&self, path: &[u8]) -> Option<(usize, Arc<OwnedFd>)> {
        let mut length = path.len();
        loop {
            if let Some(folder) = self.folders.get(&path[..length]) {
                return Some((length, folder.clone()));
            }
            length = path[..length].iter().rposition(|&byte| byte == b'/')?;
        }
    }

    fn insert(&mut self, path: &[u8], folder: Arc<OwnedFd>) {
        if self.folders.insert(path.into(), folder).is_none() {
            self.order.push_back(path.into());
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.folders.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, path: &[u8]) {
        let beneath = |key: &[u8]| {
            key.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.first().is_none_or(|&byte| byte == b'/'))
        };
        if self.folders.keys().any(|key| beneath(key)) {
            self.folders.retain(|key, _| !beneath(key));
            self.order.retain(|key| !beneath(key));
        }
    }
}

/// A mutex whose holder can't leave the data broken: every change above is complete or has not begun.
pub(crate) mod parking {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[derive(Debug, Default)]
    pub(crate) struct Lock<T>(Mutex<T>);

    impl<T> Lock<T> {
        pub(crate) fn hold(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
