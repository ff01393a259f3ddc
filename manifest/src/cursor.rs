//! A place in a tree of entries: what stands there is a node still unread, or an entry.

use copal_store::session::ChunkSource;
use copal_store::{Error, Result};

use crate::entry::{Entry, EntryPath};
use crate::node::inner::{EntryChild, decode_entry_children};
use crate::node::{damaged, entries};
use crate::tree::TreeRoot;

/// What stands at the place.
pub(crate) enum Front<'c> {
    Node { child: &'c EntryChild, height: u8 },
    Entry(&'c Entry),
    End,
}

/// Walks a tree from left to right; holds one decoded node of each level.
pub(crate) struct Cursor<'a> {
    source: &'a dyn ChunkSource,
    /// Unread nodes of each level, the next of them last; the lowest level on top.
    levels: Vec<Frame>,
    /// The entries of the leaf, the next of them last.
    leaf: Vec<Entry>,
    /// The top has no fence.
    at_top: bool,
    /// The last entry of the last leaf read: the next one must follow it.
    last: Option<EntryPath>,
}

struct Frame {
    height: u8,
    children: Vec<EntryChild>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(source: &'a dyn ChunkSource, root: TreeRoot) -> Self {
        let top = EntryChild { last: EntryPath::root(), entries: 0, id: root.id };
        let levels = vec![Frame { height: root.height, children: vec![top] }];
        Self { source, levels, leaf: Vec::new(), at_top: true, last: None }
    }

    pub(crate) fn front(&mut self) -> Front<'_> {
        if let Some(entry) = self.leaf.last() {
            return Front::Entry(entry);
        }
        while self.levels.last().is_some_and(|frame| frame.children.is_empty()) {
            self.levels.pop();
        }
        match self.levels.last() {
            Some(Frame { height, children }) => {
                children.last().map_or(Front::End, |child| Front::Node { child, height: *height })
            }
            None => Front::End,
        }
    }

    /// Takes the entry at the front.
    pub(crate) fn take_entry(&mut self) -> Option<Entry> {
        self.leaf.pop()
    }

    /// Passes the node at the front unread.
    pub(crate) fn skip_node(&mut self) {
        if let Some(child) = self.levels.last_mut().and_then(|frame| frame.children.pop()) {
            self.last = Some(child.last);
            self.at_top = false;
        }
    }

    /// Reads the node at the front: its children, or its entries, stand there now.
    pub(crate) fn open_node(&mut self) -> Result<()> {
        let Some(frame) = self.levels.last_mut() else { return Ok(()) };
        let height = frame.height;
        let Some(child) = frame.children.pop() else { return Ok(()) };
        let bytes = self.source.read_chunk(&child.id)?;
        let malformed = |malformed| damaged(&child.id, &bytes, malformed);
        let (first, last) = if height == 0 {
            self.leaf = entries::decode(&bytes).map_err(malformed)?;
            self.leaf.reverse();
            (self.leaf.last().map(|entry| entry.path.clone()), self.leaf.first().map(|entry| entry.path.clone()))
        } else {
            let mut children = decode_entry_children(&bytes, height).map_err(malformed)?;
            children.reverse();
            let last = children.first().map(|child| child.last.clone());
            self.levels.push(Frame { height: height - 1, children });
            (None, last)
        };
        let fenced = self.at_top || last.as_ref() == Some(&child.last);
        let follows = first.is_none_or(|first| self.last.as_ref().is_none_or(|last| *last < first));
        if !fenced || !follows {
            return Err(Error::damaged(
                format!("manifest node {}", child.id),
                "its paths are not those its parent names",
            ));
        }
        self.at_top = false;
        if height == 0 && last.is_some() {
            self.last = last;
        }
        Ok(())
    }

    /// Moves forward to the first entry at or after `path`, reading only what leads there.
    pub(crate) fn seek(&mut self, path: &EntryPath) -> Result<()> {
        loop {
            let at_top = self.at_top;
            match self.front() {
                Front::Entry(entry) if entry.path >= *path => return Ok(()),
                Front::Entry(_) => {
                    let keep = self.leaf.partition_point(|entry| entry.path >= *path);
                    self.leaf.truncate(keep);
                }
                Front::Node { child, .. } if !at_top && child.last < *path => self.skip_node(),
                Front::Node { .. } => self.open_node()?,
                Front::End => return Ok(()),
            }
        }
    }
}
