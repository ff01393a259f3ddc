//! Sources: the outside world that is captured and put back. It never knows the store.
//!
//! Every path here is handled relative to an open directory descriptor, without following symbolic links.
//! (Skeleton of the agreed interface.)
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod error;
pub mod read;
pub mod scan;
pub mod target;

pub use error::{Error, Result};
