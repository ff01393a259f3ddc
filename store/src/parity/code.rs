//! The code: Reed–Solomon over GF(2^16) as Leopard-RS does it, by the library. Shards of equal, even length.

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use crate::{Error, Result};

/// The parity shards of data shards.
pub(super) fn encode(data: &[&[u8]], parity: usize) -> Result<Vec<u8>> {
    let shard_bytes = data.first().map_or(0, |shard| shard.len());
    let mut encoder = ReedSolomonEncoder::new(data.len(), parity, shard_bytes).map_err(impossible)?;
    for shard in data {
        encoder.add_original_shard(shard).map_err(impossible)?;
    }
    let encoded = encoder.encode().map_err(impossible)?;
    Ok(encoded.recovery_iter().flatten().copied().collect())
}

/// A data shard with its number.
type Restored = (usize, Vec<u8>);

/// The data shards that are missing. `None` where too few shards are sound.
pub(super) fn decode(data: &[Option<&[u8]>], parity: &[Option<&[u8]>]) -> Result<Option<Vec<Restored>>> {
    let missing = data.iter().filter(|shard| shard.is_none()).count();
    let sound: Vec<(usize, &[u8])> =
        parity.iter().enumerate().filter_map(|(number, shard)| shard.map(|shard| (number, shard))).collect();
    if missing == 0 {
        return Ok(Some(Vec::new()));
    }
    let Some(shard_bytes) = sound.first().map(|(_, shard)| shard.len()).filter(|_| missing <= sound.len()) else {
        return Ok(None);
    };
    let mut decoder = ReedSolomonDecoder::new(data.len(), parity.len(), shard_bytes).map_err(impossible)?;
    for (number, shard) in data.iter().enumerate() {
        if let Some(shard) = shard {
            decoder.add_original_shard(number, shard).map_err(impossible)?;
        }
    }
    for (number, shard) in sound {
        decoder.add_recovery_shard(number, shard).map_err(impossible)?;
    }
    let decoded = decoder.decode().map_err(impossible)?;
    Ok(Some(decoded.restored_original_iter().map(|(number, shard)| (number, shard.to_vec())).collect()))
}

/// Counts and lengths were checked before.
fn impossible(error: reed_solomon_simd::Error) -> Error {
    Error::damaged("the parity of a pack", error)
}
