//! Stores the nodes of a new tree, each as a delta against the parent snapshot's node in its place where that
//! pays.
//!
//! A snapshot in which one file in a hundred changed touches nearly every leaf: stored whole they would
//! outweigh the change itself.

use copal_manifest::entry::EntryPath;
use copal_manifest::finder::NodeFinder;
use copal_manifest::tree::NodeSink;
use copal_store::session::{ChunkSource, ChunkWriter, Session};
use copal_store::{ChunkId, Result};

/// Takes the nodes of one tree.
pub(super) struct TreeSink<'s> {
    session: &'s Session,
    writer: ChunkWriter<'s>,
    finder: Option<NodeFinder<'s>>,
}

impl<'s> TreeSink<'s> {
    /// With the tree of the parent, if there is one.
    pub(super) fn new(session: &'s Session, finder: Option<NodeFinder<'s>>) -> Result<Self> {
        Ok(Self { session, writer: session.writer()?, finder })
    }
}

impl NodeSink for TreeSink<'_> {
    fn store_node(&mut self, bytes: &[u8]) -> Result<ChunkId> {
        self.writer.store_node(bytes, || None)
    }

    /// A parent that cannot be read costs space, not the snapshot.
    fn store_entries(&mut self, bytes: &[u8], height: u8, last: &EntryPath) -> Result<ChunkId> {
        let Self { session, writer, finder } = self;
        writer.store_node(bytes, || {
            let like = finder.as_mut()?.find(height, last).ok()??;
            let base = session.delta_base(&like).ok()??;
            Some((base, session.read_chunk(&base).ok()?))
        })
    }
}
