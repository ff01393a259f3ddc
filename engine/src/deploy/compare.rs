//! Compares what stands at a target with what shall stand there. It reads and never writes.
//!
//! Two streams in path order are merged. What a witness vouches for is decided by ids alone; the rest is read
//! and hashed by all workers, in windows of [`WINDOW_ITEMS`] paths.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_source::read::TreeReader;
use copal_source::scan::{Border, FileKind, FileStat, Keep, ScanEntry, ScanOptions, scan};
use copal_source::sqlite::LOGS;

use super::attributes::attributes_differ;
use super::desired::{Desired, Item};
use super::evidence::Witness;
use super::hash::{Finding, Question, answer};
use super::plan::{Action, Change, Folder, Over, Plan};
use super::run::Run;
use super::stays::{Conflict, LastFolder, StandingTree, Stay, Stays};
use super::times::stands_for;
use crate::error::Result;

/// Paths to be read that are collected before the workers read them.
const WINDOW_ITEMS: usize = 16 << 10;
/// Shorter files are replaced whole: a patch is not worth its bookkeeping, and a rename is atomic by itself.
const PATCH_BYTES_MIN: u64 = 256 << 10;

/// Plans a target that has nothing: everything is created.
pub(super) fn plan_fresh(desired: &Desired<'_>) -> Result<Plan> {
    let mut plan = Plan::default();
    for item in desired.items() {
        let item = item?;
        count(&mut plan, &item.entry);
        plan.bytes_to_write = plan.bytes_to_write.saturating_add(stored_bytes(desired, &item.entry)?);
        push_folder(&mut plan, &item, true);
    }
    Ok(plan)
}

/// How a target is compared.
#[derive(Clone, Debug, Default)]
pub(super) struct How {
    /// What is left alone; what is mounted there is so always.
    pub(super) stays: Arc<Stays>,
    /// What goes with its folder is named one by one, too.
    pub(super) named: bool,
    /// What the snapshot lacks stays.
    pub(super) keep_others: bool,
}

/// Compares a standing target (a folder, or one file) with what it shall be. Names in it that are hidden are
/// no part of it.
pub(super) fn compare(
    run: &Run<'_>,
    desired: &Desired<'_>,
    target: &Path,
    hidden: &[Vec<u8>],
    witnesses: &mut [Witness<'_, '_>],
    how: &How,
) -> Result<Plan> {
    let borders: Arc<dyn Keep> = Arc::clone(&how.stays) as Arc<dyn Keep>;
    let options = ScanOptions { threads: run.context.threads, borders: Some(borders), ..ScanOptions::default() };
    let reader = TreeReader::open(target)?;
    let mut comparison = Comparison {
        run,
        desired,
        reader,
        witnesses,
        plan: Plan::default(),
        window: Vec::new(),
        questions: Vec::new(),
        shared: HashMap::new(),
        names: HashMap::new(),
        joined: Vec::new(),
        gone: None,
        extras: Vec::new(),
        border: None,
        how,
    };
    let mut standing = StandingTree::new(scan(target, &options)?, target, hidden);
    let mut wanted = desired.items();
    let mut last_folder = LastFolder::default();
    let (mut left, mut right) = (wanted.next().transpose()?, standing.next().transpose()?);
    loop {
        run.context.check_interrupt()?;
        let order = match (&left, &right) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(item), Some((path, _))) => item.entry.path.cmp(path),
        };
        if let (Ordering::Greater, Some((path, found))) = (order, &mut right)
            && found.border.is_none()
            && how.stays.keeps_extra(desired, path, found.left_out, &mut last_folder)?
            && (desired.is_whole() || desired.get(path)?.is_none())
        {
            found.border = Some(Border::Kept);
            standing.pass_over();
        }
        let item = if order.is_le() { std::mem::replace(&mut left, wanted.next().transpose()?) } else { None };
        let found = if order.is_ge() { std::mem::replace(&mut right, standing.next().transpose()?) } else { None };
        comparison.plan.beside_logs.extend(found.as_ref().and_then(|(_, found)| of_log(found)));
        if let Some(path) = item.as_ref().map(|item| &item.entry.path).or(found.as_ref().map(|(path, _)| path)) {
            comparison.leave_extras(path);
        }
        match (item, found) {
            (Some(item), None) => comparison.missing(item)?,
            (None, Some((path, found))) => comparison.extra(path, &found)?,
            (Some(item), Some((_, found))) => comparison.both(item, &found)?,
            (None, None) => {}
        }
        if !comparison.extras.is_empty() {
            continue;
        }
        if comparison.questions.len() >= WINDOW_ITEMS || comparison.window.len() >= 4 * WINDOW_ITEMS {
            comparison.settle()?;
        }
    }
    comparison.extras_end();
    comparison.settle()?;
    Ok(comparison.finish())
}

struct Comparison<'c, 'd, 's, 'w> {
    run: &'c Run<'c>,
    desired: &'c Desired<'s>,
    reader: TreeReader,
    witnesses: &'c mut [Witness<'d, 'w>],
    plan: Plan,
    /// Changes since the last settlement; `None` where a question decides.
    window: Vec<Pending>,
    questions: Vec<Question>,
    /// What stands with several names: the wanted file that took the inode.
    shared: HashMap<(u64, u64), EntryPath>,
    /// How many names the standing file of such a wanted file has.
    names: HashMap<EntryPath, u32>,
    /// Wanted names of such files that stand rightly, as long as the file itself stays.
    joined: Vec<(EntryPath, Box<Entry>)>,
    /// A folder that something else replaces: what is below it goes with it.
    gone: Option<EntryPath>,
    /// Folders that the snapshot lacks, from the outermost to the one that is being gone through.
    extras: Vec<Extra>,
    /// The last path that stays.
    border: Option<Stay>,
    how: &'c How,
}

/// A folder that the snapshot lacks: it goes as a whole, unless something in it stays.
struct Extra {
    path: EntryPath,
    /// Its first change in the window.
    first: usize,
    holds_what_stays: bool,
}

enum Pending {
    Change(Change),
    /// The answer of the question of this number decides.
    Asked {
        question: usize,
        entry: Box<Entry>,
        patchable: bool,
        metadata_differ: bool,
    },
}

impl Comparison<'_, '_, '_, '_> {
    fn missing(&mut self, item: Item) -> Result<()> {
        if let Some(Stay { path, border }) = self.border.as_ref().filter(|stay| item.entry.path.is_within(&stay.path)) {
            self.plan.conflicts.push(conflict(path.clone(), *border));
            return Ok(());
        }
        self.create(item, Over::Nothing)
    }

    fn extra(&mut self, path: EntryPath, found: &ScanEntry) -> Result<()> {
        let is_folder = found.stat.kind == FileKind::Directory;
        let (border, chosen) = match found.border {
            // A log goes with its database, whatever rules and patterns say.
            border if found.stat.kind == FileKind::File && border != Some(Border::MountPoint) => {
                let chosen = self.desired.chooses(&path, false);
                let may_stay = border.is_some() || !chosen;
                match may_stay && self.how.stays.goes_with_its_database(self.desired, &self.reader, &path)? {
                    true => (None, true),
                    false => (border, chosen),
                }
            }
            border => (border, self.desired.chooses(&path, is_folder)),
        };
        let gone = self.gone.as_ref().filter(|gone| path.is_within(gone)).cloned();
        match (border, gone) {
            (Some(_), Some(folder)) => self.plan.conflicts.push(Conflict::Inside { folder, stays: path }),
            (Some(border), None) => self.stay(path, border),
            (None, Some(_)) => self.removed_below([path]),
            (None, None) if self.how.keep_others => {}
            (None, None) => {
                let holds_what_stays = !chosen;
                if holds_what_stays {
                    self.extras.iter_mut().for_each(|extra| extra.holds_what_stays = true);
                }
                let first = self.window.len();
                if is_folder {
                    self.extras.push(Extra { path, first, holds_what_stays });
                } else if !holds_what_stays {
                    self.window.push(removal(path));
                }
            }
        }
        Ok(())
    }

    fn removed_below(&mut self, paths: impl IntoIterator<Item = EntryPath>) {
        if self.how.named {
            self.plan.removed_below.extend(paths);
        }
    }

    fn stay(&mut self, path: EntryPath, border: Border) {
        self.extras.iter_mut().for_each(|extra| extra.holds_what_stays = true);
        self.border = Some(Stay { path: path.clone(), border });
        self.plan.stays.push(Stay { path, border });
    }

    /// Settles the folders that the walk leaves by going on to a path.
    fn leave_extras(&mut self, next: &EntryPath) {
        while self.extras.last().is_some_and(|extra| !next.is_within(&extra.path)) {
            self.leave_extra();
        }
    }

    fn extras_end(&mut self) {
        while !self.extras.is_empty() {
            self.leave_extra();
        }
    }

    /// A folder in which nothing stays needs one step, whatever is in it.
    fn leave_extra(&mut self) {
        let Some(Extra { path, first, holds_what_stays: false }) = self.extras.pop() else { return };
        let below = self.window.split_off(first).into_iter().filter_map(|pending| match pending {
            Pending::Change(change) => Some(change.path),
            Pending::Asked { .. } => None,
        });
        self.removed_below(below);
        self.window.push(removal(path));
    }

    /// What stays, where the snapshot has something as well: only an empty folder under a mount is no matter.
    fn both_at_border(&mut self, item: &Item, border: Border) {
        let path = item.entry.path.clone();
        if border == Border::MountPoint && item.entry.node == Node::Directory {
            count(&mut self.plan, &item.entry);
            push_folder(&mut self.plan, item, false);
            return self.stay(path, border);
        }
        self.border = Some(Stay { path: path.clone(), border });
        self.plan.conflicts.push(conflict(path, border));
    }

    fn create(&mut self, item: Item, over: Over) -> Result<()> {
        count(&mut self.plan, &item.entry);
        push_folder(&mut self.plan, &item, true);
        let bytes = stored_bytes(self.desired, &item.entry)?;
        let path = item.entry.path.clone();
        let entry = Some(Box::new(item.entry));
        self.window.push(Pending::Change(Change { path, action: Action::Create { over }, bytes, entry }));
        Ok(())
    }

    fn both(&mut self, item: Item, found: &ScanEntry) -> Result<()> {
        if let Some(border) = found.border {
            self.both_at_border(&item, border);
            return Ok(());
        }
        let stat = &found.stat;
        let kind_is_equal = kind_of(&item.entry.node).is_none_or(|kind| kind == stat.kind)
            && match &item.entry.node {
                Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                    (*major, *minor) == stat.special
                }
                _ => true,
            };
        if !kind_is_equal {
            return self.replace(item, stat);
        }
        if let Node::HardLink(first) = &item.entry.node {
            if self.shared.get(&(stat.device, stat.inode)) != Some(first) {
                return self.replace(item, stat);
            }
            count(&mut self.plan, &item.entry);
            self.joined.push((first.clone(), Box::new(item.entry)));
            return Ok(());
        }
        if stat.kind != FileKind::Directory && stat.links > 1 {
            let path = item.entry.path.clone();
            let holder = self.shared.entry((stat.device, stat.inode)).or_insert_with(|| path.clone());
            if *holder != path {
                // One inode stands where two files shall be.
                return self.replace(item, stat);
            }
            self.names.insert(path, stat.links);
        }
        if item.leading {
            count(&mut self.plan, &item.entry);
            push_folder(&mut self.plan, &Item { synthetic: true, ..item }, false);
            return Ok(());
        }
        let differ = !item.synthetic && metadata_differ(&item.entry.metadata, stat);
        let known = self.vouched(&item.entry.path, stat)?;
        match known {
            Some(known) => self.by_ids(item, stat, differ, &known),
            None => self.ask(item, stat, differ),
        }
    }

    fn vouched(&mut self, path: &EntryPath, stat: &FileStat) -> Result<Option<Entry>> {
        for witness in self.witnesses.iter_mut() {
            if let Some(entry) = witness.vouch(path, stat)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn replace(&mut self, item: Item, stat: &FileStat) -> Result<()> {
        let over = if stat.kind == FileKind::Directory { Over::Folder } else { Over::Other };
        if self.how.keep_others && (over == Over::Folder || item.entry.node == Node::Directory) {
            self.plan.conflicts.push(Conflict::Kind(item.entry.path.clone()));
        }
        if over == Over::Folder {
            self.gone = Some(item.entry.path.clone());
        }
        self.create(item, over)
    }

    /// The standing file is an entry that a snapshot has: ids say what differs.
    fn by_ids(&mut self, item: Item, stat: &FileStat, mut differ: bool, known: &Entry) -> Result<()> {
        differ |= !item.synthetic && known.metadata.xattrs != item.entry.metadata.xattrs;
        let mut finding = Finding { attributes_differ: differ, ..Finding::default() };
        match (&item.entry.node, &known.node) {
            (Node::File(new), Node::File(old)) if new != old => {
                for placed in new.changed_pieces(old, self.desired.session()) {
                    finding.differs(&placed?);
                }
                finding.length_differs = new.bytes != old.bytes;
            }
            (Node::Symlink(new), Node::Symlink(old)) if new != old => finding.length_differs = true,
            _ => {}
        }
        self.decide(item, stat, finding)
    }

    /// Nothing vouches: the workers shall read.
    fn ask(&mut self, item: Item, stat: &FileStat, differ: bool) -> Result<()> {
        if item.synthetic {
            count(&mut self.plan, &item.entry);
            push_folder(&mut self.plan, &item, false);
            return Ok(());
        }
        self.plan.entries_read += 1;
        if let Node::File(content) = &item.entry.node
            && content.bytes != stat.bytes
            && content.bytes.max(stat.bytes) < PATCH_BYTES_MIN
        {
            return self.replace(item, stat);
        }
        if item.entry.node == Node::Directory {
            // Few, and their place in the list of folders is fixed now.
            let touched = differ || attributes_differ(&self.reader, &item.entry)?;
            count(&mut self.plan, &item.entry);
            push_folder(&mut self.plan, &item, touched);
            return Ok(());
        }
        count(&mut self.plan, &item.entry);
        let question = self.questions.len();
        let entry = Box::new(item.entry);
        let patchable = is_patchable(&entry, stat);
        self.questions.push(Question { entry: entry.clone(), found_bytes: stat.bytes });
        self.window.push(Pending::Asked { question, entry, patchable, metadata_differ: differ });
        Ok(())
    }

    fn decide(&mut self, item: Item, stat: &FileStat, finding: Finding) -> Result<()> {
        count(&mut self.plan, &item.entry);
        push_folder(&mut self.plan, &item, finding.attributes_differ);
        if item.entry.node == Node::Directory {
            return Ok(());
        }
        let patchable = is_patchable(&item.entry, stat);
        let change = self.change(Box::new(item.entry), finding, patchable)?;
        self.window.extend(change.map(Pending::Change));
        Ok(())
    }

    /// What a finding means for one path; counts what stands there already.
    fn change(&mut self, entry: Box<Entry>, finding: Finding, patchable: bool) -> Result<Option<Change>> {
        let total = match &entry.node {
            Node::File(content) => content.bytes,
            _ => 0,
        };
        let path = entry.path.clone();
        if finding.is_equal_content() {
            self.plan.bytes_kept += total;
            let change = Change { path, action: Action::Metadata, bytes: 0, entry: Some(entry) };
            return Ok(finding.attributes_differ.then_some(change));
        }
        if patchable && finding.bytes.saturating_mul(2) <= total {
            self.plan.bytes_kept = self.plan.bytes_kept.saturating_add(total - finding.bytes);
            let Finding { ranges, holes, bytes, .. } = finding;
            let action = Action::Patch { ranges, holes };
            return Ok(Some(Change { path, action, bytes, entry: Some(entry) }));
        }
        let bytes = stored_bytes(self.desired, &entry)?;
        let action = Action::Create { over: Over::Other };
        Ok(Some(Change { path, action, bytes, entry: Some(entry) }))
    }

    /// Has the collected questions answered and moves the window to the plan, in path order.
    fn settle(&mut self) -> Result<()> {
        let questions = std::mem::take(&mut self.questions);
        let mut findings = answer(self.run, self.desired.session(), &self.reader, &questions)?;
        drop(questions);
        for pending in std::mem::take(&mut self.window) {
            let change = match pending {
                Pending::Change(change) => Some(change),
                Pending::Asked { question, entry, patchable, metadata_differ } => {
                    let mut finding = std::mem::take(&mut findings[question]);
                    finding.attributes_differ |= metadata_differ;
                    self.change(entry, finding, patchable)?
                }
            };
            if let Some(change) = change {
                self.plan.push(change);
            }
        }
        Ok(())
    }

    /// Settles what only the whole picture tells: names of files that are made anew, and times of folders
    /// whose names change.
    fn finish(mut self) -> Plan {
        let mut joined_names: HashMap<&EntryPath, u32> = HashMap::new();
        for (first, _) in &self.joined {
            *joined_names.entry(first).or_default() += 1;
        }
        for change in &mut self.plan.changes {
            // Another name outside the target would get the new metadata too: the file is made anew instead.
            if let (Action::Metadata, Some(&links)) = (&change.action, self.names.get(&change.path))
                && links != 1 + joined_names.get(&change.path).copied().unwrap_or(0)
                && let Some(Entry { node, .. }) = change.entry.as_deref()
            {
                let bytes = if let Node::File(content) = node { content.bytes } else { 0 };
                change.action = Action::Create { over: Over::Other };
                change.bytes = bytes;
                self.plan.bytes_kept -= bytes;
                self.plan.bytes_to_write = self.plan.bytes_to_write.saturating_add(bytes);
            }
        }
        let mut plan = self.plan;
        let settled = plan.changes.len();
        for (first, entry) in self.joined {
            let at = plan.changes[..settled].binary_search_by(|change| change.path.cmp(&first));
            if at.is_ok_and(|at| matches!(plan.changes[at].action, Action::Create { .. })) {
                let action = Action::Create { over: Over::Other };
                plan.push(Change { path: entry.path.clone(), action, bytes: 0, entry: Some(entry) });
            }
        }
        plan.changes.sort_by(|a, b| a.path.cmp(&b.path));
        for change in &plan.changes {
            let moves_names = matches!(change.action, Action::Remove | Action::Create { .. });
            if let (true, Some(parent)) = (moves_names, change.path.parent())
                && let Ok(at) = plan.folders.binary_search_by(|folder| folder.path.cmp(&parent))
            {
                plan.folders[at].touched = !plan.folders[at].synthetic;
            }
        }
        plan
    }
}

/// The file of which a standing file is the log, by its name.
fn of_log(found: &ScanEntry) -> Option<EntryPath> {
    if found.stat.kind != FileKind::File {
        return None;
    }
    let of = LOGS.iter().find_map(|suffix| found.path.strip_suffix(suffix.as_bytes()))?;
    EntryPath::from_slashes(of)
}

fn removal(path: EntryPath) -> Pending {
    Pending::Change(Change { path, action: Action::Remove, bytes: 0, entry: None })
}

fn conflict(path: EntryPath, border: Border) -> Conflict {
    match border {
        Border::Kept => Conflict::LeftOut(path),
        Border::MountPoint => Conflict::Mounted(path),
    }
}

fn is_patchable(entry: &Entry, stat: &FileStat) -> bool {
    match &entry.node {
        // A second name may be outside the target: what is written through it would follow.
        // What may not be written (a program that runs, a file that is read-only) can still be replaced.
        Node::File(content) => {
            stat.links == 1 && stat.mode & 0o311 == 0o200 && content.bytes.min(stat.bytes) >= PATCH_BYTES_MIN
        }
        _ => false,
    }
}

fn count(plan: &mut Plan, entry: &Entry) {
    plan.entries_total += 1;
    plan.files_total += u64::from(entry.node != Node::Directory);
    if let Node::File(content) = &entry.node {
        plan.bytes_total = plan.bytes_total.saturating_add(content.bytes);
    }
}

fn push_folder(plan: &mut Plan, item: &Item, touched: bool) {
    if item.entry.node == Node::Directory {
        plan.folders.push(Folder {
            path: item.entry.path.clone(),
            metadata: item.entry.metadata.clone(),
            touched: touched && !item.synthetic,
            differs: touched && !item.synthetic,
            synthetic: item.synthetic,
        });
    }
}

/// Bytes of chunks of a file: holes are not stored.
fn stored_bytes(desired: &Desired<'_>, entry: &Entry) -> Result<u64> {
    use copal_manifest::content::{Piece, Pieces};
    let Node::File(content) = &entry.node else { return Ok(0) };
    let mut bytes = 0;
    match &content.pieces {
        Pieces::Inline(pieces) => {
            bytes = pieces.iter().filter(|piece| matches!(piece, Piece::Chunk { .. })).map(Piece::bytes).sum();
        }
        Pieces::Tree(_) => {
            for placed in content.pieces(desired.session(), 0, content.bytes) {
                if let Piece::Chunk { bytes: length, .. } = placed?.piece {
                    bytes += u64::from(length);
                }
            }
        }
    }
    Ok(bytes)
}

fn kind_of(node: &Node) -> Option<FileKind> {
    Some(match node {
        Node::Directory => FileKind::Directory,
        Node::File(_) | Node::HardLink(_) => return hard_link_kind(node),
        Node::Symlink(_) => FileKind::Symlink,
        Node::Fifo => FileKind::Fifo,
        Node::Socket => FileKind::Socket,
        Node::CharDevice { .. } => FileKind::CharDevice,
        Node::BlockDevice { .. } => FileKind::BlockDevice,
    })
}

/// Another name may be one of anything but a folder: the inode decides, not the kind.
fn hard_link_kind(node: &Node) -> Option<FileKind> {
    matches!(node, Node::File(_)).then_some(FileKind::File)
}

fn metadata_differ(wanted: &Metadata, stat: &FileStat) -> bool {
    let is_link = stat.kind == FileKind::Symlink;
    (wanted.uid, wanted.gid) != (stat.uid, stat.gid)
        || !stands_for(wanted.modified, stat)
        || (!is_link && wanted.mode != stat.mode)
}
