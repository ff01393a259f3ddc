//! The engine: the operations on a repository. Synchronous; its pipeline has the only threads below the
//! service. It never sees a terminal or HTTP, a global clock, the environment or a home folder.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod catalogue;
pub mod content_reader;
pub mod context;
pub mod create;
pub mod deploy;
pub mod error;
pub mod inspect;
pub mod known_keys;
pub mod moment;
pub mod own;
pub mod removal;
pub mod secret;
pub mod state;
pub mod storing;
pub mod timespan;
mod unread;
pub mod verdict;
pub mod verify;
mod walk;

pub use context::{Clock, Context, Monitor, Progress};
pub use error::{Error, Result};
