//! SQLite databases that stand where others go: what is in their logs counts, and nobody may go on writing
//! into them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use copal_manifest::entry::EntryPath;
use copal_manifest::shown::first_of;
use copal_manifest::snapshot::SourceKind;
use copal_source::holders::{Holder, Places, holders_of};
use copal_source::sqlite::{SIDECARS, has_log_beside, logs_with_rows, settle, sidecars};

use super::desired::{Desired, Part};
use super::place::{Place, WriteRoot};
use super::plan::{Action, Over, Plan};
use crate::error::Result;

/// Who else has a standing database open is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// So often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Most processes that are named.
const NAMED_MAX: usize = 5;

/// Databases of a target that a deploy replaces: where they are.
pub(super) struct Databases {
    paths: Vec<PathBuf>,
    target: PathBuf,
    single: bool,
}

impl Databases {
    /// Those that the snapshot has as such; the one file that is deployed, where a log lies beside it; and of
    /// a deploy that removes nothing the files that it writes beside a log which it would leave there.
    pub(super) fn of(desired: &Desired<'_>, place: &Place, single: bool, kept_others: Option<&Plan>) -> Result<Self> {
        let parts = desired.parts().iter().filter(|part| part.source.kind == SourceKind::Sqlite);
        let path = |part: &Part<'_>| below(&place.path, &part.at);
        let mut paths: Vec<PathBuf> = parts.map(path).collect();
        if single && !paths.contains(&place.path) && has_log_beside(&place.path) {
            paths.push(place.path.clone());
        }
        for change in kept_others.filter(|_| !single).into_iter().flat_map(|plan| &plan.changes) {
            let path = below(&place.path, &change.path);
            let writes = matches!(change.action, Action::Create { .. } | Action::Patch { .. });
            if writes && !paths.contains(&path) && has_log_beside(&path) && !has_own_log(desired, &change.path)? {
                paths.push(path);
            }
        }
        Ok(Self { paths, target: place.path.clone(), single })
    }

    /// Whether any of those that stand there has something beside it.
    pub(super) fn have_logs(&self) -> bool {
        self.paths.iter().any(|path| !sidecars(path).is_empty())
    }

    /// Brings each that stands there into its one file: its log would be taken for the new one's. Returns the
    /// damaged ones, whose log is worth nothing.
    pub(super) fn settle_all(&self) -> Result<Vec<PathBuf>> {
        let mut damaged = Vec::new();
        for path in &self.paths {
            match settle(path, PATIENCE) {
                Ok(()) => {}
                Err(in_use @ copal_source::Error::InUse { .. }) => {
                    refuse(&Places { databases: vec![path.clone()], folders: Vec::new() }, |_| true)?;
                    return Err(in_use.into());
                }
                Err(_) => damaged.push(path.clone()),
            }
        }
        Ok(damaged)
    }

    /// Removes what lies beside databases that are worth nothing; no link in the target is followed.
    pub(super) fn remove_logs(&self, damaged: &[PathBuf]) -> Result<()> {
        let top = if self.single { self.target.parent().unwrap_or(&self.target) } else { &self.target };
        if damaged.iter().all(|path| sidecars(path).is_empty()) {
            return Ok(());
        }
        let root = WriteRoot::open(top, false)?;
        for path in damaged {
            let name = path.strip_prefix(top).unwrap_or(path).as_os_str().as_bytes();
            for suffix in SIDECARS {
                match root.tree.remove(&[name, suffix.as_bytes()].concat()) {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Warns of logs that a rehearsal, which writes nothing, leaves where they are.
    pub(super) fn uncounted(&self) -> Vec<String> {
        let logs = self.paths.iter().flat_map(|path| logs_with_rows(path));
        logs.map(|log| format!("{} may hold changes that are not counted here", log.display())).collect()
    }

    /// Refuses where a process has a database open that a plan changes.
    pub(crate) fn refuse_holders(&self, plan: &Plan) -> Result<()> {
        refuse(&self.places(), |path| {
            let path = path.strip_prefix(&self.target).unwrap_or(path).as_os_str().as_bytes();
            EntryPath::from_slashes(path).is_none_or(|path| changes(plan, &path))
        })
    }

    /// The same where everything that stands at the target changes places with something else.
    pub(super) fn refuse_holders_of_all(&self) -> Result<()> {
        refuse(&self.places(), |_| true)
    }

    fn places(&self) -> Places {
        if self.single {
            return Places { databases: vec![self.target.clone()], folders: Vec::new() };
        }
        Places { databases: self.paths.clone(), folders: vec![self.target.clone()] }
    }
}

/// Refuses where another process has one of these open, and would go on writing into what nobody reads any
/// more.
pub fn refuse_holders(places: &Places) -> Result<()> {
    refuse(places, |_| true)
}

fn refuse(places: &Places, counts: impl Fn(&Path) -> bool) -> Result<()> {
    let begun = Instant::now();
    let mut found = loop {
        let mut found = holders_of(places);
        found.retain(|holder| counts(&holder.path));
        if found.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            break found;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let place = found[0].path.clone();
    found.retain(|holder| holder.path == place);
    let shown = |holder: &Holder| format!("process {} ({})", holder.process, holder.command);
    let named = first_of(found.iter().map(shown), NAMED_MAX);
    let verb = if found.len() == 1 { "has" } else { "have" };
    let detail = format!(
        "{named} {verb} it open, and would go on writing into a file that is not there any more: stop that first"
    );
    Err(copal_source::Error::InUse { place: place.display().to_string(), detail }.into())
}

/// Whether a plan writes in a file, or replaces or removes it or a folder above it.
fn changes(plan: &Plan, path: &EntryPath) -> bool {
    let at = |path: &EntryPath| {
        let found = plan.changes.binary_search_by(|change| change.path.cmp(path));
        found.ok().map(|found| &plan.changes[found].action)
    };
    if at(path).is_some_and(|action| *action != Action::Metadata) {
        return true;
    }
    let goes = |action: &Action| matches!(action, Action::Remove | Action::Create { over: Over::Folder });
    std::iter::successors(path.parent(), EntryPath::parent).any(|folder| at(&folder).is_some_and(goes))
}

/// Whether the snapshot has something beside a database itself, which then belongs to it.
fn has_own_log(desired: &Desired<'_>, path: &EntryPath) -> Result<bool> {
    for suffix in SIDECARS {
        let beside = [path.to_slashes().as_slice(), suffix.as_bytes()].concat();
        if let Some(beside) = EntryPath::from_slashes(&beside)
            && desired.get(&beside)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn below(target: &Path, at: &EntryPath) -> PathBuf {
    if at.is_root() { target.to_owned() } else { target.join(OsStr::from_bytes(&at.to_slashes())) }
}
