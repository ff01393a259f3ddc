//! The bytes of a parity object: envelope | description | parity shards | description again | its length.
//!
//! A description says how the pack was cut into shards and has a hash of every shard, so that damage is
//! located; it carries a hash of itself, and stands twice, at both ends. Everything in it is known from the
//! pack: its length, and hashes of its sealed bytes.

use std::ops::Range;

use crate::backend::ObjectName;
use crate::describe::Fields;
use crate::envelope::ENVELOPE_BYTES;
use crate::pack::PACK_BYTES_MAX;
use crate::parity::{PARITY_PERCENT_MAX, code};
use crate::{Error, Result};

/// Longest pack that is read.
pub(super) const PACK_BYTES_LIMIT: u64 = 2 * PACK_BYTES_MAX;
/// A pack is cut into about so many shards.
const SHARDS: u64 = 1024;
/// Shortest shard in bytes.
const SHARD_BYTES_MIN: u64 = 1024;
/// Fixed fields of a description: pack_bytes (8), shard_bytes (4), data shards (4), parity shards (4).
const FIXED_BYTES: usize = 20;
/// Bytes of a shard's hash, the first of its BLAKE3.
const HASH_BYTES: usize = 16;
/// The length of the description, at the very end.
const LENGTH_BYTES: usize = 4;

type ShardHash = [u8; HASH_BYTES];

/// How a pack was cut into shards, and what each of them was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    /// Length of the pack in bytes.
    pub(super) pack_bytes: u64,
    /// Length of a shard in bytes; the last data shard is filled up with zeros.
    pub(super) shard_bytes: u32,
    data: Vec<ShardHash>,
    parity: Vec<ShardHash>,
}

/// What an object of parity may say in a repository: nobody seals it, so nothing is set aside for what no
/// create of this repository wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Longest pack in bytes.
    pub(super) pack_bytes_max: u64,
    /// The share of parity in percent.
    pub(super) percent: u8,
}

/// A parity object, read.
pub(super) struct Parity {
    pub(super) description: Description,
    object: Vec<u8>,
    /// Where in the object the parity shards stand, as far as they are there.
    shards: Range<usize>,
    /// Whether both descriptions are sound and the object has the length that they say.
    is_framed: bool,
}

/// Builds the object of a pack's parity.
pub(super) fn build(envelope: &[u8; ENVELOPE_BYTES], pack: &[u8], percent: u8) -> Result<Vec<u8>> {
    let pack_bytes = pack.len() as u64;
    let shard_bytes = shard_bytes_of(pack_bytes);
    let shard = usize::try_from(shard_bytes).unwrap_or(usize::MAX);
    let last = last_shard(pack, shard);
    let data = data_shards(pack, &last, shard);
    let parity_shards = parity_shards_of(data.len(), percent);
    let parity = code::encode(&data, parity_shards)?;
    let description = Description {
        pack_bytes,
        shard_bytes: shard_bytes as u32,
        data: data.iter().map(|shard| hash(shard)).collect(),
        parity: parity.chunks(shard).map(hash).collect(),
    };
    let described = description.encode();
    let length = (described.len() as u32).to_le_bytes();
    Ok([&envelope[..], &described, &parity, &described, &length].concat())
}

/// The length of a shard of a pack.
fn shard_bytes_of(pack_bytes: u64) -> u64 {
    pack_bytes.div_ceil(SHARDS).max(SHARD_BYTES_MIN).next_power_of_two()
}

/// How many parity shards stand for so many data shards.
fn parity_shards_of(data: usize, percent: u8) -> usize {
    let percent = u64::from(percent.min(PARITY_PERCENT_MAX));
    (data as u64 * percent).div_ceil(100).max(1) as usize
}

impl Bounds {
    /// Longest object that is read.
    pub(super) fn object_bytes_max(self) -> u64 {
        let shards = parity_shards_of(SHARDS as usize, self.percent) as u64;
        let descriptions = 2 * (FIXED_BYTES as u64 + (SHARDS + shards + 1) * HASH_BYTES as u64) + LENGTH_BYTES as u64;
        ENVELOPE_BYTES as u64 + descriptions + shards * shard_bytes_of(self.pack_bytes_max)
    }

    /// Refuses what no create of this repository wrote.
    fn check(self, name: &ObjectName, description: &Description) -> Result<()> {
        let Description { pack_bytes, data, parity, .. } = description;
        match *pack_bytes <= self.pack_bytes_max && parity.len() <= parity_shards_of(data.len(), self.percent) {
            true => Ok(()),
            false => Err(Error::damaged(name, "it is not of a pack of this repository")),
        }
    }
}

/// Reads an object; one of another repository, or made up, is refused.
pub(super) fn parse_bounded(name: &ObjectName, object: Vec<u8>, bounds: Bounds) -> Result<Parity> {
    let parity = parse(name, object)?;
    bounds.check(name, &parity.description)?;
    Ok(parity)
}

/// Reads what stands behind the envelope. Damage of one description, or of shards, is no error.
pub(super) fn parse(name: &ObjectName, object: Vec<u8>) -> Result<Parity> {
    let body = object.get(ENVELOPE_BYTES..).unwrap_or_default();
    let front = Description::decode(body);
    let back = body.split_last_chunk::<LENGTH_BYTES>().and_then(|(body, length)| {
        let begin = body.len().checked_sub(u32::from_le_bytes(*length) as usize)?;
        Description::decode(&body[begin..])
    });
    let is_doubled = front.is_some() && front == back;
    let description = front.or(back).ok_or_else(|| Error::damaged(name, "its descriptions do not verify"))?;
    let begin = description.encoded_bytes();
    let end = begin + description.parity.len() * description.shard_bytes as usize;
    let is_framed = is_doubled && body.len() == end + begin + LENGTH_BYTES;
    let begin = (ENVELOPE_BYTES + begin).min(object.len());
    let shards = begin..(ENVELOPE_BYTES + end).clamp(begin, object.len());
    Ok(Parity { description, object, shards, is_framed })
}

impl Parity {
    /// Whether nothing of it is damaged.
    pub(super) fn is_whole(&self) -> bool {
        self.is_framed && self.sound_shards().iter().all(Option::is_some)
    }

    /// The parity shards, one after the other.
    pub(super) fn shards(&self) -> &[u8] {
        &self.object[self.shards.clone()]
    }

    /// The pack as it was written; `None` where too much is damaged, or nothing is. What it takes is looked
    /// at before memory is set aside: a pack is at most as long as what is there of it and of its parity.
    pub(super) fn restore(&self, mut pack: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let Description { pack_bytes, shard_bytes, .. } = self.description;
        if self.description.is_of(&pack) {
            return Ok(None);
        }
        let damaged = self.description.damaged_shards(&pack);
        let sound = self.sound_shards();
        if damaged.len() > sound.iter().flatten().count() {
            return Ok(None);
        }
        let shard = shard_bytes as usize;
        pack.resize(usize::try_from(pack_bytes).unwrap_or(usize::MAX), 0);
        let restored = {
            let last = last_shard(&pack, shard);
            let mut data: Vec<Option<&[u8]>> = data_shards(&pack, &last, shard).into_iter().map(Some).collect();
            for &number in &damaged {
                data[number] = None;
            }
            code::decode(&data, &sound)?
        };
        let Some(restored) = restored else { return Ok(None) };
        for (number, bytes) in restored {
            if hash(&bytes) != self.description.data[number] {
                return Ok(None);
            }
            let begin = number * shard;
            let end = (begin + shard).min(pack.len());
            pack[begin..end].copy_from_slice(&bytes[..end - begin]);
        }
        Ok(Some(pack))
    }

    pub(super) fn describe(&self, fields: &mut Fields) {
        let Description { pack_bytes, shard_bytes, data, parity } = &self.description;
        fields.add("pack_bytes", pack_bytes);
        fields.add("shard_bytes", shard_bytes);
        fields.add("data shards", data.len());
        fields.add("parity shards", parity.len());
        for shard in data.iter().chain(parity) {
            fields.add("hash", hex::encode(shard));
        }
    }

    fn sound_shards(&self) -> Vec<Option<&[u8]>> {
        let mut shards = self.shards().chunks_exact(self.description.shard_bytes as usize);
        self.description.parity.iter().map(|wanted| shards.next().filter(|shard| hash(shard) == *wanted)).collect()
    }
}

impl Description {
    /// Whether a pack is as it was written.
    pub(super) fn is_of(&self, pack: &[u8]) -> bool {
        pack.len() as u64 == self.pack_bytes && self.damaged_shards(pack).is_empty()
    }

    /// Numbers of shards that are not what they were; all of them where the pack has another length and they
    /// are cut off.
    pub(super) fn damaged_shards(&self, pack: &[u8]) -> Vec<usize> {
        let shard = self.shard_bytes as usize;
        let pack = &pack[..pack.len().min(usize::try_from(self.pack_bytes).unwrap_or(usize::MAX))];
        let is_cut = (pack.len() as u64) < self.pack_bytes;
        let last = last_shard(pack, shard);
        let found = data_shards(pack, &last, shard);
        let is_damaged = |number: &usize| match found.get(*number) {
            // What zeros filled up may be what was cut off.
            Some(bytes) => hash(bytes) != self.data[*number] || is_cut && *number + 1 == found.len(),
            None => true,
        };
        (0..self.data.len()).filter(is_damaged).collect()
    }

    fn encoded_bytes(&self) -> usize {
        FIXED_BYTES + (self.data.len() + self.parity.len() + 1) * HASH_BYTES
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.extend_from_slice(&self.pack_bytes.to_le_bytes());
        out.extend_from_slice(&self.shard_bytes.to_le_bytes());
        out.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.parity.len() as u32).to_le_bytes());
        for shard in self.data.iter().chain(&self.parity) {
            out.extend_from_slice(shard);
        }
        let check = hash(&out);
        out.extend_from_slice(&check);
        out
    }

    /// From bytes that begin with one; `None` where it does not verify.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED_BYTES] = bytes.first_chunk()?;
        let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let pack_bytes = u64::from(number(0)) | u64::from(number(4)) << 32;
        let (shard_bytes, data, parity) = (number(8), number(12) as usize, number(16) as usize);
        let sound = pack_bytes <= PACK_BYTES_LIMIT
            && u64::from(shard_bytes) == shard_bytes_of(pack_bytes)
            && data as u64 == pack_bytes.div_ceil(u64::from(shard_bytes))
            && data as u64 <= SHARDS
            && (1..=data).contains(&parity);
        let hashed = FIXED_BYTES + data.checked_add(parity)?.checked_mul(HASH_BYTES)?;
        if !sound || bytes.get(hashed..hashed + HASH_BYTES)? != hash(&bytes[..hashed]) {
            return None;
        }
        let mut hashes =
            bytes[FIXED_BYTES..hashed].chunks_exact(HASH_BYTES).filter_map(|hash| hash.first_chunk().copied());
        let data = hashes.by_ref().take(data).collect();
        Some(Self { pack_bytes, shard_bytes, data, parity: hashes.collect() })
    }
}

fn hash(bytes: &[u8]) -> ShardHash {
    let mut short = [0; HASH_BYTES];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..HASH_BYTES]);
    short
}

/// The last data shard, filled up; empty where the pack ends with a whole one.
fn last_shard(pack: &[u8], shard: usize) -> Vec<u8> {
    let mut last = pack.chunks_exact(shard).remainder().to_vec();
    if !last.is_empty() {
        last.resize(shard, 0);
    }
    last
}

fn data_shards<'p>(pack: &'p [u8], last: &'p [u8], shard: usize) -> Vec<&'p [u8]> {
    let filled = Some(last).filter(|last| !last.is_empty());
    pack.chunks_exact(shard).chain(filled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PackId;
    use crate::parity::parity_name;

    fn pack(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().update(&bytes.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn parsed(object: &[u8]) -> Result<Parity> {
        parse(&parity_name(PackId([1; 16])), object.to_vec())
    }

    /// Spoils shards of the pack and of the parity, and says whether the pack comes back.
    fn check(bytes: usize, percent: u8, spoil: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) -> bool {
        let sound = pack(bytes);
        let mut object = build(&[0; ENVELOPE_BYTES], &sound, percent).unwrap();
        let mut hurt = sound.clone();
        spoil(&mut hurt, &mut object);
        match parsed(&object).and_then(|parity| parity.restore(hurt)) {
            Ok(Some(restored)) => {
                assert_eq!(restored, sound, "wrong bytes");
                true
            }
            Ok(None) | Err(Error::Damaged { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn damage_up_to_the_share_comes_back_and_more_does_not() {
        for (bytes, shards) in [(4096usize, 4usize), (8192, 8), (65_536, 64), (1_081_344, 528), (3_000_001, 733)] {
            let shard = bytes.div_ceil(1024).max(1024).next_power_of_two();
            assert_eq!(bytes.div_ceil(shard), shards);
            let parity = (shards * 10).div_ceil(100);
            let burst = |count: usize| {
                move |pack: &mut Vec<u8>, _: &mut Vec<u8>| {
                    let begin = pack.len() - (count * shard).min(pack.len());
                    pack[begin..].fill(0xee);
                }
            };
            let spread = |count: usize| {
                move |pack: &mut Vec<u8>, _: &mut Vec<u8>| {
                    (0..count).for_each(|number| pack[number * (shards / count) * shard] ^= 1);
                }
            };
            assert!(check(bytes, 10, spread(parity)) && !check(bytes, 10, spread(parity + 1)), "{bytes}");
            // A run that does not begin with a shard hits one more.
            let run = if bytes.is_multiple_of(shard) { parity } else { parity - 1 };
            assert!(check(bytes, 10, burst(run)) && !check(bytes, 10, burst(parity + 1)), "{bytes}");
            assert!(check(bytes, 10, |pack, _| pack.truncate(bytes - shard + 1)), "{bytes}");
            assert!(check(bytes, 10, |pack, _| pack.extend([7; 300])));
            assert!(!check(bytes, 10, |pack, _| pack.clear()));
            assert!(check(bytes, 100, |pack, _| pack.clear()), "a pack that is lost comes back from as much parity");
        }
    }

    #[test]
    fn damage_of_the_parity_costs_only_what_it_hits() {
        let bytes = 65_536;
        let flip_pack = |pack: &mut Vec<u8>| pack[5000] ^= 4;
        let length = build(&[0; ENVELOPE_BYTES], &pack(bytes), 10).unwrap().len();
        for position in (0..length).step_by(37).chain([length - 1, length - 4]) {
            assert!(
                check(bytes, 10, |pack, object| {
                    flip_pack(pack);
                    object[position] ^= 1;
                }),
                "at {position}"
            );
        }
        assert!(!check(bytes, 10, |pack, object| {
            flip_pack(pack);
            object.truncate(40);
        }));
        assert!(
            check(bytes, 10, |pack, object| {
                flip_pack(pack);
                object.truncate(length - 300);
            }),
            "one end is left"
        );
    }

    #[test]
    fn what_is_whole_is_said_to_be() {
        let sound = pack(10_000);
        let object = build(&[0; ENVELOPE_BYTES], &sound, 10).unwrap();
        let parity = parsed(&object).unwrap();
        assert!(parity.is_whole() && parity.description.is_of(&sound));
        assert!(parity.restore(sound).unwrap().is_none());
        for position in ENVELOPE_BYTES..object.len() {
            let mut hurt = object.clone();
            hurt[position] ^= 1;
            assert!(!parsed(&hurt).is_ok_and(|parity| parity.is_whole()), "{position}");
        }
    }

    #[test]
    fn what_no_create_of_this_repository_wrote_is_refused() {
        let (name, pack) = (parity_name(PackId([1; 16])), pack(100_000));
        let object = build(&[0; ENVELOPE_BYTES], &pack, 10).unwrap();
        let bounded = |object: &[u8], pack_bytes_max, percent| {
            let bounds = Bounds { pack_bytes_max, percent };
            assert!(object.len() as u64 <= Bounds { pack_bytes_max: 100_000, percent: 10 }.object_bytes_max());
            parse_bounded(&name, object.to_vec(), bounds).is_ok()
        };
        assert!(bounded(&object, 100_000, 10) && bounded(&object, 100_000, 100));
        assert!(!bounded(&object, 99_999, 10), "of a longer pack");
        assert!(!bounded(&object, 100_000, 5), "more of it");
        // One that says much and has nothing: 1,024 shards, none of which is there.
        let mut description = parsed(&object).unwrap().description;
        description.pack_bytes = PACK_BYTES_LIMIT;
        description.shard_bytes = shard_bytes_of(PACK_BYTES_LIMIT) as u32;
        (description.data, description.parity) = (vec![[7; 16]; 1024], vec![[7; 16]; 1024]);
        let described = description.encode();
        let length = (described.len() as u32).to_le_bytes();
        let forged = [&[0; ENVELOPE_BYTES][..], &described, &described, &length].concat();
        let parity = parse(&name, forged).unwrap();
        assert!(parity.restore(pack).unwrap().is_none());
    }

    #[test]
    fn any_bytes_parse_or_do_not() {
        for bytes in 0..400 {
            let _ = parsed(&pack(bytes + ENVELOPE_BYTES));
        }
        let mut object = build(&[0; ENVELOPE_BYTES], &pack(5000), 50).unwrap();
        for position in 0..object.len() {
            object[position] ^= 0xff;
            let _ = parsed(&object).map(|parity| parity.restore(pack(5000)));
            object[position] ^= 0xff;
        }
    }
}
