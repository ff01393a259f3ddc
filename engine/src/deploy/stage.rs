//! Stages a deploy in place: fetches every new byte into the journal and lists the steps. The target is not touched.

use std::path::Path;
use std::sync::Arc;

use copal_manifest::content::FileContent;
use copal_manifest::entry::{Entry, Node};
use copal_source::scan::FileKind;
use copal_source::target::TargetTree;

use super::build::{create_other, is_sparse, kind_of, put_pieces, target_metadata};
use super::desired::Desired;
use super::fetch::{Fetcher, Origin, Slot, with_fetcher};
use super::journal::{
    RANGES, ReadyJournal, SHARDS, STEP_RANGES_MAX, Step, StepWriter, kind_number, shard_name, staged_path,
};
use super::place::WriteRoot;
use super::plan::{Action, Change, Folder, Over, Plan, Range};
use super::run::Run;
use crate::error::{Error, Result};

/// Staged files past which one sync of the whole filesystem is cheaper than one for each.
const SINGLE_SYNCS_MAX: usize = 128;

/// Fills a new journal folder and makes it durable.
pub(super) fn stage(
    run: &Run<'_>,
    desired: &Desired<'_>,
    plan: &Plan,
    root: &WriteRoot,
    root_path: &Path,
    folder: &Path,
) -> Result<ReadyJournal> {
    let journal = TargetTree::open(folder)?;
    let creates = plan.changes.iter().filter(|change| matches!(change.action, Action::Create { .. })).count() as u64;
    for shard in 0..SHARDS.min(creates) {
        journal.create_directory(shard_name(shard).as_bytes())?;
    }
    let sync_each = plan.changes.len() <= SINGLE_SYNCS_MAX;
    let ranges_bytes = plan.changes.iter().filter(|change| matches!(change.action, Action::Patch { .. }));
    let ranges_bytes = ranges_bytes.map(|change| change.bytes).sum();
    let origin = Origin::New { bytes: ranges_bytes, sparse: true };
    let ranges = Slot::new(&journal, RANGES.as_bytes().to_vec(), origin, None, sync_each);
    let steps = StepWriter::create(folder)?;
    let mut stager =
        Stager { run, desired, root, journal: &journal, ranges, ranges_end: 0, staged: 0, steps, sync_each };
    with_fetcher(desired.session(), run, |fetcher| {
        for change in &plan.changes {
            run.context.check_interrupt()?;
            stager.change(change, fetcher)?;
        }
        fetcher.close(stager.ranges.clone())
    })?;
    // A journal inside the target changes the time of its top folder.
    let is_inside = root.file.is_none() && folder.parent() == Some(root_path);
    let is_set = |folder: &&Folder| (folder.touched || is_inside && folder.path.is_root()) && !folder.synthetic;
    for folder in plan.folders.iter().rev().filter(is_set) {
        let metadata = target_metadata(&folder.metadata).into();
        let kind = kind_number(FileKind::Directory);
        stager.steps.push(&Step::Metadata { path: root.path(&folder.path), kind, metadata })?;
    }
    run.steps.reach("syncing what is staged")?;
    if sync_each {
        for shard in 0..SHARDS.min(stager.staged) {
            journal.sync_directory(shard_name(shard).as_bytes())?;
        }
    } else {
        journal.sync_filesystem()?;
    }
    stager.steps.finish(root_path)
}

struct Stager<'g> {
    run: &'g Run<'g>,
    desired: &'g Desired<'g>,
    root: &'g WriteRoot,
    journal: &'g TargetTree,
    ranges: Arc<Slot>,
    ranges_end: u64,
    staged: u64,
    steps: StepWriter,
    sync_each: bool,
}

impl Stager<'_> {
    fn change(&mut self, change: &Change, fetcher: &mut Fetcher<'_>) -> Result<()> {
        let path = self.root.path(&change.path);
        if change.action == Action::Remove {
            return self.steps.push(&Step::Remove { path });
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
            (Action::Create { .. }, Node::Directory) => self.steps.push(&Step::Folder { path }),
            (Action::Create { .. }, Node::HardLink(first)) => {
                self.steps.push(&Step::Link { path, first: self.root.path(first) })
            }
            (Action::Create { over }, _) => {
                let staged = self.staged;
                self.staged += 1;
                self.stage_whole(entry, staged_path(staged), fetcher)?;
                self.steps.push(&Step::Place { path, staged, over_folder: *over == Over::Folder })
            }
            (Action::Patch { ranges, holes }, Node::File(content)) => {
                self.stage_ranges(content, &path, ranges, holes, fetcher)?;
                self.metadata(path, entry)
            }
            _ => self.metadata(path, entry),
        }
    }

    fn metadata(&mut self, path: Vec<u8>, entry: &Entry) -> Result<()> {
        let kind = kind_number(kind_of(&entry.node));
        self.steps.push(&Step::Metadata { path, kind, metadata: target_metadata(&entry.metadata).into() })
    }

    fn stage_whole(&mut self, entry: &Entry, path: Vec<u8>, fetcher: &mut Fetcher<'_>) -> Result<()> {
        let Node::File(content) = &entry.node else { return create_other(self.journal, &path, entry, self.run) };
        let origin = Origin::New { bytes: content.bytes, sparse: is_sparse(self.desired, content)? };
        let metadata = Some(target_metadata(&entry.metadata));
        let slot = Slot::new(self.journal, path, origin, metadata, self.sync_each);
        put_pieces(self.desired, content, &Range { offset: 0, bytes: content.bytes }, &slot, 0, fetcher)?;
        fetcher.close(slot)
    }

    fn stage_ranges(
        &mut self,
        content: &FileContent,
        path: &[u8],
        ranges: &[Range],
        holes: &[Range],
        fetcher: &mut Fetcher<'_>,
    ) -> Result<()> {
        let mut placed = Vec::with_capacity(ranges.len().min(STEP_RANGES_MAX));
        for range in ranges {
            let moved_by = (self.ranges_end as i64).wrapping_sub(range.offset as i64);
            put_pieces(self.desired, content, range, &self.ranges, moved_by, fetcher)?;
            placed.push((range.offset, range.bytes, self.ranges_end));
            self.ranges_end += range.bytes;
            if placed.len() == STEP_RANGES_MAX {
                let ranges = std::mem::take(&mut placed);
                let holes = Vec::new();
                self.steps.push(&Step::Patch { path: path.to_vec(), bytes: content.bytes, ranges, holes })?;
            }
        }
        let mut holes: Vec<_> = holes.iter().map(|hole| (hole.offset, hole.bytes)).collect();
        while holes.len() > STEP_RANGES_MAX {
            let rest = holes.split_off(STEP_RANGES_MAX);
            let step = Step::Patch { path: path.to_vec(), bytes: content.bytes, ranges: Vec::new(), holes };
            self.steps.push(&step)?;
            holes = rest;
        }
        self.steps.push(&Step::Patch { path: path.to_vec(), bytes: content.bytes, ranges: placed, holes })
    }
}
