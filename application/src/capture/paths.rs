//! Where sources are.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use copal_engine::create::recorded_path as recorded_path_of;

use crate::config::Source;
use crate::error::Result;

/// The path that is recorded.
pub(crate) fn recorded_path(source: &Source) -> Result<Vec<u8>> {
    let Some(path) = source.spec.path() else { return Ok(Vec::new()) };
    Ok(recorded_path_of(path)?.into_os_string().into_vec())
}

/// Whether two paths are on one filesystem.
pub(crate) fn same_filesystem(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    device(a).is_some() && device(a) == device(b)
}
