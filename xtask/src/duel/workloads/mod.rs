//! What is backed up: folders that are made from a seed, and changed step by step.

mod bucket;
mod db;
mod history;
mod million;
mod tree;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::random::Random;

/// A folder that is generated, changed, and drifts.
pub(super) trait Workload {
    /// As on the command line.
    fn name(&self) -> &'static str;
    /// What it is, for the table's heading.
    fn describe(&self) -> &'static str;
    /// Fills an empty folder.
    fn generate(&self, folder: &Path) -> Result<()>;
    /// The kinds of change that are measured one after the other, each so many times.
    fn steps(&self) -> Vec<Step>;
    /// Changes the folder for the so-manieth time of a step.
    fn change(&self, folder: &Path, step: usize, time: u32) -> Result<()>;
    /// Changes a restored folder a little, as an application does between a snapshot and the way back.
    fn drift(&self, folder: &Path) -> Result<()>;
}

/// One kind of change.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) label: &'static str,
    pub(super) times: u32,
}

/// A step that is done once.
fn once(label: &'static str) -> Step {
    Step { label, times: 1 }
}

/// Names of all workloads.
pub(super) const NAMES: [&str; 5] = ["db", "tree", "bucket", "history", "million"];

/// The workload of a name, of a share of its full size.
pub(super) fn by_name(name: &str, scale: f64) -> Option<Box<dyn Workload>> {
    let scaled = |full: u64| ((full as f64 * scale) as u64).max(1);
    Some(match name {
        "db" => Box::new(db::Database { rows: scaled(db::ROWS) }),
        "tree" => Box::new(tree::Tree { files: scaled(tree::FILES) }),
        "bucket" => Box::new(bucket::Bucket { objects: scaled(bucket::OBJECTS) }),
        "history" => Box::new(history::History { files: scaled(history::FILES) }),
        "million" => Box::new(million::Million { files: scaled(million::FILES) }),
        _ => return None,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::create(path).with_context(|| format!("making {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))
}

/// Other bytes of the same length somewhere in a text file: a line was edited.
fn edit(path: &Path, random: &mut Random) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let edited = random.text(40.min(bytes.len()));
    let at = random.below((bytes.len() - edited.len() + 1) as u64) as usize;
    bytes[at..at + edited.len()].copy_from_slice(&edited);
    write(path, &bytes)
}

/// New bytes somewhere in a file.
fn insert(path: &Path, random: &mut Random, new: &[u8]) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let at = random.below(bytes.len() as u64 + 1) as usize;
    bytes.splice(at..at, new.iter().copied());
    write(path, &bytes)
}

/// The path of a numbered file: folders of some tens of files, two levels deep.
fn numbered(folder: &Path, number: u64, files_per_folder: u64) -> PathBuf {
    let leaf = number / files_per_folder;
    folder
        .join(format!("part-{:03}", leaf / 50))
        .join(format!("folder-{:05}", leaf))
        .join(format!("file-{number:07}.txt"))
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))
}
