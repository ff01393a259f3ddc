//! The gzip tar of the Hub's design: `snapshot.yaml`, `hub.db`, `bucket/`; the instance's key encrypted by a
//! password.
//!
//! What is read is untrusted: only these names, only files and folders, everything counted and bounded,
//! nothing extracted to disk. It is read twice: once to judge it wholly, once to take it.

mod left_out;
mod manifest;
mod read;
mod scan;
mod write;

pub use read::{HubImportReport, HubImportRequest, HubSummary, import, verify};
pub use scan::HubLimits;
pub use write::{HubExportReport, HubExportRequest, export};

/// The manifest's member.
const MANIFEST: &str = "snapshot.yaml";
/// The database's member, and the label of its source.
const DATABASE: &str = "hub.db";
/// The folder's member, and the label of its source.
const BUCKET: &str = "bucket";
/// The label of the source of the instance's key.
const KEY: &str = "key";
/// Every SQLite database begins so.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of a SQLite database's header in bytes.
const SQLITE_HEADER_BYTES: usize = 100;

/// Whether a file begins as gzip does.
#[must_use]
pub fn is_gzip(beginning: &[u8]) -> bool {
    beginning.starts_with(&[0x1f, 0x8b])
}

/// `user_version` of a database, by its header.
fn user_version(header: &[u8]) -> Option<String> {
    let bytes = header.get(60..64)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).to_string())
}

/// For fuzzing: reads any bytes as such a bundle, or as the archive in one, and keeps nothing.
#[doc(hidden)]
pub fn fuzz_scan(bytes: &[u8]) {
    let limits = HubLimits { bytes_max: 1 << 20, ..HubLimits::default() };
    let packed = if is_gzip(bytes) { bytes.to_vec() } else { packed(bytes) };
    let length = packed.len() as u64;
    let _ = scan::scan(std::io::Cursor::new(packed), length, &limits, &mut |member, data| {
        if member.part == scan::Part::Manifest {
            let mut text = Vec::new();
            std::io::Read::read_to_end(data, &mut text).map_err(scan::broken)?;
            manifest::HubManifest::decode(&text)?;
        }
        Ok(())
    });
}

/// For fuzzing: the archive of a bundle.
#[doc(hidden)]
#[must_use]
pub fn fuzz_unpacked(bundle: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    // A seed that cannot be read is a shorter seed.
    let _ = std::io::Read::read_to_end(&mut flate2::bufread::GzDecoder::new(bundle), &mut archive);
    archive
}

fn packed(archive: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    // Memory takes every byte.
    let _ = std::io::Write::write_all(&mut encoder, archive);
    encoder.finish().unwrap_or_default()
}
