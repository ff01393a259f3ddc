//! Whether every entry of a snapshot stands in a folder of it: what does not cannot be deployed. Snapshots
//! share most nodes; of each node the question is answered once.

use std::collections::HashMap;

use copal_manifest::tree::{NodeShape, Outline, Reference};
use copal_store::Result;

use crate::catalogue::Listed;
use crate::verify::findings::Findings;
use crate::walk::PendingNode;

/// Nodes of trees of entries.
#[derive(Default)]
pub(super) struct Folders {
    nodes: HashMap<PendingNode, Known>,
}

enum Known {
    Children(Vec<PendingNode>),
    Outline(Outline),
}

impl Folders {
    /// Takes a node that was read: its bytes, and the nodes that it refers to.
    pub(super) fn learn(&mut self, node: PendingNode, bytes: &[u8], references: &[Reference]) -> Result<()> {
        let known = match node.shape {
            NodeShape::Pieces(_) => return Ok(()),
            NodeShape::Entries(0) => Known::Outline(Outline::of_leaf(bytes)?),
            NodeShape::Entries(_) => {
                let nodes = references.iter().filter_map(|reference| match *reference {
                    Reference::Node { id, shape } => Some(PendingNode { id, shape }),
                    Reference::Chunk(..) => None,
                });
                Known::Children(nodes.collect())
            }
        };
        self.nodes.insert(node, known);
        Ok(())
    }

    /// Names the snapshots of which an entry stands in no folder.
    pub(super) fn judge(mut self, snapshots: &[&Listed], found: &mut Findings) {
        for listed in snapshots {
            for source in &listed.snapshot.sources {
                let top = PendingNode::top(source.tree);
                if let Some(folder) = self.outline(top).and_then(|outline| outline.missing().cloned()) {
                    found.hurt_wholly(
                        listed,
                        &format!("something in it stands in {:?}, which is no folder of it", folder.to_string()),
                    );
                }
            }
        }
    }

    /// `None` where some node below does not read: that is named already.
    fn outline(&mut self, node: PendingNode) -> Option<&Outline> {
        if let Known::Children(children) = self.nodes.get(&node)? {
            let children = children.clone();
            let mut sum = Outline::default();
            for child in children {
                sum.join(self.outline(child)?);
            }
            self.nodes.insert(node, Known::Outline(sum));
        }
        match self.nodes.get(&node)? {
            Known::Outline(outline) => Some(outline),
            Known::Children(_) => None,
        }
    }
}
