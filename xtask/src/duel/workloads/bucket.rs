//! `bucket`: objects of a store of blobs, half of which no compressor shortens; then bytes are inserted into
//! some.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Step, Workload, insert, make_parent, once, write};
use crate::duel::random::Random;

/// About 2 GiB.
pub(super) const OBJECTS: u64 = 700;
const OBJECT_BYTES_MIN: u64 = 64 << 10;
const OBJECT_BYTES_MAX: u64 = 16 << 20;

pub(super) struct Bucket {
    pub(super) objects: u64,
}

impl Workload for Bucket {
    fn name(&self) -> &'static str {
        "bucket"
    }

    fn describe(&self) -> &'static str {
        "2 GiB of objects, half incompressible; then bytes inserted into 5% of them"
    }

    fn generate(&self, folder: &Path) -> Result<()> {
        let mut random = Random::new(3);
        for number in 0..self.objects {
            let path = object(folder, number);
            make_parent(&path)?;
            let bytes = random.size_between(OBJECT_BYTES_MIN, OBJECT_BYTES_MAX) as usize;
            write(&path, &if number % 2 == 0 { random.noise(bytes) } else { random.text(bytes) })?;
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        vec![once("insertions in 5%")]
    }

    fn change(&self, folder: &Path, _step: usize, _time: u32) -> Result<()> {
        let mut random = Random::new(400);
        for _ in 0..(self.objects / 20).max(1) {
            let path = object(folder, random.below(self.objects));
            let bytes = random.size_between(16, 8 << 10) as usize;
            let new = random.noise(bytes);
            insert(&path, &mut random, &new)?;
        }
        Ok(())
    }

    fn drift(&self, folder: &Path) -> Result<()> {
        let mut random = Random::new(401);
        for number in 0..(self.objects / 50).max(3) {
            let path = object(folder, random.below(self.objects));
            match number % 3 {
                0 => write(&path.with_file_name(format!("left-over-{number}")), &random.noise(100_000))?,
                1 => {
                    let new = random.noise(500);
                    insert(&path, &mut random, &new)?;
                }
                _ => {
                    let file = fs::OpenOptions::new().write(true).open(&path);
                    let file = file.with_context(|| format!("opening {}", path.display()))?;
                    file.set_len(file.metadata()?.len() / 2)?;
                }
            }
        }
        Ok(())
    }
}

fn object(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{:02x}", number % 16)).join(format!("object-{number:05}"))
}
