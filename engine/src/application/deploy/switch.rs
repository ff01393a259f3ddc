//! One target: what is new is beside it, and changes places with what is old; or back. Every step can be repeated.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use copal_source::postgres::{database_exists, remove_database, rename_database};
use copal_source::sqlite::sidecars;
use copal_source::target::{exchange, rename_new};

use super::journal::Target;
use super::{device, within};
use crate::deploy::{failed, remove_whole};
use crate::error::Result;

/// Filesystem and inode of what stands at a path. After a restart the filesystem may have another number: [`is_new`] compares.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether the new state stands at the path. It was built beside it, on the same filesystem: the inode tells.
fn is_new(path: &Path, new: Option<(u64, u64)>) -> bool {
    let inode = |identity: (u64, u64)| identity.1;
    new.is_some() && identity(path).map(inode) == new.map(inode)
}

/// Gives the new state its place.
pub(super) fn switch(target: &Target) -> Result<()> {
    match target {
        Target::Place { path, staged, asides, .. } => {
            for (from, to) in asides {
                move_if_there(from, to)?;
            }
            match identity(path) {
                Some(_) => Ok(exchange(staged, path)?),
                None => Ok(rename_new(staged, path)?),
            }
        }
        Target::Within { path, staged, times } => within::switch(path, staged, times),
        Target::Device { path, folder, identity } => device::switch(path, folder, identity).map(drop),
        Target::Databases { dsn, bin, timeout, names } => {
            let server = Target::server(dsn, bin.as_deref(), *timeout);
            for (name, staged, aside, _) in names {
                rename_database(&server, name, aside)?;
                rename_database(&server, staged, name)?;
            }
            Ok(())
        }
    }
}

/// Puts the old state back, wherever the switch had come to, and removes the new one.
pub(super) fn undo(target: &Target) -> Result<()> {
    match target {
        Target::Place { path, staged, identity: new, asides } => {
            if is_new(path, *new) {
                // What the new state has beside it would be taken for the old one's.
                for left in sidecars(path).into_iter().filter(|left| asides.iter().any(|(from, _)| from == left)) {
                    remove_whole(&left)?;
                }
                match identity(staged) {
                    Some(_) => exchange(staged, path)?,
                    None => rename_new(path, staged)?,
                }
            }
            for (from, to) in asides {
                move_if_there(to, from)?;
            }
            remove_whole(staged)
        }
        Target::Within { path, staged, times } => within::undo(path, staged, times),
        Target::Device { path, folder, identity } => device::undo(path, folder, identity),
        Target::Databases { dsn, bin, timeout, names } => {
            let server = Target::server(dsn, bin.as_deref(), *timeout);
            for (name, staged, aside, had) in names {
                // The name that the old state has meanwhile tells that it was moved; it goes back last.
                if database_exists(&server, aside)? {
                    remove_database(&server, name)?;
                    rename_database(&server, aside, name)?;
                } else if !had && !database_exists(&server, staged)? {
                    remove_database(&server, name)?;
                }
                remove_database(&server, staged)?;
            }
            Ok(())
        }
    }
}

/// Removes the old state.
pub(super) fn finish(target: &Target) -> Result<()> {
    match target {
        Target::Place { staged, asides, .. } => {
            for (_, aside) in asides {
                remove_whole(aside)?;
            }
            remove_whole(staged)
        }
        Target::Within { path, staged, .. } => within::finish(path, staged),
        Target::Device { folder, .. } => device::finish(folder),
        Target::Databases { dsn, bin, timeout, names } => {
            let server = Target::server(dsn, bin.as_deref(), *timeout);
            names.iter().try_for_each(|(_, _, aside, _)| Ok(remove_database(&server, aside)?))
        }
    }
}

/// Where the files beside a database go: all that there may be, not only those that are there now.
pub(super) fn asides_of(path: &Path, mark: &str) -> Vec<(PathBuf, PathBuf)> {
    ["-wal", "-shm", "-journal"]
        .into_iter()
        .map(|suffix| {
            let mut from = path.as_os_str().to_owned();
            from.push(suffix);
            let mut to = from.clone();
            to.push(format!(".copal-{mark}"));
            (from.into(), to.into())
        })
        .collect()
}

fn move_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("renaming", from, error)),
        _ => Ok(()),
    }
}
