//! What the measurements share: samples of content, a repository in memory, and a clock that other programs
//! do not disturb.

use std::fmt::Write;
use std::sync::Arc;

use copal_chunker::{Cut, Cutter, Rule, Sizes};
use copal_sim::memory::MemoryBackend;
use copal_sim::seeded::{SeededEntropy, noise};
use copal_store::ChunkId;
use copal_store::config::{CipherSuite, Parameters};
use copal_store::keys::{Credential, StretchCost};
use copal_store::repository::{InitOptions, Repository};
use copal_store::session::Session;
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

/// The default sizes of content chunks.
pub const SIZES: Sizes = Sizes { min: 32 << 10, average: 64 << 10, max: 128 << 10 };
/// Plaintext of a chunk of a page-structured file in bytes.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Bytes per second of processor time of this thread, best of several passes: the machine may have other
/// work.
pub fn best_rate(bytes: usize, passes: usize, mut work: impl FnMut()) -> f64 {
    bytes as f64 / best_seconds(passes, &mut work)
}

/// Seconds of processor time of this thread, best of several passes.
pub fn best_seconds(passes: usize, mut work: impl FnMut()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    };
    let mut best = f64::INFINITY;
    for _ in 0..passes {
        let begin = now();
        work();
        best = best.min(now() - begin);
    }
    best
}

/// A content cutter.
///
/// # Panics
/// Never: the sizes are sound.
#[must_use]
pub fn cutter(rule: Rule) -> Cutter {
    Cutter::new(rule, SIZES, &[7; 32]).expect("the default sizes are sound")
}

/// All cuts of a run, fed as the engine does.
#[must_use]
pub fn cut(cutter: &Cutter, bytes: &[u8]) -> Vec<Cut> {
    let (mut run, mut cuts) = (cutter.start(), Vec::new());
    bytes.chunks(1 << 20).for_each(|piece| run.feed(piece, &mut cuts));
    run.finish(&mut cuts);
    cuts
}

/// Reads every byte and does nothing with it: no stage can be faster.
#[must_use]
pub fn read_all(bytes: &[u8]) -> u64 {
    bytes.as_chunks::<8>().0.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

/// Lines of a service's log in JSON.
#[must_use]
pub fn json(seed: u64, bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "request", "accepted", "refused", "timeout", "payment", "user", "session", "queue", "retry", "cache", "miss",
        "stored", "deleted", "order", "invoice", "ready",
    ];
    let mut text = String::with_capacity(bytes + 256);
    let mut random = noise(seed, bytes / 8).into_iter().cycle();
    let mut next = || usize::from(random.next().unwrap_or_default());
    let mut number = 0u64;
    while text.len() < bytes {
        number += 1 + next() as u64;
        let (level, service) = (["info", "warn", "debug"][next() % 3], WORDS[next() % 16]);
        let (first, second, third) = (WORDS[next() % 16], WORDS[next() % 16], WORDS[next() % 16]);
        let (status, id) = (next() * 2, u64::from_le_bytes(std::array::from_fn(|_| next() as u8)));
        writeln!(
            text,
            "{{\"time\":17672{number:08},\"level\":\"{level}\",\"service\":\"{service}\",\"trace\":\"{id:016x}\",\
             \"message\":\"{first} {second} {third}\",\"status\":{status}}}"
        )
        .expect("a string takes all");
    }
    text.truncate(bytes);
    text.into_bytes()
}

/// A SQLite database file with a table of orders and two indexes.
///
/// # Panics
/// When the folder for temporary files cannot be written.
#[must_use]
pub fn sqlite(seed: u64, bytes: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("orders.db");
    let rows = bytes / 150;
    let content = json(seed, rows * 64);
    let ids = noise(seed + 1, rows * 12);
    let fill = || -> rusqlite::Result<()> {
        let mut database = rusqlite::Connection::open(&path)?;
        database.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, code TEXT, note TEXT);
             CREATE INDEX by_customer ON orders (customer); CREATE INDEX by_code ON orders (code);",
        )?;
        let transaction = database.transaction()?;
        {
            let mut insert =
                transaction.prepare("INSERT INTO orders (customer, code, note) VALUES (?1, hex(?2), ?3)")?;
            for (id, note) in ids.chunks_exact(12).zip(content.chunks_exact(64)) {
                let customer = u32::from_le_bytes([id[0], id[1], id[2], 0]) % 50_000;
                insert.execute((customer, &id[4..12], String::from_utf8_lossy(note)))?;
            }
        }
        transaction.commit()
    };
    fill().expect("SQLite fills a new database");
    let mut file = std::fs::read(&path).expect("the database is there");
    file.truncate(bytes);
    file
}

/// A chunk and the one that stood in its place before: one row of one page differs.
#[must_use]
pub fn changed_chunk() -> (Vec<u8>, Vec<u8>) {
    let file = sqlite(5, 4 << 20);
    let base = file[1 << 20..][..CHUNK_BYTES].to_vec();
    let mut changed = base.clone();
    changed[20_000..20_064].copy_from_slice(&noise(6, 64));
    (base, changed)
}

/// A repository in memory with so many chunks in its index, and the ids of some of them.
///
/// # Panics
/// When the store fails.
#[must_use]
pub fn repository_of(chunks: usize) -> (Repository, Vec<ChunkId>) {
    const CHUNKS_PER_FRAME: usize = 4096;
    let options = InitOptions {
        parameters: Parameters::default(),
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost { memory_kib: 8, passes: 1, lanes: 1 },
        slot_label: String::new(),
        created_seconds: 0,
    };
    let password = Credential::Password(Zeroizing::new(b"password".to_vec()));
    let fill = || -> copal_store::Result<(Repository, Vec<ChunkId>)> {
        let backend = Arc::new(MemoryBackend::new());
        let repository = Repository::init(backend, Arc::new(SeededEntropy::new(1)), &password, &options)?;
        let session = Session::begin(&repository)?;
        let mut writer = session.writer()?;
        let mut some = Vec::new();
        for frame in 0..chunks.div_ceil(CHUNKS_PER_FRAME) {
            let plain = noise(frame as u64, CHUNKS_PER_FRAME * 32);
            let mut members = Vec::with_capacity(CHUNKS_PER_FRAME);
            for chunk in plain.chunks(32) {
                let id = repository.keys().chunk_id(chunk);
                session.reserve(&id)?;
                members.push((id, 32));
            }
            some.extend(members.iter().step_by(16).map(|(id, _)| *id));
            writer.store_frame(&members, &plain)?;
        }
        drop(writer);
        session.checkpoint()?;
        session.end()?;
        copal_store::collect::merge_index(&repository)?;
        Ok((repository, some))
    };
    fill().expect("the store takes chunks")
}
