//! Whether a place fits what shall stand there, and what its filesystem can do. Nothing here changes a
//! target.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use copal_source::mounts::mount_points_from;
use copal_source::target::{Capabilities, TargetTree};

use super::DeployRequest;
use super::desired::Desired;
use super::place::{Place, Standing};
use crate::error::{Error, Result};

/// Nothing may take the name of a device away.
pub(super) fn refuse_device(place: &Place) -> Result<()> {
    if place.standing != Standing::Other || !copal_source::kept::is_block_device(&place.path)? {
        return Ok(());
    }
    let detail =
        "it is a block device: let it be the path of a source of the kind \"image\" of an application, and deploy that";
    Err(Error::UnfitTarget { target: place.path.clone(), detail: detail.into() })
}

/// A file that is deployed to an empty folder, or to one that is named with a slash at its end and not there,
/// goes into it. Neither a folder that holds something is taken
/// for a file's place, nor a file for a folder's.
pub(super) fn place_of_kind(
    place: Place,
    single: bool,
    desired: &Desired<'_>,
    request: &DeployRequest,
) -> Result<Place> {
    let refuse = |detail: String| Err(Error::UnfitTarget { target: request.target.clone(), detail });
    // As `cp` and `rsync` read it: a slash at the end asks for a folder.
    let asks_for_folder = request.target.as_os_str().as_bytes().ends_with(b"/");
    match (place.standing, single) {
        (Standing::File, true) if asks_for_folder => {
            refuse("it is a file, and the slash at its end asks for a folder: leave the slash away".into())
        }
        (standing, true) if standing == Standing::EmptyFolder || standing == Standing::Absent && asks_for_folder => match desired.last_name() {
            Some(name) => Place::resolve(&place.path.join(OsStr::from_bytes(&name))),
            None => refuse("it is a folder, and what goes there is one file: name the file itself".into()),
        },
        (Standing::Folder, true) => {
            let name = desired.last_name().map(|name| String::from_utf8_lossy(&name).into_owned());
            let name = name.map(|name| format!(" ({})", place.path.join(name).display())).unwrap_or_default();
            refuse(format!(
                "it is a folder that holds something, and what goes there is one file: name the file itself{name}, or add --replace \
                 to have the folder replaced"
            ))
        }
        (Standing::File, false) => refuse(
            "it is a file, and what goes there is a folder: name another place, or add --replace to have the file replaced".into(),
        ),
        _ => Ok(place),
    }
}

/// What becomes of a place itself, as what is mounted there sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// It stays where it is, and what is in it changes.
    Entered,
    /// Something else takes its name.
    Replaced,
}

/// What is mounted below a place can neither be replaced nor go with it, and no more can a mount point itself
/// that something else takes the name of. The path is free of links.
pub fn refuse_mounts(path: &Path, top: Top) -> Result<()> {
    let mounts = mount_points_from(path)?;
    let Some(mount) = mounts.iter().find(|mount| top == Top::Replaced || *mount != path) else { return Ok(()) };
    let detail = format!("{} is mounted there: unmount that, or use another place", mount.display());
    Err(Error::UnfitTarget { target: path.to_owned(), detail })
}

/// What the filesystem of the target can do. It is probed beside the target, so that a plan, or a deploy that
/// fails, leaves the target as it was to the time of its folder. At a mount point nothing beside it counts,
/// and nothing needs a probe; nor where nobody asks how the target would be switched.
pub(super) fn capabilities(
    place: &Place,
    single: bool,
    staged: Option<&Path>,
    may_probe: bool,
) -> Result<Capabilities> {
    // Who builds in a mount point knows how it is switched.
    let within = staged.and_then(Path::parent).filter(|parent| *parent == place.path);
    if let Some(within) = within {
        let tree = TargetTree::open(within)?;
        let reflink = tree.shares_extents()?;
        return Ok(Capabilities { reflink, mount_point: false, exchange: true, ..tree.look()? });
    }
    if matches!(place.standing, Standing::Folder | Standing::EmptyFolder) && !single {
        let inside = TargetTree::open(&place.path)?.look()?;
        // A subvolume is no mount point, and can be exchanged as little.
        let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev());
        let same = device(&place.path).is_ok_and(|inside| device(&place.parent).is_ok_and(|beside| beside == inside));
        // A tree that is exchanged is removed afterwards: with what is mounted in it.
        let has_mounts = !mount_points_from(&place.path)?.is_empty();
        if inside.mount_point || !same || has_mounts {
            return Ok(Capabilities { mount_point: true, ..inside });
        }
    }
    let mut folder = place.parent.as_path();
    while !folder.exists() {
        folder = folder.parent().unwrap_or(Path::new("/"));
    }
    let is_folder = matches!(place.standing, Standing::Folder | Standing::EmptyFolder) && !single;
    let tree = TargetTree::open(folder)?;
    if !may_probe {
        return Ok(Capabilities { exchange: true, mount_point: false, ..tree.look()? });
    }
    match tree.capabilities() {
        Ok(found) => Ok(Capabilities { mount_point: false, ..found }),
        // Whoever owns the folder alone, and not the one above it, can change what is in it.
        Err(error) if is_folder && is_refusal(&error) => {
            Ok(Capabilities { mount_point: true, ..TargetTree::open(&place.path)?.look()? })
        }
        Err(error) => Err(error.into()),
    }
}

fn is_refusal(error: &copal_source::Error) -> bool {
    let copal_source::Error::Io { source, .. } = error else { return false };
    matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
