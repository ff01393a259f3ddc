//! Walks what a snapshot reaches: the one place that turns roots into marks.

use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::{NodeShape, Reference, TreeRoot, references};
use copal_store::ChunkId;
use copal_store::collect::{Marker, Reachability};
use copal_store::repository::RootName;

/// A node still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingNode {
    pub(crate) id: ChunkId,
    pub(crate) shape: NodeShape,
}

impl PendingNode {
    /// The top of a tree of entries.
    pub(crate) fn top(tree: TreeRoot) -> Self {
        Self { id: tree.id, shape: NodeShape::Entries(tree.height) }
    }
}

/// Marks for collection what roots reach.
pub(crate) struct SnapshotReachability;

impl Reachability for SnapshotReachability {
    fn mark_root(&self, root: &RootName, payload: &[u8], marker: &dyn Marker) -> copal_store::Result<()> {
        let snapshot = Snapshot::decode(&format!("snapshots/{}", root.object_name()), payload)?;
        let mut pending: Vec<PendingNode> = Vec::new();
        for source in &snapshot.sources {
            let top = PendingNode::top(source.tree);
            if marker.mark_node(&top.id)? {
                pending.push(top);
            }
        }
        while let Some(node) = pending.pop() {
            let bytes = marker.read_node(&node.id)?;
            let mut outcome = Ok(());
            references(&bytes, node.shape, &mut |reference| {
                if outcome.is_err() {
                    return;
                }
                outcome = match reference {
                    Reference::Node { id, shape } => marker.mark_node(&id).map(|new| {
                        if new {
                            pending.push(PendingNode { id, shape });
                        }
                    }),
                    Reference::Chunk(id, _) => marker.mark(&id),
                };
            })?;
            outcome?;
        }
        Ok(())
    }
}
