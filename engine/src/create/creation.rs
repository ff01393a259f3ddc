//! One snapshot being made: begun, sources taken one after the other, finished by its root.

use std::collections::HashSet;
use std::path::PathBuf;

use copal_chunker::{Cutter, Rule, Sizes, SizesError};
use copal_manifest::entry::Timestamp;
use copal_manifest::name::new_name_fault;
use copal_manifest::snapshot::{
    LiveRecord, Origin, Phase, SNAPSHOT_VERSION, Snapshot, SourceRecord, SourceRules, WARNING_BYTES_MAX, WARNINGS_MAX,
    is_name,
};
use copal_store::SnapshotId;
use copal_store::config::{CutRule, Parameters};
use copal_store::roles::Action;
use copal_store::session::Session;

use crate::catalogue::{check_tags, has_name, name_taken, payload_digest, publish_named};
use crate::context::Context;
use crate::create::CreateReport;
use crate::create::clones::ContentIdentity;
use crate::create::input::Input;
use crate::create::left_out::LeftOut;
use crate::create::parent::Parent;
use crate::create::pipeline::Capture;
use crate::error::{Error, Result};

/// What a snapshot is called and compared with.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// Name, unique in the application.
    pub name: String,
    /// Application; empty for none.
    pub app: String,
    /// Tags.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
    /// Read every file, whatever its metadata says.
    pub force_read: bool,
    /// Snapshot to compare with; none: the newest with the same application and sources.
    pub parent: Option<String>,
    /// Take nothing when all is as in the snapshot that it is compared with.
    pub skip_if_unchanged: bool,
}

/// What taking one source gave.
#[derive(Clone, Debug)]
pub struct Taken {
    /// As it stands in the snapshot's root.
    pub record: SourceRecord,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// One for each file that could not be read, or not at one moment.
    pub warnings: Vec<String>,
    /// How many could not be read.
    pub unread_files: u64,
    /// In the snapshot, as they were at several moments.
    pub torn_files: u64,
    /// Of a clone: what its large files are in the snapshot.
    pub contents: Contents,
    /// What was left out, and by which rules.
    pub left_out: LeftOut,
}

/// Paths of large files, with slashes, and what they are.
pub type Contents = Vec<(Vec<u8>, ContentIdentity)>;

/// A snapshot that is being made.
#[derive(Debug)]
pub struct Creation {
    session: Session,
    cutter: Cutter,
    naming: Naming,
    parent: Option<Parent>,
    id: SnapshotId,
    created: Timestamp,
    begun: u64,
}

impl Creation {
    /// Registers, refuses a name that is taken, finds what to compare with. `places` are labels and recorded
    /// paths.
    pub fn begin(context: &Context, naming: Naming, places: &[(String, Vec<u8>)]) -> Result<Self> {
        let begun = context.clock.monotonic_nanoseconds();
        check_names(&naming)?;
        let created = context.clock.now();
        let id = new_snapshot_id(context, created)?;
        let session = context.session()?;
        let cutter = cutter_of(&session)?;
        let mut creation = Self { session, cutter, naming, parent: None, id, created, begun };
        if has_name(&context.repository, creation.session.roots(), &creation.full_name())? {
            return Err(name_taken(context, creation.full_name()));
        }
        // A key that only creates opens no parent: it reads every file, and stores no deltas.
        if context.repository.keys().role().may(Action::OpenManifests) {
            let Naming { app, parent, .. } = &creation.naming;
            creation.parent = Parent::choose(context, &creation.session, app, places, parent.as_deref())?;
        } else if creation.naming.skip_if_unchanged {
            context.monitor.notice("this key opens no snapshots, so there is none to compare with: one is taken");
        }
        Ok(creation)
    }

    /// The same snapshot as one that was begun by a process that is gone.
    pub fn of(self, id: SnapshotId, created: Timestamp) -> Self {
        Self { id, created, ..self }
    }

    /// Id that the snapshot will have.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// When it began.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    fn full_name(&self) -> String {
        Snapshot::full_name(&self.naming.app, &self.naming.name)
    }

    pub(super) fn cutter(&self) -> &Cutter {
        &self.cutter
    }

    /// For reading what is there.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What the parent snapshot has of a source.
    pub fn parent_record(&self, label: &str, path: &[u8]) -> Option<SourceRecord> {
        let record = self.parent.as_ref()?.source(label, path)?;
        Some(record.as_ref().clone())
    }

    /// Whether the parent snapshot's word is taken for what is unchanged.
    pub fn believes_parent(&self) -> bool {
        !self.naming.force_read
    }

    /// Plaintext bytes of new chunks so far.
    pub fn bytes_new(&self) -> u64 {
        self.session.counters().bytes_new
    }

    /// Stores one source. After [`Error::Interrupted`] what was stored is found again by the next run.
    pub fn take(&self, context: &Context, input: &Input) -> Result<Taken> {
        let parent = self.parent.as_ref();
        let taken = Capture::run(context, &self.session, &self.cutter, self.naming.force_read, input, parent);
        if matches!(taken, Err(Error::Interrupted)) {
            self.session.checkpoint()?;
        }
        taken
    }

    /// Makes what was stored so far durable, without a snapshot.
    pub fn checkpoint(&self) -> Result<()> {
        Ok(self.session.checkpoint()?)
    }

    /// Commits: everything durable, then the root.
    pub fn finish(
        self,
        context: &Context,
        mut taken: Vec<Taken>,
        live: Option<LiveRecord>,
        phase: Option<Phase>,
    ) -> Result<CreateReport> {
        context.monitor.phase("committing");
        taken.sort_by(|a, b| a.record.label.cmp(&b.record.label));
        let unread_files: u64 = taken.iter().map(|one| one.unread_files).sum();
        let torn_files: u64 = taken.iter().map(|one| one.torn_files).sum();
        let bytes_read = taken.iter().map(|one| one.bytes_read).sum();
        let warnings: Vec<String> = taken.iter().flat_map(|one| one.warnings.iter().cloned()).collect();
        let left_out: Vec<PathBuf> = taken.iter().flat_map(|one| one.left_out.own.iter().cloned()).collect();
        let unmatched = unmatched_of(taken.iter().map(|one| &one.left_out));
        let rules = taken.iter().filter(|one| !one.left_out.rules.is_empty());
        let rules: Vec<SourceRules> = rules
            .map(|one| SourceRules { label: one.record.label.clone(), rules: one.left_out.rules.clone() })
            .collect();
        let records: Vec<SourceRecord> = taken.into_iter().map(|one| one.record).collect();
        let whole = if unread_files > 0 { Phase::PartiallyFailed } else { Phase::Completed };
        let phase = phase.unwrap_or(whole);
        if let Some(same) = self.same_as_before(&records, &rules, live.as_ref(), phase) {
            self.session.end()?;
            let duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(self.begun) / 1_000_000;
            let unread_files = unread_files + torn_files;
            let report = CreateReport { bytes_read, duration_ms, warnings, unread_files, left_out, unmatched, ..same };
            return Ok(report);
        }
        let Self { session, naming, parent, id, created, begun, .. } = self;
        let durable = session.seal_packs()?.sync()?.publish_index()?;
        let counters = session.counters();
        let mut snapshot = Snapshot {
            version: SNAPSHOT_VERSION,
            id,
            name: naming.name,
            app: naming.app,
            created,
            completed: context.clock.now(),
            phase,
            origin: Origin::Created,
            host: context.host.clone(),
            program: context.program.clone(),
            parent: parent.map(|parent| parent.snapshot().id),
            sources: records,
            tags: sorted_tags(&naming.tags),
            pinned: naming.pinned,
            bytes_read,
            bytes_new: counters.bytes_new,
            stored_new: counters.bytes_stored,
            chunks_new: counters.chunks_new,
            warnings: bounded_warnings(&warnings),
            live,
            rules,
            user: context.user.clone(),
        };
        snapshot.version = snapshot.version_to_write();
        let payload = snapshot.encode()?;
        let root_bytes = publish_named(context, durable, &snapshot, &payload)?;
        session.end()?;
        tidy_index(context);
        Ok(CreateReport {
            digest: payload_digest(&payload),
            files: snapshot.files(),
            bytes: snapshot.bytes(),
            bytes_read: snapshot.bytes_read,
            bytes_new: snapshot.bytes_new,
            stored_new: snapshot.stored_new + root_bytes,
            chunks_new: snapshot.chunks_new,
            duration_ms: context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000,
            warnings,
            unread_files: unread_files + torn_files,
            left_out,
            unmatched,
            skipped: false,
            snapshot,
        })
    }

    /// The snapshot that this one would be another copy of, where that is not wanted.
    fn same_as_before(
        &self,
        records: &[SourceRecord],
        rules: &[SourceRules],
        live: Option<&LiveRecord>,
        phase: Phase,
    ) -> Option<CreateReport> {
        let before = self.parent.as_ref().filter(|_| self.naming.skip_if_unchanged)?.listed();
        let snapshot = &before.snapshot;
        let same_source = |(new, old): (&SourceRecord, &SourceRecord)| {
            (&new.label, new.kind, &new.path, new.tree) == (&old.label, old.kind, &old.path, old.tree)
        };
        let config_version = |live: Option<&LiveRecord>| live.map(|live| live.config_version.clone());
        let same = snapshot.app == self.naming.app
            && snapshot.phase == phase
            && snapshot.sources.len() == records.len()
            && records.iter().zip(&snapshot.sources).all(same_source)
            && snapshot.rules == rules
            && config_version(live) == config_version(snapshot.live.as_ref())
            // What had to be stored again is missing where the other snapshot has it.
            && self.session.counters().chunks_new == 0;
        same.then(|| CreateReport { skipped: true, ..CreateReport::of_listed(before) })
    }
}

/// The patterns that left nothing out of any source.
pub(super) fn unmatched_of<'l>(left_out: impl Iterator<Item = &'l LeftOut>) -> Vec<String> {
    let uses: Vec<(String, bool)> = left_out.flat_map(LeftOut::uses).collect();
    let used: HashSet<&str> = uses.iter().filter(|(_, used)| *used).map(|(given, _)| given.as_str()).collect();
    let mut said = HashSet::new();
    let unused = uses.iter().map(|(given, _)| given.as_str()).filter(|given| !used.contains(given));
    unused.filter(|given| said.insert(*given)).map(str::to_owned).collect()
}

/// Refuses a name by which a new snapshot could not be reached.
pub fn check_new_name(name: &str) -> Result<()> {
    match new_name_fault(name) {
        Some(detail) => Err(Error::BadName { name: name.to_owned(), detail }),
        None => Ok(()),
    }
}

pub(super) fn check_names(naming: &Naming) -> Result<()> {
    check_new_name(&naming.name)?;
    check_tags(&naming.tags)?;
    if !(is_name(&naming.app) || naming.app.is_empty()) {
        let detail = "it cannot be that of an application";
        return Err(Error::BadName { name: naming.app.clone(), detail: detail.into() });
    }
    Ok(())
}

/// The cutter that the repository's parameters and secret make.
pub fn cutter_of(session: &Session) -> Result<Cutter> {
    let repository = session.repository();
    cutter_for(&repository.config().parameters, &repository.keys().cutter_secret())
        .map_err(|error| Error::Internal(format!("the repository's parameters: {error}")))
}

fn cutter_for(parameters: &Parameters, secret: &[u8; 32]) -> Result<Cutter, SizesError> {
    let Parameters { cut_rule, chunk_bytes_min, chunk_bytes_average, chunk_bytes_max, .. } = *parameters;
    let rule = match cut_rule {
        CutRule::AesWindow => Rule::AesWindow,
        CutRule::FastCdc2020 => Rule::FastCdc2020,
    };
    let sizes = Sizes { min: chunk_bytes_min, average: chunk_bytes_average, max: chunk_bytes_max };
    Cutter::new(rule, sizes, secret)
}

/// Sorted by key; of equal keys the last wins.
fn sorted_tags(tags: &[(String, String)]) -> Vec<(String, String)> {
    tags.iter().cloned().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
}

fn bounded_warnings(warnings: &[String]) -> Vec<String> {
    let begin = |warning: &String| warning[..warning.floor_char_boundary(WARNING_BYTES_MAX)].to_owned();
    let mut kept: Vec<String> = warnings.iter().take(WARNINGS_MAX - 1).map(begin).collect();
    if warnings.len() > kept.len() {
        kept.push(format!("and {} more", warnings.len() - kept.len()));
    }
    kept
}

/// A UUID of version 7 (RFC 9562).
pub fn new_snapshot_id(context: &Context, created: Timestamp) -> Result<SnapshotId> {
    let mut random = [0; 10];
    context.repository.entropy().fill(&mut random)?;
    let milliseconds = u64::try_from(created.seconds).unwrap_or(0) * 1000 + u64::from(created.nanoseconds / 1_000_000);
    Ok(SnapshotId(uuid::Builder::from_unix_timestamp_millis(milliseconds, &random).into_uuid().into_bytes()))
}

/// Merges small index fragments. The snapshot is safe already: a failure here is the next run's affair.
pub fn tidy_index(context: &Context) {
    match copal_store::collect::merge_index(&context.repository) {
        Ok(_) | Err(copal_store::Error::Busy { .. }) => {}
        Err(error) => context.monitor.notice(&format!("the index was not merged: {error}")),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: parameters that a repository may have can be cut with. Method: sizes at, below and above each
    //! limit of the cutter, in all combinations.

    use super::*;

    #[test]
    fn what_the_parameters_allow_has_a_cutter() {
        let sizes = [
            2, 63, 64, 65, 100, 128, 255, 256, 257, 1023, 1024, 4096, 65_536, 1_048_576, 1_048_577, 1_048_578,
            2_097_152, 4_194_304, 8_388_607, 8_388_608, 8_388_609, 16_777_216,
        ];
        let mut allowed = 0;
        for cut_rule in [CutRule::AesWindow, CutRule::FastCdc2020] {
            for (min, average, max) in sizes
                .iter()
                .flat_map(|min| sizes.iter().map(move |average| (min, average)))
                .flat_map(|(min, average)| sizes.iter().map(move |max| (*min, *average, *max)))
            {
                let parameters = Parameters {
                    cut_rule,
                    chunk_bytes_min: min,
                    chunk_bytes_average: average,
                    chunk_bytes_max: max,
                    ..Parameters::default()
                };
                let has_cutter = cutter_for(&parameters, &[7; 32]).is_ok();
                assert_eq!(parameters.validate().is_ok(), has_cutter, "{parameters:?}");
                allowed += usize::from(has_cutter);
            }
        }
        assert!(allowed > 100);
    }
}
