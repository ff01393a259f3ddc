//! Who has a database open: a process that goes on writing into a file which was replaced writes into
//! nothing.
//!
//! Open descriptors are looked at where the system lets them be read; the table of locks tells of other
//! users' processes as well, but only of those that hold a lock at this moment. Nothing of this program's own
//! is told.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sqlite::MAGIC;

const PROCESSES: &str = "/proc";
const LOCKS: &str = "/proc/locks";

/// A process that has a database open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The database.
    pub path: PathBuf,
    /// Its number.
    pub process: u32,
    /// Its name, as the system knows it.
    pub command: String,
}

/// Where databases are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Databases by their paths.
    pub databases: Vec<PathBuf>,
    /// Folders: every SQLite database in them, by the paths that processes opened them by. Free of links.
    pub folders: Vec<PathBuf>,
}

/// Other processes that have one of these open, each once for each database.
#[must_use]
pub fn holders_of(places: &Places) -> Vec<Holder> {
    let mut known: HashMap<(u64, u64), &Path> = HashMap::new();
    for path in &places.databases {
        if let Ok(found) = fs::symlink_metadata(path)
            && found.is_file()
        {
            known.insert((found.dev(), found.ino()), path);
        }
    }
    if known.is_empty() && places.folders.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for process in processes() {
        let folder = Path::new(PROCESSES).join(process.to_string()).join("fd");
        let Ok(descriptors) = fs::read_dir(folder) else { continue };
        for descriptor in descriptors.flatten() {
            let descriptor = descriptor.path();
            // The end of the link may be a pipe, or a path of another namespace: what is open is asked
            // itself.
            let Ok(open) = fs::metadata(&descriptor) else { continue };
            if !open.is_file() {
                continue;
            }
            let by_identity = known.get(&(open.dev(), open.ino())).map(|path| path.to_path_buf());
            if let Some(path) = by_identity.or_else(|| below(places, &descriptor, &open)) {
                found.push((path, process));
            }
        }
    }
    found.extend(lockers(&known));
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(path, process)| Holder { path, process, command: command_of(process) }).collect()
}

/// All but this one.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(PROCESSES).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|process| *process != std::process::id())
}

/// The database in one of the folders that a descriptor has open.
fn below(places: &Places, descriptor: &Path, open: &fs::Metadata) -> Option<PathBuf> {
    if places.folders.is_empty() {
        return None;
    }
    let path = fs::read_link(descriptor).ok()?;
    if !places.folders.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    let there = fs::symlink_metadata(&path).ok()?;
    ((there.dev(), there.ino()) == (open.dev(), open.ino()) && is_database(&path)).then_some(path)
}

/// Whether a file begins as SQLite's databases do.
fn is_database(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *MAGIC
}

/// Of the table of locks: `1: POSIX  ADVISORY  READ 1234 08:02:131 1073741826 1073742335`.
fn lockers(known: &HashMap<(u64, u64), &Path>) -> Vec<(PathBuf, u32)> {
    let table = fs::read_to_string(LOCKS).unwrap_or_default();
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace().skip(4);
        let process: u32 = fields.next()?.parse().ok()?;
        let mut place = fields.next()?.split(':');
        let mut number = || u32::from_str_radix(place.next()?, 16).ok();
        let device = rustix::fs::makedev(number()?, number()?);
        let inode = place.next()?.parse().ok()?;
        let path = known.get(&(device, inode))?.to_path_buf();
        (process != std::process::id()).then_some((path, process))
    };
    // A process that waits for a lock is marked with an arrow, and will be named once it has it.
    table.lines().filter(|line| !line.contains("->")).filter_map(of_line).collect()
}

fn command_of(process: u32) -> String {
    let path = Path::new(PROCESSES).join(process.to_string()).join("comm");
    let name = fs::read(path).unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    let name: String = name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.is_empty() { "of another user".into() } else { name }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn d07_another_process_is_named_and_this_one_is_not() {
        let world = tempfile::tempdir().unwrap();
        let folder = world.path().canonicalize().unwrap();
        let path = folder.join("app.db");
        fs::write(&path, [&MAGIC[..], &[0; 84]].concat()).unwrap();
        fs::write(folder.join("notes"), b"no database").unwrap();
        let _own = File::open(&path).unwrap();
        let by_path = Places { databases: vec![path.clone()], folders: Vec::new() };
        let by_folder = Places { databases: Vec::new(), folders: vec![folder.clone()] };
        assert_eq!((holders_of(&by_path), holders_of(&by_folder)), (Vec::new(), Vec::new()));
        let opened = File::open(&path).unwrap();
        let mut other = Command::new("/bin/sleep").arg("60").stdin(Stdio::from(opened)).spawn().unwrap();
        let expected = vec![Holder { path, process: other.id(), command: "sleep".into() }];
        let found = (holders_of(&by_path), holders_of(&by_folder));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found, (expected.clone(), expected));
    }
}
