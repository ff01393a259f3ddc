//! Walks what a snapshot reaches: the one place that turns roots into marks.

use std::collections::{BTreeMap, HashSet};

use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::{NodeShape, Reference, TreeRoot, references};
use copal_store::collect::{Marker, Reachability};
use copal_store::repository::{Repository, RootName};
use copal_store::{ChunkId, PackId};

use crate::catalogue::known_roots;
use crate::context::Context;
use crate::error::Result;
use crate::unread::UnreadRoots;

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
#[derive(Default)]
pub(crate) struct SnapshotReachability {
    /// Payloads of roots that were opened before, by the names of their objects. The cache that has them is
    /// sealed by the repository's keys, and a root is never changed: one read is spared for each snapshot,
    /// and nothing is believed that the repository does not vouch for. Which roots stand is always listed.
    pub(crate) known: BTreeMap<String, Vec<u8>>,
    pub(crate) unread: UnreadRoots,
}

impl SnapshotReachability {
    /// With all that this machine knows.
    pub(crate) fn of(context: &Context) -> Result<Self> {
        let repository = context.repository.config().repository.to_string();
        let unread = UnreadRoots::of(context.state_folder.as_deref(), &repository);
        Ok(Self { known: known_roots(context)?, unread })
    }
}

impl Reachability for SnapshotReachability {
    fn root_payload(&self, repository: &Repository, root: &RootName) -> copal_store::Result<Vec<u8>> {
        match self.known.get(&root.object_name()) {
            Some(payload) => Ok(payload.clone()),
            None => repository.read_root(root),
        }
    }

    fn kept_for(&self, unread: &[RootName], present: &HashSet<PackId>) -> copal_store::Result<HashSet<PackId>> {
        Ok(self.unread.kept_for(unread, present))
    }

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
