//! The repository's configuration object: what it is, who may read it, and the parameters fixed at `init`.

use serde::{Deserialize, Serialize};

use crate::backend::{ObjectKind, ObjectName};
use crate::describe::Fields;
use crate::envelope::{ENVELOPE_BYTES, Envelope};
use crate::ids::{ObjectId, RepositoryId};
use crate::keys::{Domain, Keys, nonce};
use crate::location::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use crate::pack::PACK_BYTES_MAX;
use crate::parity::PARITY_PERCENT_MAX;
use crate::{Error, Result, codec};

/// Longest configuration object in bytes.
pub(crate) const CONFIG_BYTES_MAX: u64 = 64 << 10;
/// The configuration object.
#[must_use]
pub fn config_name() -> ObjectName {
    ObjectName::new(ObjectKind::Config, "config").expect("a constant name")
}

/// The configuration and its copy, the same bytes: without one of them nothing could be opened.
#[must_use]
pub fn config_names() -> [ObjectName; 2] {
    [config_name(), ObjectName::new(ObjectKind::Config, "config-copy").expect("a constant name")]
}
/// Features that a reader must know; an unknown one means a newer program.
const FEATURES_TO_READ: &[&str] = &["deltas", "frames", "prolly-tree"];
/// Features that a writer must know beside these.
const FEATURES_TO_WRITE: &[&str] = &["condemned-packs", "held-sessions"];
/// What a writer must know besides where packs have parity: its share follows the parameters.
const FEATURE_PARITY: &str = "parity";

/// Authenticated encryption of a repository; chosen at `init` by what the machine does faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum CipherSuite {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 2,
}

/// The rule that cuts content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutRule {
    /// AES over a 16-byte window, hard and normal cuts.
    AesWindow,
    /// `fastcdc` v2020 with a full secret gear table.
    FastCdc2020,
}

/// What is fixed when a repository is made. Sealed in the configuration: sizes say something of chunk
/// lengths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The rule for content cuts.
    pub cut_rule: CutRule,
    /// Smallest content chunk in bytes, but for the last of a file and those that end at a hard cut.
    pub chunk_bytes_min: u32,
    /// Aimed-at mean in bytes; a power of two.
    pub chunk_bytes_average: u32,
    /// Largest content chunk in bytes.
    pub chunk_bytes_max: u32,
    /// Chunk length for page-structured files; a multiple of 64 KiB.
    pub page_chunk_bytes: u32,
    /// zstd level of whole chunks, 1 to 19.
    pub compression_level: i32,
    /// Largest pack in bytes.
    pub pack_bytes_max: u32,
    /// Plaintext bytes collected into one frame of small chunks.
    pub frame_bytes: u32,
    /// Parity beside each pack, in percent of its length; 0: none. Stored only where there is some.
    #[serde(skip)]
    pub parity_percent: u8,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            cut_rule: CutRule::AesWindow,
            chunk_bytes_min: 32 << 10,
            chunk_bytes_average: 64 << 10,
            chunk_bytes_max: 128 << 10,
            page_chunk_bytes: 64 << 10,
            compression_level: 2,
            pack_bytes_max: 64 << 20,
            frame_bytes: 1 << 20,
            parity_percent: 0,
        }
    }
}

/// The configuration object, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The repository's identity.
    pub repository: RepositoryId,
    /// The cipher of every object but key slots.
    pub suite: CipherSuite,
    /// The sealed part.
    pub parameters: Parameters,
}

/// The clear part: readable before any key is known, authenticated by the sealed part's associated data.
#[derive(Serialize, Deserialize)]
struct ClearPart {
    features_to_read: Vec<String>,
    features_to_write: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ConfigDocument {
    clear: ClearPart,
    sealed: Vec<u8>,
}

impl Parameters {
    /// Refuses what no engine can work with; on write and on read.
    pub fn validate(&self) -> Result<()> {
        let sound = self.are_cuttable()
            && self.page_chunk_bytes >= 64 << 10
            && self.page_chunk_bytes <= CHUNK_BYTES_MAX
            && self.page_chunk_bytes.is_multiple_of(64 << 10)
            && (1..=19).contains(&self.compression_level)
            && u64::from(self.pack_bytes_max) <= PACK_BYTES_MAX
            && self.pack_bytes_max >= 1 << 20
            && self.pack_bytes_max >= 2 * self.chunk_bytes_max
            && (64 << 10..=FRAME_BYTES_MAX).contains(&self.frame_bytes)
            && self.parity_percent <= PARITY_PERCENT_MAX;
        if sound { Ok(()) } else { Err(Error::damaged("the repository's parameters", "they contradict their limits")) }
    }

    /// Whether there is a cutter for them; a test of the engine compares this with the cutter's own limits.
    fn are_cuttable(&self) -> bool {
        let (min, average, max) = (self.chunk_bytes_min, self.chunk_bytes_average, self.chunk_bytes_max);
        let is_sound = (64..=average).contains(&min)
            && (average..=CHUNK_BYTES_MAX).contains(&max)
            && average >= 256
            && average.is_power_of_two();
        let is_even = || [min, max].iter().all(|size| size.is_multiple_of(2));
        is_sound
            && match self.cut_rule {
                CutRule::AesWindow => true,
                CutRule::FastCdc2020 => is_even() && min <= 1 << 20 && average <= 4 << 20 && max >= 1024,
            }
    }
}

impl Config {
    /// Seals the object.
    pub(crate) fn seal(&self, keys: &Keys) -> Result<Vec<u8>> {
        self.parameters.validate()?;
        self.seal_needing(keys, &[])
    }

    /// The same of any parameters, with more that a reader has to know.
    pub(crate) fn seal_needing(&self, keys: &Keys, more: &[&str]) -> Result<Vec<u8>> {
        let id = ObjectId(self.repository.0);
        let envelope = Envelope::first(ObjectKind::Config, self.suite, id).encode();
        let owned = |features: &[&str]| features.iter().map(|feature| (*feature).to_owned()).collect();
        let mut clear =
            ClearPart { features_to_read: owned(FEATURES_TO_READ), features_to_write: owned(FEATURES_TO_WRITE) };
        clear.features_to_read.extend(owned(more));
        let mut sealed = codec::encode(&self.parameters)?;
        if self.parameters.parity_percent > 0 {
            clear.features_to_write.push(FEATURE_PARITY.to_owned());
            sealed.push(self.parameters.parity_percent);
        }
        let aad = [&envelope[..], &codec::encode(&clear)?].concat();
        let tag = keys.object_cipher(self.suite, ObjectKind::Config, id)?.seal(
            nonce(Domain::Wrapped, 0),
            &aad,
            &mut sealed,
        )?;
        sealed.extend_from_slice(&tag);
        Ok([&envelope[..], &codec::encode(&ConfigDocument { clear, sealed })?].concat())
    }

    /// What is clear: the repository's identity and cipher, with the features checked.
    pub(crate) fn peek(bytes: &[u8]) -> Result<Envelope> {
        let (envelope, document) = decode(bytes)?;
        let unknown = |features: &[String], known: &[&str]| {
            features.iter().find(|feature| !known.contains(&feature.as_str())).cloned()
        };
        let clear = &document.clear;
        let known_to_write = [FEATURES_TO_WRITE, &[FEATURE_PARITY]].concat();
        let unknown =
            unknown(&clear.features_to_read, FEATURES_TO_READ).or(unknown(&clear.features_to_write, &known_to_write));
        match unknown {
            Some(feature) => Err(Error::Unsupported {
                what: format!("the repository needs {feature:?}, which"),
                found: 2,
                supported: 1,
            }),
            None => Ok(envelope),
        }
    }

    /// Opens the object. What it says of features counts only when it verifies: a flipped bit makes no newer
    /// version.
    pub(crate) fn open(keys: &Keys, bytes: &[u8]) -> Result<Self> {
        let (envelope, document) = decode(bytes)?;
        let has_parity = document.clear.features_to_write.iter().any(|feature| feature == FEATURE_PARITY);
        let mut sealed = unseal(keys, &envelope, document)?;
        Self::peek(bytes)?;
        let parity_percent = if has_parity { sealed.pop().unwrap_or_default() } else { 0 };
        if has_parity != (parity_percent > 0) {
            return Err(Error::damaged("config", "it has a parity of no bytes"));
        }
        let parameters = Parameters { parity_percent, ..codec::decode("config", &sealed)? };
        parameters.validate()?;
        Ok(Self { repository: RepositoryId(envelope.id.0), suite: envelope.suite, parameters })
    }

    /// Adds its fields; returns the sealed part's plaintext.
    pub(crate) fn describe(keys: &Keys, bytes: &[u8], fields: &mut Fields) -> Result<Vec<u8>> {
        let config = Self::open(keys, bytes)?;
        let document: ConfigDocument = codec::decode("config", &bytes[ENVELOPE_BYTES..])?;
        fields.add("features to read", document.clear.features_to_read.join(" "));
        fields.add("features to write", document.clear.features_to_write.join(" "));
        let Parameters {
            cut_rule,
            chunk_bytes_min,
            chunk_bytes_average,
            chunk_bytes_max,
            page_chunk_bytes,
            compression_level,
            pack_bytes_max,
            frame_bytes,
            parity_percent,
        } = &config.parameters;
        fields.add_debug("cut_rule", cut_rule);
        fields.add("chunk_bytes_min", chunk_bytes_min);
        fields.add("chunk_bytes_average", chunk_bytes_average);
        fields.add("chunk_bytes_max", chunk_bytes_max);
        fields.add("page_chunk_bytes", page_chunk_bytes);
        fields.add("compression_level", compression_level);
        fields.add("pack_bytes_max", pack_bytes_max);
        fields.add("frame_bytes", frame_bytes);
        if *parity_percent > 0 {
            fields.add("parity_percent", parity_percent);
        }
        codec::encode(&config.parameters)
    }
}

fn decode(bytes: &[u8]) -> Result<(Envelope, ConfigDocument)> {
    let envelope = Envelope::decode("config", ObjectKind::Config, bytes)?;
    Ok((envelope, codec::decode("config", &bytes[ENVELOPE_BYTES..])?))
}

fn unseal(keys: &Keys, envelope: &Envelope, mut document: ConfigDocument) -> Result<Vec<u8>> {
    let aad = [&envelope.encode()[..], &codec::encode(&document.clear)?].concat();
    let plain_bytes = keys
        .object_cipher(envelope.suite, ObjectKind::Config, envelope.id)?
        .open(nonce(Domain::Wrapped, 0), &aad, &mut document.sealed)
        .ok_or_else(|| Error::damaged("config", "it does not verify"))?;
    document.sealed.truncate(plain_bytes);
    Ok(document.sealed)
}
