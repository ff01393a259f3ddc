//! A disk that forgets. It keeps two images: the volatile one, which programs see, and the durable one, which
//! a loss of power leaves. Between them stand writes and names that nobody synced: at a crash each is kept,
//! dropped or torn, as a seed decides.
//!
//! Stricter than any real filesystem: names of one folder become durable in any order and each for itself, a
//! file's bytes without its name and the name without the bytes, and nothing becomes durable by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::seeded::Choices;

/// Bytes that a device writes as one.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Content {
    volatile: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(u64),
    Folder,
}

/// A change of a folder that is not durable yet.
#[derive(Clone, Debug)]
struct Change {
    name: OsString,
    to: Option<Node>,
}

#[derive(Clone, Debug, Default)]
struct Folder {
    volatile: BTreeMap<OsString, Node>,
    durable: BTreeMap<OsString, Node>,
    changes: Vec<Change>,
}

impl Folder {
    fn change(&mut self, name: &OsStr, to: Option<Node>) {
        match to {
            Some(node) => drop(self.volatile.insert(name.to_owned(), node)),
            None => drop(self.volatile.remove(name)),
        }
        self.changes.push(Change { name: name.to_owned(), to });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locked {
    Shared,
    Exclusive,
}

#[derive(Debug, Default)]
struct Image {
    folders: BTreeMap<PathBuf, Folder>,
    contents: BTreeMap<u64, Content>,
    /// Inode → open files that have a lock on it.
    locks: BTreeMap<u64, BTreeMap<u64, Locked>>,
    numbers: u64,
    capacity: Option<u64>,
}

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    image: Arc<Mutex<Image>>,
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl Image {
    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        // Also a folder whose own name is gone with that of one above it is not found.
        if let Ok((above, name)) = split(path) {
            match self.folders.get(above).and_then(|folder| folder.volatile.get(name)) {
                Some(Node::Folder) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(not_found()),
            }
        }
        self.folders.get_mut(path).ok_or_else(not_found)
    }

    fn inode(&mut self, path: &Path) -> io::Result<u64> {
        let (folder, name) = split(path)?;
        match self.folder(folder)?.volatile.get(name) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn new_inode(&mut self) -> u64 {
        let inode = self.number();
        self.contents.insert(inode, Content::default());
        inode
    }

    fn used(&self) -> u64 {
        self.contents.values().map(|content| content.volatile.len() as u64).sum()
    }

    /// Forgets files that nobody can reach.
    fn sweep(&mut self) {
        let named: BTreeSet<u64> = self
            .folders
            .values()
            .flat_map(|folder| folder.volatile.values().chain(folder.durable.values()))
            .filter_map(|node| match node {
                Node::File(inode) => Some(*inode),
                Node::Folder => None,
            })
            .collect();
        self.contents.retain(|inode, _| named.contains(inode));
    }
}

/// What the processes of the test world do to the disk; faults and deaths are decided above.
impl Disk {
    /// An empty disk with a root folder.
    #[must_use]
    pub fn new() -> Self {
        let disk = Self::default();
        disk.lock().folders.insert(PathBuf::from("/"), Folder::default());
        disk
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that fit; more is refused as a full disk does.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes in files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Power is lost: all locks go, and of what was not synced each piece is kept, dropped or torn, as
    /// `choices` say.
    pub fn lose_power(&self, choices: &mut Choices) {
        let mut image = self.lock();
        image.locks.clear();
        for folder in image.folders.values_mut() {
            for change in std::mem::take(&mut folder.changes) {
                if choices.one_in(2) {
                    match change.to {
                        Some(node) => drop(folder.durable.insert(change.name, node)),
                        None => drop(folder.durable.remove(&change.name)),
                    }
                }
            }
            folder.volatile = folder.durable.clone();
        }
        for content in image.contents.values_mut() {
            if content.volatile != content.durable {
                content.durable = torn(content, choices);
            }
            content.volatile = content.durable.clone();
        }
        image.sweep();
    }

    /// Flips one bit of a durable file. `false` when there is no such byte.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> bool {
        let mut image = self.lock();
        let Ok(inode) = image.inode(path) else { return false };
        let Some(content) = image.contents.get_mut(&inode) else { return false };
        let Some(byte) = content.volatile.get_mut((bit / 8) as usize) else { return false };
        *byte ^= 1 << (bit % 8);
        content.durable = content.volatile.clone();
        true
    }

    /// Every file with its bytes, for comparing states.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let image = self.lock();
        let mut files = BTreeMap::new();
        for (path, folder) in &image.folders {
            for (name, node) in &folder.volatile {
                if let Node::File(inode) = node
                    && let Some(content) = image.contents.get(inode)
                {
                    files.insert(path.join(name), content.volatile.clone());
                }
            }
        }
        files
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut image = self.lock();
        let (above, name) = split(path).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
        let folder = image.folder(above)?;
        if folder.volatile.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folder.change(name, Some(Node::Folder));
        image.folders.insert(path.to_owned(), Folder::default());
        Ok(())
    }

    pub(crate) fn create_unnamed(&self, folder: &Path) -> io::Result<u64> {
        let mut image = self.lock();
        image.folder(folder)?;
        Ok(image.new_inode())
    }

    pub(crate) fn create_new(&self, path: &Path) -> io::Result<u64> {
        let mut image = self.lock();
        let (above, name) = split(path)?;
        if image.folder(above)?.volatile.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = image.new_inode();
        image.folder(above)?.change(name, Some(Node::File(inode)));
        Ok(inode)
    }

    pub(crate) fn find(&self, path: &Path) -> io::Result<u64> {
        self.lock().inode(path)
    }

    pub(crate) fn bytes(&self, inode: u64) -> io::Result<u64> {
        Ok(self.lock().contents.get(&inode).ok_or_else(not_found)?.volatile.len() as u64)
    }

    pub(crate) fn entries(&self, folder: &Path) -> io::Result<Vec<(OsString, Option<u64>)>> {
        let mut image = self.lock();
        let entries: Vec<(OsString, Node)> =
            image.folder(folder)?.volatile.iter().map(|(name, node)| (name.clone(), *node)).collect();
        let bytes = |node| match node {
            Node::Folder => None,
            Node::File(inode) => image.contents.get(&inode).map(|content| content.volatile.len() as u64),
        };
        Ok(entries.into_iter().map(|(name, node)| (name, bytes(node))).collect())
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut image = self.lock();
        image.inode(path)?;
        let (above, name) = split(path)?;
        image.folder(above)?.change(name, None);
        Ok(())
    }

    pub(crate) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut image = self.lock();
        let folder = image.folder(folder)?;
        folder.changes.clear();
        folder.durable = folder.volatile.clone();
        Ok(())
    }

    pub(crate) fn append(&self, inode: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut image = self.lock();
        let room = image.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(image.used()));
        let count = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if count == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = image.contents.get_mut(&inode).ok_or_else(not_found)?;
        content.volatile.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    pub(crate) fn read_at(&self, inode: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let image = self.lock();
        let content = image.contents.get(&inode).ok_or_else(not_found)?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(content.volatile.len());
        let count = buffer.len().min(content.volatile.len() - begin);
        buffer[..count].copy_from_slice(&content.volatile[begin..begin + count]);
        Ok(count)
    }

    pub(crate) fn sync(&self, inode: u64) -> io::Result<()> {
        let mut image = self.lock();
        let content = image.contents.get_mut(&inode).ok_or_else(not_found)?;
        content.durable = content.volatile.clone();
        Ok(())
    }

    pub(crate) fn link(&self, inode: u64, to: &Path) -> io::Result<()> {
        let mut image = self.lock();
        let (above, name) = split(to)?;
        let folder = image.folder(above)?;
        if folder.volatile.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folder.change(name, Some(Node::File(inode)));
        Ok(())
    }

    /// A number for a newly opened file, by which it locks.
    pub(crate) fn open(&self) -> u64 {
        self.lock().number()
    }

    pub(crate) fn try_lock(&self, inode: u64, open: u64, exclusive: bool) -> bool {
        let mut image = self.lock();
        let holders = image.locks.entry(inode).or_default();
        let excluded =
            holders.iter().any(|(other, locked)| *other != open && (exclusive || *locked == Locked::Exclusive));
        if !excluded {
            holders.insert(open, if exclusive { Locked::Exclusive } else { Locked::Shared });
        }
        !excluded
    }

    pub(crate) fn unlock(&self, inode: u64, open: u64) {
        let mut image = self.lock();
        if let Some(holders) = image.locks.get_mut(&inode) {
            holders.remove(&open);
        }
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        let image = self.lock();
        image.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(image.used()))
    }
}

/// What a loss of power leaves of a file: a length between the two, and each sector old, new, or zeros.
fn torn(content: &Content, choices: &mut Choices) -> Vec<u8> {
    let (old, new) = (&content.durable, &content.volatile);
    match choices.below(4) {
        0 => return old.clone(),
        1 => return new.clone(),
        _ => {}
    }
    let (short, long) = (old.len().min(new.len()), old.len().max(new.len()));
    let bytes = short + choices.below((long - short) as u64 + 1) as usize;
    let mut left = vec![0; bytes];
    for (number, sector) in left.chunks_mut(SECTOR).enumerate() {
        let source = match choices.below(3) {
            0 => old,
            1 => new,
            _ => continue,
        };
        let begin = number * SECTOR;
        if let Some(bytes) = source.get(begin..source.len().min(begin + sector.len())) {
            sector[..bytes.len()].copy_from_slice(bytes);
        }
    }
    left
}
