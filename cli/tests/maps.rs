//! Goal: what a program writes through a memory map is in the next snapshot, and a deploy sees and repairs
//! it, on every filesystem: also where the page was written before, so that the second write moves no time by
//! itself. Method: a small C program holds a file mapped and writes when it is told to; real filesystems on
//! loop devices, memory, and overlayfs over each.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use copal_sim::mounts::{Filesystem, Mounted, Overlay};
use support::{World, noise};

const WRITER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **names) {
    int file = open(names[1], O_RDWR);
    struct stat found;
    if (file < 0 || fstat(file, &found) != 0) return 1;
    char *map = mmap(0, found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) return 2;
    volatile char seen = map[0];
    (void)seen;
    char line[256];
    unsigned long at;
    int from;
    for (puts("ready"), fflush(stdout); fgets(line, sizeof line, stdin); puts("done"), fflush(stdout)) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "write %lu %n", &at, &from) == 1) memcpy(map + at, line + from, strlen(line + from));
        if (!strcmp(line, "msync") && msync(map, found.st_size, MS_SYNC) != 0) return 3;
    }
    return 0;
}
"#;

/// The built helper.
static PROGRAM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("writer.c"), folder.path().join("writer"));
    fs::write(&source, WRITER).unwrap();
    assert!(Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(&source).status().unwrap().success());
    (folder, program)
});

/// A process that has a file mapped, to write and to read.
struct Map {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Map {
    fn of(file: &Path) -> Self {
        let mut command = Command::new(&PROGRAM.1);
        let mut process = command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut map = Self { process, answers };
        map.heard("ready");
        map
    }

    #[track_caller]
    fn heard(&mut self, answer: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), answer);
    }

    #[track_caller]
    fn tell(&mut self, line: &str) {
        writeln!(self.process.stdin.as_ref().unwrap(), "{line}").unwrap();
        self.heard("done");
    }

    fn write(&mut self, at: usize, text: &str) {
        self.tell(&format!("write {at} {text}"));
    }

    /// As a program that ends in order.
    fn close(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Places whose files are mapped: each filesystem, and overlayfs over it.
fn on_each(check: impl Fn(&Path)) {
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs, Filesystem::Tmpfs] {
        let mounted = Mounted::new(filesystem, 64).unwrap();
        let plain = mounted.path().join("plain");
        fs::create_dir(&plain).unwrap();
        eprintln!("{filesystem:?}");
        check(&plain);
        eprintln!("overlayfs over {filesystem:?}");
        check(Overlay::over(mounted.path()).unwrap().path());
    }
}

/// Files of the last instant are not trusted by anybody: let the instant pass.
fn pass() {
    sleep(Duration::from_millis(40));
}

#[track_caller]
fn assert_holds(world: &World, snapshot: &str, name: &str, file: &Path) {
    let run = world.run(&["dump", snapshot, name]);
    let same = run.stdout == fs::read(file).unwrap();
    assert!(run.code == 0 && same, "{snapshot} holds {:?} of {name}", String::from_utf8_lossy(&run.stdout[..20]));
}

#[track_caller]
fn create(world: &World, name: &str, place: &Path) -> serde_json::Value {
    pass();
    world.json(&["create", name, place.to_str().unwrap()])
}

/// A small file and a large one, a page of each written through a map and captured, and written again.
#[test]
fn t10_what_is_written_through_a_map_is_in_the_next_snapshot() {
    on_each(|place| {
        let world = World::new();
        for (name, bytes) in [("small", 8192), ("large", 3 << 20)] {
            fs::write(place.join(name), noise(1, bytes)).unwrap();
            let file = place.join(name);
            let mut map = Map::of(&file);
            map.write(0, "first");
            let number_of = |text: &str| format!("{name}-{text}");
            create(&world, &number_of("one"), place);
            map.write(0, "SECOND");
            create(&world, &number_of("two"), place);
            assert_holds(&world, &number_of("two"), name, &file);
            map.write(4096, "third");
            map.tell("msync");
            create(&world, &number_of("three"), place);
            assert_holds(&world, &number_of("three"), name, &file);
            map.write(4096, "FOURTH");
            map.close();
            create(&world, &number_of("four"), place);
            assert_holds(&world, &number_of("four"), name, &file);
        }
    });
}

/// A snapshot of the place vouches for it at the next deploy, and so does the deploy before.
#[test]
fn t10_a_deploy_sees_and_repairs_what_was_written_through_a_map() {
    on_each(|place| {
        let world = World::new();
        let (target, text) = (place.join("target"), place.join("target").to_str().unwrap().to_owned());
        fs::create_dir(&target).unwrap();
        let files = [("small", 8192), ("large", 3 << 20)].map(|(name, bytes)| (target.join(name), steady(bytes)));
        for (file, content) in &files {
            fs::write(file, content).unwrap();
        }
        create(&world, "base", &target);
        let assert_back = |what: &str| {
            pass();
            let report = world.json(&["deploy", "base", &text, "--yes", "--mode", "in-place"]);
            for (file, content) in &files {
                assert!(fs::read(file).unwrap() == *content, "{what}: {} is not as captured: {report}", file.display());
            }
        };
        for (number, (file, _)) in files.iter().enumerate() {
            let mut map = Map::of(file);
            map.write(0, "first");
            create(&world, &format!("seen-{number}"), &target);
            map.write(0, "SECOND");
            assert_back("what a snapshot had seen");
            // The deploy finds the content as it shall be, sets the time, and remembers both.
            let mut map = Map::of(file);
            map.write(0, "steady");
            assert_back("what stood there anyway");
            map.write(0, "SECOND");
            assert_back("what a deploy had seen");
        }
    });
}

/// Noise with a beginning that can be written as text.
fn steady(bytes: usize) -> Vec<u8> {
    let mut content = noise(2, bytes);
    content[..6].copy_from_slice(b"steady");
    content
}
