//! The shop of `examples/shop`, as a process of its own, and what must be true of its rows and objects.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Where a process that shall be the shop finds its folder.
pub const SHOP_FOLDER: &str = "COPAL_TEST_SHOP_FOLDER";

/// A shop at work; it ends when dropped.
pub struct Shop {
    pub folder: PathBuf,
    child: Child,
}

impl Shop {
    /// Starts this test program once more, as the shop.
    pub fn open(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_shop_as_a_process", "--nocapture"])
            .env(SHOP_FOLDER, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shop = Self { folder: folder.to_owned(), child };
        shop.wait_for_orders(1);
        shop
    }

    /// Rows that were ever written.
    pub fn last_order(&self) -> i64 {
        last_order(&self.folder)
    }

    /// Until so many more orders came in: it accepts writes.
    #[track_caller]
    pub fn wait_for_orders(&self, more: i64) {
        let (begun, from) = (Instant::now(), self.last_order());
        while self.last_order() < from + more {
            assert!(begun.elapsed() < Duration::from_secs(20), "the shop takes no orders");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_paused(&self) -> bool {
        self.folder.join("paused").exists()
    }

    pub fn end(mut self) {
        fs::write(self.folder.join("stop"), b"").unwrap();
        self.child.wait().unwrap();
        fs::remove_file(self.folder.join("stop")).unwrap();
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn last_order(folder: &Path) -> i64 {
    let database = match Connection::open_with_flags(folder.join("shop.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
    {
        Ok(database) => database,
        Err(_) => return 0,
    };
    let _ = database.busy_timeout(Duration::from_secs(5));
    database.query_row("SELECT coalesce(max(id), 0) FROM orders", [], |row| row.get(0)).unwrap_or(0)
}

/// Every row has its object with its content, every object its row; the number of both.
#[track_caller]
pub fn assert_agreement(database: &Path, bucket: &Path) -> usize {
    let database = Connection::open(database).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let mut rows = database.prepare("SELECT object, digest FROM orders ORDER BY id").unwrap();
    let rows: Vec<(String, String)> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (object, digest) in &rows {
        let name = Path::new(object).file_name().unwrap();
        let content = fs::read(bucket.join(name)).unwrap_or_else(|error| panic!("{object}: {error}"));
        assert_eq!(blake3::hash(&content).to_hex().as_str(), digest, "{object}");
    }
    assert_eq!(fs::read_dir(bucket).unwrap().count(), rows.len(), "objects without rows");
    assert!(!rows.is_empty());
    rows.len()
}

/// The configuration of a shop in a folder, with more lines at its end.
pub fn configuration(folder: &Path, top: &str, more: &str) -> String {
    let folder = folder.display();
    format!(
        r#"
[app.shop]
config_version = 3
freeze_max = "5s"
{top}
[[app.shop.source]]
kind = "sqlite"
label = "shop.db"
path = "{folder}/shop.db"
[[app.shop.source]]
kind = "tree"
label = "bucket"
path = "{folder}/bucket"
[[app.shop.hook]]
when = "pre"
argv = ["/bin/sh", "-c", "touch {folder}/pause; while [ ! -e {folder}/paused ]; do sleep 0.01; done"]
[[app.shop.hook]]
when = "post"
argv = ["/bin/rm", "-f", "{folder}/pause"]
{more}
"#
    )
}
