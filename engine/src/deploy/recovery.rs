//! How a deploy that was interrupted is ended: finished, taken back, or left alone and named.
//!
//! Deciding and doing are apart, so that a dry run can say what would be done. Nothing is done for a name
//! alone: what is removed is the very thing that a note of this state folder says was made, or replaced; what
//! is carried out bears the tag of its secret, lies in the very folder that was made for it, and reaches
//! nothing but the very target that it was made for, which stands open. Everything else is somebody's data:
//! it is left alone, and stops nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use copal_source::mounts::mount_points_from;
use copal_source::scan::FileKind;
use copal_source::target::{Identity, Removal, TargetTree, Unset};

use super::apply::apply;
use super::journal::{COMMIT, Commit, Journal, Verdict, judge, steps};
use super::pending::{HeldNote, Ledger, Noted, Notes, Reading};
use super::place::{Beside, Place, WriteRoot, failed};
use super::run::Steps;
use crate::error::{Error, Result};
use crate::state::{StateSecret, open_parent};

/// Most things that are named in one command; whoever may write beside a target can put any number there.
const NAMED_MAX: usize = 8;

/// What is due for something that stands beside a target.
enum Due {
    /// Nothing is there any more.
    Nothing,
    /// It was never decided, or all was done but this.
    Remove { above: TargetTree, name: Vec<u8>, known: Vec<Identity>, kind: Beside },
    /// It was made and nothing put into it.
    RemoveEmpty { above: TargetTree, name: Vec<u8> },
    /// It was decided, and is carried out.
    Finish(Box<Finish>),
    /// It cannot be ended: a sentence. A person has to look.
    Wait(String),
    /// Something else has its name: a sentence.
    Gone(String),
}

struct Finish {
    root: WriteRoot,
    journal: Journal,
    commit: Commit,
    steps: File,
}

/// What became of it.
enum Settled {
    Nothing,
    /// The note is not needed any more.
    Done(String),
    /// The note stays.
    Waits(String),
}

impl Settled {
    /// Removes the note where it is not needed any more; the sentence.
    fn noted(self, held: HeldNote) -> Result<Option<String>> {
        match self {
            Self::Waits(sentence) => Ok(Some(sentence)),
            Self::Nothing => held.remove().map(|()| None),
            Self::Done(sentence) => held.remove().map(|()| Some(sentence)),
        }
    }
}

/// Ends every interrupted deploy that the state folder knows of: one sentence for each.
pub(super) fn recover_all(state_folder: &Path, crash: &Steps<'_>) -> Result<Vec<String>> {
    let Some(notes) = Notes::open(state_folder)? else { return Ok(Vec::new()) };
    notes.tidy()?;
    let mut sentences = Vec::new();
    for reading in notes.readings() {
        match reading? {
            Reading::Alive => {}
            Reading::Unvouched(sentence) => sentences.push(sentence),
            Reading::Left(noted, held) => {
                match due_of(&noted, notes.secret.as_ref()).and_then(|due| end(due, &noted.target(), crash)) {
                    Ok(settled) => sentences.extend(settled.noted(held)?),
                    Err(error) if crash.is_dead() => return Err(error),
                    Err(error) => {
                        let target = noted.target();
                        let target = target.display();
                        sentences.push(format!(
                            "the interrupted deploy to {target} could not be ended yet: {error}; `copal deploy --abandon {target}` gives it up"
                        ));
                    }
                }
            }
        }
    }
    Ok(sentences)
}

/// What [`recover_all`] would do: one sentence for each. Nothing is written.
pub(super) fn outlook_of_all(state_folder: &Path) -> Result<Vec<String>> {
    let Some(notes) = Notes::open(state_folder)? else { return Ok(Vec::new()) };
    let mut sentences = Vec::new();
    for reading in notes.readings() {
        match reading? {
            Reading::Alive => {}
            Reading::Unvouched(sentence) => sentences.push(sentence),
            Reading::Left(noted, _) => sentences.extend(match due_of(&noted, notes.secret.as_ref()) {
                Ok(due) => would(&due, &noted.target()),
                Err(error) => {
                    Some(format!("an interrupted deploy to {} cannot be ended yet: {error}", noted.target().display()))
                }
            }),
        }
    }
    Ok(sentences)
}

/// Ends what earlier deploys to this target have left, so that it is wholly one state before it is compared:
/// sentences.
pub(super) fn recover_target(place: &Place, ledger: &Ledger, crash: &Steps<'_>) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    let mut noted_at = Vec::new();
    if let Some(notes) = ledger.state_folder().map(Notes::open).transpose()?.flatten() {
        for reading in notes.readings_of(&place.path) {
            let Some((noted, held)) = left(reading?, place)? else { continue };
            let settled = due_of(&noted, notes.secret.as_ref()).and_then(|due| end(due, &place.path, crash));
            match settled {
                Ok(settled) => sentences.extend(settled.noted(held)?),
                Err(error) if crash.is_dead() || noted.kind() == Beside::Journal => return Err(error),
                // The target is whole. What cannot be removed beside it is no reason against another deploy.
                Err(error) => sentences.push(format!("what a deploy has left cannot be removed yet: {error}")),
            }
            noted_at.push(noted.beside());
        }
    }
    let mut unvouched = Vec::new();
    for found in look_beside(place, Some(&ledger.secret), &noted_at)? {
        match found {
            Found::Decided(finish) => match end(Due::Finish(finish), &place.path, crash)? {
                Settled::Nothing => {}
                Settled::Done(sentence) | Settled::Waits(sentence) => sentences.push(sentence),
            },
            Found::Unvouched(sentence) => unvouched.push(sentence),
        }
    }
    sentences.extend(bounded(unvouched));
    Ok(sentences)
}

/// See [`super::abandon`].
pub(super) fn abandon(state_folder: &Path, place: &Place) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    let Some(notes) = Notes::open(state_folder)? else { return Ok(sentences) };
    for reading in notes.readings_of(&place.path) {
        let Some((noted, held)) = left(reading?, place)? else { continue };
        let (target, beside) = (place.path.display(), noted.beside());
        sentences.push(match noted.kind() {
            Beside::Staging => {
                format!("gave up what an interrupted deploy had left beside {target}; {target} is whole")
            }
            Beside::Journal => {
                format!("gave up an interrupted deploy to {target}, which may be half written now: deploy to it again")
            }
        });
        let removed = open_parent(&beside).and_then(|opened| match opened {
            Some((above, name)) if noted.made().is_none() => Ok(above.remove_empty_own(&name).map(drop)?),
            Some((above, name)) => Ok(above.remove_known(&name, &noted.known()).map(drop)?),
            None => Ok(()),
        });
        if let Err(error) = removed {
            sentences.push(format!("{} could not be removed: {error}; remove it by hand", beside.display()));
        }
        held.remove()?;
    }
    Ok(sentences)
}

/// A note that its deploy has left; one that is alive is an error. What nothing vouches for was named by the
/// command itself.
fn left(reading: Reading, place: &Place) -> Result<Option<(Noted, HeldNote)>> {
    match reading {
        Reading::Alive => Err(busy(&place.path)),
        Reading::Left(noted, held) => Ok(Some((noted, held))),
        Reading::Unvouched(_) => Ok(None),
    }
}

/// What a dry run says of a target, and the names in it that are no part of it: journals that would be ended
/// first.
pub(super) struct Outlook {
    pub(super) sentences: Vec<String>,
    pub(super) hidden: Vec<Vec<u8>>,
}

/// What [`recover_target`] would do. Nothing is written. A state folder that cannot be used was named by the
/// command itself.
pub(super) fn outlook(place: &Place, state_folder: Option<&Path>) -> Result<Outlook> {
    let mut outlook = Outlook { sentences: Vec::new(), hidden: Vec::new() };
    let mut noted_at = Vec::new();
    let notes = state_folder.and_then(|folder| Notes::open(folder).ok()).flatten();
    if let Some(notes) = &notes {
        for reading in notes.readings_of(&place.path) {
            let Some((noted, _)) = left(reading?, place)? else { continue };
            // Before the repository was opened all notes were named.
            let due = due_of(&noted, notes.secret.as_ref())?;
            let beside = noted.beside();
            if let (Due::Remove { name, .. } | Due::RemoveEmpty { name, .. }, true) =
                (&due, beside.parent() == Some(&place.path))
            {
                outlook.hidden.push(name.clone());
            }
            if let Due::Finish(finish) = &due
                && finish.journal.inside
            {
                outlook.hidden.push(finish.journal.name.clone());
            }
            noted_at.push(beside);
        }
    }
    let secret = state_folder.and_then(|folder| StateSecret::find(folder).ok()).flatten();
    let mut unvouched = Vec::new();
    for found in look_beside(place, secret.as_ref(), &noted_at)? {
        match found {
            Found::Decided(finish) => {
                if finish.journal.inside {
                    outlook.hidden.push(finish.journal.name.clone());
                }
                outlook.sentences.extend(would(&Due::Finish(finish), &place.path));
            }
            Found::Unvouched(sentence) => unvouched.push(sentence),
        }
    }
    outlook.sentences.extend(bounded(unvouched));
    Ok(outlook)
}

fn bounded(mut sentences: Vec<String>) -> Vec<String> {
    if let Some(more) = sentences.len().checked_sub(NAMED_MAX).filter(|&more| more > 0) {
        sentences.truncate(NAMED_MAX);
        sentences.push(format!("{more} more like these"));
    }
    sentences
}

fn busy(target: &Path) -> Error {
    copal_store::Error::Busy { what: format!("the deploy to {}", target.display()) }.into()
}

/// Decides what is due for what a note says.
fn due_of(noted: &Noted, secret: Option<&StateSecret>) -> Result<Due> {
    let (beside, target) = (noted.beside(), noted.target());
    let Some((above, name)) = open_parent(&beside)? else { return Ok(Due::Nothing) };
    let found = match above.identity(&name) {
        Err(error) if error.is_not_found() => return Ok(Due::Nothing),
        other => other?,
    };
    let Some(made) = noted.made() else { return Ok(Due::RemoveEmpty { above, name }) };
    let known = noted.known();
    if !known.contains(&found) {
        return Ok(Due::Gone(format!(
            "what an interrupted deploy to {} had made at {} is not there any more, and something else has its name: that was left alone; deploy to {} again",
            target.display(),
            beside.display(),
            target.display()
        )));
    }
    if noted.kind() == Beside::Staging || found != made {
        return Ok(Due::Remove { above, name, known, kind: noted.kind() });
    }
    let inside = beside.parent() == Some(&target);
    let journal = Journal { folder: above.folder(&name)?, above, name, inside };
    match judge(&journal, secret) {
        Verdict::Undecided => {
            let Journal { above, name, .. } = journal;
            Ok(Due::Remove { above, name, known, kind: Beside::Journal })
        }
        Verdict::Committed(commit, steps) => finish_of(journal, commit, steps, &target),
        Verdict::Unvouched(detail) => Ok(Due::Wait(cannot(&target, &beside, &detail))),
    }
}

fn cannot(target: &Path, beside: &Path, detail: &str) -> String {
    let (target, beside) = (target.display(), beside.display());
    format!(
        "an interrupted deploy to {target} cannot be finished: {beside}: {detail}; {target} may be half written: deploy to it again, then remove {beside}"
    )
}

/// A journal is carried out on the target that it was made for, and on no other that has its path by now.
fn finish_of(journal: Journal, commit: Commit, steps: File, target: &Path) -> Result<Due> {
    let root = if commit.is_of_a_file() {
        match open_parent(target)? {
            Some((tree, name)) => Some(WriteRoot { tree: tree.on_one_mount()?, file: Some(name) }),
            None => None,
        }
    } else {
        match TargetTree::open_real(target) {
            Ok(tree) => Some(WriteRoot { tree: tree.on_one_mount()?, file: None }),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        }
    };
    let beside = || target.with_file_name(std::ffi::OsString::from(String::from_utf8_lossy(&journal.name).as_ref()));
    let Some(root) = root else {
        return Ok(Due::Wait(cannot(target, &beside(), "the target is not there any more")));
    };
    if !commit.is_of(&root)? || !is_same_filesystem(&root, &journal)? {
        let detail = "what stands at the target now is not what the deploy was made for";
        return Ok(Due::Wait(cannot(target, &beside(), detail)));
    }
    refuse_mounted_since(&root, &steps, target)?;
    Ok(Due::Finish(Box::new(Finish { root, journal, commit, steps })))
}

/// What was mounted since the steps were listed is not written in, and nothing else is done before it is
/// gone: a journal is carried out as a whole.
fn refuse_mounted_since(root: &WriteRoot, listed: &File, target: &Path) -> Result<()> {
    let base = if root.file.is_some() { target.parent().unwrap_or(target) } else { target };
    let mounts = mount_points_from(target)?;
    let mounts: Vec<&[u8]> =
        mounts.iter().filter_map(|mount| Some(mount.strip_prefix(base).ok()?.as_os_str().as_bytes())).collect();
    if mounts.iter().all(|mount| mount.is_empty()) {
        return Ok(());
    }
    let io = |error| failed("reading", target, error);
    let again = listed.try_clone().map_err(io)?;
    let found = steps(again).find_map(|step| match step {
        Ok(step) => mounts.iter().find(|mount| step.reaches(mount)).map(|mount| Ok(*mount)),
        Err(error) => Some(Err(error)),
    });
    // Both descriptors have one place in the file.
    (&*listed).rewind().map_err(io)?;
    match found.transpose()? {
        None => Ok(()),
        Some(mount) => Err(Error::UnfitTarget {
            target: target.to_owned(),
            detail: format!(
                "{} has been mounted where an interrupted deploy has to write: unmount that",
                base.join(OsStr::from_bytes(mount)).display()
            ),
        }),
    }
}

/// After a restart a filesystem may have another number, but two folders of one have the same.
fn is_same_filesystem(root: &WriteRoot, journal: &Journal) -> Result<bool> {
    let device = |tree: &TargetTree| tree.reader().stat(b"").map(|found| found.device);
    Ok(device(&root.tree)? == device(&journal.folder)?)
}

/// Does what is due.
fn end(due: Due, target: &Path, crash: &Steps<'_>) -> Result<Settled> {
    let sentence = done(&due, target);
    match due {
        Due::Nothing => return Ok(Settled::Nothing),
        Due::Wait(sentence) => return Ok(Settled::Waits(sentence)),
        Due::Gone(sentence) => return Ok(Settled::Done(sentence)),
        Due::RemoveEmpty { above, name } => {
            if !above.remove_empty_own(&name)? {
                return Ok(Settled::Nothing);
            }
        }
        Due::Remove { above, name, known, .. } => {
            let _lock = lock(&above, &name, target)?;
            if above.remove_known(&name, &known)? == Removal::Other {
                return Ok(Settled::Nothing);
            }
        }
        Due::Finish(finish) => {
            let Finish { root, journal, commit, steps } = *finish;
            let _lock = journal.folder.try_lock()?.ok_or_else(|| busy(target))?;
            carry_out(&root, &journal, &commit, steps, crash)?;
        }
    }
    Ok(Settled::Done(sentence))
}

/// The lock of a folder; nothing where it is none.
fn lock(above: &TargetTree, name: &[u8], target: &Path) -> Result<Option<copal_source::target::FolderLock>> {
    match above.reader().stat(name) {
        Ok(found) if found.kind == FileKind::Directory => {
            above.folder(name)?.try_lock()?.map(Some).ok_or_else(|| busy(target))
        }
        _ => Ok(None),
    }
}

fn done(due: &Due, target: &Path) -> String {
    let target = target.display();
    match due {
        Due::Remove { kind: Beside::Staging, .. } => {
            format!("removed what an interrupted deploy had left beside {target}; {target} is whole")
        }
        Due::Remove { .. } | Due::RemoveEmpty { .. } => {
            format!("took back an interrupted deploy to {target}: it is as it was")
        }
        _ => format!("finished an interrupted deploy to {target}"),
    }
}

fn would(due: &Due, target: &Path) -> Option<String> {
    let shown = target.display();
    match due {
        Due::Nothing => None,
        Due::Wait(sentence) | Due::Gone(sentence) => Some(sentence.clone()),
        Due::Remove { kind: Beside::Staging, .. } => {
            Some(format!("what an interrupted deploy has left beside {shown} would be removed first; {shown} is whole"))
        }
        Due::Remove { .. } | Due::RemoveEmpty { .. } => {
            Some(format!("an interrupted deploy to {shown} would be taken back first: it is as it was"))
        }
        Due::Finish(_) => Some(format!("an interrupted deploy to {shown} would be finished first")),
    }
}

/// Applies a committed journal and removes it.
pub(super) fn carry_out(
    root: &WriteRoot,
    journal: &Journal,
    commit: &Commit,
    steps: File,
    crash: &Steps<'_>,
) -> Result<Vec<Unset>> {
    let applied = apply(root, journal, commit, steps, crash)?;
    crash.reach("removing the journal")?;
    // The record goes first: a journal without it is only rubbish, one without its files could not be
    // repeated.
    match journal.folder.remove(COMMIT) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => journal.folder.sync_directory(b"")?,
    }
    crash.reach("removing the rest of the journal")?;
    journal.remove()?;
    if let Some(metadata) = applied.top.filter(|_| journal.inside) {
        root.tree.set_metadata(b"", FileKind::Directory, &metadata)?;
    }
    Ok(applied.warnings)
}

/// What has the name of something that a deploy leaves, and no note.
enum Found {
    /// A journal that the secret vouches for.
    Decided(Box<Finish>),
    /// A sentence.
    Unvouched(String),
}

/// But for what a note names.
fn look_beside(place: &Place, secret: Option<&StateSecret>, noted: &[PathBuf]) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for kind in [Beside::Journal, Beside::Staging] {
        for path in place.left_beside(kind)?.into_iter().filter(|path| !noted.contains(path)) {
            found.extend(look_at(place, kind, &path, secret)?);
        }
    }
    Ok(found)
}

fn look_at(place: &Place, kind: Beside, path: &Path, secret: Option<&StateSecret>) -> Result<Option<Found>> {
    let inside = path.parent() == Some(&place.path);
    let opened = open_parent(path).and_then(|opened| {
        let Some((above, name)) = opened else { return Ok(None) };
        let folder = above.folder(&name)?;
        Ok(Some(Journal { folder, above, name, inside }))
    });
    // A file, a link, a pipe: nothing of ours is one.
    let Ok(Some(journal)) = opened else {
        return Ok(Some(Found::Unvouched(unvouched(place, kind, path, "it is no folder"))));
    };
    let is_own = journal.folder.check_own().is_ok();
    if is_own && journal.folder.try_lock()?.is_none() {
        // By a command of the same user with another state folder.
        return Err(busy(&place.path));
    }
    if kind == Beside::Staging {
        let detail = "no note of a deploy names it";
        return Ok(Some(Found::Unvouched(unvouched(place, kind, path, detail))));
    }
    let detail = match judge(&journal, secret) {
        Verdict::Unvouched(detail) => detail,
        Verdict::Undecided => "it has no commit record, and no note of a deploy names it".into(),
        Verdict::Committed(commit, steps) => match finish_of(journal, commit, steps, &place.path)? {
            Due::Finish(finish) => return Ok(Some(Found::Decided(finish))),
            _ => "what stands at the target now is not what it was made for".into(),
        },
    };
    Ok(Some(Found::Unvouched(unvouched(place, kind, path, &detail))))
}

fn unvouched(place: &Place, kind: Beside, path: &Path, detail: &str) -> String {
    let (shown, target) = (path.display(), place.path.display());
    let what = if kind == Beside::Journal { "of a deploy's journal" } else { "of what a deploy builds" };
    let treated = if path.parent() == Some(&place.path) {
        "it counts as a file of the target"
    } else {
        "nothing was done with it"
    };
    let half = if kind == Beside::Journal {
        format!(
            " If another user's deploy to {target} was interrupted, or one from before this state folder, {target} may be half written until it is deployed to again."
        )
    } else {
        String::new()
    };
    format!(
        "{shown} has the name {what}, but nothing vouches for it ({detail}): {treated}.{half} Remove it by hand if nobody needs it"
    )
}
