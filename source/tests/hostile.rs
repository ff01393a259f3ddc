//! Goal: nothing outside a target is ever written or removed, whatever stands in it and whoever changes it
//! meanwhile. Method: links at every place of a path, mounts within the tree, and another thread that swaps
//! folders for links; what lies outside is looked at after each operation.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use copal_sim::beside;
use copal_sim::mounts::{Filesystem, Mounted};
use copal_source::scan::{FileKind, FileTime};
use copal_source::target::{TargetMetadata, TargetTree, exchange, rename_new};
use copal_source::{Error, Result};
use support::{as_nobody, on_every_filesystem, shared_folder, walked};

fn metadata() -> TargetMetadata {
    let modified = FileTime { seconds: 1, nanoseconds: 1 };
    TargetMetadata { mode: 0o777, uid: 7, gid: 7, modified, attributes: Vec::new() }
}

/// A target beside a folder that must never change.
struct Arena {
    target: PathBuf,
    outside: PathBuf,
    before: Vec<String>,
}

impl Arena {
    fn new(folder: &Path) -> Self {
        let (target, outside) = (folder.join("target"), folder.join("outside"));
        fs::create_dir(&target).unwrap();
        fs::create_dir_all(outside.join("below")).unwrap();
        for name in ["file", "below/file"] {
            fs::write(outside.join(name), b"precious").unwrap();
        }
        let mut arena = Self { target, outside, before: Vec::new() };
        arena.before = arena.look();
        arena
    }

    fn tree(&self) -> TargetTree {
        TargetTree::open(&self.target).unwrap()
    }

    /// Every path outside with its content and all metadata that an operation could change.
    fn look(&self) -> Vec<String> {
        let path = |relative: &Vec<u8>| self.outside.join(std::str::from_utf8(relative).unwrap());
        let described = |relative: &Vec<u8>| {
            let found = fs::symlink_metadata(path(relative)).unwrap();
            let content = fs::read(path(relative)).unwrap_or_default();
            format!("{relative:?} {:?} {:?} {content:?}", found.permissions(), found.modified().unwrap())
        };
        walked(&self.outside).iter().map(described).collect()
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert_eq!(self.look(), self.before, "{what} reached outside");
    }
}

/// Every operation that takes a path, on one path.
fn operations(tree: &TargetTree, path: &[u8]) -> Vec<(&'static str, Result<()>)> {
    let file = |found: Result<copal_source::target::TargetFile>| {
        found.and_then(|file| {
            file.write_at(0, b"overwritten")?;
            file.set_metadata(&metadata()).map(drop)
        })
    };
    vec![
        ("create_directory", tree.create_directory(path)),
        ("create_file", file(tree.create_file(path, 4, false))),
        ("open_file", file(tree.open_file(path))),
        ("create_symlink", tree.create_symlink(path, b"x")),
        ("create_special", tree.create_special(path, FileKind::Fifo, (0, 0))),
        ("create_hard_link", tree.create_hard_link(path, b"own")),
        ("hard_link_from", tree.create_hard_link(b"taken", path)),
        ("set_metadata of a file", tree.set_metadata(path, FileKind::File, &metadata()).map(drop)),
        ("set_metadata of a folder", tree.set_metadata(path, FileKind::Directory, &metadata()).map(drop)),
        ("sync_directory", tree.sync_directory(path)),
        ("replace_from, from it", tree.replace_from(b"taken", tree, path)),
        ("replace_from, to it", tree.replace_from(path, tree, b"staged")),
        ("remove", tree.remove(path)),
    ]
}

#[test]
fn a_link_in_the_path_stops_every_operation() {
    on_every_filesystem(|folder, _| {
        let arena = Arena::new(folder);
        fs::write(arena.target.join("own"), b"own").unwrap();
        fs::create_dir(arena.target.join("real")).unwrap();
        symlink(&arena.outside, arena.target.join("link")).unwrap();
        symlink(&arena.outside, arena.target.join("real/link")).unwrap();
        symlink("../outside", arena.target.join("relative")).unwrap();
        symlink("..", arena.target.join("up")).unwrap();
        let hostile: &[&str] = &[
            "link/file",
            "link/new",
            "link/below/file",
            "link/below/new",
            "real/link/file",
            "real/link/below/new",
            "relative/file",
            "relative/new",
            "up/outside/file",
            "up/outside/new",
            "../outside/file",
            "../outside/new",
            "real/../../outside/file",
            "/etc/copal-new",
        ];
        for path in hostile {
            fs::write(arena.target.join("staged"), b"staged").unwrap();
            for (operation, outcome) in operations(&arena.tree(), path.as_bytes()) {
                assert!(outcome.is_err(), "{operation} on {path} went through");
                arena.assert_untouched(&format!("{operation} on {path}"));
            }
            assert!(!arena.target.join("taken").exists());
        }
    });
}

#[test]
fn a_link_at_the_end_of_the_path_is_itself_the_thing() {
    on_every_filesystem(|folder, _| {
        for leads_to in ["file", "below"] {
            let arena = Arena::new(&{
                let place = folder.join(leads_to);
                fs::create_dir(&place).unwrap();
                place
            });
            let link = arena.target.join("link");
            let tree = arena.tree();
            fs::write(arena.target.join("own"), b"own").unwrap();
            let set = || symlink(arena.outside.join(leads_to), &link).unwrap();
            set();
            assert!(tree.create_file(b"link", 0, true).is_err());
            assert!(tree.open_file(b"link").is_err());
            assert!(tree.create_directory(b"link").is_err());
            assert!(tree.sync_directory(b"link").is_err());
            assert!(tree.set_metadata(b"link", FileKind::File, &metadata()).is_err());
            assert!(tree.set_metadata(b"link", FileKind::Directory, &metadata()).is_err());
            tree.set_metadata(b"link", FileKind::Symlink, &metadata()).unwrap();
            tree.create_hard_link(b"second", b"link").unwrap();
            assert!(fs::symlink_metadata(arena.target.join("second")).unwrap().is_symlink());
            arena.assert_untouched("an operation on a link");
            tree.replace_from(b"link", &tree, b"own").unwrap();
            assert_eq!(fs::read(&link).unwrap(), b"own");
            tree.remove(b"link").unwrap();
            set();
            tree.remove(b"link").unwrap();
            assert!(fs::symlink_metadata(&link).is_err());
            tree.remove(b"second").unwrap();
            arena.assert_untouched("removal of a link");
        }
    });
}

#[test]
fn a_target_that_is_a_link_is_no_target() {
    let folder = tempfile::tempdir().unwrap();
    let arena = Arena::new(folder.path());
    let link = folder.path().join("link");
    symlink(&arena.outside, &link).unwrap();
    for path in [link.clone(), folder.path().join("link/"), folder.path().join("link//")] {
        assert!(matches!(TargetTree::open(&path), Err(Error::Refused { .. })), "{path:?}");
    }
    assert!(TargetTree::create(&link).is_err());
    // A switch moves the link, never what it leads to.
    exchange(&link, &arena.target).unwrap();
    assert!(fs::symlink_metadata(&arena.target).unwrap().is_symlink());
    rename_new(&arena.target, &folder.path().join("moved")).unwrap();
    assert_eq!(fs::read_link(folder.path().join("moved")).unwrap(), arena.outside);
    arena.assert_untouched("a switch");
}

#[test]
fn removal_takes_the_tree_and_leaves_what_its_links_lead_to() {
    on_every_filesystem(|folder, filesystem| {
        let arena = Arena::new(folder);
        let gone = arena.target.join("gone");
        for number in 0..30 {
            let deep = gone.join(format!("{number}/a/b"));
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), b"").unwrap();
            symlink(&arena.outside, deep.join("link")).unwrap();
            symlink("../../../../outside/below", deep.parent().unwrap().join("link")).unwrap();
            fs::hard_link(arena.outside.join("file"), gone.join(format!("{number}/name"))).unwrap();
        }
        let tree = arena.tree();
        tree.create_special(b"gone/pipe", FileKind::Fifo, (0, 0)).unwrap();
        tree.remove(b"gone").unwrap();
        assert!(!gone.exists(), "{filesystem:?}");
        assert!(tree.remove(b"gone").unwrap_err().is_not_found());
        arena.assert_untouched("removal");
    });
}

#[test]
fn removal_stops_at_another_filesystem() {
    let folder = tempfile::tempdir().unwrap();
    let arena = Arena::new(folder.path());
    let point = arena.target.join("tree/a/mount");
    fs::create_dir_all(&point).unwrap();
    let mounted = Mounted::over(Filesystem::Tmpfs, 1, &point).unwrap();
    fs::write(point.join("precious"), b"").unwrap();
    for path in [&b"tree"[..], b"tree/a/mount"] {
        let error = arena.tree().remove(path).unwrap_err();
        assert!(point.join("precious").exists(), "{error}");
    }
    drop(mounted);
    arena.tree().remove(b"tree").unwrap();
    // The same filesystem bound to another place is another place.
    fs::create_dir_all(&point).unwrap();
    support::run("mount", &["--bind", arena.outside.to_str().unwrap(), point.to_str().unwrap()]);
    let outcome = arena.tree().remove(b"tree");
    support::run("umount", &[point.to_str().unwrap()]);
    assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
    arena.assert_untouched("removal");
}

#[test]
fn removal_of_ones_own_needs_no_permission() {
    let folder = shared_folder();
    as_nobody(|| {
        let tree = TargetTree::create(&folder.path().join("own")).unwrap();
        for path in ["a", "a/closed", "a/closed/deep", "a/readonly"] {
            tree.create_directory(path.as_bytes()).unwrap();
            tree.create_file(format!("{path}/file").as_bytes(), 0, true).unwrap();
        }
        let set = |path: &str, mode| {
            fs::set_permissions(folder.path().join("own").join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        set("a/closed/deep", 0o000);
        set("a/closed", 0o000);
        set("a/readonly", 0o555);
        set("a", 0o500);
        tree.remove(b"a").unwrap();
        assert!(!folder.path().join("own/a").exists());
    });
    // Of another's it does.
    fs::create_dir_all(folder.path().join("other/a")).unwrap();
    fs::write(folder.path().join("other/a/file"), b"").unwrap();
    as_nobody(|| {
        let tree = TargetTree::open(&folder.path().join("other")).unwrap();
        assert!(matches!(tree.remove(b"a"), Err(Error::Io { .. })));
    });
    assert!(folder.path().join("other/a/file").exists());
}

/// Runs while another thread exchanges `target/swapped` and `target/link`, which leads outside.
fn while_swapped(arena: &Arena, mut act: impl FnMut()) {
    let (swapped, link) = (arena.target.join("swapped"), arena.target.join("link"));
    beside(|| exchange(&swapped, &link).unwrap(), &mut act);
}

#[test]
fn a_folder_swapped_for_a_link_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let arena = Arena::new(folder.path());
    fs::create_dir_all(arena.target.join("swapped/below")).unwrap();
    symlink(&arena.outside, arena.target.join("link")).unwrap();
    let (mut done, mut refused) = (0, 0);
    while_swapped(&arena, || {
        for round in 0..1500 {
            // A tree opened anew resolves the path anew; one kept open works on the folder that it opened.
            let tree = arena.tree();
            let path = if round % 2 == 0 { &b"swapped/new"[..] } else { b"swapped/below/new" };
            let mut note = |outcome: Result<()>| if outcome.is_ok() { done += 1 } else { refused += 1 };
            note(tree.create_file(path, 10, true).and_then(|file| file.write_at(0, b"new")));
            note(tree.set_metadata(path, FileKind::File, &metadata()).map(drop));
            note(tree.open_file(path).and_then(|file| file.write_at(0, b"again")));
            note(tree.remove(path));
            let existing = if round % 2 == 0 { &b"swapped/file"[..] } else { b"swapped/below/file" };
            note(tree.remove(existing));
            note(tree.open_file(existing).and_then(|file| file.write_at(0, b"again")));
        }
    });
    arena.assert_untouched("an operation");
    assert!(done > 0 && refused > 0, "the swap was not met: {done} {refused}");
}

#[test]
fn a_folder_swapped_for_a_link_while_it_is_removed_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let arena = Arena::new(folder.path());
    symlink(&arena.outside, arena.target.join("link")).unwrap();
    let inner = arena.target.join("tree/inner");
    // Either may be gone at the moment.
    let exchanges = || drop(exchange(&inner, &arena.target.join("link")));
    beside(exchanges, || {
        for _ in 0..300 {
            let tree = arena.tree();
            for path in ["tree", "tree/inner", "tree/inner/below"] {
                let _ = tree.create_directory(path.as_bytes());
                let _ = tree.create_file(format!("{path}/file").as_bytes(), 0, true);
            }
            // The removal may meet a folder that was filled again meanwhile; outside is what counts.
            let _ = tree.remove(b"tree");
            if fs::symlink_metadata(arena.target.join("link")).is_err() {
                let _ = symlink(&arena.outside, arena.target.join("link"));
            }
        }
    });
    arena.assert_untouched("removal");
}
