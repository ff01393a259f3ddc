//! Goal: a person can snapshot a database and a tree again and again, list, compare, put back any state,
//! remove half, collect and verify, and every byte is right. Method: a real SQLite database and a tree,
//! changed as an application would, by the built program; a model remembers each state.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};
use support::kill::Random;
use support::{Seen, World, assert_same, files_below, look, noise, number};

type Tree = BTreeMap<PathBuf, Seen>;

const ROWS: u64 = 24_000;
const FILES: u64 = 2_000;

/// The application: `hub.db` and `bucket/`.
struct Application {
    folder: PathBuf,
    random: Random,
    rows: u64,
}

impl Application {
    fn make(folder: PathBuf) -> Self {
        fs::create_dir_all(folder.join("bucket")).unwrap();
        let mut application = Self { folder, random: Random(11), rows: 0 };
        application
            .database()
            .execute_batch("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, payload BLOB NOT NULL)")
            .unwrap();
        application.insert(ROWS);
        for number in 0..FILES {
            let folder = application.folder.join(format!("bucket/{:02x}", number % 64));
            fs::create_dir_all(&folder).unwrap();
            let bytes = application.random.below(9_000) as usize;
            fs::write(folder.join(format!("object {number}")), noise(number, bytes)).unwrap();
        }
        application
    }

    fn database(&self) -> Connection {
        Connection::open(self.folder.join("hub.db")).unwrap()
    }

    fn insert(&mut self, rows: u64) {
        let mut database = self.database();
        let transaction = database.transaction().unwrap();
        for _ in 0..rows {
            self.rows += 1;
            let row = (self.rows as i64, format!("item {}", self.rows), noise(self.random.number(), 900));
            transaction.execute("INSERT INTO item VALUES (?1, ?2, ?3)", row).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// One row in a hundred, in runs, as the newest and a few old ones.
    fn update(&mut self) {
        let mut database = self.database();
        let transaction = database.transaction().unwrap();
        for _ in 0..self.rows / 100 {
            let id = 1 + self.random.below(self.rows) as i64;
            transaction
                .execute("UPDATE item SET payload = ?1 WHERE id = ?2", (noise(self.random.number(), 900), id))
                .unwrap();
        }
        transaction.commit().unwrap();
    }

    fn change(&mut self, round: u64) {
        match round % 4 {
            0 => self.update(),
            1 => self.insert(self.rows / 50),
            2 => {
                self.database().execute("DELETE FROM item WHERE id % 97 = 5", ()).unwrap();
            }
            _ => {}
        }
        for _ in 0..20 {
            let number = self.random.below(FILES);
            let path = self.folder.join(format!("bucket/{:02x}/object {number}", number % 64));
            match self.random.below(4) {
                0 => drop(fs::remove_file(path)),
                1 => drop(fs::rename(&path, self.folder.join(format!("bucket/moved {number}")))),
                _ => fs::write(path, noise(self.random.number(), 3_000)).unwrap(),
            }
        }
    }
}

/// The paths of a document of `diff`.
fn paths(document: &Value) -> BTreeSet<PathBuf> {
    document.as_array().unwrap().iter().map(|item| item["path"].as_str().unwrap().into()).collect()
}

fn compare(a: &Tree, b: &Tree) -> [BTreeSet<PathBuf>; 3] {
    let only = |these: &Tree, those: &Tree| these.keys().filter(|path| !those.contains_key(*path)).cloned().collect();
    let changed = a.iter().filter(|(path, seen)| b.get(*path).is_some_and(|other| other != *seen));
    [
        only(b, a),
        only(a, b),
        changed.map(|(path, _)| if path.as_os_str().is_empty() { ".".into() } else { path.clone() }).collect(),
    ]
}

fn check_database(folder: &Path) {
    let database =
        Connection::open_with_flags(folder.join("hub.db"), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let answer: String = database.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(answer, "ok");
}

#[test]
fn c01_ten_states_are_taken_compared_put_back_and_half_of_them_removed() {
    let world = World::new();
    let mut application = Application::make(world.path("application"));
    let mut states = Vec::new();
    let mut reports = Vec::new();
    for round in 0..10 {
        if round > 0 {
            application.change(round - 1);
        }
        reports.push(world.create(&format!("state-{round}"), "application"));
        states.push(look(&application.folder));
    }
    for (round, report) in reports.iter().enumerate().skip(1) {
        let (first, grown) = (number(&reports[0], "stored_new"), number(report, "stored_new"));
        assert!(grown < first / 10, "state {round} costs {grown} after {first}");
    }
    // 1% of the rows updated, and twenty of two thousand files.
    assert!(number(&reports[1], "stored_new") < number(&reports[0], "stored_new") / 25, "{:#}", reports[1]);

    let list = world.json(&["list"]);
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, (0..10).map(|round| format!("state-{round}")).collect::<Vec<_>>());
    for round in 1..10 {
        let diff = world.json(&["diff", &format!("state-{}", round - 1), &format!("state-{round}")]);
        let found = ["added", "removed", "changed"].map(|kind| paths(&diff[kind]));
        let mut wanted = compare(&states[round - 1], &states[round]);
        // The root of the tree has no name of its own.
        for set in &mut wanted {
            if set.remove(Path::new(".")) {
                set.insert(PathBuf::new());
            }
        }
        assert_eq!(found, wanted, "from state {} to {round}", round - 1);
    }

    for (step, round) in [0, 9, 4, 4, 5, 2, 8, 1, 7, 3, 6].into_iter().enumerate() {
        let mode = ["auto", "swap", "in-place"][step % 3];
        let report = world.json(&["deploy", &format!("state-{round}"), "target", "--yes", "--mode", mode]);
        assert_same(&states[round], &look(&world.path("target")));
        check_database(&world.path("target"));
        assert_eq!(number(&report, "bytes_written") + number(&report, "bytes_kept"), number(&report, "bytes_total"));
        assert!(step != 3 || number(&report, "bytes_written") == 0, "the same again: {report}");
    }

    let half: Vec<String> = (0..10).step_by(2).map(|round| format!("state-{round}")).collect();
    let mut words = vec!["delete", "--yes"];
    words.extend(half.iter().map(String::as_str));
    world.ok(&words);
    assert!(number(&world.json(&["gc"]), "bytes_freed") > 0);
    let verified = world.json(&["verify"]);
    assert_eq!((&verified["ok"], &verified["snapshots"], &verified["damaged"]), (&json!(true), &json!(5), &json!([])));
    for (round, state) in states.iter().enumerate() {
        let name = format!("state-{round}");
        if round % 2 == 0 {
            world.fails(&["deploy", &name, "target", "--yes"], 79, "no-such-snapshot");
        } else {
            world.ok(&["deploy", &name, "target", "--yes"]);
            assert_same(state, &look(&world.path("target")));
        }
    }
    // Back to where the application was in its own place, and on from there.
    world.ok(&["deploy", "state-3", "application", "--yes"]);
    assert_same(&states[3], &look(&application.folder));
    check_database(&application.folder);
    application.change(0);
    world.create("onward", "application");
    world.ok(&["deploy", "onward", "target", "--yes"]);
    assert_same(&look(&application.folder), &look(&world.path("target")));
}

#[test]
fn c02_a_byte_inserted_at_the_front_of_a_large_file_adds_few_chunks() {
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    let content = noise(5, 100 << 20);
    fs::write(world.path("source/large"), &content).unwrap();
    let first = world.create("one", "source");
    let mut file = File::create(world.path("source/large")).unwrap();
    file.write_all(b"!").unwrap();
    file.write_all(&content).unwrap();
    drop(file);
    let second = world.create("two", "source");
    assert!(number(&first, "chunks_new") > 800, "{first}");
    assert!(number(&second, "chunks_new") <= 12, "{second}");
    assert!(number(&second, "stored_new") < 2 << 20, "{second}");
    for (name, shift) in [("one", 0), ("two", 1)] {
        world.ok(&["deploy", name, "target", "--yes"]);
        let mut file = File::open(world.path("target/large")).unwrap();
        file.seek(std::io::SeekFrom::Start(shift)).unwrap();
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert!(found == content, "{name}");
    }
}

#[test]
fn c03_no_plaintext_and_no_name_stands_in_the_repository() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir_all(source.join("a-telling-folder")).unwrap();
    let content: String = (0..20_000).map(|line| format!("the quick brown fox {line}\n")).collect();
    fs::write(source.join("a-telling-folder/a-telling-name"), &content).unwrap();
    fs::write(source.join("small"), b"an unmistakable sentence of some length").unwrap();
    world.json(&["create", "a-telling-snapshot", "source", "--tag", "colour=amber-and-resin"]);
    let key = fs::read(world.path("key")).unwrap();
    let needles: [&[u8]; 7] = [
        b"quick brown fox",
        b"a-telling-name",
        b"a-telling-folder",
        b"unmistakable sentence",
        b"a-telling-snapshot",
        b"amber-and-resin",
        &key,
    ];
    for (path, bytes) in world.objects() {
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{} holds {}", path.display(), String::from_utf8_lossy(needle));
        }
        let name = path.to_string_lossy().into_owned();
        assert!(!name.contains("telling"), "{name}");
    }
}

#[test]
fn c04_every_flipped_bit_is_detected_and_named() {
    let world = World::new();
    support::plant(&world.path("source"));
    world.create("one", "source");
    let mut random = Random(4);
    let objects = files_below(&world.repository());
    let objects: Vec<&PathBuf> = objects
        .iter()
        .filter(|path| {
            ["packs", "index", "snapshots", "config"].iter().any(|kind| path.to_string_lossy().contains(kind))
        })
        .collect();
    for _ in 0..40 {
        let path = random.pick(&objects);
        let bytes = fs::metadata(path).unwrap().len();
        let (offset, bit) = (random.below(bytes), random.below(8) as u8);
        support::flip(path, offset, bit);
        let run = world.run(&["verify", "--json"]);
        assert!([69, 12, 13].contains(&run.code), "byte {offset}, bit {bit} of {}: {run:?}", path.display());
        if run.code == 69 {
            let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), run.stderr);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(told.contains(&name), "{name} is named: {told}");
        }
        support::flip(path, offset, bit);
    }
    assert_eq!(world.json(&["verify"])["ok"], json!(true));
}

#[test]
fn c07_keys_are_added_changed_and_removed_and_no_data_is_rewritten() {
    let world = World::new();
    support::plant(&world.path("source"));
    world.create("one", "source");
    let packs = world.objects_in("packs");
    fs::write(world.path("second"), noise(1, 32)).unwrap();
    fs::write(world.path("third"), noise(2, 32)).unwrap();
    fs::write(world.path("password"), b"correct horse").unwrap();
    world.ok(&["key", "add", "--label", "anna", "--new-key-file", "second"]);
    world.ok(&["key", "add", "--label", "bert", "--new-password-file", "password"]);
    let labels = |world: &World| {
        let keys = world.json(&["key", "list"]);
        keys.as_array().unwrap().iter().map(|slot| slot["label"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert!(labels(&world).is_superset(&["anna".to_owned(), "bert".to_owned()].into()), "{:?}", labels(&world));
    let with = |flag: &str, file: &str| {
        let mut command = world.command(&["list", flag, file]);
        support::finish(command.env_remove("COPAL_KEY_FILE").output().unwrap()).code
    };
    assert_eq!((with("--key-file", "second"), with("--password-file", "password")), (0, 0));
    world.ok(&["key", "change", "--key-file", "second", "--new-key-file", "third"]);
    assert_eq!((with("--key-file", "second"), with("--key-file", "third")), (12, 0));
    world.ok(&["key", "remove", "bert"]);
    assert_eq!(with("--password-file", "password"), 12);
    assert_eq!(world.objects_in("packs"), packs);
    world.ok(&["deploy", "one", "target", "--key-file", "third"]);
    assert_same(&look(&world.path("source")), &look(&world.path("target")));
}
