//! Where applications keep what is under way: a folder each in the state folder, with a lock for the one
//! operation at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use copal_engine::context::Context;
use copal_engine::deploy::private_folder;
use copal_engine::state::StateSecret;

use crate::error::{Error, Result, failed};
use crate::record::{CaptureRecord, write_json};

/// Failed captures that are remembered.
const FAILED_KEPT: usize = 20;
/// Longest note in a lock.
const NOTE_BYTES_MAX: u64 = 4096;
/// Notes of those who hold a lock for a moment only.
pub(super) const LOOK: &str = "a look";
pub(super) const CHECK: &str = "a check";
pub(super) const RECOVERY: &str = "the end of an interrupted operation";
/// How long those are waited for.
const PASSING_MAX: Duration = Duration::from_secs(30);
/// A note may still be the one of the holder before, for as long as it takes to write another.
const NOTE_SETTLES: Duration = Duration::from_millis(50);
/// How often a lock that is held is tried again.
const TRY_EACH: Duration = Duration::from_millis(5);
/// The record of a capture in its folder.
const RECORD: &str = "record.json";
/// Left by a watchdog that has let the application go on.
pub(super) const RESUMED: &str = "resumed";

/// The folder of one application.
#[derive(Clone, Debug)]
pub(super) struct AppFolder {
    path: PathBuf,
    /// The state folder.
    state: PathBuf,
}

/// The folder of one application, held: nobody else has an operation on it.
#[derive(Debug)]
pub(super) struct Held {
    _lock: File,
}

/// The folder of one capture.
#[derive(Clone, Debug)]
pub(super) struct CaptureFolder {
    pub(super) path: PathBuf,
    /// The state folder.
    pub(super) state: PathBuf,
}

fn all(state_folder: &Path) -> PathBuf {
    state_folder.join("applications")
}

/// Whether a lock's note is of somebody who lets go at once; one without a note has just been taken.
fn is_passing(note: &str) -> bool {
    note.is_empty() || [LOOK, CHECK, RECOVERY].contains(&note)
}

impl AppFolder {
    pub(super) fn of(state_folder: &Path, app: &str) -> Self {
        let name = blake3::hash(app.as_bytes()).to_hex();
        Self { path: all(state_folder).join(&name.as_str()[..32]), state: state_folder.to_owned() }
    }

    /// Every application that ever had an operation here.
    pub(super) fn list(state_folder: &Path) -> Result<Vec<Self>> {
        let state = || state_folder.to_owned();
        Ok(subfolders(&all(state_folder))?.into_iter().map(|path| Self { path, state: state() }).collect())
    }

    /// Takes the lock, or says who has it. Who holds it for a moment only, for a look or a check, is waited
    /// for.
    pub(super) fn hold(&self, context: &Context, app: &str, verb: &str) -> Result<Held> {
        self.create(context)?;
        let begun = Instant::now();
        let mut at_work_since = None;
        loop {
            let note = match self.try_hold(verb)? {
                Ok(held) => return Ok(held),
                Err(note) => note,
            };
            let settled = if is_passing(&note) {
                at_work_since = None;
                false
            } else {
                at_work_since.get_or_insert_with(Instant::now).elapsed() >= NOTE_SETTLES
            };
            if settled || begun.elapsed() >= PASSING_MAX {
                let note = if note.is_empty() { "another operation" } else { &note };
                let what = format!("the application {app:?}: {note} is under way");
                return Err(copal_store::Error::Busy { what }.into());
            }
            context.check_interrupt()?;
            std::thread::sleep(TRY_EACH);
        }
    }

    /// Makes the folder, for its owner alone, and the secret that vouches for what will stand in it.
    pub(super) fn create(&self, context: &Context) -> Result<()> {
        private_folder(&self.path)?;
        StateSecret::obtain(&self.state, context.repository.entropy().as_ref())?;
        Ok(())
    }

    /// Waits until nobody is at work, at most so long: a process that was killed may take a moment to let go.
    pub(super) fn wait_until_free(&self, context: &Context, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.busy_with()?.is_some_and(|note| !is_passing(&note)) && begun.elapsed() < limit {
            context.check_interrupt()?;
            std::thread::sleep(TRY_EACH);
        }
        Ok(())
    }

    /// The lock, or what its holder does.
    pub(super) fn try_hold(&self, verb: &str) -> Result<Result<Held, String>> {
        let path = self.path.join("lock");
        let io = |error| failed("locking", &path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // A pipe or a link with this name is not ours, and not waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let options = options.custom_flags(flags.bits() as i32).open(&path);
        let mut file = options.map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| file.write_all(verb.as_bytes()))
                    .map_err(io)?;
                Ok(Ok(Held { _lock: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut note = String::new();
                // What cannot be read is only a word in a message.
                let _ = file.take(NOTE_BYTES_MAX).read_to_string(&mut note);
                Ok(Err(note))
            }
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// Whether nobody holds it; nothing is written.
    pub(super) fn is_free(&self) -> bool {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(self.path.join("lock"));
        file.map_or(true, |file| file.try_lock().is_ok())
    }

    /// What its holder does, if there is one.
    pub(super) fn busy_with(&self) -> Result<Option<String>> {
        if !self.path.join("lock").exists() {
            return Ok(None);
        }
        Ok(self.try_hold(LOOK)?.err())
    }

    pub(super) fn captures(&self) -> Result<Vec<CaptureFolder>> {
        let state = || self.state.clone();
        let captures = subfolders(&self.path.join("captures"))?.into_iter();
        Ok(captures.map(|path| CaptureFolder { path, state: state() }).collect())
    }

    pub(super) fn capture(&self, id: &str) -> CaptureFolder {
        CaptureFolder { path: self.path.join("captures").join(id), state: self.state.clone() }
    }

    /// The journal of a deploy.
    pub(super) fn deploy_journal(&self) -> PathBuf {
        self.path.join("deploy.json")
    }

    /// The state folder.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Clones of what was captured last, for comparison.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Old failures are forgotten, and all of them once a capture has succeeded.
    pub(super) fn forget_failures(&self, succeeded: bool) -> Result<()> {
        let mut over = Vec::new();
        for folder in self.captures()? {
            match folder.read() {
                Ok(Some(record)) if record.phase.is_final() => over.push((record.created, folder)),
                _ => {}
            }
        }
        over.sort_by_key(|(created, _)| *created);
        let kept = if succeeded { 0 } else { FAILED_KEPT };
        let surplus = over.len().saturating_sub(kept);
        over.iter().take(surplus).try_for_each(|(_, folder)| folder.remove())
    }
}

impl CaptureFolder {
    /// Held by a capture that belongs to no application.
    pub(super) fn hold_alone(&self) -> Result<Result<Held, String>> {
        AppFolder { path: self.path.clone(), state: self.state.clone() }.try_hold("a create")
    }

    pub(super) fn create(&self) -> Result<()> {
        Ok(private_folder(&self.path)?)
    }

    /// None: its process died before it had written one.
    pub(super) fn read(&self) -> Result<Option<CaptureRecord>> {
        CaptureRecord::read(&self.state, &self.path.join(RECORD))
    }

    /// Replaces the record, durably.
    pub(super) fn write(&self, record: &CaptureRecord) -> Result<()> {
        write_json(&self.state, &self.path.join(RECORD), record, true)
    }

    /// Replaces the record so that others see it; after a loss of power it may be the one before.
    pub(super) fn show(&self, record: &CaptureRecord) -> Result<()> {
        write_json(&self.state, &self.path.join(RECORD), record, false)
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Whether a watchdog has let the application go on.
    pub(super) fn was_resumed(&self) -> bool {
        self.path.join(RESUMED).exists()
    }

    /// Removes copies that no upload needs any more.
    pub(super) fn remove_kept(&self, record: &CaptureRecord) -> Result<()> {
        for kept in record.components.iter().filter_map(|component| component.kept.as_deref()) {
            remove_whole(kept)?;
        }
        remove_whole(&self.spool())
    }

    pub(super) fn remove(&self) -> Result<()> {
        remove_whole(&self.path)
    }
}

fn subfolders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("listing", path, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("listing", path, error))?.path();
        // A link is none of ours.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn remove_whole(path: &Path) -> Result<()> {
    Ok(copal_engine::deploy::remove_whole(path)?)
}

/// The state folder; operations on applications need one.
pub(super) fn state_folder(context: &Context) -> Result<&Path> {
    let missing = || Error::usage("operations on applications need a state folder, and there is no home folder");
    context.state_folder.as_deref().ok_or_else(missing)
}
