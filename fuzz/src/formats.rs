//! Decoders that stand alone.

use copal_sim::noise;
use copal_store::ObjectKind;
use copal_store::encoding::{Decoder, Encoder};
use copal_store::envelope::{ENVELOPE_BYTES, Envelope, Sealing};
use copal_store::fuzzing::read_block;
use copal_store::ids::ObjectId;
use copal_store::location::Encoding;

const KINDS: [ObjectKind; 10] = [
    ObjectKind::Config,
    ObjectKind::KeySlot,
    ObjectKind::Pack,
    ObjectKind::Index,
    ObjectKind::Root,
    ObjectKind::Label,
    ObjectKind::Condemned,
    ObjectKind::Session,
    ObjectKind::Lease,
    ObjectKind::Parity,
];

/// What decodes as an envelope is that envelope: there is one spelling of each.
pub fn envelope(data: &[u8]) {
    for kind in KINDS {
        if let Ok(envelope) = Envelope::decode("it", kind, data) {
            assert_eq!(envelope.kind, kind);
            assert_eq!(envelope.encode(), data[..ENVELOPE_BYTES], "an envelope has two spellings");
        }
    }
}

/// Envelopes of both versions.
#[must_use]
pub fn envelope_seeds() -> Vec<Vec<u8>> {
    let suite = copal_store::config::CipherSuite::Aes256Gcm;
    let first = KINDS.map(|kind| Envelope::first(kind, suite, ObjectId([7; 16])).encode().to_vec());
    let second =
        KINDS.map(|kind| Envelope::of_epoch(kind, suite, ObjectId([7; 16]), 3, Sealing::ForData).encode().to_vec());
    first.into_iter().chain(second).collect()
}

/// Any bytes as a block of the index.
pub fn index_block(data: &[u8]) {
    let _ = read_block(data);
}

/// A block of three entries: whole, of a frame, a delta.
#[must_use]
pub fn index_block_seeds() -> Vec<Vec<u8>> {
    let number = |number: u32| number.to_le_bytes();
    let whole = [&[0u8][..], &number(0), &number(32), &number(116), &number(100)].concat();
    let member =
        [&[0x81u8][..], &number(0), &number(148), &number(500), &number(900), &number(10), &number(50)].concat();
    let delta = [&[2u8][..], &number(1), &number(648), &number(40), &number(3000), &[9; 32]].concat();
    let mut block = number(3).to_vec();
    (1..=3u8).for_each(|id| block.extend_from_slice(&[id; 32]));
    let mut end = 0;
    for row in [&whole, &member, &delta] {
        end += row.len() as u32;
        block.extend_from_slice(&number(end));
    }
    [&whole, &member, &delta].into_iter().for_each(|row| block.extend_from_slice(row));
    assert_eq!(read_block(&block).ok(), Some(3), "the seed is a sound block");
    vec![block]
}

/// Encoding, stated length, whether there is a base, payload: what decodes has the stated length, and nothing
/// is written past it.
pub fn record(data: &[u8]) {
    let Some((head, payload)) = data.split_first_chunk::<4>() else { return };
    let Some(encoding) = Encoding::from_byte(head[0] % 3) else { return };
    let plain_bytes = u32::from(u16::from_le_bytes([head[1], head[2]]));
    let base = noise(u64::from(head[3] >> 4), 1 << (head[3] & 15));
    let mut out = vec![0x5a; 8];
    let mut decoder = Decoder::new().expect("a decoder can be made");
    if decoder.decode(encoding, payload, (head[3] > 0).then_some(&base), plain_bytes, &mut out).is_ok() {
        assert_eq!(out.len(), plain_bytes as usize, "other bytes than stated");
    }
    assert!(out.capacity() <= (1 << 16) + 64, "memory beyond the stated length");
}

/// Records of every encoding.
#[must_use]
pub fn record_seeds() -> Vec<Vec<u8>> {
    let base = noise(1, 1 << 13);
    let mut near = base.clone();
    near[100..140].fill(1);
    let text = b"the same words again and again, ".repeat(100);
    let plains = [(near, true), (text, false), (noise(9, 3000), false), (vec![0; 60_000], false)];
    let mut encoder = Encoder::new(3).expect("an encoder can be made");
    let mut seeds = Vec::new();
    for (plain, has_base) in plains {
        let mut payload = Vec::new();
        let encoding =
            encoder.encode(&plain, has_base.then_some(&base), &mut payload).expect("any bytes can be encoded");
        let length = (plain.len() as u16).to_le_bytes();
        let head = [encoding as u8, length[0], length[1], if has_base { 0x1d } else { 0 }];
        seeds.push([&head[..], &payload].concat());
    }
    seeds
}
