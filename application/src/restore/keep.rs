//! What stands at the targets is kept before it is replaced: in a snapshot, as what it is or byte for byte,
//! or else beside its place under another name. Nothing is in no snapshot and nowhere on disk afterwards.

use std::path::PathBuf;

use copal_source::hook::When;
use copal_source::postgres::{database_exists, database_led_to};

use super::Restore;
use super::check::Checked;
use super::journal::Target;
use crate::config::{Application, Pinning, SourceSpec};
use crate::error::{Error, Result};
use crate::{CaptureRequest, KeptPlace, KeptSource, SAFETY, Tools};

impl Restore<'_> {
    /// The application with its databases by the names that they will have once they are withdrawn, those
    /// included that only the snapshot has.
    pub(super) fn standing(&self) -> Result<Application> {
        let mut standing = self.application.clone();
        for source in standing.services.iter_mut().flat_map(|service| &mut service.sources) {
            let SourceSpec::Postgres(spec) = &mut source.spec else { continue };
            if spec.databases.is_empty() {
                // A server that does not answer, or has no such database, says so in the capture.
                spec.databases.extend(database_led_to(spec).ok());
            }
            for target in &self.journal.targets {
                let Target::Databases { dsn, names, .. } = target else { continue };
                for (name, _, aside, _) in names.iter().filter(|(_, _, _, had)| *had && *dsn == spec.dsn) {
                    spec.renamed.push((name.clone(), aside.clone()));
                    if !spec.databases.contains(name) {
                        spec.databases.push(name.clone());
                    }
                }
            }
            // One that is not there is no reason to leave out the others.
            if !spec.renamed.is_empty() {
                let renamed = spec.renamed.clone();
                let is_renamed = |name: &str| renamed.iter().any(|(own, _)| own == name);
                let server = spec.clone();
                spec.databases.retain(|name| is_renamed(name) || database_exists(&server, name).unwrap_or(true));
            }
        }
        Ok(standing)
    }

    /// What stands there becomes a snapshot of its own. A source that is damaged is why somebody deploys: it
    /// is no reason to stop, but it stays somewhere.
    pub(super) fn safety_snapshot(
        &mut self,
        mut standing: Application,
        checked: &Checked,
        tools: &Tools,
    ) -> Result<Option<copal_store::SnapshotId>> {
        standing.policy.partial = true;
        standing.policy.wanted = copal_manifest::snapshot::Consistency::Crash;
        // A deploy that is killed is taken back: nobody goes on with the upload.
        standing.class.pinning = Pinning::Direct;
        for service in &mut standing.services {
            service.sources.retain(|source| source.spec.path().is_none_or(|path| path.try_exists().unwrap_or(true)));
        }
        if standing.sources().count() == 0 {
            return Ok(None);
        }
        self.context.monitor.phase("capturing what stands there");
        let now = self.context.clock.now();
        let request = CaptureRequest {
            name: format!("safety-{}-{:09}", now.seconds, now.nanoseconds),
            trigger: SAFETY.into(),
            tags: vec![("before".into(), checked.name.clone())],
            ..CaptureRequest::default()
        };
        let folder = self.folder.clone();
        let (context, hooks) = (self.context, When::Stop);
        let captured = crate::capture::begin(context, &standing, &request, tools, folder, None, hooks)?;
        let stood = captured.upload_standing(context)?;
        for other in stood.others {
            let (label, why) = (other.label, other.why);
            let Some(component) = checked.components.iter().find(|one| one.source.label == label) else {
                self.warnings.push(format!("{label:?}, which is not replaced, could not be captured: {why}"));
                continue;
            };
            match &component.source.spec {
                SourceSpec::Command { restore: Some(_), .. } => return Err(Error::NotKept { label, detail: why }),
                // It has no place where anything is replaced.
                SourceSpec::Command { .. } => {
                    self.warnings.push(format!("the output of {label:?} could not be captured: {why}"));
                }
                _ if other.files.is_empty() => self.to_put_aside.push((label, why)),
                _ => self.note_kept(KeptSource { label, why, place: Some(KeptPlace::Snapshot(other.files)) }),
            }
        }
        let Some(report) = stood.report else { return Ok(None) };
        self.warnings.extend(report.warnings.iter().map(|why| format!("what stood there could not be read: {why}")));
        Ok(Some(report.snapshot.id))
    }

    /// What could not be captured stays beside its place: the journal says so before anything is switched.
    pub(super) fn put_aside(&mut self, mark: &str) {
        for (label, why) in std::mem::take(&mut self.to_put_aside) {
            let stands = self.labels.iter().find(|(one, _)| *one == label).map(|(_, place)| place);
            let target = stands.and_then(|place| self.journal.targets.iter_mut().find(|one| place_of(one) == *place));
            let place = target.and_then(|target| kept_place(target, mark));
            // Else nothing stood there.
            if place.is_some() {
                self.note_kept(KeptSource { label, why, place });
            }
        }
    }

    fn note_kept(&mut self, kept: KeptSource) {
        self.warnings.push(kept.sentence());
        self.kept.push(kept);
    }
}

/// What no two targets of a deploy have in common.
pub(super) fn place_of(target: &Target) -> PathBuf {
    match target {
        Target::Place { path, .. } | Target::Within { path, .. } | Target::Device { path, .. } => path.clone(),
        Target::Databases { names, .. } => names.iter().map(|(_, _, aside, _)| format!("{aside}\n")).collect(),
    }
}

/// Has the old state of a target stay, and says where; none where there is no old state.
fn kept_place(target: &mut Target, mark: &str) -> Option<KeptPlace> {
    match target {
        Target::Place { path, old, kept, .. } => {
            old.as_ref()?;
            let mut name = path.file_name()?.to_owned();
            name.push(format!(".kept-{mark}"));
            *kept = Some(path.with_file_name(name));
            kept.clone().map(KeptPlace::Beside)
        }
        Target::Within { path, kept, .. } => {
            *kept = Some(path.join(format!("kept-{mark}")));
            kept.clone().map(KeptPlace::Beside)
        }
        Target::Device { folder, kept, .. } => {
            let mut name = folder.file_name()?.to_owned();
            name.push(format!(".kept-{mark}"));
            *kept = Some(folder.with_file_name(name));
            kept.clone().map(KeptPlace::Beside)
        }
        Target::Databases { names, kept, .. } => {
            let had: Vec<String> = names.iter().filter(|(.., had)| *had).map(|(_, _, old, _)| old.clone()).collect();
            *kept = !had.is_empty();
            (*kept).then_some(KeptPlace::Databases(had))
        }
    }
}

impl KeptSource {
    /// For people: what could not be captured, and where it is, or will be.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { label, why, place } = self;
        let what = format!("what stands at {label:?} cannot be captured whole ({why})");
        let stood = format!("what stood at {label:?} could not be captured whole ({why})");
        match place {
            None => format!(
                "{what}: its files are kept byte for byte in the safety snapshot, or else beside it under another name"
            ),
            Some(KeptPlace::Snapshot(labels)) => {
                format!("{stood}: the safety snapshot has its files byte for byte, as {}", labels.join(", "))
            }
            Some(KeptPlace::Beside(path)) => format!("{stood}: it was kept, and is now {}", path.display()),
            Some(KeptPlace::Databases(names)) => {
                format!("{stood}: it was kept, and is now the database {}", names.join(", "))
            }
        }
    }
}
