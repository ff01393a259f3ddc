//! Bundles: what stands in the sealed stream of a native one, and archives in the format of the Hub.

use std::io;

use copal_bundle::{fuzz_native, hub_tar as hub};
use copal_store::stream::{ReadAt, StreamKeys, StreamOpener};

const NATIVE: &[u8] = include_bytes!("../../testdata/bundles/v1.copal");
const HUB: &[u8] = include_bytes!("../../testdata/bundles/v1-hub.tar.gz");

/// The plaintext of a native bundle: whoever knows a passphrase can seal anything.
pub fn native(bytes: &[u8]) {
    fuzz_native(bytes);
}

/// That of the golden one, without its padding.
#[must_use]
pub fn native_seeds() -> Vec<Vec<u8>> {
    let opened = || -> copal_store::Result<Vec<u8>> {
        let keys = StreamKeys::open(NATIVE, b"golden")?;
        let mut plain = Vec::new();
        StreamOpener::new(&keys, Bytes, NATIVE.len() as u64)?.segment(0, &mut plain)?;
        Ok(plain)
    };
    let mut plain = opened().expect("the golden bundle opens");
    plain.truncate(plain.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 10));
    vec![plain]
}

/// A bundle of the Hub: packed, or the archive in it.
pub fn hub_tar(bytes: &[u8]) {
    hub::fuzz_scan(bytes);
}

/// The golden one, packed and unpacked.
#[must_use]
pub fn hub_tar_seeds() -> Vec<Vec<u8>> {
    vec![HUB.to_vec(), hub::fuzz_unpacked(HUB)]
}

struct Bytes;

impl ReadAt for Bytes {
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = NATIVE.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
