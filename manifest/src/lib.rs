//! Manifests: what a snapshot is. Entries, the sorted tree of entries, differences. No I/O, no threads.
//! (Skeleton of the agreed interface.)
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod content;
pub mod entry;
pub mod snapshot;
pub mod tree;
