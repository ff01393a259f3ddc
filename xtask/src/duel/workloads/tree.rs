//! `tree`: many text files in many folders; then 1% of them is edited and some are new.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Step, Workload, edit, make_parent, numbered, once, write};
use crate::duel::random::Random;

pub(super) const FILES: u64 = 120_000;
const FILES_PER_FOLDER: u64 = 40;

pub(super) struct Tree {
    pub(super) files: u64,
}

impl Workload for Tree {
    fn name(&self) -> &'static str {
        "tree"
    }

    fn describe(&self) -> &'static str {
        "120,000 text files; then 1% of them changed and 600 new"
    }

    fn generate(&self, folder: &Path) -> Result<()> {
        let mut random = Random::new(2);
        for number in 0..self.files {
            let path = numbered(folder, number, FILES_PER_FOLDER);
            if number % FILES_PER_FOLDER == 0 {
                make_parent(&path)?;
            }
            let bytes = random.size_between(500, 22_000) as usize;
            write(&path, &random.text(bytes))?;
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        vec![once("1% of files, some new")]
    }

    fn change(&self, folder: &Path, _step: usize, _time: u32) -> Result<()> {
        let mut random = Random::new(300);
        for _ in 0..(self.files / 100).max(1) {
            edit(&numbered(folder, random.below(self.files), FILES_PER_FOLDER), &mut random)?;
        }
        for new in 0..(self.files / 200).max(1) {
            let path = numbered(folder, random.below(self.files), FILES_PER_FOLDER);
            let bytes = random.size_between(500, 22_000) as usize;
            write(&path.with_file_name(format!("new-{new:05}.txt")), &random.text(bytes))?;
        }
        Ok(())
    }

    fn drift(&self, folder: &Path) -> Result<()> {
        let mut random = Random::new(301);
        for number in 0..(self.files / 500).max(1) {
            let path = numbered(folder, random.below(self.files), FILES_PER_FOLDER);
            match number % 4 {
                0 => write(&path.with_file_name(format!("left-over-{number}.txt")), &random.text(3000))?,
                1 if path.exists() => fs::remove_file(&path)?,
                _ if path.exists() => edit(&path, &mut random)?,
                _ => {}
            }
        }
        Ok(())
    }
}
