//! `db`: a SQLite database of documents with text, blobs and an index; then a share of its rows is updated.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, params};

use super::{Step, Workload, once};
use crate::duel::random::Random;

/// About 1 GiB.
pub(super) const ROWS: u64 = 1_180_000;

pub(super) struct Database {
    pub(super) rows: u64,
}

impl Workload for Database {
    fn name(&self) -> &'static str {
        "db"
    }

    fn describe(&self) -> &'static str {
        "a SQLite database of 1 GiB (text, blobs, an index); then 1% of its rows updated, then 0.1%"
    }

    fn generate(&self, folder: &Path) -> Result<()> {
        let mut database = Connection::open(folder.join("documents.db"))?;
        database.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE documents (id INTEGER PRIMARY KEY, code TEXT, changed INTEGER, note TEXT, body TEXT, data BLOB);
             CREATE INDEX by_code ON documents (code);",
        )?;
        let mut random = Random::new(1);
        let transaction = database.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO documents VALUES (?1, hex(?2), ?3, ?4, ?5, ?6)")?;
            for id in 0..self.rows {
                let code = random.noise(8);
                let note = random.text(40);
                let body_bytes = 200 + random.below(600) as usize;
                let body = random.text(body_bytes);
                let data_bytes = random.below(440) as usize;
                let data = random.noise(data_bytes);
                insert.execute(params![
                    id as i64,
                    code,
                    1_700_000_000 + id as i64,
                    String::from_utf8_lossy(&note),
                    String::from_utf8_lossy(&body),
                    data
                ])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        vec![once("1% of rows"), once("0.1% of rows")]
    }

    fn change(&self, folder: &Path, step: usize, _time: u32) -> Result<()> {
        self.update(folder, if step == 0 { self.rows / 100 } else { self.rows / 1000 }, 100 + step as u64)
    }

    fn drift(&self, folder: &Path) -> Result<()> {
        self.update(folder, self.rows / 1000, 200)
    }
}

impl Database {
    fn update(&self, folder: &Path, rows: u64, seed: u64) -> Result<()> {
        let mut database = Connection::open(folder.join("documents.db"))?;
        database.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        let mut random = Random::new(seed);
        let transaction = database.transaction()?;
        {
            let mut update = transaction.prepare("UPDATE documents SET changed = ?2, note = ?3 WHERE id = ?1")?;
            for _ in 0..rows.max(1) {
                let id = random.below(self.rows) as i64;
                let note = random.text(40);
                update.execute(params![id, 1_800_000_000 + id, String::from_utf8_lossy(&note)])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
