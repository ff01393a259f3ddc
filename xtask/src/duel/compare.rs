//! Whether a restored folder is the source: every byte, and what kind, mode and time each entry has.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

const THREADS: usize = 4;
const BUFFER_BYTES: usize = 1 << 20;

/// What is not fatal: a tool that restores all bytes but not all metadata is still measured, and named.
#[derive(Clone, Debug, Default)]
pub(super) struct Difference {
    /// Entries whose mode or time differs, and one of them.
    pub(super) metadata: u64,
    pub(super) example: Option<String>,
}

/// Compares; an entry too much, one missing or another byte is an error.
pub(super) fn compare(source: &Path, restored: &Path) -> Result<Difference> {
    let mut difference = Difference::default();
    let mut files = Vec::new();
    folders(source, restored, &mut files, &mut difference)?;
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let (mut left, mut right) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
                while let Some((a, b)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = same_bytes(a, b, &mut left, &mut right) {
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                        next.store(files.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(difference),
    }
}

fn folders(
    source: &Path,
    restored: &Path,
    files: &mut Vec<(PathBuf, PathBuf)>,
    difference: &mut Difference,
) -> Result<()> {
    let (wanted, found) = (names(source)?, names(restored)?);
    if wanted != found {
        let odd = wanted.symmetric_difference(&found).next().cloned().unwrap_or_default();
        bail!("{} and {} do not have the same entries: {}", source.display(), restored.display(), odd.display());
    }
    for name in wanted {
        let (a, b) = (source.join(&name), restored.join(&name));
        let (left, right) = (fs::symlink_metadata(&a)?, fs::symlink_metadata(&b)?);
        if left.file_type() != right.file_type() {
            bail!("{} is of another kind than {}", b.display(), a.display());
        }
        note(&left, &right, &b, difference);
        if left.is_dir() {
            folders(&a, &b, files, difference)?;
        } else if left.len() != right.len() {
            bail!("{} has {} bytes, {} has {}", a.display(), left.len(), b.display(), right.len());
        } else {
            files.push((a, b));
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>> {
    let listed = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    listed.map(|entry| Ok(entry?.file_name())).collect()
}

fn note(left: &Metadata, right: &Metadata, path: &Path, difference: &mut Difference) {
    let time = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
    if left.mode() == right.mode() && time(left) == time(right) {
        return;
    }
    difference.metadata += 1;
    difference.example.get_or_insert_with(|| {
        format!(
            "{}: mode {:o} and time {:?}, not {:o} and {:?}",
            path.display(),
            right.mode(),
            time(right),
            left.mode(),
            time(left)
        )
    });
}

fn same_bytes(source: &Path, restored: &Path, left: &mut [u8], right: &mut [u8]) -> Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    let (mut a, mut b) = (open(source)?, open(restored)?);
    loop {
        let count = a.read(left)?;
        let Some(other) = right.get_mut(..count) else { bail!("a read beyond its buffer") };
        b.read_exact(other).with_context(|| format!("reading {}", restored.display()))?;
        if left[..count] != *other {
            bail!("{} has other bytes than {}", restored.display(), source.display());
        }
        if count == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: nothing that differs passes as restored. Method: two small folders, and one difference at a
    //! time.

    use super::*;

    fn check(spoil: impl FnOnce(&Path)) -> Result<Difference> {
        let folder =
            std::env::temp_dir().join(format!("duel-compare-{}-{:?}", std::process::id(), std::thread::current().id()));
        let _ = fs::remove_dir_all(&folder);
        let (a, b) = (folder.join("a"), folder.join("b"));
        for side in [&a, &b] {
            fs::create_dir_all(side.join("inner")).unwrap();
            fs::write(side.join("inner/file"), b"bytes").unwrap();
        }
        let mut touch = std::process::Command::new("touch");
        touch.args(["-d", "2026-01-01"]).args([
            a.join("inner/file"),
            b.join("inner/file"),
            a.join("inner"),
            b.join("inner"),
        ]);
        assert!(touch.status().unwrap().success());
        spoil(&b);
        let outcome = compare(&a, &b);
        fs::remove_dir_all(&folder).unwrap();
        outcome
    }

    #[test]
    fn every_difference_is_found() {
        assert_eq!(check(|_| ()).unwrap().metadata, 0);
        assert!(check(|b| fs::write(b.join("inner/file"), b"bytez").unwrap()).is_err());
        assert!(check(|b| fs::write(b.join("inner/file"), b"byte").unwrap()).is_err());
        assert!(check(|b| fs::write(b.join("inner/more"), b"").unwrap()).is_err());
        assert!(check(|b| fs::remove_file(b.join("inner/file")).unwrap()).is_err());
        let touched = check(|b| {
            let file = File::open(b.join("inner/file")).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        });
        assert_eq!(touched.unwrap().metadata, 1);
    }
}
