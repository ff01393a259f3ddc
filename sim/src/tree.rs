//! Snapshots small enough to be made by the thousand, yet with all that the store knows: nodes, chunks of
//! content, frames of small ones, deltas, reuse from a parent with and without a look at the index.

use std::collections::{BTreeMap, BTreeSet};

use copal_store::codec;
use copal_store::collect::{Marker, Reachability};
use copal_store::location::RecordKind;
use copal_store::repository::{Repository, RootName};
use copal_store::session::{ChunkSource, DeltaBase, Reservation, Session};
use copal_store::{ChunkId, Error, Result};

use crate::seeded::Choices;

/// Files by path.
pub type Content = BTreeMap<String, Vec<u8>>;

/// A file in a node: its path and its chunks.
type File = (String, Vec<[u8; 32]>);

/// Files of one node.
const NODE_FILES: usize = 4;
/// Length of a chunk in bytes.
const CHUNK_BYTES: usize = 3000;
/// Files up to this length go into frames.
const SMALL_BYTES: usize = 600;

/// Reads toy snapshots for collection.
#[derive(Clone, Copy, Debug)]
pub struct Toys;

impl Reachability for Toys {
    fn mark_root(&self, _root: &RootName, payload: &[u8], marker: &dyn Marker) -> Result<()> {
        for node in nodes(payload)? {
            if marker.mark_node(&node)? {
                for (_, chunks) in files(&marker.read_node(&node)?)? {
                    chunks.iter().try_for_each(|id| marker.mark(&ChunkId(*id)))?;
                }
            }
        }
        Ok(())
    }
}

fn nodes(payload: &[u8]) -> Result<Vec<ChunkId>> {
    let ids: Vec<[u8; 32]> = codec::decode("a toy's root", payload)?;
    Ok(ids.into_iter().map(ChunkId).collect())
}

fn files(node: &[u8]) -> Result<Vec<File>> {
    codec::decode("a toy's node", node)
}

/// What a snapshot holds, read through a session.
pub fn restore(session: &Session, root: &RootName) -> Result<Content> {
    let mut content = Content::new();
    for node in nodes(&session.repository().read_root(root)?)? {
        for (path, chunks) in files(&session.read_chunk(&node)?)? {
            content.insert(path, read_file(session, &chunks)?);
        }
    }
    Ok(content)
}

/// Every chunk of content that a snapshot reaches.
pub fn chunks(session: &Session, root: &RootName) -> Result<Vec<ChunkId>> {
    let mut chunks = Vec::new();
    for node in nodes(&session.repository().read_root(root)?)? {
        for (_, ids) in files(&session.read_chunk(&node)?)? {
            chunks.extend(ids.into_iter().map(ChunkId));
        }
    }
    Ok(chunks)
}

/// By place where that works, as a deploy reads.
fn read_file(session: &Session, chunks: &[[u8; 32]]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut record = Vec::new();
    for id in chunks.iter().map(|id| ChunkId(*id)) {
        let located = session.locate(&id)?.ok_or_else(|| Error::Missing { object: format!("chunk {id}") })?;
        match session.read_record(&id, &located, &mut record) {
            Ok(()) => {
                let chunk = session.chunk_in_record(&record, &located)?;
                if session.repository().keys().chunk_id(chunk) != id {
                    return Err(Error::damaged(format!("chunk {id}"), "it has another hash"));
                }
                bytes.extend_from_slice(chunk);
            }
            Err(Error::Missing { .. }) => bytes.extend_from_slice(&session.read_chunk(&id)?),
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Takes a snapshot up to the last step before its root; returns the root's payload.
pub fn store(session: &Session, content: &Content, choices: &mut Choices) -> Result<Vec<u8>> {
    let parent = parent(session, choices)?;
    let mut taken: Vec<File> = Vec::new();
    let mut small: Vec<(ChunkId, &[u8])> = Vec::new();
    for (path, bytes) in content {
        let before = parent.as_ref().and_then(|parent| parent.files.get(path));
        let mut chunks = Vec::new();
        for (number, plain) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let id = session.repository().keys().chunk_id(plain);
            chunks.push(id.0);
            let old = before.and_then(|chunks| chunks.get(number)).map(|id| ChunkId(*id));
            if bytes.len() <= SMALL_BYTES {
                if session.reserve(&id)? == Reservation::Mine {
                    small.push((id, plain));
                }
            } else {
                store_chunk(session, &id, plain, old)?;
            }
        }
        taken.push((path.clone(), chunks));
        if choices.one_in(12) {
            store_frame(session, &mut small)?;
            session.checkpoint()?;
        }
    }
    store_frame(session, &mut small)?;
    let mut ids = Vec::new();
    for (number, node) in taken.chunks(NODE_FILES).enumerate() {
        let old = parent.as_ref().and_then(|parent| parent.nodes.get(number).copied());
        let base = || {
            let base = session.delta_base(&old?).ok()??;
            Some((base, session.read_chunk(&base).ok()?))
        };
        ids.push(session.writer()?.store_node(&codec::encode(&node.to_vec())?, base)?.0);
    }
    codec::encode(&ids)
}

struct Parent {
    nodes: Vec<ChunkId>,
    files: BTreeMap<String, Vec<[u8; 32]>>,
}

/// Some listed snapshot with its files; `None` when there is none or it is gone.
fn parent(session: &Session, choices: &mut Choices) -> Result<Option<Parent>> {
    let roots = session.roots();
    if roots.is_empty() || choices.one_in(5) {
        return Ok(None);
    }
    let root = roots[choices.below(roots.len() as u64) as usize];
    let payload = match session.repository().read_root(&root) {
        Err(Error::Missing { .. }) => return Ok(None),
        root => root?,
    };
    let mut parent = Parent { nodes: nodes(&payload)?, files: BTreeMap::new() };
    for node in &parent.nodes {
        match session.read_chunk(node) {
            Ok(bytes) => parent.files.extend(files(&bytes)?),
            // Removed and collected since it was listed, by a collection that this session did not stop.
            Err(Error::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(parent))
}

fn store_chunk(session: &Session, id: &ChunkId, plain: &[u8], old: Option<ChunkId>) -> Result<()> {
    if session.reserve(id)? == Reservation::Known {
        return Ok(());
    }
    let base = match old {
        Some(old) => session.delta_base(&old)?,
        None => None,
    };
    let base = match base {
        Some(base) => Some((base, session.read_chunk(&base)?)),
        None => None,
    };
    let base = base.as_ref().map(|(id, plain)| DeltaBase { id: *id, plain });
    session.writer()?.store(RecordKind::Data, id, plain, base)
}

fn store_frame(session: &Session, small: &mut Vec<(ChunkId, &[u8])>) -> Result<()> {
    if small.is_empty() {
        return Ok(());
    }
    let members: Vec<(ChunkId, u32)> = small.iter().map(|(id, plain)| (*id, plain.len() as u32)).collect();
    let plain: Vec<u8> = small.drain(..).flat_map(|(_, plain)| plain.iter().copied()).collect();
    session.writer()?.store_frame(&members, &plain)
}

/// Commits what [`store`] stored.
pub fn commit(session: &Session, root: RootName, payload: &[u8]) -> Result<()> {
    session.seal_packs()?.sync()?.publish_index()?.publish_root(root, payload).map(drop)
}

/// A root of a given name with an id that the repository's entropy gives.
pub fn new_root(repository: &Repository, name: &str) -> Result<RootName> {
    let mut id = [0; 16];
    repository.entropy().fill(&mut id)?;
    Ok(RootName { tag: repository.keys().name_tag(name.as_bytes()), snapshot: copal_store::SnapshotId(id) })
}

/// Files from a small world of contents, so that snapshots share chunks, differ by little, and hold the bytes
/// of nodes too.
pub fn invent(choices: &mut Choices) -> Content {
    let count = 2 + choices.below(7);
    let mut content = Content::new();
    let mut used = BTreeSet::new();
    for _ in 0..count {
        let number = choices.below(12);
        if !used.insert(number) {
            continue;
        }
        let bytes = match number % 3 {
            0 => 100 + number as usize * 40,
            _ => 2000 + number as usize * 900,
        };
        let mut plain = crate::seeded::noise(number + 1, bytes);
        // Versions of a file differ in a few bytes.
        let version = choices.below(10) as usize;
        for byte in 0..version {
            plain[byte * 37 % bytes] ^= version as u8;
        }
        content.insert(format!("file {number:02}"), plain);
    }
    content
}
