//! The native bundle: one sealed file, its index first.

pub(crate) mod format;
pub(crate) mod read;
pub(crate) mod write;
