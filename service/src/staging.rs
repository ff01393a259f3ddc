//! Bundles that clients have sent, until an operation has read them: bounded in number and in bytes, and gone
//! with the operation, however it ended.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::problem::{Problem, Result};

/// At least so much of the filesystem stays free, and never more than [`FREE_BYTES_MAX`] is asked for: a
/// twentieth.
const FREE_BYTES_MIN: u64 = 64 << 20;
const FREE_BYTES_MAX: u64 = 1 << 30;
const FREE_PART: u64 = 20;

/// How much may be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StagingRoom {
    /// Bundles.
    pub(crate) bundles: usize,
    /// Bytes of one.
    pub(crate) bundle_bytes: u64,
    /// Bytes of all.
    pub(crate) bytes: u64,
}

/// The folder of bundles.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    room: StagingRoom,
    held: Mutex<HashMap<PathBuf, u64>>,
}

/// A bundle that is being received. It is gone when this is dropped, unless an operation has taken it over.
#[derive(Debug)]
pub(crate) struct Staged {
    staging: Arc<Staging>,
    path: Option<PathBuf>,
}

impl Staging {
    /// Empties the folder: what a daemon before this one has left belongs to operations that cannot go on.
    pub(crate) fn open(folder: PathBuf, room: StagingRoom) -> io::Result<Arc<Self>> {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Arc::new(Self { folder, room, held: Mutex::default() }))
    }

    /// A place for one more, before any of it is read. `expected` is what the client says that it will send.
    pub(crate) fn begin(self: &Arc<Self>, expected: u64) -> Result<Staged> {
        // A form is somewhat larger than what it brings.
        if expected > self.room.bundle_bytes.saturating_add(1 << 20) {
            return Err(self.too_large());
        }
        self.check_space(expected)?;
        let mut held = self.held();
        if held.len() >= self.room.bundles {
            let detail = format!("{} bundles wait to be imported: more are not taken before one is done", held.len());
            return Err(Problem::too_many(detail));
        }
        let path = self.folder.join(format!("{}.part", uuid::Uuid::now_v7()));
        held.insert(path.clone(), 0);
        drop(held);
        Ok(Staged { staging: Arc::clone(self), path: Some(path) })
    }

    /// Removes a bundle and frees its place. One that cannot be removed costs its space until the next start.
    pub(crate) fn remove(&self, path: &Path) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a staged bundle could not be removed");
            }
            _ => {}
        }
        self.held().remove(path);
    }

    fn check_space(&self, needed: u64) -> Result<()> {
        let found = rustix::fs::statvfs(&self.folder).map_err(io::Error::from)?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let kept = (found.f_blocks.saturating_mul(found.f_frsize) / FREE_PART).clamp(FREE_BYTES_MIN, FREE_BYTES_MAX);
        let needed = needed.saturating_add(kept);
        if free < needed {
            return Err(copal_engine::Error::NoSpace { place: self.folder.clone(), free, needed }.into());
        }
        Ok(())
    }

    fn too_large(&self) -> Problem {
        Problem::too_large(format!("the bundle is larger than {} bytes", self.room.bundle_bytes))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Staged {
    /// Where it goes.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(&self.staging.folder)
    }

    /// It has so many bytes by now; whether there is room for them.
    pub(crate) fn grow(&self, bytes: u64) -> Result<()> {
        if bytes > self.staging.room.bundle_bytes {
            return Err(self.staging.too_large());
        }
        let mut held = self.staging.held();
        let others: u64 = held.iter().filter(|(path, _)| path.as_path() != self.path()).map(|(_, bytes)| bytes).sum();
        if others.saturating_add(bytes) > self.staging.room.bytes {
            return Err(Problem::too_many("the bundles that wait to be imported have as many bytes as may be kept"));
        }
        held.insert(self.path().to_owned(), bytes);
        Ok(())
    }

    /// Whether the disk bears what has come.
    pub(crate) fn check_space(&self) -> Result<()> {
        self.staging.check_space(0)
    }

    /// From now on somebody else removes it.
    pub(crate) fn hand_over(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.staging.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no more is staged than there is room for, and nothing stays. Method: a small room.

    use super::*;

    #[test]
    fn t12_bundles_are_bounded_in_number_and_bytes_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("uploads");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("left.part"), "of a daemon before").unwrap();
        let room = StagingRoom { bundles: 2, bundle_bytes: 100, bytes: 150 };
        let staging = Staging::open(place.clone(), room).unwrap();
        let (first, second) = (staging.begin(0).unwrap(), staging.begin(0).unwrap());
        assert_eq!(staging.begin(0).err().unwrap().status, 429);
        fs::write(first.path(), "bytes").unwrap();
        first.grow(100).unwrap();
        assert_eq!(first.grow(101).err().unwrap().status, 413);
        second.grow(50).unwrap();
        assert_eq!(second.grow(51).err().unwrap().status, 429);
        drop(second);
        let handed = first.hand_over();
        let third = staging.begin(0).unwrap();
        assert_eq!(staging.begin(0).err().unwrap().status, 429, "what an operation waits for counts");
        staging.remove(&handed);
        assert!(staging.begin(u64::MAX).is_err() && staging.begin(50).is_ok());
        drop(third);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}
