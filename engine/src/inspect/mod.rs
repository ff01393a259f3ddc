//! Looks into snapshots: what is in one, what differs, where a path is, what all of it costs. Nothing here
//! writes.

mod diff;
mod find;
mod list;
pub(crate) mod place;
mod stats;

pub use diff::{
    DiffItem, DiffReport, Trust, diff, diff_with_disk, diff_with_places, diff_with_places_within, diff_within,
};
pub use find::{Found, find};
pub use list::{MemberSink, dump, ls, walk};
pub use stats::{SnapshotSize, Stats, stats};
