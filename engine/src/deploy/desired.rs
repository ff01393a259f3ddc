//! What a target shall be: the entries of a snapshot, or of a part of it, at their places below TARGET, in
//! path order.
//!
//! Streams: at most one node of each tree level is in memory. It never looks at a target.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_manifest::tree::{EntryIter, TreeReader};
use copal_store::session::Session;

use super::Selection;
use super::select::Chosen;
use super::stays::Stays;
use crate::error::{Error, Result};
use crate::inspect::place::resolve;

/// A source, or a part of one, and where it goes.
#[derive(Debug)]
pub(super) struct Part<'s> {
    pub(super) source: &'s SourceRecord,
    /// Its place in the source.
    pub(super) base: EntryPath,
    /// Its place below TARGET.
    pub(super) at: EntryPath,
}

/// One entry, its paths rewritten to stand below TARGET.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Path, attributes and kind; the path is TARGET's, the empty one TARGET itself.
    pub(super) entry: Entry,
    /// The folder that holds labelled sources: no snapshot says what its owner or times are.
    pub(super) synthetic: bool,
    /// A folder that only leads to what was chosen: one that stands there is left as it is.
    pub(super) leading: bool,
}

/// What a target shall be.
pub(super) struct Desired<'s> {
    session: &'s Session,
    parts: Vec<Part<'s>>,
    labelled: bool,
    /// Hard links whose first name is outside the part: the first name inside becomes the file.
    promoted: Mutex<HashMap<(usize, EntryPath), EntryPath>>,
    chosen: Chosen,
    /// What the snapshot's own rules leave out.
    left_out: Stays,
}

impl<'s> Desired<'s> {
    /// A whole snapshot, or what stands at a display path.
    pub(super) fn new(session: &'s Session, snapshot: &'s Snapshot, display_path: Option<&[u8]>) -> Result<Self> {
        let places = resolve(snapshot, display_path.unwrap_or_default())?;
        let whole = display_path.is_none_or(|path| path.iter().all(|&b| b == b'/'));
        let labelled = whole && snapshot.sources.iter().any(|source| !source.label.is_empty());
        let mut parts = Vec::new();
        for place in places {
            let label = if labelled { place.source.label.as_bytes() } else { b"" };
            let at = EntryPath::root();
            let at = if label.is_empty() { Some(at) } else { at.child(label) };
            let at = at.ok_or_else(|| {
                Error::Usage(format!("the label {:?} cannot be the name of a file", place.source.label))
            })?;
            parts.push(Part { source: place.source, base: place.path, at });
        }
        let left_out = Stays::of(&parts, snapshot)?;
        let (promoted, chosen) = (Mutex::default(), Chosen::default());
        let desired = Self { session, parts, labelled, promoted, chosen, left_out };
        if let Some(shown) = display_path.filter(|_| !whole)
            && desired.get(&EntryPath::root())?.is_none()
        {
            let path = String::from_utf8_lossy(shown).into_owned();
            return Err(Error::NoSuchPath { snapshot: snapshot.name.clone(), path });
        }
        Ok(desired)
    }

    /// Only what patterns choose.
    pub(super) fn choosing(self, selection: &Selection) -> Result<Self> {
        Ok(Self { chosen: Chosen::new(selection)?, ..self })
    }

    /// Whether everything is chosen.
    pub(super) fn is_whole(&self) -> bool {
        self.chosen.is_everything()
    }

    /// Patterns that choose nothing are a mistake, and among one file there is nothing to choose.
    pub(super) fn refuse_empty(&self, single: bool) -> Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        if single {
            return Err(Error::Usage("patterns choose among what is in a folder, and this is one file".into()));
        }
        for item in self.items() {
            let item = item?;
            if !item.synthetic && !item.entry.path.is_root() {
                return Ok(());
            }
        }
        Err(Error::Usage("nothing in the snapshot is chosen by these patterns".into()))
    }

    /// Whether the patterns choose a path of the target, which the snapshot may lack.
    pub(super) fn chooses(&self, path: &EntryPath, is_folder: bool) -> bool {
        let part = self.parts.iter().find(|part| path.is_within(&part.at));
        let inside = part.and_then(|part| rebase(path, &part.at, &part.base));
        inside.map_or(self.is_whole(), |inside| self.chosen.takes(&inside, is_folder))
    }

    pub(super) fn session(&self) -> &'s Session {
        self.session
    }

    pub(super) fn parts(&self) -> &[Part<'s>] {
        &self.parts
    }

    /// Whether TARGET becomes something else than a folder.
    pub(super) fn is_single(&self) -> Result<bool> {
        Ok(self.get(&EntryPath::root())?.is_some_and(|item| item.entry.node != Node::Directory))
    }

    /// The name that TARGET has in the snapshot, or had where it was taken from.
    pub(super) fn last_name(&self) -> Option<Vec<u8>> {
        let part = self.parts.first()?;
        let last = |path: &[u8]| path.rsplit(|&byte| byte == b'/').next().map(<[u8]>::to_vec);
        let own = last(&part.base.to_slashes()).filter(|name| !name.is_empty());
        let source = || last(&part.source.path).filter(|name| !name.is_empty());
        let label = || Some(part.source.label.clone().into_bytes()).filter(|label| !label.is_empty());
        own.or_else(source).or_else(label)
    }

    /// All entries in path order, TARGET itself first.
    pub(super) fn items(&self) -> Items<'_, 's> {
        Items {
            desired: self,
            part: 0,
            inner: None,
            root_due: self.labelled,
            leading: VecDeque::new(),
            due: None,
            folders: Vec::new(),
        }
    }

    /// One entry, in O(log n) node reads.
    pub(super) fn get(&self, path: &EntryPath) -> Result<Option<Item>> {
        if self.labelled && path.is_root() {
            return Ok(Some(synthetic_root()));
        }
        let Some((number, part)) = self.parts.iter().enumerate().find(|(_, part)| path.is_within(&part.at)) else {
            return Ok(None);
        };
        let Some(inside) = rebase(path, &part.at, &part.base) else { return Ok(None) };
        match TreeReader::new(self.session, part.source.tree).get(&inside)? {
            Some(entry) => {
                let item = self.relocate(entry, number)?;
                Ok((!self.is_lone_log(&item.entry)?).then_some(item))
            }
            None => Ok(None),
        }
    }

    /// Whether an entry is the log of a database that is not in the snapshot, because its rules leave that
    /// out: it is part of no target.
    fn is_lone_log(&self, entry: &Entry) -> Result<bool> {
        if entry.path.is_root() || entry.node == Node::Directory {
            return Ok(false);
        }
        let database = self.left_out.keeps_database_of(&entry.path);
        database.map_or(Ok(false), |database| Ok(self.get(&database)?.is_none()))
    }

    fn relocate(&self, mut entry: Entry, number: usize) -> Result<Item> {
        let part = &self.parts[number];
        let too_long = || Error::Usage("a path of the snapshot becomes too long below the target".into());
        let path = rebase(&entry.path, &part.base, &part.at).ok_or_else(too_long)?;
        if let Node::HardLink(first) = &entry.node {
            entry.node = if first.is_within(&part.base) && self.chosen.takes(first, false) {
                Node::HardLink(rebase(first, &part.base, &part.at).ok_or_else(too_long)?)
            } else {
                self.promote(first, &path, number)?
            };
        }
        entry.path = path;
        Ok(Item { entry, synthetic: false, leading: false })
    }

    fn promote(&self, first: &EntryPath, path: &EntryPath, number: usize) -> Result<Node> {
        let mut promoted = self.promoted.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = promoted.entry((number, first.clone())).or_insert_with(|| path.clone());
        if holder != path {
            return Ok(Node::HardLink(holder.clone()));
        }
        let entry = TreeReader::new(self.session, self.parts[number].source.tree).get(first)?;
        let entry = entry.ok_or_else(|| {
            copal_store::Error::damaged(format!("entry {first}"), "a hard link names it, and it is not there")
        })?;
        Ok(entry.node)
    }
}

fn synthetic_root() -> Item {
    synthetic_folder(EntryPath::root())
}

/// A folder of which no snapshot says what its owner or times are.
fn synthetic_folder(path: EntryPath) -> Item {
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    Item { entry: Entry { path, metadata, node: Node::Directory }, synthetic: true, leading: false }
}

/// `path` below `from`, moved below `to`.
pub(super) fn rebase(path: &EntryPath, from: &EntryPath, to: &EntryPath) -> Option<EntryPath> {
    let below = path.key().strip_prefix(from.key())?;
    let below = if from.is_root() { below } else { below.strip_prefix(&[0]).unwrap_or(below) };
    let mut key = to.key().to_vec();
    if !key.is_empty() && !below.is_empty() {
        key.push(0);
    }
    key.extend_from_slice(below);
    EntryPath::from_key(key)
}

/// See [`Desired::items`].
pub(super) struct Items<'d, 's> {
    desired: &'d Desired<'s>,
    part: usize,
    inner: Option<EntryIter<'d>>,
    root_due: bool,
    /// Folders that lead to what comes next, if that is chosen: from the outermost.
    leading: VecDeque<Item>,
    /// A chosen entry that waits for the folders that lead to it.
    due: Option<Item>,
    /// The folders that hold the entry delivered last, from the outermost.
    folders: Vec<EntryPath>,
}

impl Items<'_, '_> {
    /// The next entry of the snapshot, chosen or not, and its path in its source.
    fn advance(&mut self) -> Option<Result<(Item, EntryPath)>> {
        loop {
            let part = self.desired.parts.get(self.part)?;
            let session: &dyn copal_store::session::ChunkSource = self.desired.session;
            let inner =
                self.inner.get_or_insert_with(|| TreeReader::new(session, part.source.tree).entries_from(&part.base));
            match inner.next() {
                Some(Ok(entry)) if entry.path.is_within(&part.base) => {
                    let path = entry.path.clone();
                    let item = match self.desired.relocate(entry, self.part) {
                        Ok(item) => item,
                        Err(error) => return Some(Err(error)),
                    };
                    match self.desired.is_lone_log(&item.entry) {
                        Ok(true) => {}
                        Ok(false) => return Some(Ok((item, path))),
                        Err(error) => return Some(Err(error)),
                    }
                }
                Some(Err(error)) => return Some(Err(error.into())),
                Some(Ok(_)) | None => {
                    self.inner = None;
                    self.part += 1;
                }
            }
        }
    }

    /// Completes the folders that come before a path. Snapshots of before may lack one whose contents they
    /// have: it is made.
    fn lead_to(&mut self, path: &EntryPath, is_folder: bool) {
        while self.folders.last().is_some_and(|folder| !path.is_within(folder)) {
            self.folders.pop();
        }
        let mut above = path.parent();
        let mut lacking = Vec::new();
        while let Some(folder) = above.filter(|folder| self.folders.last() != Some(folder)) {
            above = folder.parent();
            lacking.push(folder);
        }
        let mut known = std::mem::take(&mut self.leading);
        for folder in lacking.into_iter().rev() {
            let is_next = known.front().is_some_and(|next| next.entry.path == folder);
            let item = if is_next { known.pop_front() } else { None };
            self.leading.push_back(item.unwrap_or_else(|| synthetic_folder(folder.clone())));
            self.folders.push(folder);
        }
        if is_folder {
            self.folders.push(path.clone());
        }
    }

    /// Folders that do not lead to a path, and were not asked for, are none of the target.
    fn drop_leading(&mut self, path: &EntryPath) {
        while self.leading.back().is_some_and(|folder| !path.is_within(&folder.entry.path)) {
            self.leading.pop_back();
        }
    }
}

impl Iterator for Items<'_, '_> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.root_due) {
            self.folders.push(EntryPath::root());
            return Some(Ok(synthetic_root()));
        }
        while self.due.is_none() {
            let (item, path) = match self.advance()? {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            self.drop_leading(&item.entry.path);
            let is_folder = item.entry.node == Node::Directory;
            if self.desired.is_whole() || self.desired.chosen.takes(&path, is_folder) {
                self.lead_to(&item.entry.path, is_folder);
                self.due = Some(item);
            } else if is_folder && self.desired.chosen.may_lead(&path) {
                self.leading.push_back(Item { leading: true, ..item });
            }
        }
        self.leading.pop_front().or_else(|| self.due.take()).map(Ok)
    }
}
