//! Sources: the outside world that is captured and put back. It never knows the store.
//!
//! Every path here is handled relative to an open directory descriptor, without following symbolic links:
//! whatever another process does to the tree meanwhile, nothing outside the opened root is read or written
//! through it. The only link that is followed is a source's root itself, and only to a folder.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attributes;
mod beneath;
pub mod device;
pub mod error;
pub mod extents;
pub mod holders;
pub mod hook;
pub mod kept;
pub mod mounts;
pub mod postgres;
pub mod process;
pub mod read;
pub mod scan;
pub mod settle;
pub mod sqlite;
mod stat;
pub mod target;

pub use error::{Error, Result};
