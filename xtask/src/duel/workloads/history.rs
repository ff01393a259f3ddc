//! `history`: a source tree at 30 successive versions, each kept as a snapshot.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::{Step, Workload, edit, insert, make_parent, numbered, write};
use crate::duel::random::Random;

pub(super) const FILES: u64 = 12_000;
const FILES_PER_FOLDER: u64 = 24;
/// The first version is the initial snapshot.
const LATER_VERSIONS: u32 = 29;

pub(super) struct History {
    pub(super) files: u64,
}

impl Workload for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn describe(&self) -> &'static str {
        "a source tree of 12,000 files at 30 successive versions"
    }

    fn generate(&self, folder: &Path) -> Result<()> {
        let mut random = Random::new(4);
        for number in 0..self.files {
            let path = numbered(folder, number, FILES_PER_FOLDER);
            make_parent(&path)?;
            let bytes = random.size_between(300, 60_000) as usize;
            write(&path, &random.text(bytes))?;
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        vec![Step { label: "29 later versions", times: LATER_VERSIONS }]
    }

    fn change(&self, folder: &Path, _step: usize, time: u32) -> Result<()> {
        let mut random = Random::new(500 + u64::from(time));
        for number in 0..(self.files / 60).max(2) {
            let path = numbered(folder, random.below(self.files), FILES_PER_FOLDER);
            match number % 10 {
                0 => {
                    let bytes = random.size_between(300, 60_000) as usize;
                    write(&path.with_file_name(format!("added-{time}-{number}.txt")), &random.text(bytes))?;
                }
                1 if path.exists() => fs::remove_file(&path)?,
                2..6 if path.exists() => {
                    let bytes = random.size_between(10, 2_000) as usize;
                    let new = random.text(bytes);
                    insert(&path, &mut random, &new)?;
                }
                _ if path.exists() => edit(&path, &mut random)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn drift(&self, folder: &Path) -> Result<()> {
        self.change(folder, 0, 1000)
    }
}
