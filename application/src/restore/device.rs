//! A target that is a block device. It has no name to exchange: its bytes are overwritten. So what stands on
//! it is copied first, whole, because the application may write anywhere once it has started; the image is
//! fetched before anything is stopped.
//!
//! In the folder: `new` is the image, `old` the copy, `old.part` a copy that is not complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use copal_engine::deploy::remove_whole;
use copal_source::device::{BlockDevice, device_identity};
use copal_source::target::rename_new;

use crate::error::{Result, failed};

pub(super) fn new_of(folder: &Path) -> PathBuf {
    folder.join("new")
}

/// The copy of what stood on the device.
pub(super) fn old_of(folder: &Path) -> PathBuf {
    folder.join("old")
}

/// Writes the image, once the copy is complete; returns what was written.
pub(super) fn switch(path: &Path, folder: &Path, identity: &str) -> Result<u64> {
    let device = hold(path, identity)?;
    let (part, old) = (folder.join("old.part"), old_of(folder));
    remove_whole(&part)?;
    device.copy_to(&part)?;
    let io = |error| failed("keeping", &old, error);
    fs::rename(&part, &old).and_then(|()| File::open(folder)?.sync_all()).map_err(io)?;
    Ok(device.make_equal_to(&new_of(folder))?)
}

/// Writes the copy back, if the device was touched.
pub(super) fn undo(path: &Path, folder: &Path, identity: &str) -> Result<()> {
    let old = old_of(folder);
    if old.exists() {
        hold(path, identity)?.make_equal_to(&old)?;
    }
    Ok(remove_whole(folder)?)
}

/// Removes the copy, or gives it the name under which it stays.
pub(super) fn finish(folder: &Path, kept: Option<&Path>) -> Result<()> {
    let old = old_of(folder);
    if let Some(kept) = kept.filter(|_| old.exists()) {
        rename_new(&old, kept)?;
    }
    Ok(remove_whole(folder)?)
}

/// Never another device than the one that the deploy began with: numbers are given anew when a machine
/// starts.
fn hold(path: &Path, identity: &str) -> Result<BlockDevice> {
    let found = device_identity(path)?;
    if found != identity {
        let detail =
            format!("is another device now ({found}) than when the deploy began ({identity}): attach that one there");
        return Err(copal_source::Error::Refused { path: path.to_owned(), detail }.into());
    }
    Ok(BlockDevice::hold(path)?)
}
