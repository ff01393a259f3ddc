//! Stores contents: what is new is cut, named, compared with what is there, and stored as a delta, together
//! with its neighbours, or whole.
//!
//! The one way in: for files of a source (`create`), for streams, and for what arrives from another
//! repository. Whoever calls says where bytes come from; nothing here knows snapshots, trees or files.

pub mod bases;
pub mod chunks;
pub mod cutting;
pub(crate) mod meter;
pub(crate) mod promise;
pub mod stream;
