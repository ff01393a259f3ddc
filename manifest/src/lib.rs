//! Manifests: what a snapshot is. Entries, the sorted tree of entries, the lists of pieces of files,
//! differences, the root. Nodes come from and go to a [`tree::NodeSink`] and a `ChunkSource`: no file is
//! opened here, no thread started.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod acl;
mod build;
pub mod content;
mod cursor;
mod diff;
pub mod entry;
pub mod finder;
mod folders;
pub mod name;
mod node;
mod piece_cursor;
mod rules;
pub mod shown;
pub mod snapshot;
pub mod tags;
pub mod total;
pub mod tree;
mod walk;
