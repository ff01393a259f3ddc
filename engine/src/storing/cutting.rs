//! How content is cut: one chunk, fixed pages, or by content.

use copal_chunker::{HEAD_BYTES, looks_page_structured};
use copal_manifest::content::Cutting;
use copal_store::config::Parameters;

/// How content begins decides how it is cut: so many bytes are looked at, where there are as many.
pub(crate) const DECIDING_BYTES: usize = HEAD_BYTES + 64;

/// Whether content of so many bytes is one chunk.
pub(crate) fn is_small(bytes: u64, parameters: &Parameters) -> bool {
    bytes <= u64::from(parameters.chunk_bytes_min)
}

/// Fixed pages, in this repository.
pub(crate) fn fixed(parameters: &Parameters) -> Cutting {
    Cutting::Fixed(parameters.page_chunk_bytes)
}

/// How content that begins so is cut, where nothing else is known of it.
pub(crate) fn by_its_head(head: &[u8], parameters: &Parameters) -> Cutting {
    if looks_page_structured(head) { fixed(parameters) } else { Cutting::Content }
}
