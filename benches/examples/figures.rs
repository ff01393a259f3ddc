//! Prints the figures that `docs/decisions/` quotes, as tables.
//! `cargo run --release -p copal-benches --example figures`. Rates are of one core, by its processor time,
//! best of several passes.

use std::hint::black_box;

use copal_benches::{
    CHUNK_BYTES, best_rate, best_seconds, changed_chunk, cut, cutter, json, read_all, repository_of, sqlite,
};
use copal_chunker::Rule;
use copal_sim::seeded::noise;
use copal_store::config::CipherSuite;
use copal_store::encoding::{Decoder, Encoder};
use copal_store::keys::{Credential, Keys, StretchCost, seal_sample};
use copal_store::location::Encoding;
use copal_store::repository::Repository;
use copal_store::session::Session;
use copal_store::{ChunkId, SnapshotId};

const PASSES: usize = 5;

fn main() -> copal_store::Result<()> {
    signatures()?;
    if std::env::args().nth(1).as_deref() == Some("signatures") {
        return Ok(());
    }
    let large = noise(1, 1 << 30);
    row(
        "memory",
        "read",
        best_rate(large.len(), PASSES, || {
            black_box(read_all(&large));
        }),
        "",
    );
    cuts("noise, 1 GiB", &large);
    let keys = Keys::derive(&[1; 32], CipherSuite::Aes256Gcm);
    let hash = || {
        large[..256 << 20].chunks(CHUNK_BYTES).for_each(|chunk| {
            black_box(keys.chunk_id(chunk));
        })
    };
    row("hash", "keyed BLAKE3, chunks of 64 KiB", best_rate(256 << 20, PASSES, hash), "");
    drop(large);
    cuts("JSON, 1 GiB", &json(2, 1 << 30));
    seal()?;
    for (name, bytes) in [("SQLite", sqlite(3, 32 << 20)), ("JSON", json(2, 32 << 20)), ("random", noise(1, 32 << 20))]
    {
        for level in 1..=3 {
            encode(name, level, &bytes, CHUNK_BYTES)?;
        }
    }
    small_files(&json(9, 32 << 20))?;
    delta()?;
    lookup()
}

fn row(stage: &str, what: &str, rate: f64, more: &str) {
    println!("| {stage} | {what} | {:.2} GB/s | {more} |", rate / 1e9);
}

fn cuts(name: &str, bytes: &[u8]) {
    for rule in [Rule::AesWindow, Rule::FastCdc2020] {
        let cutter = cutter(rule);
        let mut found = Vec::new();
        let rate = best_rate(bytes.len(), 3, || found = cut(&cutter, bytes));
        let mut lengths: Vec<u64> = Vec::with_capacity(found.len());
        let mut before = 0;
        for cut in &found {
            lengths.push(cut.offset - before);
            before = cut.offset;
        }
        lengths.sort_unstable();
        let at = |share: f64| lengths[(lengths.len() as f64 * share) as usize] >> 10;
        let hard = found.iter().filter(|cut| cut.hard).count();
        let mean = bytes.len() as f64 / found.len() as f64 / 1024.0;
        let more = format!(
            "{} chunks, mean {mean:.1} KiB, 10% below {} KiB, median {} KiB, 90% below {} KiB, {hard} hard",
            found.len(),
            at(0.1),
            at(0.5),
            at(0.9)
        );
        row("cut", &format!("{rule:?}, {name}"), rate, &more);
    }
}

fn seal() -> copal_store::Result<()> {
    let mut buffer = noise(1, 1 << 20);
    for suite in [CipherSuite::Aes256Gcm, CipherSuite::ChaCha20Poly1305] {
        let mut outcome = Ok(());
        let rate = best_rate(buffer.len(), 200, || outcome = seal_sample(suite, &mut buffer));
        outcome?;
        row("seal", &format!("{suite:?}"), rate, "");
    }
    Ok(())
}

fn encode(name: &str, level: i32, bytes: &[u8], chunk_bytes: usize) -> copal_store::Result<()> {
    let mut encoder = Encoder::new(level)?;
    let mut encoded: Vec<(Encoding, Vec<u8>)> = Vec::new();
    let mut out = Vec::new();
    let rate = best_rate(bytes.len(), PASSES, || {
        encoded.clear();
        for chunk in bytes.chunks(chunk_bytes) {
            if let Ok(encoding) = encoder.encode(chunk, None, &mut out) {
                encoded.push((encoding, out.clone()));
            }
        }
    });
    let mut decoder = Decoder::new()?;
    let mut back = Vec::new();
    let decode_rate = best_rate(bytes.len(), PASSES, || {
        for ((encoding, payload), chunk) in encoded.iter().zip(bytes.chunks(chunk_bytes)) {
            let decoded = decoder.decode(*encoding, payload, None, chunk.len() as u32, &mut back);
            decoded.expect("what was encoded decodes");
        }
    });
    let stored: usize = encoded.iter().map(|(_, payload)| payload.len()).sum();
    let raw = encoded.iter().filter(|(encoding, _)| *encoding == Encoding::Raw).count();
    let more = format!(
        "{:.1}% of the plaintext, {raw} of {} raw, decoding {:.2} GB/s",
        100.0 * stored as f64 / bytes.len() as f64,
        encoded.len(),
        decode_rate / 1e9
    );
    row("encode", &format!("{name}, level {level}, {} KiB", chunk_bytes >> 10), rate, &more);
    Ok(())
}

/// Files of 2 KiB on their own, and in frames.
fn small_files(bytes: &[u8]) -> copal_store::Result<()> {
    for chunk_bytes in [2 << 10, 512 << 10, 1 << 20] {
        encode("small JSON files", 1, bytes, chunk_bytes)?;
    }
    Ok(())
}

fn delta() -> copal_store::Result<()> {
    let (base, plain) = changed_chunk();
    let (mut encoder, mut decoder) = (Encoder::new(1)?, Decoder::new()?);
    let (mut whole, mut out, mut back) = (Vec::new(), Vec::new(), Vec::new());
    encoder.encode(&plain, None, &mut whole)?;
    let mut encoding = Ok(Encoding::Raw);
    let rate = best_rate(plain.len(), 500, || encoding = encoder.encode(&plain, Some(&base), &mut out));
    encoding?;
    let mut decoded = Ok(());
    let decode_rate = best_rate(plain.len(), 500, || {
        decoded = decoder.decode(Encoding::Delta, &out, Some(&base), plain.len() as u32, &mut back);
    });
    decoded?;
    let more = format!("{} bytes against {} whole, decoding {:.2} GB/s", out.len(), whole.len(), decode_rate / 1e9);
    row("encode", "one changed row of a SQLite chunk of 64 KiB, as delta", rate, &more);
    Ok(())
}

/// What a signed repository pays: a label written and read, and opening after many changes of keys.
fn signatures() -> copal_store::Result<()> {
    const LABELS: u64 = 200;
    let (repository, _) = repository_of(1);
    let snapshot = |number: u64| SnapshotId(std::array::from_fn(|at| (number >> (8 * (at % 8))) as u8));
    let written = best_seconds(1, || {
        (0..LABELS).for_each(|number| drop(black_box(repository.write_label(snapshot(number), b"label"))));
    });
    let read = best_seconds(PASSES, || {
        (0..LABELS).for_each(|number| drop(black_box(repository.read_label_at(snapshot(number), 1))));
    });
    println!(
        "| signatures | a label sealed, signed and published in memory | {:.0} µs | |",
        written * 1e6 / LABELS as f64
    );
    println!("| signatures | a label opened and its signature checked | {:.0} µs | |", read * 1e6 / LABELS as f64);
    let cost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };
    let key = |byte| Credential::KeyFile(zeroize::Zeroizing::new([byte; 32]));
    repository.add_key_slot(&key(1), "opens", cost, 0)?;
    for changes in [0, 100] {
        for number in 0..changes / 2 {
            let slot = repository.add_key_slot(&key(2), "comes and goes", cost, number)?;
            repository.remove_key_slot(slot, number)?;
        }
        let open = || drop(Repository::open(repository.backend().clone(), repository.entropy().clone(), &key(1)));
        let seconds = best_seconds(PASSES, open);
        println!(
            "| signatures | opening by a key file, {changes} changes of keys after it was made | {:.0} µs | |",
            seconds * 1e6
        );
    }
    Ok(())
}

fn lookup() -> copal_store::Result<()> {
    let (repository, ids) = repository_of(1 << 20);
    let session = Session::begin(&repository)?;
    let absent: Vec<ChunkId> = ids.iter().map(|id| repository.keys().chunk_id(id.as_bytes())).collect();
    for (name, ids) in [("present", &ids), ("absent", &absent)] {
        let seconds = best_seconds(PASSES, || {
            let mut at = 0;
            for _ in 0..ids.len() {
                at = (at + 40_503) % ids.len();
                drop(black_box(session.contains(&ids[at])));
            }
        });
        println!("| lookup | {name}, of a million chunks | {:.2} µs | |", seconds * 1e6 / ids.len() as f64);
    }
    Ok(())
}
