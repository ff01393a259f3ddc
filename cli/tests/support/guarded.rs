//! What tests of guards share: mounts that end with a test, small files, an application of one tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::World;

/// Of a deploy that may fall back.
pub const MODES: [&str; 3] = ["auto", "swap", "in-place"];

/// Something mounted, until this is dropped.
pub struct MountedAt(PathBuf);

impl MountedAt {
    pub fn tmpfs(point: PathBuf) -> Self {
        Self::with(&["-t", "tmpfs", "tmpfs"], point)
    }

    pub fn bind(what: &Path, point: PathBuf) -> Self {
        Self::with(&["--bind", what.to_str().unwrap()], point)
    }

    fn with(arguments: &[&str], point: PathBuf) -> Self {
        let mounted = Command::new("mount").args(arguments).arg(&point).status().unwrap();
        assert!(mounted.success(), "mount {arguments:?} {}", point.display());
        Self(point)
    }
}

impl Drop for MountedAt {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Files with their contents, and the folders above them.
pub fn write(world: &World, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = world.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

pub fn read(world: &World, path: &str) -> String {
    fs::read_to_string(world.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// An application of one tree, whose start fails when a file says so.
pub fn configure_tree(world: &World, path: &str) {
    let hook = "[[app.hub.hook]]\nwhen = \"start\"\nargv = [\"/usr/bin/test\", \"!\", \"-e\", \"";
    let hook = format!("{hook}{}\"]\n", world.text("refuse"));
    let source = "[[app.hub.source]]\nkind = \"tree\"\nlabel = \"data\"\nexclude = [\"cache/\", \".*\"]\n";
    let text = format!("[app.hub]\ndefault = true\n{source}path = \"{}\"\n{hook}", world.text(path));
    fs::write(world.path("copal.toml"), text).unwrap();
}
