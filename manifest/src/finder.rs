//! Finds the node of an older tree that stands where a new one will: it is likely to be much like it.

use copal_store::session::ChunkSource;
use copal_store::{ChunkId, Result};

use crate::entry::EntryPath;
use crate::node::damaged;
use crate::node::inner::{EntryChild, decode_entry_children};
use crate::tree::TreeRoot;

/// Looks for nodes by height and path; holds the way to the one that was found last, so that ascending paths
/// cost few reads.
pub struct NodeFinder<'a> {
    source: &'a dyn ChunkSource,
    root: TreeRoot,
    /// Children of the nodes on the way, from the top.
    way: Vec<(ChunkId, Vec<EntryChild>)>,
}

impl<'a> NodeFinder<'a> {
    /// A finder; nothing is read yet.
    #[must_use]
    pub fn new(source: &'a dyn ChunkSource, root: TreeRoot) -> Self {
        Self { source, root, way: Vec::new() }
    }

    /// The node at `height` that has the first entry at or after `path`, or the last node; `None` when the
    /// tree is lower.
    pub fn find(&mut self, height: u8, path: &EntryPath) -> Result<Option<ChunkId>> {
        if height > self.root.height {
            return Ok(None);
        }
        let mut id = self.root.id;
        for (step, at) in (height + 1..=self.root.height).rev().enumerate() {
            if self.way.get(step).is_none_or(|(known, _)| *known != id) {
                self.way.truncate(step);
                let bytes = self.source.read_chunk(&id)?;
                let children =
                    decode_entry_children(&bytes, at).map_err(|malformed| damaged(&id, &bytes, malformed))?;
                self.way.push((id, children));
            }
            let children = &self.way[step].1;
            let place = children.partition_point(|child| child.last < *path);
            match children.get(place).or(children.last()) {
                Some(child) => id = child.id,
                None => return Ok(None),
            }
        }
        Ok(Some(id))
    }
}
