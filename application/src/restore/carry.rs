//! What stays through a switch of whole trees: it is moved from the old state into the new one, and back when
//! that is taken back.
//!
//! Every move is one rename beneath two open folders, never through a link; a path is at each moment at one
//! of its two places. What stands in the way of a move is an error, and nothing is removed for it.

use std::path::Path;

use copal_source::scan::FileKind;
use copal_source::target::{TargetMetadata, TargetTree};

use crate::error::{Error, Result};

/// Paths below a target, in hexadecimal: names are no text.
pub(super) type Carried = Vec<String>;

/// As the journal keeps them.
pub(super) fn written(paths: &[Vec<u8>]) -> Carried {
    paths.iter().map(hex::encode).collect()
}

/// Moves what is carried from one state of a target to another; what is not there has been moved already.
/// Folders that lead to it are made like those where it is, and keep their times.
pub(super) fn move_all(carried: &Carried, from: &Path, to: &Path) -> Result<()> {
    if carried.is_empty() || !from.is_dir() || !to.is_dir() {
        return Ok(());
    }
    let (from, to) = (TargetTree::open(from)?, TargetTree::open(to)?);
    for path in carried {
        let path = hex::decode(path).map_err(|_| Error::internal("a journal names a path that is none"))?;
        if stands(&from, &path)? {
            move_one(&from, &to, &path)?;
        }
    }
    Ok(())
}

fn move_one(from: &TargetTree, to: &TargetTree, path: &[u8]) -> Result<()> {
    if stands(to, path)? {
        let path = String::from_utf8_lossy(path);
        return Err(Error::usage(format!(
            "{path} stays through a deploy, and something else came to its place meanwhile"
        )));
    }
    let parent = path.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |at| &path[..at]);
    // Folders whose times change with what is done in them, those above first.
    let mut touched = vec![(from, parent, metadata_of(from, parent)?), (to, &b""[..], metadata_of(to, b"")?)];
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let folder = &path[..at];
        let stood = stands(to, folder)?;
        touched.push((to, folder, metadata_of(if stood { to } else { from }, folder)?));
        if !stood {
            to.create_directory(folder)?;
        }
    }
    to.replace_from(path, from, path)?;
    for (tree, folder, metadata) in touched.iter().rev() {
        tree.set_metadata(folder, FileKind::Directory, metadata)?;
        tree.sync_directory(folder)?;
    }
    Ok(())
}

fn stands(tree: &TargetTree, path: &[u8]) -> Result<bool> {
    match tree.reader().stat(path) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn metadata_of(tree: &TargetTree, folder: &[u8]) -> Result<TargetMetadata> {
    let reader = tree.reader();
    let (found, attributes) = (reader.stat(folder)?, reader.attributes(folder)?);
    Ok(TargetMetadata { mode: found.mode, uid: found.uid, gid: found.gid, modified: found.modified, attributes })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_carried_comes_back_as_it_was_however_often_it_is_moved() {
        let world = tempfile::tempdir().unwrap();
        let (old, new) = (world.path().join("old"), world.path().join("new"));
        fs::create_dir_all(old.join("a/b/own")).unwrap();
        fs::write(old.join("a/b/own/f"), b"stays").unwrap();
        fs::write(old.join("x.own"), b"stays").unwrap();
        fs::create_dir(&new).unwrap();
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        let times = (time(&old), time(&old.join("a/b")), time(&new));
        let carried = written(&[b"a/b/own".to_vec(), b"x.own".to_vec()]);
        for _ in 0..2 {
            move_all(&carried, &old, &new).unwrap();
            assert_eq!(fs::read(new.join("a/b/own/f")).unwrap(), b"stays");
            assert!(!old.join("a/b/own").exists() && !old.join("x.own").exists());
        }
        for _ in 0..2 {
            move_all(&carried, &new, &old).unwrap();
            assert_eq!(fs::read(old.join("a/b/own/f")).unwrap(), b"stays");
        }
        assert_eq!(times.0, time(&old));
        assert_eq!((times.1, times.2), (time(&old.join("a/b")), time(&new)));
        fs::write(new.join("x.own"), b"another").unwrap();
        move_all(&carried, &old, &new).unwrap_err();
        assert_eq!(fs::read(old.join("x.own")).unwrap(), b"stays");
    }
}
