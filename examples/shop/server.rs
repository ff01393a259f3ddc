//! The shop's work: orders come in, each a row and an object; old ones go. A row is committed after its
//! object is there and removed before its object goes, so that between two orders rows and objects agree
//! exactly.
//!
//! While the file `pause` is there the shop finishes what it is at, says so by the file `paused`, and waits.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

/// Orders that are kept; the oldest beyond go.
const ORDERS_MAX: i64 = 400;
/// Bytes of an object.
const OBJECT_BYTES: usize = 3000;

/// Runs until killed, or until the file `stop` is there.
pub(crate) fn serve(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let bucket = folder.join("bucket");
    fs::create_dir_all(&bucket)?;
    let database = open(&folder.join("shop.db"))?;
    fs::write(folder.join("pid"), std::process::id().to_string())?;
    let _ = fs::remove_file(folder.join("paused"));
    while !folder.join("stop").exists() {
        if folder.join("pause").exists() {
            fs::write(folder.join("paused"), b"")?;
            while folder.join("pause").exists() && !folder.join("stop").exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = fs::remove_file(folder.join("paused"));
            continue;
        }
        take_order(&database, &bucket)?;
        std::thread::sleep(Duration::from_micros(300));
    }
    let _ = fs::remove_file(folder.join("pid"));
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(30))?;
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "normal")?;
    // Rows stay in the log: whoever copies the file alone loses them.
    database.pragma_update(None, "wal_autocheckpoint", 100_000)?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, object TEXT NOT NULL, digest TEXT NOT NULL);",
    )?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        database.pragma_update(None, "user_version", 1)?;
    }
    Ok(database)
}

fn take_order(database: &Connection, bucket: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let last: i64 = database.query_row("SELECT coalesce(max(id), 0) FROM orders", [], |row| row.get(0))?;
    let id = last + 1;
    let content = content(id);
    let object = bucket.join(format!("{id:08}"));
    fs::write(&object, &content)?;
    let digest = blake3::hash(&content).to_hex().to_string();
    database.execute(
        "INSERT INTO orders (id, object, digest) VALUES (?1, ?2, ?3)",
        (id, object.to_string_lossy().into_owned(), digest),
    )?;
    let gone = id - ORDERS_MAX;
    if gone > 0 {
        database.execute("DELETE FROM orders WHERE id = ?1", [gone])?;
        match fs::remove_file(bucket.join(format!("{gone:08}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// What an object of an order holds.
fn content(id: i64) -> Vec<u8> {
    let mut bytes = vec![0; OBJECT_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&id.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
