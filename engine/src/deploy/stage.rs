//! Stages a deploy in place: fetches every new byte into the journal and lists the steps. The target is not
//! touched.

use std::sync::{Arc, Mutex, PoisonError};

use copal_manifest::content::FileContent;
use copal_manifest::entry::{Entry, Node};
use copal_source::read::TreeReader;
use copal_source::scan::FileKind;
use copal_source::target::TargetTree;

use super::blocks::{Patch, StagedRanges};
use super::build::{create_other, is_sparse, kind_of, put_pieces, target_metadata};
use super::desired::Desired;
use super::fetch::{Fetcher, Origin, Slot, with_fetcher};
use super::journal::{Journal, RANGES, ReadyJournal, SHARDS, Step, StepWriter, shard_name, staged_path};
use super::place::WriteRoot;
use super::plan::{Action, Change, Folder, Over, Plan, Range};
use super::run::{Made, Run};
use crate::error::{Error, Result};
use crate::state::StateSecret;

/// Staged files past which one sync of the whole filesystem is cheaper than one for each.
const SINGLE_SYNCS_MAX: usize = 128;

/// Fills a new journal folder and makes it durable.
pub(super) fn stage(
    run: &Run<'_>,
    desired: &Desired<'_>,
    plan: &Plan,
    root: &WriteRoot,
    opened: Journal,
    secret: &StateSecret,
) -> Result<ReadyJournal> {
    let journal = &opened.folder;
    let creates = plan.changes.iter().filter(|change| matches!(change.action, Action::Create { .. })).count() as u64;
    for shard in 0..SHARDS.min(creates) {
        journal.create_directory(shard_name(shard).as_bytes())?;
    }
    let sync_each = plan.changes.len() <= SINGLE_SYNCS_MAX;
    let ranges = Arc::new(StagedRanges::new(journal.create_file(RANGES.as_bytes(), 0, true)?));
    let steps = Arc::new(Mutex::new(StepWriter::create(journal)?));
    let reader = root.tree.reader();
    let mut stager = Stager { run, desired, root, reader, journal, ranges, staged: 0, steps, sync_each };
    with_fetcher(desired.session(), run, |fetcher| {
        for change in &plan.changes {
            run.context.check_interrupt()?;
            stager.change(change, fetcher)?;
        }
        Ok(())
    })?;
    // A journal inside the target changes the time of its top folder.
    let is_set = |folder: &&Folder| (folder.touched || opened.inside && folder.path.is_root()) && !folder.synthetic;
    for folder in plan.folders.iter().rev().filter(is_set) {
        let metadata = target_metadata(&folder.metadata).into();
        let kind = FileKind::Directory.number();
        stager.push(&Step::Metadata { path: root.path(&folder.path), kind, metadata })?;
    }
    run.steps.reach("syncing what is staged")?;
    if sync_each {
        stager.ranges.sync()?;
        for shard in 0..SHARDS.min(stager.staged) {
            journal.sync_directory(shard_name(shard).as_bytes())?;
        }
    } else {
        journal.sync_filesystem()?;
    }
    let Stager { steps, .. } = stager;
    let steps = Arc::into_inner(steps).ok_or_else(|| Error::Internal("a file is still being staged".into()))?;
    steps.into_inner().unwrap_or_else(PoisonError::into_inner).finish(opened, root, secret)
}

struct Stager<'g> {
    run: &'g Run<'g>,
    desired: &'g Desired<'g>,
    root: &'g WriteRoot,
    journal: &'g TargetTree,
    /// Of what stands there.
    reader: TreeReader,
    ranges: Arc<StagedRanges>,
    staged: u64,
    steps: Arc<Mutex<StepWriter>>,
    sync_each: bool,
}

impl Stager<'_> {
    fn push(&self, step: &Step) -> Result<()> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step)
    }

    fn change(&mut self, change: &Change, fetcher: &mut Fetcher<'_>) -> Result<()> {
        let path = self.root.path(&change.path);
        if change.action == Action::Remove {
            return self.push(&Step::Remove { path });
        }
        let read_again;
        let entry = match &change.entry {
            Some(entry) => entry.as_ref(),
            None => {
                let item = self.desired.get(&change.path)?;
                read_again = item.ok_or_else(|| Error::Internal(format!("{} is gone", change.path)))?.entry;
                &read_again
            }
        };
        match (&change.action, &entry.node) {
            (Action::Create { .. }, Node::Directory) => self.push(&Step::Folder { path }),
            (Action::Create { .. }, Node::HardLink(first)) if self.run.has_skipped(first) => {
                self.run.skip(&entry.path);
                Ok(())
            }
            (Action::Create { .. }, Node::HardLink(first)) => {
                self.push(&Step::Link { path, first: self.root.path(first) })
            }
            (Action::Create { over }, _) => {
                let staged = self.staged;
                self.staged += 1;
                if !self.stage_whole(entry, staged_path(staged), fetcher)? {
                    return Ok(());
                }
                self.push(&Step::Place { path, staged, over_folder: *over == Over::Folder })
            }
            (Action::Patch { ranges, holes }, Node::File(content)) => {
                self.stage_patch(entry, content, path, ranges, holes, fetcher)
            }
            _ => self.metadata(path, entry),
        }
    }

    fn metadata(&mut self, path: Vec<u8>, entry: &Entry) -> Result<()> {
        let kind = kind_of(&entry.node).number();
        self.push(&Step::Metadata { path, kind, metadata: target_metadata(&entry.metadata).into() })
    }

    /// False: it may not be made, and is left out.
    fn stage_whole(&mut self, entry: &Entry, staged: Vec<u8>, fetcher: &mut Fetcher<'_>) -> Result<bool> {
        let belongs = self.root.tree.whole(&self.root.path(&entry.path));
        let Node::File(content) = &entry.node else {
            let (path, is_tree) = (self.journal.whole(&staged), false);
            let made = Made { path, belongs, is_tree };
            return self.run.while_making(made, || create_other(self.journal, &staged, entry, self.run));
        };
        let origin = Origin::New { bytes: content.bytes, sparse: is_sparse(self.desired, content)? };
        let metadata = Some(target_metadata(&entry.metadata));
        let slot = Slot::staged(self.journal, staged, origin, metadata, self.sync_each, Some(belongs));
        put_pieces(self.desired, content, &[Range::whole(content.bytes)], &slot, fetcher)?;
        fetcher.close(slot)?;
        Ok(true)
    }

    /// Its steps are written when all of it is staged.
    fn stage_patch(
        &mut self,
        entry: &Entry,
        content: &FileContent,
        path: Vec<u8>,
        ranges: &[Range],
        holes: &[Range],
        fetcher: &mut Fetcher<'_>,
    ) -> Result<()> {
        let patch = Patch {
            reader: self.reader.clone(),
            path: path.clone(),
            bytes: content.bytes,
            holes: holes.to_vec(),
            metadata: (FileKind::File.number(), target_metadata(&entry.metadata)),
            ranges: self.ranges.clone(),
            steps: self.steps.clone(),
            found: Mutex::default(),
        };
        let slot = Slot::new(self.journal, path, Origin::PatchOf(Box::new(patch)), None, false);
        put_pieces(self.desired, content, ranges, &slot, fetcher)?;
        fetcher.close(slot)
    }
}
