//! Each stage of the way of a chunk, beside the speed at which memory can be read.
//! `cargo bench -p copal-benches`.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::Duration;

use copal_benches::{CHUNK_BYTES, changed_chunk, cut, cutter, json, read_all, repository_of, sqlite};
use copal_chunker::Rule;
use copal_sim::seeded::noise;
use copal_store::ChunkId;
use copal_store::config::CipherSuite;
use copal_store::encoding::{Decoder, Encoder};
use copal_store::keys::{Keys, seal_sample};
use copal_store::location::Encoding;
use copal_store::session::Session;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SAMPLE_BYTES: usize = 64 << 20;

fn samples(bytes: usize) -> [(&'static str, Vec<u8>); 3] {
    [("noise", noise(1, bytes)), ("json", json(2, bytes)), ("sqlite", sqlite(3, bytes))]
}

fn memory(criterion: &mut Criterion) {
    let bytes = noise(1, 4 * SAMPLE_BYTES);
    let mut group = criterion.benchmark_group("memory");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(|| read_all(black_box(&bytes))));
}

fn cuts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cut");
    group.throughput(Throughput::Bytes(SAMPLE_BYTES as u64));
    for (name, bytes) in samples(SAMPLE_BYTES) {
        for rule in [Rule::AesWindow, Rule::FastCdc2020] {
            let cutter = cutter(rule);
            group.bench_with_input(BenchmarkId::new(format!("{rule:?}"), name), &bytes, |bencher, bytes| {
                bencher.iter(|| cut(&cutter, black_box(bytes)));
            });
        }
    }
}

fn hash(criterion: &mut Criterion) {
    let keys = Keys::derive(&[1; 32], CipherSuite::Aes256Gcm);
    let bytes = noise(1, SAMPLE_BYTES);
    let mut group = criterion.benchmark_group("hash");
    group.throughput(Throughput::Bytes(SAMPLE_BYTES as u64));
    group.bench_function("keyed BLAKE3 of chunks", |bencher| {
        bencher.iter(|| {
            bytes.chunks(CHUNK_BYTES).for_each(|chunk| {
                black_box(keys.chunk_id(chunk));
            })
        });
    });
}

fn encode(criterion: &mut Criterion) {
    const BYTES: usize = 8 << 20;
    let mut group = criterion.benchmark_group("encode and check");
    group.throughput(Throughput::Bytes(BYTES as u64));
    for (name, bytes) in samples(BYTES) {
        for level in 1..=3 {
            let mut encoder = Encoder::new(level).expect("an encoder");
            let mut out = Vec::new();
            group.bench_with_input(BenchmarkId::new(format!("level {level}"), name), &bytes, |bencher, bytes| {
                bencher.iter(|| {
                    for chunk in bytes.chunks(CHUNK_BYTES) {
                        encoder.encode(chunk, None, &mut out).expect("a chunk is encoded");
                    }
                });
            });
        }
    }
    drop(group);
    let (base, plain) = changed_chunk();
    let (mut encoder, mut decoder) = (Encoder::new(1).expect("an encoder"), Decoder::new().expect("a decoder"));
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let mut group = criterion.benchmark_group("delta");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("encode and check", |bencher| {
        bencher.iter(|| {
            let encoding = encoder.encode(black_box(&plain), Some(&base), &mut out).expect("a chunk is encoded");
            assert_eq!(encoding, Encoding::Delta);
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let decoded = decoder.decode(Encoding::Delta, &out, Some(&base), plain.len() as u32, &mut back);
            decoded.expect("it decodes");
        });
    });
}

fn seal(criterion: &mut Criterion) {
    let mut buffer = noise(1, 1 << 20);
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(buffer.len() as u64));
    for suite in [CipherSuite::Aes256Gcm, CipherSuite::ChaCha20Poly1305] {
        group.bench_function(format!("{suite:?}"), |bencher| {
            bencher.iter(|| seal_sample(suite, black_box(&mut buffer)).expect("a buffer is sealed"));
        });
    }
}

fn lookup(criterion: &mut Criterion) {
    let (repository, ids) = repository_of(1 << 20);
    let session = Session::begin(&repository).expect("a session");
    let absent: Vec<ChunkId> = ids.iter().map(|id| repository.keys().chunk_id(id.as_bytes())).collect();
    let mut group = criterion.benchmark_group("lookup among a million chunks");
    group.throughput(Throughput::Elements(1));
    for (name, ids) in [("present", &ids), ("absent", &absent)] {
        // A stride that visits all of them, in no order of theirs.
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at = (at + 40_503) % ids.len();
                session.contains(&ids[at]).expect("a lookup")
            });
        });
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = stages; config = quick(); targets = memory, cuts, hash, encode, seal, lookup }
criterion_main!(stages);
