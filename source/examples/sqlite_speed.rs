//! How fast a database's pages come out of a pinned state: `sqlite_speed DATABASE [THREADS]`.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use copal_source::read::PinnedBytes;
use copal_source::sqlite::{PreparedSqlite, SqliteSpec};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let spec = SqliteSpec { path: words[1].clone().into(), ..SqliteSpec::default() };
    let threads = words.get(2).map_or(4, |word| word.parse().unwrap());
    let begun = Instant::now();
    let prepared = PreparedSqlite::open(&spec, threads + 1, Duration::from_secs(10)).unwrap();
    println!("prepared in {:?}", begun.elapsed());
    let begun = Instant::now();
    let pin = prepared.pin().unwrap();
    println!("pinned in {:?}", begun.elapsed());
    let bytes = pin.stat().bytes;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let pin = &pin;
        scope.spawn(move || {
            let begun = Instant::now();
            pin.check(|| false).unwrap();
            println!("checked in {:?}", begun.elapsed());
        });
        for thread in 0..threads as u64 {
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 20];
                let mut at = thread << 20;
                while at < bytes {
                    pin.read_at(at, &mut buffer).unwrap();
                    at += (threads as u64) << 20;
                }
                println!("read in {:?}", begun.elapsed());
            });
        }
    });
}
