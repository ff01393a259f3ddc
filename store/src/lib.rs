//! The store: sealed, immutable objects under one trait.
//!
//! It knows ids, the formats of packs, index fragments and roots, keys, the [`Backend`] trait, the commit
//! order and the mechanics of collection. It never knows what a snapshot means, and never sees a terminal, a
//! clock or the network.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
pub mod error;
pub mod ids;

pub use backend::{Backend, ObjectKind, ObjectName};
pub use error::{Error, Result};
pub use ids::{ChunkId, ObjectId, PackId, RepositoryId, SnapshotId};
pub mod check;
pub mod codec;
pub mod collect;
pub mod config;
pub mod describe;
pub mod entropy;
pub mod keys;
pub mod local;
pub mod location;
pub mod repository;
pub mod roles;
pub mod roster;
pub mod rotation;
pub mod secret;
pub mod session;
pub mod signing;
pub mod stream;

mod delta;
pub mod encoding;
pub mod envelope;
mod epochs;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grants;
mod index;
mod key_slots;
mod labels;
#[doc(hidden)]
pub mod mutants;
pub mod pack;
pub mod padding;
pub mod parity;
mod sealed;
mod sealed_to;
mod slots;
mod standing;
mod stored_config;
pub mod trust;
