//! What this machine remembers of a repository's keys: the newest roster that it has seen.
//!
//! Rosters prove that each was made by owners of the one before. That the storage shows the newest, and not
//! an earlier state in which a key counted that was removed since, only memory outside the repository can
//! tell. A machine that opens a repository for the first time has none. One file for each repository in the
//! state folder, replaced at each change of keys.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_store::Backend;
use copal_store::codec;
use copal_store::entropy::Entropy;
use copal_store::keys::Credential;
use copal_store::repository::Repository;
use copal_store::roster::Anchor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::state::own_folder;

const VERSION: u16 = 1;
/// Length of the BLAKE3 sum that stands before the document.
const SUM_BYTES: usize = 32;
const FOLDER: &str = "known-keys";
/// A file that is longer is none of ours.
const FILE_BYTES_MAX: u64 = 4 << 10;

#[derive(Serialize, Deserialize)]
struct KnownKeys {
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
    let id = Repository::peek_id(&*backend)?;
    let path = state_folder.map(|folder| folder.join(FOLDER).join(id.to_string()));
    let seen = path.as_deref().map(read).transpose()?.flatten();
    match (Repository::open_seen(backend, entropy, credential, seen), path) {
        (Err(copal_store::Error::KeysWentBack), Some(remembered)) => Err(Error::KeysWentBack { remembered }),
        (opened, _) => {
            let repository = opened?;
            remember(state_folder, &repository);
            Ok(repository)
        }
    }
}

/// Remembers the newest roster that is known. Where the state folder cannot be written nothing is remembered:
/// the next command does.
pub fn remember(state_folder: Option<&Path>, repository: &Repository) {
    let Some(folder) = state_folder.map(|folder| folder.join(FOLDER)) else { return };
    let path = folder.join(repository.config().repository.to_string());
    let Some(newest) = repository.keys().anchor() else { return };
    let known = read(&path).ok().flatten();
    if known.is_none_or(|known| known.sequence < newest.sequence) {
        let _ = write(&folder, &path, newest);
    }
}

/// `None`: nothing is remembered, or what is there cannot be what this program wrote: a pipe, a link, another
/// user's.
fn read(path: &Path) -> Result<Option<Anchor>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let opened = own_folder(folder).and_then(|folder| Ok(folder.open_own_file(name.as_bytes(), FILE_BYTES_MAX)?));
    let Ok(file) = opened else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| failed("reading", path, error))?;
    // A sum first: a bit that flipped here must not make the repository look like a forged one.
    let Some((sum, document)) = bytes.split_at_checked(SUM_BYTES) else { return Ok(None) };
    if blake3::hash(document).as_bytes() != sum {
        return Ok(None);
    }
    let known: copal_store::Result<KnownKeys> = codec::decode("known keys", document);
    Ok(known.ok().filter(|known| known.version == VERSION).map(|known| known.anchor))
}

/// Beside, then renamed: never half a file.
fn write(folder: &Path, path: &Path, anchor: Anchor) -> Result<()> {
    let io = |error| failed("writing", path, error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let document = codec::encode(&KnownKeys { version: VERSION, anchor })?;
    let bytes = [&blake3::hash(&document).as_bytes()[..], &document].concat();
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(io)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&beside, path).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

fn failed(action: &'static str, path: &Path, error: io::Error) -> Error {
    copal_store::Error::io(action, PathBuf::from(path).display(), error).into()
}
