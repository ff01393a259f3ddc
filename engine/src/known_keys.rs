//! What this machine remembers of a repository's keys: the newest roster that it has seen, and the slots that
//! opened it.
//!
//! Rosters prove that each was made by owners of the one before. That the storage shows the newest, and not
//! an earlier state in which a key counted that was removed since, only memory outside the repository can
//! tell. A machine that opens a repository for the first time has none. Slots that are known are tried before
//! any others that somebody may have put beside them. One file for each repository in the state folder,
//! replaced when something is new.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_store::codec;
use copal_store::entropy::Entropy;
use copal_store::keys::Credential;
use copal_store::repository::{Repository, Seen};
use copal_store::roster::Anchor;
use copal_store::{Backend, ObjectId, RepositoryId};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::state::own_folder;

const VERSION: u16 = 2;
/// Length of the BLAKE3 sum that stands before the document.
const SUM_BYTES: usize = 32;
const FOLDER: &str = "known-keys";
/// A file that is longer is none of ours.
const FILE_BYTES_MAX: u64 = 4 << 10;
/// Slots that are remembered: those that opened it last.
const SLOTS_MAX: usize = 16;

#[derive(Serialize, Deserialize)]
struct KnownKeys {
    version: u16,
    anchor: Option<Anchor>,
    slots: Vec<ObjectId>,
}

/// Of version 1.
#[derive(Serialize, Deserialize)]
struct KnownAnchor {
    version: u16,
    anchor: Anchor,
}

/// Opens a repository, unless its keys do not continue those that were seen here before, and remembers the
/// newest.
pub fn open(
    state_folder: Option<&Path>,
    backend: Arc<dyn Backend>,
    entropy: Arc<dyn Entropy>,
    credential: &Credential,
) -> Result<Repository> {
    let mut problem = None;
    for id in Repository::peek_ids(&*backend)? {
        match open_as(id, state_folder, &backend, &entropy, credential) {
            Ok(Some(repository)) => {
                remember(state_folder, &repository);
                return Ok(repository);
            }
            Ok(None) => {}
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    let unsure = || copal_store::Error::damaged("config", "its id is not that of the repository that it opens");
    Err(problem.unwrap_or_else(|| unsure().into()))
}

/// The same with what is remembered of an id. Until a key has opened the configuration, anybody could have
/// put that id there: `None` where the repository that opens has another one, so that nobody has this machine
/// ask the memory of a repository that it does not know.
fn open_as(
    id: RepositoryId,
    state_folder: Option<&Path>,
    backend: &Arc<dyn Backend>,
    entropy: &Arc<dyn Entropy>,
    credential: &Credential,
) -> Result<Option<Repository>> {
    let path = state_folder.map(|folder| folder.join(FOLDER).join(id.to_string()));
    let seen = path.as_deref().map(read).transpose()?.flatten().unwrap_or_default();
    match (Repository::open_seen(Arc::clone(backend), Arc::clone(entropy), credential, &seen), path) {
        (Err(copal_store::Error::KeysWentBack), Some(remembered)) => Err(Error::KeysWentBack { remembered }),
        (opened, _) => Ok(Some(opened?).filter(|repository| repository.config().repository == id)),
    }
}

/// Remembers the newest roster that is known, and the slot in use. Where the state folder cannot be written
/// nothing is remembered: the next command does.
pub fn remember(state_folder: Option<&Path>, repository: &Repository) {
    let Some(folder) = state_folder.map(|folder| folder.join(FOLDER)) else { return };
    let path = folder.join(repository.config().repository.to_string());
    let known = read(&path).ok().flatten().unwrap_or_default();
    let now = with(known.clone(), repository.keys().anchor(), repository.unlocked().slot);
    if now != known {
        let _ = write(&folder, &path, &now);
    }
}

/// What is to be remembered. A slot that is known stays where it is, so that several that are used in turn
/// do not have the file written each time.
fn with(mut known: Seen, newest: Option<Anchor>, slot: ObjectId) -> Seen {
    let sequence = |anchor: Option<Anchor>| anchor.map_or(0, |anchor| anchor.sequence);
    if sequence(newest) > sequence(known.anchor) {
        known.anchor = newest;
    }
    if !known.slots.contains(&slot) {
        known.slots.insert(0, slot);
        known.slots.truncate(SLOTS_MAX);
    }
    known
}

/// `None`: nothing is remembered, or what is there cannot be what this program wrote: a pipe, a link, another
/// user's.
fn read(path: &Path) -> Result<Option<Seen>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let opened = own_folder(folder).and_then(|folder| Ok(folder.open_own_file(name.as_bytes(), FILE_BYTES_MAX)?));
    let Ok(file) = opened else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| failed("reading", path, error))?;
    // A sum first: a bit that flipped here must not make the repository look like a forged one.
    let Some((sum, document)) = bytes.split_at_checked(SUM_BYTES) else { return Ok(None) };
    Ok(if blake3::hash(document).as_bytes() == sum { decode(document) } else { None })
}

fn decode(document: &[u8]) -> Option<Seen> {
    match document.first()? {
        1 => {
            let known: KnownAnchor = codec::decode("known keys", document).ok()?;
            Some(Seen { anchor: Some(known.anchor), slots: Vec::new() })
        }
        2 => {
            let KnownKeys { anchor, slots, .. } = codec::decode("known keys", document).ok()?;
            Some(Seen { anchor, slots })
        }
        _ => None,
    }
}

fn write(folder: &Path, path: &Path, seen: &Seen) -> Result<()> {
    let known = KnownKeys { version: VERSION, anchor: seen.anchor, slots: seen.slots.clone() };
    let document = codec::encode(&known)?;
    let bytes = [&blake3::hash(&document).as_bytes()[..], &document].concat();
    replace(folder, path, &bytes)
}

/// Writes a file of local state: beside, then renamed, never half a file.
pub(crate) fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |error| failed("writing", path, error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&beside, path).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn failed(action: &'static str, path: &Path, error: io::Error) -> Error {
    copal_store::Error::io(action, PathBuf::from(path).display(), error).into()
}
