//! The clones of large files that stay between captures, one generation for each source, so that the next
//! capture is told by their extents what changed. They stand beside the place where the next clone will be
//! made, and nothing but time is lost with them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use copal_engine::create::{CLONE_BYTES_MIN, ContentIdentity, KeptClone, KeptClones, Untouched};
use copal_engine::deploy::remove_whole;
use copal_engine::state::{Record, StateSecret, open_parent, real};
use copal_source::read::TreeReader;
use copal_source::scan::{FileKind, ScanEntry};
use copal_source::target::TargetTree;

use crate::error::{Error, Result, failed};

const VERSION: u16 = 2;
/// The list of what is kept.
const LIST: &str = "list";
/// Longest list: a path and a few numbers for each file.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Most files of which a clone is kept: more are not few large ones.
const FILES_MAX: usize = 4096;

/// The list, as a document.
#[derive(serde::Serialize, serde::Deserialize)]
struct Generation {
    version: u16,
    clones: Vec<KeptClone>,
}

/// Where the clones stay of a source whose own clone is made at a place.
fn folder_beside(place: &Path) -> PathBuf {
    let mut folder = OsString::from(place);
    folder.push(".kept");
    folder.into()
}

fn name_of(path: &[u8]) -> String {
    blake3::hash(path).to_hex().as_str()[..32].to_owned()
}

/// What is kept beside a place; what cannot be read, or is not vouched for, is not there.
pub(crate) fn load(state_folder: &Path, place: &Path) -> Option<KeptClones> {
    let folder = folder_beside(place);
    let clones = read_list(state_folder, &folder)?;
    Some(KeptClones::new(TreeReader::open(&folder).ok()?, clones))
}

fn read_list(state_folder: &Path, folder: &Path) -> Option<Vec<KeptClone>> {
    let secret = StateSecret::find(state_folder).ok()??;
    let (above, name) = open_parent(&real(folder)).ok()??;
    let opened = above.folder(&name).ok()?;
    opened.check_own().ok()?;
    let mut bytes = Vec::new();
    opened.open_own_file(LIST.as_bytes(), LIST_BYTES_MAX).ok()?.take(LIST_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let (tag, document) = bytes.split_first_chunk()?;
    if !secret.vouches(Record::KeptClones, folder.as_os_str().as_bytes(), document, tag) {
        return None;
    }
    let generation: Generation = copal_store::codec::decode("a list of clones", document).ok()?;
    (generation.version == VERSION).then_some(generation.clones)
}

/// Takes from a clone, whose snapshot is committed, what the next capture will want, and removes what it will
/// not.
///
/// A kill in between leaves clones that the list does not describe as they are: those are not used.
pub(crate) fn keep(
    state_folder: &Path,
    place: &Path,
    clone: &Path,
    entries: &[ScanEntry],
    contents: &[(Vec<u8>, ContentIdentity)],
) -> Result<()> {
    let folder = folder_beside(place);
    let before: HashMap<Vec<u8>, KeptClone> = read_list(state_folder, &folder)
        .unwrap_or_default()
        .into_iter()
        .map(|kept| (kept.path.clone(), kept))
        .collect();
    let contents: HashMap<&[u8], ContentIdentity> =
        contents.iter().map(|(path, content)| (path.as_slice(), *content)).collect();
    let is_large = |entry: &&ScanEntry| entry.stat.kind == FileKind::File && entry.stat.bytes >= CLONE_BYTES_MIN;
    let mut large = entries.iter().filter(is_large).take(FILES_MAX).peekable();
    if large.peek().is_none() {
        return remove_own(&folder);
    }
    make_private(&folder)?;
    let reader = TreeReader::open(&folder)?;
    let mut clones = Vec::new();
    for entry in large {
        let path: &[u8] = &entry.path;
        let Some(content) = contents.get(path).copied() else { continue };
        let name = name_of(path);
        let made = if path.is_empty() { clone.to_owned() } else { clone.join(std::ffi::OsStr::from_bytes(path)) };
        match fs::rename(&made, folder.join(&name)) {
            Ok(()) => {
                let untouched = Untouched::of(&reader.stat(name.as_bytes())?);
                clones.push(KeptClone { path: path.to_vec(), name, untouched, content });
            }
            // It had not changed since the capture before: what was kept then is still of use.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                clones.extend(before.get(path).filter(|kept| kept.content == content).cloned());
            }
            Err(error) => return Err(failed("keeping", &made, error)),
        }
    }
    write_list(state_folder, &folder, &Generation { version: VERSION, clones: clones.clone() })?;
    remove_others(&folder, &clones)
}

/// Only for whoever captures: a clone has the bytes of files that others may not read.
fn make_private(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(failed("creating", folder, error)),
        _ => Ok(TargetTree::open(folder)?.check_own()?),
    }
}

/// Removes a folder of whoever runs this; another user's stays.
pub(crate) fn remove_own(folder: &Path) -> Result<()> {
    let Some((above, name)) = open_parent(&real(folder))? else { return Ok(()) };
    match above.folder(&name).and_then(|found| found.check_own().and_then(|()| found.identity(b""))) {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(identity) => Ok(above.remove_known(&name, &[identity]).map(drop)?),
    }
}

fn write_list(state_folder: &Path, folder: &Path, generation: &Generation) -> Result<()> {
    let secret = StateSecret::find(state_folder)?;
    let secret = secret.ok_or_else(|| Error::internal("the secret of the state folder is gone"))?;
    let document = copal_store::codec::encode(generation)?;
    let tag = secret.tag(Record::KeptClones, folder.as_os_str().as_bytes(), &document);
    let bytes = [&tag[..], &document].concat();
    let (new, list) = (folder.join("list.new"), folder.join(LIST));
    let io = |error| failed("writing", &list, error);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(io)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&new, &list).and_then(|()| File::open(folder)?.sync_all()).map_err(io)
}

fn remove_others(folder: &Path, clones: &[KeptClone]) -> Result<()> {
    let wanted: HashSet<&[u8]> = clones.iter().map(|clone| clone.name.as_bytes()).chain([LIST.as_bytes()]).collect();
    let io = |error| failed("listing", folder, error);
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !wanted.contains(entry.file_name().as_bytes()) {
            remove_whole(&entry.path())?;
        }
    }
    Ok(())
}
