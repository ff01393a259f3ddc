//! How fast a tree is scanned: `scan_speed FOLDER [THREADS]`, or
//! `scan_speed --make FOLDER FILES FILES_PER_FOLDER`.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Instant;

use copal_source::scan::{ScanOptions, scan};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [make, folder, files, each] if make == "--make" => {
            let (files, each): (u64, u64) = (files.parse().unwrap(), each.parse().unwrap());
            for number in 0..files {
                let folder = Path::new(folder)
                    .join(format!("{:02}", number / each / 64))
                    .join(format!("{:02}", number / each % 64));
                if number % each == 0 {
                    std::fs::create_dir_all(&folder).unwrap();
                }
                std::fs::write(folder.join(format!("file-{number}")), b"").unwrap();
            }
        }
        [folder, rest @ ..] => {
            let threads = rest.first().map_or(0, |threads| threads.parse().unwrap());
            let options = ScanOptions { threads, ..ScanOptions::default() };
            for _ in 0..5 {
                let begin = Instant::now();
                let (mut entries, mut problems) = (0_u64, 0_u64);
                for item in scan(Path::new(folder), &options).unwrap() {
                    match item {
                        Ok(_) => entries += 1,
                        Err(_) => problems += 1,
                    }
                }
                let seconds = begin.elapsed().as_secs_f64();
                println!("{entries} entries, {problems} problems, {seconds:.3} s");
            }
        }
        [] => eprintln!("which folder?"),
    }
}
