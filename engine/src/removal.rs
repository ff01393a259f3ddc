//! Removes snapshots and returns space. (Skeleton of the agreed interface.)

use copal_store::collect::CollectReport;

use crate::catalogue::Listed;
use crate::context::Context;
use crate::error::Result;

/// Deletes by name: durable when it returns. A reference that matches nothing is an error unless its snapshot is already gone
/// by full id. Pinned ones are refused.
pub fn delete(_context: &Context, _references: &[String]) -> Result<Vec<Listed>> {
    todo!()
}

/// Rules of retention: a snapshot that any rule keeps stays. All zero keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KeepRules {
    /// The newest N.
    pub last: u32,
    /// The newest of each of the last N hours that have one (UTC).
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// What retention decided.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ForgetReport {
    /// Kept, each with the rules that keep it (`last`, `daily`, `pinned` …).
    pub kept: Vec<(Listed, Vec<&'static str>)>,
    /// Removed, or to be removed.
    pub removed: Vec<Listed>,
}

/// Applies the rules to each application (snapshots without one form a group), or only to one.
pub fn forget(
    _context: &Context,
    _app: Option<&str>,
    _rules: KeepRules,
    _dry_run: bool,
) -> Result<ForgetReport> {
    todo!()
}

/// Collects what no snapshot reaches.
pub fn collect_garbage(_context: &Context, _dry_run: bool) -> Result<CollectReport> {
    todo!()
}
