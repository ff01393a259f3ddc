//! The repository's configuration object: what it is, who may read it, and the parameters fixed at `init`.

use serde::{Deserialize, Serialize};

use crate::ids::RepositoryId;

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

/// What is fixed when a repository is made. Sealed in the configuration: sizes say something of chunk lengths.
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
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            cut_rule: CutRule::AesWindow,
            chunk_bytes_min: 32 << 10,
            chunk_bytes_average: 64 << 10,
            chunk_bytes_max: 128 << 10,
            page_chunk_bytes: 64 << 10,
            compression_level: 1,
            pack_bytes_max: 64 << 20,
            frame_bytes: 1 << 20,
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
