//! Says which snapshots and paths a damage hurts. Runs only when there is damage.

use std::collections::{HashMap, HashSet};

use copal_manifest::content::{FileContent, Piece, Pieces};
use copal_manifest::entry::{EntryPath, Node};
use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_manifest::tree::{Reference, TreeReader, references};
use copal_store::ChunkId;
use copal_store::session::{ChunkSource, Session};

use crate::catalogue::Listed;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::verify::findings::Findings;
use crate::walk::PendingNode;

/// A lost piece of a file: where a live source may still have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LostPiece {
    pub(super) id: ChunkId,
    pub(super) bytes: u32,
    pub(super) path: EntryPath,
    pub(super) offset: u64,
}

/// Places of one lost chunk that are kept: any of them gives it back, and a forged file has one a million
/// times.
const PLACES_OF_ONE_MAX: u32 = 64;

/// Names the affected snapshots and paths; returns the lost pieces of files whose entries can still be read.
pub(super) fn name_what_is_hurt(
    context: &Context,
    session: &Session,
    snapshots: &[&Listed],
    found: &mut Findings,
) -> Result<Vec<LostPiece>> {
    let (touched, named, places) = (HashMap::new(), HashSet::new(), HashMap::new());
    let mut naming = Naming { context, session, found, touched, named, places, pieces: Vec::new() };
    if naming.found.costs_nothing() {
        return Ok(naming.pieces);
    }
    for listed in snapshots {
        for source in &listed.snapshot.sources {
            let top = PendingNode::top(source.tree);
            if naming.touches(top)? {
                let full = Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name);
                naming.name_paths(&full, source)?;
                naming.named.clear();
                naming.name_the_rest(top, &full, source)?;
            }
        }
    }
    Ok(naming.pieces)
}

struct Naming<'a> {
    context: &'a Context,
    session: &'a Session,
    found: &'a mut Findings,
    /// Whether something lost is at or below a node: snapshots share most of them.
    touched: HashMap<PendingNode, bool>,
    /// Nodes of one source below which all was named: a forged tree has the same ones again and again.
    named: HashSet<PendingNode>,
    /// How many places of a lost chunk are among the pieces.
    places: HashMap<ChunkId, u32>,
    pieces: Vec<LostPiece>,
}

impl Naming<'_> {
    /// Whether a node, or something below it, is lost.
    fn touches(&mut self, node: PendingNode) -> Result<bool> {
        if let Some(known) = self.touched.get(&node) {
            return Ok(*known);
        }
        self.context.check_interrupt()?;
        let mut touches = self.found.is_lost(&node.id);
        for reference in self.children(node)?.unwrap_or_default() {
            touches |= match reference {
                Reference::Node { id, shape } => self.touches(PendingNode { id, shape })?,
                Reference::Chunk(id, _) => self.is_lost(&id)?,
            };
        }
        self.touched.insert(node, touches);
        Ok(touches)
    }

    /// A delta is lost with its base.
    fn is_lost(&mut self, id: &ChunkId) -> Result<bool> {
        let base = match self.session.locate(id) {
            Ok(location) => location.and_then(|location| location.base),
            Err(error) if error.is_integrity() || error.is_unsupported() => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(base) = base
            && self.found.is_lost(&base)
        {
            self.found.lose_with(*id, &base);
        }
        Ok(self.found.is_lost(id))
    }

    /// `None`: the node does not read.
    fn children(&self, node: PendingNode) -> Result<Option<Vec<Reference>>> {
        let mut children = Vec::new();
        let read = self
            .session
            .read_chunk(&node.id)
            .and_then(|bytes| references(&bytes, node.shape, &mut |reference| children.push(reference)));
        match read {
            Ok(()) => Ok(Some(children)),
            Err(error) if error.is_integrity() || error.is_unsupported() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// By path, up to the first part of the tree that does not read.
    fn name_paths(&mut self, snapshot: &str, source: &SourceRecord) -> Result<()> {
        for entry in TreeReader::new(self.session, source.tree).entries() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if error.is_integrity() || error.is_unsupported() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if let Node::File(content) = &entry.node {
                self.name_file(snapshot, source, &entry.path, content)?;
            }
        }
        Ok(())
    }

    fn name_file(
        &mut self,
        snapshot: &str,
        source: &SourceRecord,
        path: &EntryPath,
        content: &FileContent,
    ) -> Result<()> {
        if let Pieces::Tree(tree) = &content.pieces {
            if !self
                .touches(PendingNode { id: tree.id, shape: copal_manifest::tree::NodeShape::Pieces(tree.height) })?
            {
                return Ok(());
            }
            self.found.hurt(&tree.id, snapshot, Some(&shown(source, &path.to_string(), "")));
        }
        for placed in content.pieces(self.session, 0, content.bytes) {
            match placed {
                Ok(placed) => {
                    if let Piece::Chunk { id, bytes } = placed.piece
                        && self.found.is_lost(&id)
                    {
                        self.found.hurt(&id, snapshot, Some(&shown(source, &path.to_string(), "")));
                        let places = self.places.entry(id).or_default();
                        if *places < PLACES_OF_ONE_MAX {
                            *places += 1;
                            self.pieces.push(LostPiece { id, bytes, path: path.clone(), offset: placed.offset });
                        }
                    }
                }
                Err(error) if error.is_integrity() || error.is_unsupported() => return Ok(()),
                Err(error) => return Err(Error::from(error)),
            }
        }
        Ok(())
    }

    /// Parts of the manifest that do not read, and what is lost behind them.
    fn name_the_rest(&mut self, node: PendingNode, snapshot: &str, source: &SourceRecord) -> Result<()> {
        if !self.named.insert(node) {
            return Ok(());
        }
        let Some(children) = self.children(node)? else {
            self.found.hurt(&node.id, snapshot, Some(&shown(source, "", "a part of the manifest")));
            return Ok(());
        };
        for reference in children {
            match reference {
                Reference::Node { id, shape } => {
                    let child = PendingNode { id, shape };
                    if self.touches(child)? {
                        self.name_the_rest(child, snapshot, source)?;
                    }
                }
                Reference::Chunk(id, _) => self.found.hurt(&id, snapshot, None),
            }
        }
        Ok(())
    }
}

fn shown(source: &SourceRecord, path: &str, what: &str) -> String {
    let parts = [source.label.as_str(), path, what];
    let named: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if named.is_empty() { String::from_utf8_lossy(&source.path).into_owned() } else { named.join("/") }
}
