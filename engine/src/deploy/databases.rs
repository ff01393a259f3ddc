//! SQLite databases that stand where others go: what is in their logs counts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use copal_manifest::snapshot::SourceKind;
use copal_source::sqlite::{logs_with_rows, settle, sidecars};

use super::desired::{Desired, Part};
use super::place::Place;
use crate::Result;

/// Who else has a standing database open is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the databases go.
fn paths(desired: &Desired<'_>, place: &Place) -> Vec<PathBuf> {
    let parts = desired.parts().iter().filter(|part| part.source.kind == SourceKind::Sqlite);
    let path = |part: &Part<'_>| match part.at.is_root() {
        true => place.path.clone(),
        false => place.path.join(OsStr::from_bytes(&part.at.to_slashes())),
    };
    parts.map(path).collect()
}

/// Whether any of the databases that stand there has something beside it.
pub(super) fn have_logs(desired: &Desired<'_>, place: &Place) -> bool {
    paths(desired, place).iter().any(|path| !sidecars(path).is_empty())
}

/// Brings each database that stands where another one goes into its one file: its log would be taken for the new one's.
/// Returns the damaged ones, whose log is worth nothing.
pub(super) fn settle_all(desired: &Desired<'_>, place: &Place) -> Result<Vec<PathBuf>> {
    let mut damaged = Vec::new();
    for path in paths(desired, place) {
        match settle(&path, PATIENCE) {
            Ok(()) => {}
            Err(in_use @ copal_source::Error::InUse { .. }) => return Err(in_use.into()),
            Err(_) => damaged.push(path),
        }
    }
    Ok(damaged)
}

/// Warns of logs that a rehearsal, which writes nothing, leaves where they are.
pub(super) fn uncounted(desired: &Desired<'_>, place: &Place) -> Vec<String> {
    let logs = paths(desired, place).into_iter().flat_map(|path| logs_with_rows(&path));
    logs.map(|log| format!("{} may hold changes that are not counted here", log.display())).collect()
}
