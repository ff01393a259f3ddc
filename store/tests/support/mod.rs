//! What several test files here need: repositories on any backend, and a toy snapshot whose payload is a list
//! of chunk ids.
// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;

use copal_sim::{MemoryBackend, SeededEntropy, noise};
use copal_store::backend::{Backend, ObjectKind};
use copal_store::check::{CheckReport, check_pack, packs};
use copal_store::collect::{CollectOptions, CollectReport, Marker, Reachability, collect};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::keys::{Credential, StretchCost};
use copal_store::location::RecordKind;
use copal_store::repository::{InitOptions, Repository, RootName};
use copal_store::session::{ChunkSource, DeltaBase, Reservation, Session};
use copal_store::{ChunkId, Result, SnapshotId};

/// Reads a root's payload as the ids that it reaches.
pub(crate) struct Toy;

impl Reachability for Toy {
    fn mark_root(&self, _root: &RootName, payload: &[u8], marker: &dyn Marker) -> Result<()> {
        ids(payload).try_for_each(|id| marker.mark(&id))
    }
}

pub(crate) fn ids(payload: &[u8]) -> impl Iterator<Item = ChunkId> + '_ {
    payload.chunks(32).map(|id| ChunkId(id.try_into().unwrap()))
}

/// Not stretched: a flipped bit in the cost of a stretching would cost the tests an hour.
pub(crate) fn key_file() -> Credential {
    Credential::KeyFile(zeroize::Zeroizing::new([42; 32]))
}

pub(crate) fn options(suite: CipherSuite) -> InitOptions {
    InitOptions {
        parameters: Parameters { pack_bytes_max: 1 << 20, ..Parameters::default() },
        suite,
        stretch: StretchCost { memory_kib: 8, passes: 1, lanes: 1 },
        slot_label: "label of the slot".into(),
        created_seconds: 0,
    }
}

/// A new repository whose random choices a seed decides.
pub(crate) fn init(backend: Arc<dyn Backend>, seed: u64) -> Repository {
    let entropy = Arc::new(SeededEntropy::new(seed));
    Repository::init(backend, entropy, &key_file(), &options(CipherSuite::Aes256Gcm)).unwrap()
}

/// As another process would open it.
pub(crate) fn open(backend: Arc<dyn Backend>, seed: u64) -> Result<Repository> {
    Repository::open(backend, Arc::new(SeededEntropy::new(seed)), &key_file())
}

pub(crate) fn in_memory(seed: u64) -> (MemoryBackend, Repository) {
    let memory = MemoryBackend::new();
    let repository = init(Arc::new(memory.clone()), seed);
    (memory, repository)
}

pub(crate) fn new_root(repository: &Repository, name: &str) -> RootName {
    let mut id = [0; 16];
    repository.entropy().fill(&mut id).unwrap();
    RootName { tag: repository.keys().name_tag(name.as_bytes()), snapshot: SnapshotId(id) }
}

/// Stores a chunk unless it is known; as a delta where a base is given, whose plaintext the caller has.
pub(crate) fn store(session: &Session, plain: &[u8], base: Option<&[u8]>) -> Result<ChunkId> {
    let keys = session.repository().keys();
    let id = keys.chunk_id(plain);
    if session.reserve(&id)? == Reservation::Known {
        return Ok(id);
    }
    let base = match base {
        Some(base) if session.delta_base(&keys.chunk_id(base))? == Some(keys.chunk_id(base)) => {
            Some(DeltaBase { id: keys.chunk_id(base), plain: base })
        }
        _ => None,
    };
    session.writer()?.store(RecordKind::Data, &id, plain, base)?;
    Ok(id)
}

/// The whole commit chain.
pub(crate) fn commit(session: &Session, name: &str, ids: &[ChunkId]) -> Result<RootName> {
    let root = new_root(session.repository(), name);
    let payload: Vec<u8> = ids.iter().flat_map(|id| id.0).collect();
    session.seal_packs()?.sync()?.publish_index()?.publish_root(root, &payload)?;
    Ok(root)
}

/// A session of one snapshot of whole chunks.
pub(crate) fn snapshot(repository: &Repository, name: &str, chunks: &[Vec<u8>]) -> RootName {
    let session = Session::begin(repository).unwrap();
    let ids: Vec<ChunkId> = chunks.iter().map(|chunk| store(&session, chunk, None).unwrap()).collect();
    let root = commit(&session, name, &ids).unwrap();
    session.end().unwrap();
    root
}

/// Reads every chunk of a root back.
pub(crate) fn read(repository: &Repository, root: &RootName) -> Result<Vec<Vec<u8>>> {
    let session = Session::begin(repository)?;
    let payload = repository.read_root(root)?;
    let chunks = ids(&payload).map(|id| session.read_chunk(&id)).collect::<Result<_>>()?;
    session.end()?;
    Ok(chunks)
}

pub(crate) fn gc(repository: &Repository) -> CollectReport {
    collect(repository, &Toy, CollectOptions::default()).unwrap()
}

/// Records of index fragments that were replaced stay for ever, and do not count.
pub(crate) fn count(repository: &Repository, kind: ObjectKind) -> usize {
    let mut names = repository.backend().names(kind).unwrap();
    names.retain(|name| !name.name().ends_with("-retired"));
    names.len()
}

/// Checks every pack; one sum.
pub(crate) fn check_packs(repository: &Repository) -> CheckReport {
    let session = Session::begin(repository).unwrap();
    let mut sum = CheckReport::default();
    for pack in packs(repository).unwrap() {
        let one = check_pack(&session, pack).unwrap();
        sum.packs += one.packs;
        sum.chunks += one.chunks;
        sum.bytes += one.bytes;
        sum.damaged.extend(one.damaged);
    }
    session.end().unwrap();
    sum
}

/// Some chunks of some 30 KB that do not compress.
pub(crate) fn chunks(seeds: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    seeds.map(|seed| noise(seed + 1, 30_000 + seed as usize % 7000)).collect()
}

/// A chunk that differs little from another.
pub(crate) fn changed(base: &[u8], at: usize) -> Vec<u8> {
    let mut plain = base.to_vec();
    plain[at] ^= 0xff;
    plain
}
