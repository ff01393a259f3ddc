//! What was written to the targets between the safety snapshot and the switch, where nothing kept the
//! application from it. It is looked for in what was moved away, before that is removed, and is in a second
//! safety snapshot then, which has everything that the first one has of the other sources.
//!
//! Who has something open of what was moved away may go on writing there until it is removed: no file tells
//! of that. Of a database it is refused.

use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use copal_engine::catalogue::Catalogue;
use copal_engine::context::Context;
use copal_engine::create::left_out::LeftOut;
use copal_engine::create::{Creation, Input, InputContent, Naming, Taken, is_past, trusted_before};
use copal_engine::deploy::databases_held;
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::shown::first_and_more;
use copal_manifest::snapshot::{Phase, Snapshot, SourceRecord};
use copal_manifest::tree::{Change, diff};
use copal_source::holders::Places;
use copal_source::kept::{KeptFile, KeptValue, Stands, is_block_device};
use copal_source::sqlite::{PreparedSqlite, SIDECARS, SqliteSpec};
use copal_store::secret::INSTANCE_KEY;

use super::Restore;
use super::check::{Checked, Component};
use super::journal::Target;
use super::keep::place_of;
use super::{device, within};
use crate::RestoreReport;
use crate::capture::paths::recorded_path;
use crate::capture::sources::{input_of_tree, pinned_input};
use crate::config::{Source, SourceSpec, TreeSpec};
use crate::error::Result;
use crate::restore::switch::standing;

/// Who has a database locked that was moved away is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Paths that are named of those that had changed.
const NAMED_MAX: usize = 5;

/// How the files of a source stood: itself, and what lies beside a database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamps(Vec<Option<(u64, u64, Timestamp)>>);

impl Stamps {
    fn of(path: &Path) -> Self {
        let stamp = |path: &Path| {
            let found = fs::symlink_metadata(path).ok()?;
            let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or_default();
            Some((found.ino(), found.len(), Timestamp { seconds: found.mtime(), nanoseconds }))
        };
        let beside = SIDECARS.iter().map(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        });
        Self([path.to_owned()].into_iter().chain(beside).map(|path| stamp(&path)).collect())
    }

    /// Whether each later write changes them.
    fn tell_all_since(&self, noted: Timestamp) -> bool {
        let limit = trusted_before(noted);
        self.0.iter().flatten().all(|(.., modified)| is_past(*modified, *modified, limit))
    }
}

/// How sources of one file stood before the safety snapshot; none: that tells nothing.
pub(super) struct Seen(Vec<(String, Option<Stamps>)>);

impl Seen {
    pub(super) fn of(context: &Context, checked: &Checked) -> Self {
        let noted = context.clock.now();
        let stamps = |component: &Component| {
            let path = component.target()?;
            let stamps = Stamps::of(&fs::canonicalize(&path).unwrap_or(path));
            stamps.tell_all_since(noted).then_some(stamps)
        };
        Self(checked.components.iter().map(|one| (one.source.label.clone(), stamps(one))).collect())
    }

    /// Whether nothing was written to the files of a source since.
    fn are(&self, label: &str, moved: &Path) -> bool {
        let seen = self.0.iter().find(|(one, _)| one == label).and_then(|(_, stamps)| stamps.as_ref());
        seen.is_some_and(|stamps| *stamps == Stamps::of(moved))
    }
}

/// What stood at a target, where it is now.
struct Moved {
    source: Source,
    at: PathBuf,
    /// Paths in it that other targets have: what is there now is not what stood there.
    others: Vec<Vec<u8>>,
}

impl Moved {
    fn is_tree(&self) -> bool {
        matches!(self.source.spec, SourceSpec::Tree(_))
    }

    /// What is captured of it; the path that is recorded is the one where it stood.
    fn input(&self, context: &Context) -> Result<Input> {
        let (source, at) = (&self.source, self.at.as_path());
        let kept = |bytes, stands| pinned_input(source, Arc::new(KeptValue::new(bytes, stands)));
        match &source.spec {
            SourceSpec::Sqlite(spec) => {
                let spec = SqliteSpec { path: at.to_owned(), ..spec.clone() };
                let prepared = PreparedSqlite::open(&spec, context.worker_threads(), PATIENCE)?;
                pinned_input(source, Arc::new(prepared.pin()?))
            }
            SourceSpec::Config { .. } => {
                let (bytes, stands) = KeptValue::read(at)?;
                kept(bytes, stands)
            }
            SourceSpec::Secret { .. } => {
                let (bytes, stands) = KeptValue::read(at)?;
                kept(context.repository.wrap_secret(INSTANCE_KEY, &bytes)?, stands)
            }
            SourceSpec::Image { path } if is_block_device(path)? => {
                let stands = Stands { mode: 0o600, ..Stands::of(path)? };
                pinned_input(source, Arc::new(KeptFile::open(at, stands)?))
            }
            spec => {
                let (path, tree) = match spec {
                    SourceSpec::Tree(tree) => (tree.path.as_path(), tree.clone()),
                    other => (other.path().unwrap_or(at), TreeSpec::default()),
                };
                let mut exclusions = tree.exclusions;
                exclusions.patterns.extend(self.others.iter().filter_map(|path| pattern_of(path)));
                let tree = TreeSpec { path: path.to_owned(), exclusions };
                let content = InputContent::Path(at.to_owned());
                Ok(Input { content, ..input_of_tree(source, &tree, spec.kind(), None)? })
            }
        }
    }

    /// Whether a difference is one of what stood there.
    fn counts(&self, change: &Change) -> bool {
        let (path, is_content) = match change {
            Change::Added(entry) | Change::Removed(entry) => (&entry.path, true),
            Change::Changed { before, after } if after.node == Node::Directory => {
                // Names that came and went change its time, and count by themselves.
                let metadata = Metadata { modified: before.metadata.modified, ..after.metadata.clone() };
                let Metadata { inode, changed, .. } = before.metadata;
                (&after.path, before.node != after.node || before.metadata != Metadata { inode, changed, ..metadata })
            }
            // Reading a database may write to its file, and a copy of a device has a time of its own.
            Change::Changed { before, after } => (&after.path, self.is_tree() || before.node != after.node),
        };
        let path = path.to_slashes();
        let is_others = |other: &Vec<u8>| {
            path.strip_prefix(other.as_slice()).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        };
        is_content && !self.others.iter().any(is_others)
    }
}

/// A path as a line of `.gitignore`; none for one that is no text.
fn pattern_of(path: &[u8]) -> Option<String> {
    let mut pattern = String::from("/");
    for character in std::str::from_utf8(path).ok()?.chars() {
        if "*?[]!#\\ ".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    Some(pattern)
}

impl Restore<'_> {
    /// Captures again what changed after the safety snapshot. The report names the newer one then.
    pub(super) fn look_again(
        &mut self,
        checked: &Checked,
        wanted: bool,
        seen: &Seen,
        report: &mut RestoreReport,
    ) -> Result<()> {
        let Some(first) = report.safety else { return self.refuse_late(wanted) };
        let catalogue = Catalogue::load(self.context)?;
        let listed = catalogue.find(&first.to_string())?;
        let first: &Snapshot = &listed.snapshot;
        let moved = self.moved(checked, first);
        let databases = moved.iter().filter(|one| matches!(one.source.spec, SourceSpec::Sqlite(_)));
        databases_held(&Places { databases: databases.map(|one| one.at.clone()).collect(), ..Places::default() })?;
        let moved: Vec<Moved> =
            moved.into_iter().filter(|one| one.is_tree() || !seen.are(&one.source.label, &one.at)).collect();
        if moved.is_empty() {
            return Ok(());
        }
        self.context.monitor.phase("looking for what changed meanwhile");
        let mut places = Vec::new();
        for one in &moved {
            places.push((one.source.label.clone(), recorded_path(&one.source)?));
        }
        let naming = Naming {
            name: format!("{}-late", first.name),
            app: self.application.name.clone(),
            tags: first.tags.clone(),
            parent: Some(first.id.to_string()),
            ..Naming::default()
        };
        let name = naming.name.clone();
        let creation = Creation::begin(self.context, naming, &places)?;
        let mut taken = Vec::new();
        for one in &moved {
            taken.push(creation.take(self.context, &one.input(self.context)?)?);
        }
        creation.checkpoint()?;
        let mut changed = Vec::new();
        let mut number = 0;
        for (one, taken) in moved.iter().zip(&taken) {
            let Some(before) = first.sources.iter().find(|record| record.label == taken.record.label) else {
                // It came to a place where nothing stood.
                number += 1;
                changed.push(place_in(&one.source, &EntryPath::root()).display().to_string());
                continue;
            };
            for change in diff(creation.session(), before.tree, creation.session(), taken.record.tree) {
                let change = change?;
                if one.counts(&change) {
                    number += 1;
                    if changed.len() < NAMED_MAX {
                        changed.push(place_in(&one.source, path_of(&change)).display().to_string());
                    }
                }
            }
        }
        if number == 0 {
            return Ok(());
        }
        let others = first.sources.iter().filter(|record| !places.iter().any(|(label, _)| *label == record.label));
        taken.extend(others.map(|record| as_before(first, record)));
        let mut live = first.live.clone();
        if let Some(live) = &mut live {
            live.captured = self.context.clock.now();
        }
        let phase = (first.phase == Phase::PartiallyFailed).then_some(first.phase);
        let second = creation.finish(self.context, taken, live, phase)?;
        report.safety = Some(second.snapshot.id);
        let paths = if number == 1 { "1 path" } else { &format!("{number} paths") };
        let named = first_and_more(&changed, number - changed.len() as u64);
        self.warnings.push(format!(
            "{paths} changed after the safety snapshot {} was taken: {name} has what stood there at the switch: {named}",
            first.name
        ));
        Ok(())
    }

    /// Where nothing stood that was to be captured, nothing may have come meanwhile.
    fn refuse_late(&self, wanted: bool) -> Result<()> {
        match self.journal.targets.iter().find_map(|target| Some(target).filter(|target| moved_to(target).is_some())) {
            Some(target) if wanted => {
                let detail = "came there while it was being deployed to, and is in no snapshot: deploy again".into();
                Err(copal_source::Error::Refused { path: place_of(target), detail }.into())
            }
            _ => Ok(()),
        }
    }

    /// What stood at each target and is in the safety snapshot as what it is, or was not there at that time.
    fn moved(&self, checked: &Checked, first: &Snapshot) -> Vec<Moved> {
        let mut moved = Vec::new();
        for component in &checked.components {
            let source = &component.source;
            let place = self.labels.iter().find(|(label, _)| *label == source.label).map(|(_, place)| place);
            let target = place.and_then(|place| self.journal.targets.iter().find(|one| place_of(one) == *place));
            let Some((target, at)) = target.and_then(|target| Some((target, moved_to(target)?))) else { continue };
            let mut components = first.live.iter().flat_map(|live| &live.components);
            if !components.any(|one| one.label == source.label && one.error.is_some()) {
                let others = self.journal.targets.iter().flat_map(|other| within_target(target, other)).collect();
                moved.push(Moved { source: source.clone(), at, others });
            }
        }
        moved
    }
}

/// Where what stood at a target is after the switch; none where nothing stood, it stays, or it is no file.
fn moved_to(target: &Target) -> Option<PathBuf> {
    match target {
        Target::Place { staged, old, kept: None, .. } if old.is_some() && standing(staged) == *old => {
            Some(staged.clone())
        }
        Target::Within { staged, kept: None, .. } => Some(within::old_of(staged)),
        Target::Device { folder, kept: None, .. } => Some(device::old_of(folder)),
        _ => None,
    }
    .filter(|at| at.exists())
}

/// The paths in a target that another one has, with what lies beside a database.
fn within_target(target: &Target, other: &Target) -> Vec<Vec<u8>> {
    let (Target::Place { path, .. } | Target::Within { path, .. }) = target else { return Vec::new() };
    let Target::Place { path: other, asides, .. } = other else { return Vec::new() };
    let paths = [other].into_iter().chain(asides.iter().map(|(from, _)| from));
    let below = paths.filter_map(|other| other.strip_prefix(path).ok().filter(|below| !below.as_os_str().is_empty()));
    below.map(|below| below.as_os_str().as_bytes().to_vec()).collect()
}

/// A source that did not change, as the first snapshot has it.
fn as_before(first: &Snapshot, record: &SourceRecord) -> Taken {
    let rules = first.rules.iter().find(|rules| rules.label == record.label);
    Taken {
        record: record.clone(),
        bytes_read: 0,
        warnings: Vec::new(),
        unread_files: 0,
        torn_files: 0,
        contents: Vec::new(),
        left_out: LeftOut::as_kept(rules.map(|rules| rules.rules.clone()).unwrap_or_default()),
    }
}

fn path_of(change: &Change) -> &EntryPath {
    match change {
        Change::Added(Entry { path, .. }) | Change::Removed(Entry { path, .. }) => path,
        Change::Changed { after, .. } => &after.path,
    }
}

/// Where a path of a source stood.
fn place_in(source: &Source, path: &EntryPath) -> PathBuf {
    let place = source.spec.path().map(Path::to_owned).unwrap_or_default();
    if path.is_root() { place } else { place.join(std::ffi::OsString::from_vec(path.to_slashes())) }
}
