//! One target: what is new is beside it, and changes places with what is old; or back. Every step can be
//! repeated.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use copal_engine::deploy::remove_whole;
use copal_engine::state::{Known, open_parent};
use copal_source::postgres::{
    LoadedDatabase, close_database, database_exists, exchange_databases, is_open_database, open_database,
    remove_database, rename_database,
};
use copal_source::sqlite::{SIDECARS, sidecars};
use copal_source::target::{Identity, exchange, rename_new};

use super::carry::Carried;
use super::journal::{Stage, Target};
use super::{carry, device, within};
use crate::error::{Result, failed};

/// What stands at a path; none: nothing.
pub(super) fn standing(path: &Path) -> Option<Known> {
    let (above, name) = open_parent(path).ok()??;
    above.identity(&name).ok().map(Known::from)
}

/// That what is about to change places is what it was: another folder with its name is somebody else's doing.
fn expect(path: &Path, known: Option<Known>) -> Result<()> {
    if standing(path) == known {
        return Ok(());
    }
    let detail = "is not what this deploy had put there: put that back, or make the target whole by hand";
    Err(copal_source::Error::Refused { path: path.to_owned(), detail: detail.into() }.into())
}

/// Takes what stands there out of everybody's reach, where it is not reached by a path: from here on nobody
/// changes it, and a snapshot of it is one of what is replaced. Nobody reaches the new state yet.
pub(super) fn withdraw(target: &Target) -> Result<()> {
    let Target::Databases { dsn, bin, timeout, names, .. } = target else { return Ok(()) };
    let server = Target::server(dsn, bin.as_deref(), *timeout);
    for (name, staged, aside, _) in names.iter().filter(|(_, _, _, had)| *had) {
        let database = LoadedDatabase { name: name.clone(), staged: staged.clone(), aside: aside.clone() };
        exchange_databases(&server, &database)?;
    }
    Ok(())
}

/// Gives the new state its place.
pub(super) fn switch(target: &Target, carried: &Carried) -> Result<()> {
    match target {
        Target::Place { path, staged, new, asides, .. } => {
            expect(staged, *new)?;
            for (from, to) in asides {
                move_if_there(from, to)?;
            }
            carry::move_all(carried, path, staged)?;
            match standing(path) {
                Some(_) => Ok(exchange(staged, path)?),
                None => Ok(rename_new(staged, path)?),
            }
        }
        Target::Within { path, staged, identity, times, .. } => {
            within::expect(path, *identity)?;
            within::switch(path, staged, times, carried)
        }
        Target::Device { path, folder, identity, .. } => device::switch(path, folder, identity).map(drop),
        Target::Databases { dsn, bin, timeout, names, .. } => {
            let server = Target::server(dsn, bin.as_deref(), *timeout);
            for (name, staged, _, _) in names {
                // One that nothing stood in the way of has its own name still.
                rename_database(&server, staged, name)?;
                open_database(&server, name)?;
            }
            Ok(())
        }
    }
}

/// Puts the old state back, wherever the switch had come to, and removes the new one. Before a deploy begins
/// to switch, whoever runs may still replace what stands there.
pub(super) fn undo(target: &Target, carried: &Carried, stage: Stage) -> Result<()> {
    match target {
        Target::Place { path, staged, beside, made, new, old, asides, .. } => {
            let is_switched = match old {
                Some(_) => standing(staged) == *old,
                None => new.is_some() && standing(path) == *new,
            };
            if is_switched {
                // What the new state has beside it would be taken for the old one's.
                for left in sidecars(path).into_iter().filter(|left| asides.iter().any(|(from, _)| from == left)) {
                    remove_whole(&left)?;
                }
                match (standing(path), old) {
                    (Some(_), Some(_)) => exchange(staged, path)?,
                    (None, Some(_)) => rename_new(staged, path)?,
                    (_, None) => rename_new(path, staged)?,
                }
            } else if stage != Stage::Staging && new.is_some() && standing(staged) != *new && standing(path) != *old {
                // Neither state is where it was: a folder above them was put elsewhere.
                expect(path, *old)?;
            }
            for (from, to) in asides {
                move_if_there(to, from)?;
            }
            carry::move_all(carried, staged, path)?;
            remove_made(beside, [*made, None])
        }
        Target::Within { path, staged, identity, times, .. } => {
            within::expect(path, *identity)?;
            within::undo(path, staged, times, carried)
        }
        Target::Device { path, folder, identity, .. } => device::undo(path, folder, identity),
        Target::Databases { dsn, bin, timeout, names, closed, .. } => {
            let server = Target::server(dsn, bin.as_deref(), *timeout);
            for (name, staged, aside, had) in names {
                // The name that the old state has meanwhile tells that it was moved; it goes back last.
                if database_exists(&server, aside)? {
                    remove_database(&server, name)?;
                    rename_database(&server, aside, name)?;
                } else if !had && !database_exists(&server, staged)? {
                    remove_database(&server, name)?;
                }
                // It may have been closed and not yet renamed; or it was closed before, and is open now.
                let was_closed = closed.contains(name);
                if *had && is_open_database(&server, name)? == was_closed && database_exists(&server, name)? {
                    let put_back = if was_closed { close_database } else { open_database };
                    put_back(&server, name)?;
                }
                remove_database(&server, staged)?;
            }
            Ok(())
        }
    }
}

/// Removes the old state, or gives it the name under which it stays.
pub(super) fn finish(target: &Target) -> Result<()> {
    match target {
        Target::Place { path, staged, beside, made, old, asides, kept, .. } => {
            if let Some(kept) = kept {
                keep(path, staged, *old, asides, kept)?;
            }
            for (_, aside) in asides {
                remove_whole(aside)?;
            }
            remove_made(beside, [*made, *old])
        }
        Target::Within { path, staged, identity, kept, .. } => {
            within::expect(path, *identity)?;
            within::finish(path, staged, kept.as_deref())
        }
        Target::Device { folder, kept, .. } => device::finish(folder, kept.as_deref()),
        // They have the names already under which they stay.
        Target::Databases { kept: true, .. } => Ok(()),
        Target::Databases { dsn, bin, timeout, names, kept: false, .. } => {
            let server = Target::server(dsn, bin.as_deref(), *timeout);
            names.iter().try_for_each(|(_, _, aside, _)| Ok(remove_database(&server, aside)?))
        }
    }
}

/// Gives the old state its last name, and what lies beside a database the one that goes with that.
fn keep(path: &Path, staged: &Path, old: Option<Known>, asides: &[(PathBuf, PathBuf)], kept: &Path) -> Result<()> {
    // Else it has its name since before a kill.
    if old.is_some() && standing(staged) == old {
        rename_new(staged, kept)?;
    }
    for (from, aside) in asides {
        let suffix = from.as_os_str().as_bytes().strip_prefix(path.as_os_str().as_bytes()).unwrap_or_default();
        let mut name = kept.as_os_str().to_owned();
        name.push(OsStr::from_bytes(suffix));
        move_if_there(aside, Path::new(&name))?;
    }
    Ok(())
}

/// Removes what this deploy made, or replaced; something else that has the name by now is somebody's data,
/// and stays.
fn remove_made(beside: &Path, known: [Option<Known>; 2]) -> Result<()> {
    let Some((above, name)) = open_parent(beside)? else { return Ok(()) };
    let known: Vec<Identity> = known.into_iter().flatten().map(Identity::from).collect();
    if known.is_empty() {
        above.remove_empty_own(&name)?;
    } else {
        above.remove_known(&name, &known)?;
    }
    Ok(())
}

/// Where the files beside a database go: all that there may be, not only those that are there now. After the
/// switch they are beside it again, and SQLite finds them.
pub(super) fn asides_of(path: &Path, staged: &Path) -> Vec<(PathBuf, PathBuf)> {
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    SIDECARS.into_iter().map(|suffix| (with(path, suffix), with(staged, suffix))).collect()
}

fn move_if_there(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("renaming", from, error)),
        _ => Ok(()),
    }
}
