//! `million`: a million small files.

use std::path::Path;

use anyhow::Result;

use super::{Step, Workload, edit, make_parent, numbered, once, write};
use crate::duel::random::Random;

pub(super) const FILES: u64 = 1_000_000;
const FILES_PER_FOLDER: u64 = 100;

pub(super) struct Million {
    pub(super) files: u64,
}

impl Workload for Million {
    fn name(&self) -> &'static str {
        "million"
    }

    fn describe(&self) -> &'static str {
        "1,000,000 files of some hundred bytes; then 1,000 of them changed"
    }

    fn generate(&self, folder: &Path) -> Result<()> {
        let mut random = Random::new(5);
        for number in 0..self.files {
            let path = numbered(folder, number, FILES_PER_FOLDER);
            if number % FILES_PER_FOLDER == 0 {
                make_parent(&path)?;
            }
            let bytes = random.size_between(50, 2_000) as usize;
            write(&path, &random.text(bytes))?;
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        vec![once("0.1% of files")]
    }

    fn change(&self, folder: &Path, _step: usize, _time: u32) -> Result<()> {
        self.edit_some(folder, 600)
    }

    fn drift(&self, folder: &Path) -> Result<()> {
        self.edit_some(folder, 601)
    }
}

impl Million {
    fn edit_some(&self, folder: &Path, seed: u64) -> Result<()> {
        let mut random = Random::new(seed);
        for _ in 0..(self.files / 1000).max(1) {
            edit(&numbered(folder, random.below(self.files), FILES_PER_FOLDER), &mut random)?;
        }
        Ok(())
    }
}
