//! The notes of deploys under way, in the state folder: what stands beside which target, so that the next
//! command ends it.
//!
//! A note is appended to, never rewritten: its lock says that its deploy is alive, and stays with the file.
//! Each entry bears a tag of the state folder's secret over the note's name, the entry's number and the
//! entry.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use copal_source::target::{Identity, TargetTree};
use copal_store::entropy::Entropy;
use serde::{Deserialize, Serialize};

use super::place::{Beside, failed, private_folder, remove_whole, sync_folder};
use crate::context::Context;
use crate::error::Result;
use crate::state::{Known, Record, StateSecret, TAG_BYTES, is_not_found, own_folder};

const VERSION: u16 = 2;
/// A note holds two paths, twice.
const NOTE_BYTES_MAX: u64 = 64 << 10;
/// The folder of notes in the state folder.
const NOTES: &str = "pending";
/// Of a note that is not complete.
const NEW: &str = "new";

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    version: u16,
    journal: bool,
    beside: Vec<u8>,
    target: Vec<u8>,
    /// What was made beside the target; none: it was not made, or there was no time to note it, and nothing
    /// is in it.
    made: Option<Known>,
    /// What stood at the target: after the switch it has the other's name.
    replaced: Option<Known>,
}

impl Noted {
    pub(super) fn kind(&self) -> Beside {
        if self.journal { Beside::Journal } else { Beside::Staging }
    }

    pub(super) fn beside(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsString::from_vec(self.beside.clone()))
    }

    pub(super) fn target(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsString::from_vec(self.target.clone()))
    }

    pub(super) fn made(&self) -> Option<Identity> {
        self.made.map(Identity::from)
    }

    /// What of this deploy may stand beside the target.
    pub(super) fn known(&self) -> Vec<Identity> {
        self.made.into_iter().chain(self.replaced).map(Identity::from).collect()
    }
}

/// Where deploys are noted, and what vouches for their records.
pub(super) struct Ledger {
    state_folder: Option<PathBuf>,
    pub(super) secret: StateSecret,
}

impl Ledger {
    /// Without a state folder that can be used nothing is noted, and a journal is of this process alone: that
    /// is said.
    pub(super) fn open(context: &Context) -> Result<Self> {
        let entropy = context.repository.entropy().as_ref();
        let why = match context.state_folder.as_deref() {
            None => "there is no state folder (set HOME or XDG_STATE_HOME)".into(),
            Some(folder) => {
                match StateSecret::obtain(folder, entropy).and_then(|secret| notes_folder(folder).map(|()| secret)) {
                    Ok(secret) => return Ok(Self { state_folder: Some(folder.to_owned()), secret }),
                    Err(error) => format!("the state folder {} cannot be used: {error}", folder.display()),
                }
            }
        };
        context.monitor.notice(&format!(
            "{why}; should this deploy be interrupted, no command can finish it or take it back: deploy again then"
        ));
        Ok(Self { state_folder: None, secret: StateSecret::of_process(entropy)? })
    }

    pub(super) fn state_folder(&self) -> Option<&Path> {
        self.state_folder.as_deref()
    }
}

fn notes_folder(state_folder: &Path) -> Result<()> {
    private_folder(&state_folder.join(NOTES))
}

/// A registered deploy: its note is there, and locked, until it is dropped by [`Registered::done`] or the
/// process dies.
#[derive(Debug)]
pub(super) struct Registered {
    note: Option<OpenNote>,
    noted: Noted,
}

#[derive(Debug)]
struct OpenNote {
    path: PathBuf,
    file: File,
    secret: StateSecret,
    entries: u32,
}

impl Registered {
    /// Writes the note before anything is put beside the target. Without a state folder there is none.
    pub(super) fn new(
        ledger: &Ledger,
        kind: Beside,
        beside: &Path,
        target: &Path,
        replaced: Option<Identity>,
        entropy: &dyn Entropy,
    ) -> Result<Self> {
        let noted = Noted {
            version: VERSION,
            journal: kind == Beside::Journal,
            beside: beside.as_os_str().as_bytes().to_vec(),
            target: target.as_os_str().as_bytes().to_vec(),
            made: None,
            replaced: replaced.map(Known::from),
        };
        let Some(state_folder) = ledger.state_folder() else { return Ok(Self { note: None, noted }) };
        let folder = state_folder.join(NOTES);
        let (path, new, file) = loop {
            let mut random = [0; 8];
            entropy.fill(&mut random)?;
            let path = folder.join(hex::encode(random));
            let new = path.with_extension(NEW);
            if let Some(file) = create_locked(&new)? {
                break (path, new, file);
            }
        };
        let mut note = OpenNote { path, file, secret: ledger.secret.clone(), entries: 0 };
        note.append(&noted)?;
        fs::rename(&new, &note.path).map_err(|error| failed("writing", &note.path, error))?;
        sync_folder(&folder)?;
        Ok(Self { note: Some(note), noted })
    }

    /// What was noted was made, and nothing has been put into it yet.
    pub(super) fn made(&mut self, made: Identity) -> Result<()> {
        self.noted.made = Some(made.into());
        match &mut self.note {
            Some(note) => note.append(&self.noted),
            None => Ok(()),
        }
    }

    /// What may stand beside the target by now.
    pub(super) fn known(&self) -> Vec<Identity> {
        self.noted.known()
    }

    /// Nothing is left to be done.
    pub(super) fn done(self) -> Result<()> {
        match self.note {
            Some(note) => remove_whole(&note.path),
            None => Ok(()),
        }
    }
}

impl OpenNote {
    fn append(&mut self, noted: &Noted) -> Result<()> {
        let entry = copal_store::codec::encode(noted)?;
        let document = numbered(self.entries, &entry);
        let name = self.path.file_name().unwrap_or_default().as_bytes();
        let tag = self.secret.tag(Record::DeployNote, name, &document);
        let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        let written = self.file.write_all(&[&length.to_le_bytes()[..], &tag, &entry].concat());
        written.and_then(|()| self.file.sync_all()).map_err(|error| failed("writing", &self.path, error))?;
        self.entries += 1;
        Ok(())
    }
}

fn numbered(number: u32, entry: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes()[..], entry].concat()
}

/// A new file with a lock: who finds it from here on finds it locked. `None` when somebody found it before,
/// took it for a dead process's, and removed it.
fn create_locked(path: &Path) -> Result<Option<File>> {
    let io = |error| failed("creating", path, error);
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
    file.lock().map_err(io)?;
    let is_named = file.metadata().map_err(io)?.nlink() > 0;
    Ok(is_named.then_some(file))
}

/// What a note is found to be.
pub(super) enum Reading {
    /// Its deploy is alive.
    Alive,
    /// Its deploy has ended without ending its work. It is held until this is dropped.
    Left(Noted, HeldNote),
    /// Nothing vouches for it: a sentence.
    Unvouched(String),
}

/// A note whose deploy is dead, held so that nobody else ends it.
pub(super) struct HeldNote {
    path: PathBuf,
    _file: File,
}

impl HeldNote {
    pub(super) fn remove(self) -> Result<()> {
        remove_whole(&self.path)
    }
}

/// The notes of a state folder, and the secret that vouches for them.
pub(super) struct Notes {
    path: PathBuf,
    folder: TargetTree,
    entries: Vec<PathBuf>,
    pub(super) secret: Option<StateSecret>,
}

impl Notes {
    /// None: there is no state folder yet, or no note.
    pub(super) fn open(state_folder: &Path) -> Result<Option<Self>> {
        let path = state_folder.join(NOTES);
        let folder = match own_folder(state_folder) {
            Err(error) if is_not_found(&error) => return Ok(None),
            other => other?,
        };
        let secret = StateSecret::find(state_folder)?;
        let folder = match folder.folder(NOTES.as_bytes()) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        folder.check_own()?;
        let listed = fs::read_dir(&path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let entries = listed.map_err(|error| failed("listing", &path, error))?;
        Ok(Some(Self { path, folder, entries, secret }))
    }

    /// Each note, read when it is its turn: a note of a dead deploy is held only for so long.
    pub(super) fn readings(&self) -> impl Iterator<Item = Result<Reading>> {
        self.entries.iter().filter_map(|entry| self.read(entry, |_| true).transpose())
    }

    /// Notes of one target; others are not held.
    pub(super) fn readings_of(&self, target: &Path) -> impl Iterator<Item = Result<Reading>> {
        let read = move |entry: &PathBuf| self.read(entry, |noted| noted.target() == target).transpose();
        self.entries.iter().filter_map(read)
    }

    /// Removes notes whose writers died before they had done anything else.
    pub(super) fn tidy(&self) -> Result<()> {
        for entry in self.entries.iter().filter(|entry| is_new(entry)) {
            let name = entry.file_name().unwrap_or_default().as_bytes();
            if let Ok(file) = self.folder.open_own_file(name, NOTE_BYTES_MAX)
                && file.try_lock().is_ok()
            {
                remove_whole(entry)?;
            }
        }
        Ok(())
    }

    fn read(&self, entry: &Path, wanted: impl Fn(&Noted) -> bool) -> Result<Option<Reading>> {
        let name = entry.file_name().unwrap_or_default().as_bytes();
        if is_new(entry) {
            return Ok(None);
        }
        let unvouched = |detail: &str| {
            let shown = entry.display();
            Ok(Some(Reading::Unvouched(format!(
                "{shown} stands among the notes of deploys under way, but {detail}. Nothing was done with it; remove it if nobody needs it"
            ))))
        };
        let file = match self.folder.open_own_file(name, NOTE_BYTES_MAX) {
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return unvouched(&error.to_string()),
            Ok(file) => file,
        };
        let io = |error| failed("reading", entry, error);
        let mut bytes = Vec::new();
        (&file).take(NOTE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        let noted = self.secret.as_ref().and_then(|secret| last_entry(secret, name, &bytes));
        if noted.as_ref().is_some_and(|noted| !wanted(noted)) {
            return Ok(None);
        }
        let is_alive = file.try_lock().is_err();
        // Whoever held it before may have ended it.
        if file.metadata().map_err(io)?.nlink() == 0 {
            return Ok(None);
        }
        match (is_alive, noted) {
            (true, Some(_)) => Ok(Some(Reading::Alive)),
            (true, None) => Ok(None),
            // Its deploy may have said more until it died.
            (false, Some(_)) => {
                let mut bytes = Vec::new();
                (&file).rewind().and_then(|()| (&file).take(NOTE_BYTES_MAX).read_to_end(&mut bytes)).map_err(io)?;
                match self.secret.as_ref().and_then(|secret| last_entry(secret, name, &bytes)) {
                    Some(noted) if noted.version == VERSION => {
                        Ok(Some(Reading::Left(noted, HeldNote { path: self.path.join(entry), _file: file })))
                    }
                    _ => unvouched("it was written by another version of this program"),
                }
            }
            (false, None) => unvouched("the secret of this state folder does not vouch for it"),
        }
    }
}

fn is_new(entry: &Path) -> bool {
    entry.extension().is_some_and(|extension| extension == NEW)
}

/// The last entry that is whole: a loss of power may have cut the one after it.
fn last_entry(secret: &StateSecret, name: &[u8], mut bytes: &[u8]) -> Option<Noted> {
    let mut last = None;
    for number in 0.. {
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { break };
        let Some((tag, rest)) = rest.split_first_chunk::<TAG_BYTES>() else { break };
        let Some((entry, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        if !secret.vouches(Record::DeployNote, name, &numbered(number, entry), tag) {
            break;
        }
        last = copal_store::codec::decode("a note of a deploy", entry).ok();
        bytes = rest;
    }
    last
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use copal_sim::SeededEntropy;

    use super::*;
    use crate::deploy::recover;

    fn ledger(state: &Path) -> Ledger {
        notes_folder(state).unwrap();
        let secret = StateSecret::obtain(state, &SeededEntropy::new(3)).unwrap();
        Ledger { state_folder: Some(state.to_owned()), secret }
    }

    #[test]
    fn a_note_that_is_found_before_it_is_locked_is_made_again() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().canonicalize().unwrap().join("state");
        let ledger = ledger(&state);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let look = || {
                let mut looks = 0;
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(recover(&state).unwrap(), Vec::<String>::new());
                    looks += 1;
                }
                looks
            };
            let others = [(); 3].map(|()| scope.spawn(look));
            let entropy = SeededEntropy::new(7);
            let registered: Result<Vec<()>> = (0..2000)
                .map(|_| {
                    let (beside, target) = (Path::new("/nothing/beside"), Path::new("/nothing"));
                    Registered::new(&ledger, Beside::Journal, beside, target, None, &entropy)?.done()
                })
                .collect();
            ended.store(true, Ordering::Relaxed);
            others.into_iter().for_each(|other| assert!(other.join().unwrap() > 10));
            registered.unwrap();
        });
        assert_eq!(fs::read_dir(state.join(NOTES)).unwrap().count(), 0);
    }

    #[test]
    fn t01_of_a_note_the_last_whole_entry_counts_and_only_under_its_name() {
        let secret = StateSecret::of_process(&SeededEntropy::new(5)).unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a");
        let file = create_locked(&path).unwrap().unwrap();
        let noted = |inode| Noted {
            version: VERSION,
            journal: true,
            beside: b"/b".to_vec(),
            target: b"/t".to_vec(),
            made: Some(Identity { inode, born: None }.into()),
            replaced: None,
        };
        let mut note = OpenNote { path: path.clone(), file, secret: secret.clone(), entries: 0 };
        note.append(&noted(1)).unwrap();
        let first = fs::read(&path).unwrap().len();
        note.append(&noted(2)).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(last_entry(&secret, b"a", &bytes), Some(noted(2)));
        assert_eq!(last_entry(&secret, b"b", &bytes), None);
        assert_eq!(last_entry(&secret, b"a", &bytes[first..]), None, "an entry has its number");
        for end in 0..bytes.len() {
            let wanted = (end >= first).then(|| noted(1));
            assert_eq!(last_entry(&secret, b"a", &bytes[..end]), wanted, "cut at {end}");
        }
    }
}
