//! Builds the levels above the leaves, from left to right, holding one unfinished node of each level.

use copal_store::{Error, Result};

use crate::node::inner::{Child, is_full};
use crate::node::{MEMBERS_MAX, MEMBERS_MIN, check_size};
use crate::tree::{HEIGHT_MAX, NodeSink, TreeRoot};

/// The unfinished nodes; `levels[0]` are the children of the nodes at height 1.
pub(crate) struct Levels<C> {
    boundary_key: [u8; 32],
    levels: Vec<Level<C>>,
}

struct Level<C> {
    children: Vec<C>,
    encoded_bytes_max: usize,
}

impl<C: Child> Levels<C> {
    pub(crate) fn new(boundary_key: [u8; 32]) -> Self {
        Self { boundary_key, levels: Vec::new() }
    }

    pub(crate) fn boundary_key(&self) -> &[u8; 32] {
        &self.boundary_key
    }

    /// Whether no node was finished yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Takes a finished leaf.
    pub(crate) fn push(&mut self, leaf: C, sink: &mut dyn NodeSink) -> Result<()> {
        let mut child = Some(leaf);
        let mut at = 0;
        while let Some(next) = child.take() {
            if self.levels.len() == at {
                self.levels.push(Level { children: Vec::new(), encoded_bytes_max: 0 });
            }
            let level = &mut self.levels[at];
            let boundary = next.ends_node(height_above(at)?, &self.boundary_key);
            level.encoded_bytes_max += next.encoded_bytes_max();
            level.children.push(next);
            let members = level.children.len();
            if members >= MEMBERS_MAX || is_full(level.encoded_bytes_max) || (boundary && members >= MEMBERS_MIN) {
                child = Some(level.end(height_above(at)?, sink)?);
            }
            at += 1;
        }
        Ok(())
    }

    /// Ends every level; at least one leaf must have been pushed. The lowest level with a single node is the
    /// top.
    pub(crate) fn finish(mut self, sink: &mut dyn NodeSink) -> Result<TreeRoot> {
        let mut at = 0;
        loop {
            let is_top = at + 1 == self.levels.len();
            let level = &mut self.levels[at];
            if is_top && let [only] = level.children.as_slice() {
                return Ok(TreeRoot { id: only.id(), height: at as u8 });
            }
            if !level.children.is_empty() {
                let node = level.end(height_above(at)?, sink)?;
                if is_top {
                    return Ok(TreeRoot { id: node.id(), height: height_above(at)? });
                }
                self.levels[at + 1].encoded_bytes_max += node.encoded_bytes_max();
                self.levels[at + 1].children.push(node);
            }
            at += 1;
        }
    }
}

impl<C: Child> Level<C> {
    fn end(&mut self, height: u8, sink: &mut dyn NodeSink) -> Result<C> {
        let children = std::mem::take(&mut self.children);
        self.encoded_bytes_max = 0;
        let bytes = C::encode(&children, height);
        check_size(&bytes)?;
        let id = C::store(&children, &bytes, height, sink)?;
        Ok(C::above(&children, id))
    }
}

/// The height of the node whose children stand at `levels[at]`.
fn height_above(at: usize) -> Result<u8> {
    match u8::try_from(at + 1) {
        Ok(height) if height <= HEIGHT_MAX => Ok(height),
        _ => Err(Error::Limit { what: "the height of a tree".into(), limit: HEIGHT_MAX.into() }),
    }
}
