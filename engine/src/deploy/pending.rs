//! Deploys that did not end: pointers to them in the state folder, and how each is finished or taken back.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use copal_source::scan::FileKind;
use copal_store::entropy::Entropy;
use serde::{Deserialize, Serialize};

use super::apply::apply;
use super::journal::{Commit, Verdict, judge, sync_folder};
use super::place::{Alive, Beside, Place, failed, private_folder, remove_whole};
use super::run::Steps;
use crate::error::{Error, Result};

const VERSION: u16 = 1;
/// A pointer holds two paths.
const POINTER_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Pointer {
    version: u16,
    journal: bool,
    beside: Vec<u8>,
    target: Vec<u8>,
}

/// A registered deploy: its pointer is there, and locked, until it is dropped by [`Registered::done`] or the process dies.
#[derive(Debug)]
pub(super) struct Registered {
    pointer: Option<(PathBuf, File)>,
}

impl Registered {
    /// Writes the pointer before anything is put beside the target. Without a state folder there is none: then only the next
    /// deploy to the same target finds what was left.
    pub(super) fn new(
        state_folder: Option<&Path>,
        kind: Beside,
        beside: &Path,
        target: &Path,
        entropy: &dyn Entropy,
    ) -> Result<Self> {
        let Some(state_folder) = state_folder else { return Ok(Self { pointer: None }) };
        let folder = state_folder.join("pending");
        private_folder(&folder)?;
        let pointer = Pointer {
            version: VERSION,
            journal: kind == Beside::Journal,
            beside: beside.as_os_str().as_bytes().to_vec(),
            target: target.as_os_str().as_bytes().to_vec(),
        };
        let body = copal_store::codec::encode(&pointer)?;
        let (path, new, mut file) = loop {
            let mut random = [0; 8];
            entropy.fill(&mut random)?;
            let path = folder.join(hex::encode(random));
            let new = path.with_extension("new");
            if let Some(file) = create_locked(&new)? {
                break (path, new, file);
            }
        };
        let io = |error| failed("writing", &path, error);
        file.write_all(blake3::hash(&body).as_bytes()).and_then(|()| file.write_all(&body)).map_err(io)?;
        file.sync_all().map_err(io)?;
        fs::rename(&new, &path).map_err(io)?;
        sync_folder(&folder)?;
        Ok(Self { pointer: Some((path, file)) })
    }

    /// Nothing is left to be done.
    pub(super) fn done(self) -> Result<()> {
        match self.pointer {
            Some((path, _file)) => remove_whole(&path),
            None => Ok(()),
        }
    }
}

/// A new file with a lock: who finds it from here on finds it locked. `None` when somebody found it before, took it for a dead
/// process's, and removed it.
fn create_locked(path: &Path) -> Result<Option<File>> {
    let io = |error| failed("creating", path, error);
    let file = File::create_new(path).map_err(io)?;
    file.lock().map_err(io)?;
    let is_named = file.metadata().map_err(io)?.nlink() > 0;
    Ok(is_named.then_some(file))
}

/// See [`super::recover`].
pub(super) fn recover_all(state_folder: &Path, crash: &Steps<'_>) -> Result<Vec<String>> {
    let folder = state_folder.join("pending");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("listing", &folder, error)),
    };
    let mut sentences = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed("listing", &folder, error))?.path();
        let Some(_alive) = Alive::take(&path)? else { continue };
        let Some(pointer) = read_pointer(&path) else {
            // Its writer died before it had done anything else.
            remove_whole(&path)?;
            continue;
        };
        let beside = PathBuf::from(std::ffi::OsString::from_vec(pointer.beside));
        let target = PathBuf::from(std::ffi::OsString::from_vec(pointer.target));
        let kind = if pointer.journal { Beside::Journal } else { Beside::Staging };
        match settle(kind, &beside, &target, crash) {
            Ok(Settled::Nothing) => remove_whole(&path)?,
            Ok(Settled::Done(sentence)) => {
                remove_whole(&path)?;
                sentences.push(sentence);
            }
            Ok(Settled::Waits(sentence)) => sentences.push(sentence),
            Err(error) if crash.is_dead() => return Err(error),
            Err(error) => sentences
                .push(format!("the interrupted deploy to {} could not be ended yet: {error}", target.display())),
        }
    }
    Ok(sentences)
}

/// Ends what earlier deploys to this target left beside it, whether or not the state folder knows of it.
pub(super) fn recover_beside(place: &Place, crash: &Steps<'_>) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for kind in [Beside::Journal, Beside::Staging] {
        for beside in place.left_beside(kind)? {
            match settle(kind, &beside, &place.path, crash)? {
                Settled::Nothing => {}
                Settled::Done(sentence) => sentences.push(sentence),
                Settled::Waits(detail) => return Err(Error::Usage(detail)),
            }
        }
    }
    Ok(sentences)
}

enum Settled {
    Nothing,
    Done(String),
    Waits(String),
}

fn settle(kind: Beside, beside: &Path, target: &Path, crash: &Steps<'_>) -> Result<Settled> {
    if fs::symlink_metadata(beside).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Settled::Nothing);
    }
    let Some(_alive) = Alive::take(beside)? else {
        return Err(copal_store::Error::Busy { what: format!("the deploy to {}", target.display()) }.into());
    };
    if kind == Beside::Staging {
        remove_whole(beside)?;
        let target = target.display();
        return Ok(Settled::Done(format!(
            "removed what an interrupted deploy had left beside {target}; {target} is whole"
        )));
    }
    match judge(beside) {
        Verdict::Undecided => {
            remove_whole(beside)?;
            Ok(Settled::Done(format!("took back an interrupted deploy to {}: it is as it was", target.display())))
        }
        Verdict::Committed(commit) => {
            carry_out(beside, &commit, crash)?;
            Ok(Settled::Done(format!("finished an interrupted deploy to {}", target.display())))
        }
        Verdict::Unreadable(detail) => Ok(Settled::Waits(format!(
            "an interrupted deploy to {} cannot be finished: {} says that {detail}",
            target.display(),
            beside.display()
        ))),
    }
}

/// Applies a committed journal and removes it.
pub(super) fn carry_out(journal: &Path, commit: &Commit, crash: &Steps<'_>) -> Result<Vec<String>> {
    let applied = apply(journal, commit, crash)?;
    crash.reach("removing the journal")?;
    // The record goes first: a journal without it is only rubbish, one without its files could not be repeated.
    remove_whole(&journal.join("commit"))?;
    sync_folder(journal)?;
    crash.reach("removing the rest of the journal")?;
    remove_whole(journal)?;
    if let (root, Some(metadata)) = &applied.top
        && journal.parent() == Some(Path::new(std::ffi::OsStr::from_bytes(&commit.root)))
    {
        root.set_metadata(b"", FileKind::Directory, metadata)?;
    }
    Ok(applied.warnings)
}

fn read_pointer(path: &Path) -> Option<Pointer> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(POINTER_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let (sum, body) = bytes.split_at_checked(32)?;
    let sound = blake3::hash(body).as_bytes() == sum;
    let pointer: Pointer = sound.then(|| copal_store::codec::decode("a pointer to a deploy", body).ok())??;
    (pointer.version == VERSION).then_some(pointer)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use copal_sim::SeededEntropy;

    use super::*;
    use crate::deploy::run::NoCrash;

    #[test]
    fn a_pointer_that_is_found_before_it_is_locked_is_made_again() {
        let state = tempfile::tempdir().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let look = || {
                let steps = Steps::new(&NoCrash);
                let mut looks = 0;
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(recover_all(state.path(), &steps).unwrap(), Vec::<String>::new());
                    looks += 1;
                }
                looks
            };
            let others = [(); 3].map(|()| scope.spawn(look));
            let entropy = SeededEntropy::new(7);
            let registered: Result<Vec<()>> = (0..2000)
                .map(|_| {
                    let (beside, target) = (Path::new("/nothing/beside"), Path::new("/nothing"));
                    Registered::new(Some(state.path()), Beside::Journal, beside, target, &entropy)?.done()
                })
                .collect();
            ended.store(true, Ordering::Relaxed);
            others.into_iter().for_each(|other| assert!(other.join().unwrap() > 10));
            registered.unwrap();
        });
        assert_eq!(fs::read_dir(state.path().join("pending")).unwrap().count(), 0);
    }
}
