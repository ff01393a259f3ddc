//! The seal of the cache: a lock, and a tag over every byte of the redb file that only the repository's keys
//! make.
//!
//! redb does not check the pages that it reads, so a file is opened only when its seal holds. A writer breaks
//! the seal before it begins and makes it again at the end: what a killed process leaves has none. redb's own
//! lock says nothing between its close and the new seal, which is why there is another one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use copal_store::RepositoryId;
use copal_store::codec;
use serde::{Deserialize, Serialize};

use crate::catalogue::cache::{CACHE_VERSION, Failure};
use crate::context::Context;

/// Bounds what is read into memory; a hundred thousand snapshots stay far below.
const FILE_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Serialize, Deserialize)]
struct Seal {
    version: u16,
    repository: RepositoryId,
    tag: [u8; 32],
}

/// Who may use the file at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Readers,
    Alone,
}

/// The right to use the file, until dropped or the process dies.
pub(super) struct Locked {
    _file: File,
}

/// [`Failure::Busy`] when another process has it.
pub(super) fn lock(path: &Path, sharing: Sharing) -> Result<Locked, Failure> {
    let lock_path = path.with_extension("lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(lock_path)?;
    let locked = match sharing {
        Sharing::Readers => file.try_lock_shared(),
        Sharing::Alone => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(Locked { _file: file }),
        Err(TryLockError::WouldBlock) => Err(Failure::Busy),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Whether the file is what was sealed for this repository.
pub(super) fn check(context: &Context, path: &Path) -> Result<(), Failure> {
    let file = File::open(path)?;
    match file.try_lock_shared() {
        Ok(()) => {}
        // A program that opened it by redb alone is at work.
        Err(TryLockError::WouldBlock) => return Err(Failure::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let sealed = match fs::read(seal_path(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::Damaged("it was left unfinished".into()));
        }
        sealed => sealed?,
    };
    let seal: Seal = codec::decode("its seal", &sealed).map_err(|error| Failure::Damaged(error.to_string()))?;
    if seal.version != CACHE_VERSION {
        return Err(Failure::OtherVersion);
    }
    if seal.repository != context.repository.config().repository {
        return Err(Failure::Damaged(format!("it is of the repository {}", seal.repository)));
    }
    if seal.tag != tag_of(context, path)? {
        return Err(Failure::Damaged("its bytes are not those that were written".into()));
    }
    Ok(())
}

/// Before the first change.
pub(super) fn break_seal(path: &Path) -> Result<(), Failure> {
    Ok(super::remove_if_there(&seal_path(path))?)
}

/// After the last change, when redb has closed the file.
pub(super) fn seal(context: &Context, path: &Path) -> Result<(), Failure> {
    let repository = context.repository.config().repository;
    let seal = Seal { version: CACHE_VERSION, repository, tag: tag_of(context, path)? };
    let bytes = codec::encode(&seal).map_err(|error| Failure::Unusable(error.to_string()))?;
    // No rename: half a seal is none.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(seal_path(path))?;
    Ok(file.write_all(&bytes)?)
}

fn tag_of(context: &Context, path: &Path) -> Result<[u8; 32], Failure> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(Failure::Damaged("it is longer than it can be".into()));
    }
    let mut input = b"catalogue\0".to_vec();
    input.append(&mut fs::read(path)?);
    Ok(context.repository.keys().local_state_tag(&input))
}

fn seal_path(path: &Path) -> PathBuf {
    path.with_extension("seal")
}
