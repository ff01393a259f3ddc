//! What stands in a folder, one line for each path: the expectations beside golden repositories are written
//! and compared in this form. Owners are left out, since not everybody may set them.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// `path kind mode time`, then what the kind has: length and BLAKE3 of a file (and `sparse`), a link's
/// target, a device's numbers, then attributes. The second name of a file shows as `same` with the first. A
/// single file is the path `.`.
pub(crate) fn look(root: &Path) -> String {
    let mut names = Vec::new();
    let mut lines = String::new();
    walk(root, root, &mut names, &mut lines);
    lines
}

fn walk(root: &Path, path: &Path, names: &mut Vec<((u64, u64), String)>, lines: &mut String) {
    let found = fs::symlink_metadata(path).expect("what was listed is there");
    let name = match path.strip_prefix(root).expect("below the root").as_os_str().as_bytes() {
        b"" => ".".to_owned(),
        name => name.escape_ascii().to_string().replace(' ', "\\x20"),
    };
    let kind = found.file_type();
    let (mode, seconds, nanoseconds) = (found.mode() & 0o7777, found.mtime(), found.mtime_nsec());
    let mut line = |what: String| lines.push_str(&format!("{name} {what} {mode:o} {seconds}.{nanoseconds:09}"));
    if kind.is_dir() {
        line("folder".into());
    } else if kind.is_symlink() {
        let target = fs::read_link(path).expect("a link");
        // The mode of a link means nothing.
        lines.push_str(&format!(
            "{name} link {seconds}.{nanoseconds:09} {}",
            target.as_os_str().as_bytes().escape_ascii()
        ));
    } else if kind.is_file() {
        let same = names.iter().find(|(inode, _)| *inode == (found.dev(), found.ino()));
        if let Some((_, first)) = same {
            lines.push_str(&format!("{name} same {first}\n"));
            return;
        }
        names.push(((found.dev(), found.ino()), name.clone()));
        let content = fs::read(path).expect("a file that can be read");
        line("file".into());
        lines.push_str(&format!(" {} {}", content.len(), blake3::hash(&content)));
        if found.blocks() * 512 < found.len() / 2 {
            lines.push_str(" sparse");
        }
    } else if kind.is_fifo() {
        line("fifo".into());
    } else if kind.is_char_device() || kind.is_block_device() {
        line("device".into());
        lines.push_str(&format!(" {}", found.rdev()));
    } else {
        line("other".into());
    }
    if !kind.is_symlink() {
        let mut attributes: Vec<_> = xattr::list(path).map(Iterator::collect).unwrap_or_default();
        attributes.sort();
        for attribute in attributes {
            let value = xattr::get(path, &attribute).ok().flatten().unwrap_or_default();
            lines.push_str(&format!(" {}={}", attribute.to_string_lossy(), hex::encode(value)));
        }
    }
    lines.push('\n');
    if kind.is_dir() {
        let mut below: Vec<_> =
            fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        below.sort();
        for path in below {
            walk(root, &path, names, lines);
        }
    }
}
