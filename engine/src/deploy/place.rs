//! Where a deploy writes: the resolved target, the names of what it puts beside it, the locks that say who is
//! alive.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use copal_manifest::entry::EntryPath;
use copal_source::target::TargetTree;
use copal_store::entropy::Entropy;

use crate::error::{Error, Result};
use crate::state::place_led_to;

/// Longest part of the target's name that is repeated in the names beside it, so that they stay below
/// `NAME_MAX`.
const NAME_REPEATED_MAX: usize = 200;

/// What stands at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Absent,
    /// A folder without entries.
    EmptyFolder,
    /// A folder with entries.
    Folder,
    /// A regular file.
    File,
    /// Anything else.
    Other,
}

/// The target, resolved: no link is left in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The whole path.
    pub(super) path: PathBuf,
    /// The folder that holds it.
    pub(super) parent: PathBuf,
    /// Its last name.
    pub(super) name: OsString,
    pub(super) standing: Standing,
}

impl Place {
    /// Resolves a target. Links in the folders above are followed once, here; a link as the target itself
    /// must lead to a folder or a regular file.
    pub(super) fn resolve(target: &Path) -> Result<Self> {
        // A slash at the end would make the system follow a link.
        let target = &target.components().collect::<PathBuf>();
        let path = match fs::symlink_metadata(target) {
            Ok(found) if found.is_symlink() => match fs::metadata(target) {
                Ok(end) if end.is_dir() => canonical(target)?,
                Ok(end) if end.is_file() => place_led_to(target)?,
                _ => {
                    return Err(Error::Usage(format!(
                        "{} is a symbolic link that leads to no file or folder; name the place itself",
                        target.display()
                    )));
                }
            },
            Ok(_) if target.file_name().is_some() => beneath_canonical_parent(target)?,
            Ok(_) => canonical(target)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match target.file_name() {
                Some(_) => beneath_canonical_parent(target)?,
                None => return Err(failed("resolving", target, error)),
            },
            Err(error) => return Err(failed("resolving", target, error)),
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Usage("the root folder of the system cannot be a target".into()));
        };
        let standing = standing(&path)?;
        Ok(Self { parent: parent.to_owned(), name: name.to_owned(), path, standing })
    }

    /// A name beside the target that only Copal gives: `.NAME.copal-KIND` and 16 random hexadecimal digits.
    pub(super) fn beside(&self, kind: Beside, entropy: &dyn Entropy) -> Result<PathBuf> {
        let mut random = [0; 8];
        entropy.fill(&mut random)?;
        let mut name = beside_prefix(&self.name, kind);
        name.push(hex::encode(random));
        Ok(self.parent.join(name))
    }

    /// What earlier deploys to this target left beside it (in it, where it is a mount point).
    pub(super) fn left_beside(&self, kind: Beside) -> Result<Vec<PathBuf>> {
        let prefix = beside_prefix(&self.name, kind);
        let mut found = Vec::new();
        for folder in [&self.parent, &self.path] {
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(_) if folder == &self.path => continue,
                Err(error) if is_out_of_reach(&error) => continue,
                Err(error) => return Err(failed("listing", folder, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| failed("listing", folder, error))?;
                let name = entry.file_name();
                let digits = name.as_bytes().strip_prefix(prefix.as_bytes());
                if digits.is_some_and(|d| d.len() == 16 && d.iter().all(u8::is_ascii_hexdigit)) {
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }
}

/// What stands beside a target for the time of a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// A tree being built, or an old tree being removed.
    Staging,
    /// A redo journal.
    Journal,
}

fn beside_prefix(name: &OsStr, kind: Beside) -> OsString {
    let bytes = name.as_bytes();
    let mut prefix = b".".to_vec();
    if bytes.len() <= NAME_REPEATED_MAX {
        prefix.extend_from_slice(bytes);
    } else {
        prefix.extend_from_slice(blake3::hash(bytes).to_hex().as_bytes());
    }
    prefix.extend_from_slice(match kind {
        Beside::Staging => b".copal-",
        Beside::Journal => b".copal-journal-",
    });
    OsString::from_vec(prefix)
}

/// What cannot be listed has no journal that could be carried out.
fn is_out_of_reach(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(|error| failed("resolving", path, error))
}

/// The parent may not exist yet: then it is taken as written, made absolute.
fn beneath_canonical_parent(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return canonical(path),
    };
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::path::absolute(path).map_err(|error| failed("resolving", path, error))
        }
        Err(error) => Err(failed("resolving", path, error)),
    }
}

fn standing(path: &Path) -> Result<Standing> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            let mut entries = fs::read_dir(path).map_err(|error| failed("listing", path, error))?;
            Ok(if entries.next().is_some() { Standing::Folder } else { Standing::EmptyFolder })
        }
        Ok(found) if found.is_file() => Ok(Standing::File),
        Ok(_) => Ok(Standing::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Standing::Absent),
        Err(error) => Err(failed("resolving", path, error)),
    }
}

/// An error of the target.
pub fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Source(copal_source::Error::Io { action, path: path.to_owned(), source })
}

/// An open folder to write in, and where TARGET is in it. What is mounted in it is out of reach.
#[derive(Clone, Debug)]
pub(super) struct WriteRoot {
    pub(super) tree: TargetTree,
    /// `None`: the folder is TARGET. Else TARGET is the one file of this name in it.
    pub(super) file: Option<Vec<u8>>,
}

impl WriteRoot {
    /// An existing target.
    pub(super) fn open(place: &Path, single: bool) -> Result<Self> {
        if !single {
            return Ok(Self { tree: TargetTree::open(place)?.on_one_mount()?, file: None });
        }
        let parent = place.parent().unwrap_or(Path::new("/"));
        let name = place.file_name().unwrap_or_default().as_bytes().to_vec();
        Ok(Self { tree: TargetTree::open(parent)?.on_one_mount()?, file: Some(name) })
    }

    /// The path of an entry below the open folder.
    pub(super) fn path(&self, path: &EntryPath) -> Vec<u8> {
        match &self.file {
            Some(name) => name.clone(),
            None => path.to_slashes(),
        }
    }
}

/// Makes a folder, and those above it, for what only its owner may see: what lies in it was perhaps taken
/// from below a folder that others may not enter.
pub fn private_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failed("creating", path, error))
}

pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| failed("syncing", folder, error))
}

/// Removes a tree or a file without following links, and never what is mounted in it; what is gone already is
/// no error.
pub fn remove_whole(path: &Path) -> Result<()> {
    let (parent, Some(name)) = (path.parent().unwrap_or(path), path.file_name()) else {
        return Err(Error::Internal(format!("{} has no name that could be removed", path.display())));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match fs::canonicalize(parent) {
        Ok(parent) => parent,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("removing", path, error)),
    };
    match TargetTree::open(&parent)?.remove(name.as_bytes()) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
