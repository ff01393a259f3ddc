//! The gzip tar of the Hub's design: `snapshot.yaml`, `hub.db`, `bucket/`; the instance's key encrypted by a password.
//!
//! What is read is untrusted: only these names, only files and folders, everything counted and bounded, nothing extracted to disk. It is
//! read twice: once to judge it wholly, once to take it.

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

/// For fuzzing: reads any bytes as such a bundle, and keeps nothing.
#[doc(hidden)]
pub fn fuzz_scan(bytes: &[u8]) {
    let limits = HubLimits { bytes_max: 1 << 20, ..HubLimits::default() };
    let _ = scan::scan(std::io::Cursor::new(bytes), bytes.len() as u64, &limits, &mut |_, _| Ok(()));
}
