//! Ends what killed processes have left: an application that holds still goes on, a killed capture is
//! recorded as failed, a killed deploy is taken back or finished. Needs no repository and no configuration:
//! everything is in the state folder.

use std::path::Path;

use copal_engine::state::{is_not_found, own_folder};

use crate::error::{Error, Result};
use crate::hooks::run_step;
use crate::record::{CapturePhase, CaptureRecord, RecordedError};
use crate::state::{AppFolder, CaptureFolder, RECOVERY};

/// See [`crate::recover`].
pub(super) fn recover(state_folder: &Path) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for folder in folders(state_folder)? {
        // Whoever holds it is at work.
        if let Ok(_held) = folder.try_hold(RECOVERY)? {
            match recover_held(&folder) {
                Ok(ended) => sentences.extend(ended),
                // One application's trouble is not another's.
                Err(error) => sentences.push(format!("interrupted work on an application could not be ended: {error}")),
            }
        }
    }
    Ok(sentences)
}

/// Applications of a state folder that can be believed.
fn folders(state_folder: &Path) -> Result<Vec<AppFolder>> {
    match own_folder(state_folder) {
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
        Ok(_) => AppFolder::list(state_folder),
    }
}

/// The same for one application whose lock is held.
pub(super) fn recover_held(folder: &AppFolder) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for place in folder.captures()? {
        match place.read() {
            // Of no application: each has a lock of its own, and nothing to go on with.
            Ok(Some(record)) if record.app.is_empty() => {
                if let Ok(_held) = place.hold_alone()? {
                    place.remove_kept(&record)?;
                    place.remove()?;
                }
            }
            Ok(Some(record)) if record.phase.is_final() => {}
            Ok(Some(record)) => sentences.extend(end_capture(&place, record)?),
            // Its process died before it had done anything else.
            Ok(None) => place.remove()?,
            Err(error) => sentences.push(left_alone(&error)),
        }
    }
    sentences.extend(crate::restore::recover(folder)?);
    Ok(sentences)
}

fn left_alone(error: &Error) -> String {
    format!(
        "{error}: nothing of what it says was done; if an application is held still, let it go on by hand, then remove the file"
    )
}

/// See [`crate::outlook`].
pub(super) fn outlook(state_folder: &Path) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for folder in folders(state_folder)?.into_iter().filter(AppFolder::is_free) {
        sentences.extend(outlook_of(&folder)?);
    }
    Ok(sentences)
}

/// The same for one application at which nobody else is at work.
pub(super) fn outlook_of(folder: &AppFolder) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for place in folder.captures()? {
        match place.read() {
            Ok(Some(record)) if record.app.is_empty() || record.phase.is_final() => {}
            Ok(Some(record)) if record.resumable && !record.phase.may_be_frozen() => {}
            Ok(Some(record)) => {
                let (app, name) = (&record.app, &record.name);
                sentences.push(format!("the capture {app}/{name}, which was killed, would be ended first"));
            }
            Ok(None) => {}
            Err(error) => sentences.push(left_alone(&error)),
        }
    }
    sentences.extend(crate::restore::outlook(folder));
    Ok(sentences)
}

fn end_capture(place: &CaptureFolder, mut record: CaptureRecord) -> Result<Option<String>> {
    let what = format!("the capture {}/{}", record.app, record.name);
    if record.phase.may_be_frozen() {
        let mut failures = Vec::new();
        if !place.was_resumed() {
            for step in &record.resume {
                let (name, ended) = run_step(step);
                if !ended.is_success() {
                    failures.push(format!("{name} {}", ended.sentence()));
                }
            }
        }
        let detail = if failures.is_empty() { String::new() } else { format!(" ({})", failures.join("; ")) };
        fail(place, &mut record, "killed", "its process was killed while the application was held")?;
        return Ok(Some(format!("{what} was killed: the application has been let go on{detail}")));
    }
    if record.resumable {
        return Ok(None);
    }
    fail(
        place,
        &mut record,
        "killed",
        "its process was killed before everything was held by something that outlives it",
    )?;
    Ok(Some(format!("{what} was killed in its upload and is failed")))
}

fn fail(place: &CaptureFolder, record: &mut CaptureRecord, code: &str, message: &str) -> Result<()> {
    place.remove_kept(record)?;
    record.phase = CapturePhase::Failed;
    record.error = Some(RecordedError { code: code.into(), message: message.into(), time: record.created });
    place.write(record)
}
