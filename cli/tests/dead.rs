//! Goal: what stands at an application is kept when another state takes its place, however damaged it is, and
//! what will become of each path is said before. Method: the built program, and sources that cannot be
//! captured as what they are: a damaged database, a folder that is too deep, values that are too long, a
//! server or a program that fails.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, sql};
use serde_json::{Value, json};
use support::kill::{Budget, run_and_kill};
use support::postgres::Server;
use support::terminal::at_terminal;
use support::{COPAL, World, noise};

/// An application with a database of 300 rows and a bucket, and its snapshot `good`.
fn application(more: &str) -> World {
    let world = World::new();
    fs::create_dir_all(world.path("hub/bucket")).unwrap();
    fs::write(world.path("hub/bucket/a"), b"old").unwrap();
    plant(&world.path("hub/hub.db"));
    let configuration = format!(
        "[app.hub]\ndefault = true\n\
         [[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"hub.db\"\npath = \"hub/hub.db\"\n\
         [[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"hub/bucket\"\n{more}"
    );
    fs::write(world.path("copal.toml"), configuration).unwrap();
    world
}

fn plant(database: &Path) {
    let rows = "create table t(id integer primary key, v blob);\
                with recursive n(i) as (select 1 union all select i + 1 from n where i < 300) \
                insert into t select i, randomblob(1000) from n;";
    sql(database, rows);
}

fn count(database: &Path) -> String {
    sql(database, "pragma integrity_check; select count(*) from t")
}

/// Noise in the middle of a database; what it says since.
fn damage(database: &Path) -> Vec<u8> {
    let file = File::options().write(true).open(database).unwrap();
    let middle = fs::metadata(database).unwrap().len() / 2;
    file.write_all_at(&noise(7, 16_384), middle / 4096 * 4096).unwrap();
    fs::read(database).unwrap()
}

/// Names in a folder that are not expected there.
fn others(folder: &Path, expected: &[&str]) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| !expected.contains(&path.file_name().unwrap().to_str().unwrap())).collect()
}

/// A file of a snapshot.
fn dumped(world: &World, snapshot: &Value, path: &str) -> Vec<u8> {
    let run = world.run(&["dump", snapshot.as_str().unwrap(), path]);
    assert_eq!(run.code, 0, "{run:#?}");
    run.stdout
}

/// The program in the hands of somebody to whom files can be closed. Of root nothing is.
struct Nobody<'w>(&'w World);

impl<'w> Nobody<'w> {
    const ID: u32 = 65534;

    /// Gives all of a world to it.
    fn of(world: &'w World) -> Self {
        fs::copy(COPAL, world.path("copal")).unwrap();
        fs::set_permissions(world.path("copal"), fs::Permissions::from_mode(0o755)).unwrap();
        Self::owns(&world.path(""));
        Self(world)
    }

    fn owns(path: &Path) {
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(path).status().unwrap().success());
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command_of(&self.0.path("copal"), arguments);
        if rustix::process::geteuid().is_root() {
            command.uid(Self::ID).gid(Self::ID);
        }
        command
    }

    fn ok(&self, arguments: &[&str]) -> Vec<u8> {
        let run = support::finish(self.command(arguments).output().unwrap());
        assert_eq!(run.code, 0, "{arguments:?}: {run:#?}");
        run.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// A file of a snapshot.
    fn dumped(&self, snapshot: &Value, path: &str) -> Vec<u8> {
        self.ok(&["dump", snapshot.as_str().unwrap(), path])
    }
}

/// A file that its folder's owner cannot read.
fn plant_closed(path: &Path) {
    fs::write(path, b"closed").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
}

#[test]
fn d06_a_damaged_database_and_a_new_file_are_in_the_safety_snapshot() {
    for damaged_at in ["middle", "head", "empty log"] {
        let world = application("");
        let database = world.path("hub/hub.db");
        world.ok(&["create", "good", "--app", "hub"]);
        let mut bytes = damage(&database);
        if damaged_at == "head" {
            bytes[..4096].fill(0);
            fs::write(&database, &bytes).unwrap();
        }
        if damaged_at == "empty log" {
            bytes[..100].fill(0x5a);
            fs::write(&database, &bytes).unwrap();
            fs::write(world.path("hub/hub.db-wal"), b"what a dead writer has left").unwrap();
        }
        fs::write(world.path("hub/bucket/new"), b"in no snapshot").unwrap();
        // It says so before.
        let rehearsed = world.json(&["deploy", "good", "--app", "hub", "--dry-run"]);
        assert_eq!(rehearsed["kept"][0]["label"], "hub.db", "{damaged_at}: {rehearsed}");
        assert!(rehearsed["kept"][0]["snapshot"].is_null(), "{rehearsed}");
        let text = world.run(&["deploy", "good", "--app", "hub", "--dry-run"]);
        assert!(text.stderr.contains("byte for byte in the safety snapshot"), "{text:#?}");
        assert_eq!(fs::read(&database).unwrap(), bytes, "a rehearsal wrote");

        let report = world.json(&["deploy", "good", "--app", "hub", "--yes"]);
        assert_eq!(count(&database), "ok\n300");
        assert!(!world.path("hub/bucket/new").exists());
        let safety = &report["safety"];
        let kept = &report["kept"][0];
        assert_eq!(kept["label"], "hub.db", "{report}");
        assert!(!kept["why"].as_str().unwrap().is_empty(), "{report}");
        assert!(dumped(&world, safety, "hub.db") == bytes, "{damaged_at}: {report}");
        assert_eq!(dumped(&world, safety, "bucket/new"), b"in no snapshot");
        if damaged_at == "empty log" {
            // SQLite may have made an index of the log when it was asked.
            let labels = kept["snapshot"].as_array().unwrap();
            assert!(labels.starts_with(&[json!("hub.db"), json!("hub.db-wal")]), "{report}");
            assert_eq!(dumped(&world, safety, "hub.db-wal"), b"what a dead writer has left");
        }
        assert!(report["warnings"].to_string().contains("byte for byte"), "{report}");
        assert_eq!(others(&world.path("hub"), &["hub.db", "bucket"]), Vec::<PathBuf>::new());
        // What is whole of it can go back; the damaged one says how it can.
        world.ok(&["deploy", safety.as_str().unwrap(), "--app", "hub", "--only", "bucket", "--yes"]);
        assert_eq!(fs::read(world.path("hub/bucket/new")).unwrap(), b"in no snapshot");
        let error = world.fails(&["deploy", safety.as_str().unwrap(), "--app", "hub", "--yes"], 79, "not-ready");
        assert!(error["message"].as_str().unwrap().contains("hub.db"), "{error}");
        world.ok(&["deploy", safety.as_str().unwrap(), &world.text("out"), "--path", "hub.db"]);
        assert!(fs::read(world.path("out")).unwrap() == bytes);
    }
}

#[test]
fn d06_what_cannot_be_captured_at_all_stays_beside_its_place() {
    let more = "[[app.hub.source]]\nkind = \"config\"\nlabel = \"conf\"\npath = \"hub/conf\"\n\
                [[app.hub.source]]\nkind = \"secret\"\nlabel = \"token\"\npath = \"hub/token\"\n\
                [[app.hub.source]]\nkind = \"image\"\nlabel = \"disk\"\npath = \"hub/disk\"\n\
                [[app.hub.source]]\nkind = \"command\"\nlabel = \"said\"\n\
                argv = [\"/bin/sh\", \"-c\", \"test ! -e broken && echo hello\"]\n";
    let world = application(more);
    for name in ["conf", "token", "disk"] {
        fs::write(world.path("hub").join(name), name).unwrap();
    }
    fs::set_permissions(world.path("hub/token"), fs::Permissions::from_mode(0o600)).unwrap();
    let nobody = Nobody::of(&world);
    nobody.ok(&["create", "good", "--app", "hub"]);
    let (long, secret) = (noise(1, 60_000), noise(2, 60_000));
    fs::write(world.path("hub/conf"), &long).unwrap();
    fs::write(world.path("hub/token"), &secret).unwrap();
    fs::remove_file(world.path("hub/disk")).unwrap();
    fs::write(world.path("broken"), b"").unwrap();
    fs::write(world.path("hub/bucket/new"), b"in no snapshot").unwrap();
    plant_closed(&world.path("hub/bucket/closed"));
    let rehearsed = nobody.json(&["deploy", "good", "--app", "hub", "--dry-run"]);
    let labels = |report: &Value| -> Vec<String> {
        let kept = report["kept"].as_array().unwrap().iter();
        kept.map(|kept| kept["label"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(labels(&rehearsed), ["bucket", "conf", "token"], "{rehearsed}");
    let report = nobody.json(&["deploy", "good", "--app", "hub", "--yes"]);
    assert_eq!(report["kept"].as_array().unwrap().len(), 3, "{report}");
    let kept = |label: &str| {
        let all = report["kept"].as_array().unwrap();
        all.iter().find(|kept| kept["label"] == label).unwrap_or_else(|| panic!("{label}: {report}"))
    };
    for name in ["conf", "token", "disk"] {
        assert_eq!(fs::read(world.path("hub").join(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(kept("conf")["snapshot"], json!(["conf"]));
    assert!(nobody.dumped(&report["safety"], "conf") == long);
    // A secret goes nowhere without its seal, and nobody else reads it.
    let beside = |label: &str| PathBuf::from(kept(label)["beside"]["path"].as_str().unwrap());
    assert!(fs::read(beside("token")).unwrap() == secret);
    assert_eq!(fs::metadata(beside("token")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(world.run(&["dump", report["safety"].as_str().unwrap(), "token"]).code != 0);
    // The folder is in the snapshot but for what is closed, and all of it stands beside.
    assert_eq!(nobody.dumped(&report["safety"], "bucket/new"), b"in no snapshot");
    assert_eq!(fs::read(beside("bucket").join("new")).unwrap(), b"in no snapshot");
    assert!(beside("bucket").join("closed").is_file());
    assert_eq!(fs::read_dir(world.path("hub/bucket")).unwrap().count(), 1);
    let expected = ["hub.db", "bucket", "conf", "token", "disk"];
    let mut found = others(&world.path("hub"), &expected);
    let mut wanted = vec![beside("token"), beside("bucket")];
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn d06_a_database_that_cannot_be_read_stays_beside_with_its_log() {
    let world = application("");
    let nobody = Nobody::of(&world);
    nobody.ok(&["create", "good", "--app", "hub"]);
    fs::remove_file(world.path("hub/hub.db")).unwrap();
    plant_closed(&world.path("hub/hub.db"));
    fs::write(world.path("hub/hub.db-wal"), b"a log").unwrap();
    Nobody::owns(&world.path("hub/hub.db-wal"));
    let report = nobody.json(&["deploy", "good", "--app", "hub", "--yes"]);
    let beside = report["kept"][0]["beside"]["path"].as_str().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(fs::metadata(beside).unwrap().len(), 6);
    assert_eq!(fs::read(format!("{beside}-wal")).unwrap(), b"a log");
    assert_eq!(count(&world.path("hub/hub.db")), "ok\n300");
}

#[test]
fn d06_what_only_a_program_can_read_is_not_replaced_when_it_fails() {
    let more = "[[app.hub.source]]\nkind = \"command\"\nlabel = \"said\"\n\
                argv = [\"/bin/sh\", \"-c\", \"test ! -e broken && cat said\"]\n\
                restore = [\"/bin/sh\", \"-c\", \"cat > said\"]\n";
    let world = application(more);
    fs::write(world.path("said"), b"before").unwrap();
    world.ok(&["create", "good", "--app", "hub"]);
    fs::write(world.path("said"), b"in no snapshot").unwrap();
    fs::write(world.path("broken"), b"").unwrap();
    let bytes = damage(&world.path("hub/hub.db"));
    let error = world.fails(&["deploy", "good", "--app", "hub", "--yes"], 79, "not-kept");
    assert!(error["message"].as_str().unwrap().contains("said"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--no-safety"), "{error}");
    assert_eq!(fs::read(world.path("said")).unwrap(), b"in no snapshot");
    assert!(fs::read(world.path("hub/hub.db")).unwrap() == bytes);
    // The way out that it names.
    world.ok(&["deploy", "good", "--app", "hub", "--only", "said", "--no-safety", "--yes"]);
    assert_eq!(fs::read(world.path("said")).unwrap(), b"before");
    world.ok(&["deploy", "good", "--app", "hub", "--only", "hub.db", "--only", "bucket", "--yes"]);
    assert_eq!(count(&world.path("hub/hub.db")), "ok\n300");
}

#[test]
fn d06_a_server_that_fails_loses_no_database() {
    let (world, server) = (World::new(), Server::start());
    server.ask("postgres", "CREATE DATABASE shop");
    server.ask("shop", "CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 50) n");
    fs::create_dir_all(world.path("bucket")).unwrap();
    fs::write(world.path("bucket/a"), b"old").unwrap();
    // Its programs, of which one fails as it does where a table is damaged.
    fs::create_dir(world.path("bin")).unwrap();
    for entry in fs::read_dir(server.bin()).unwrap() {
        let path = entry.unwrap().path();
        symlink(&path, world.path("bin").join(path.file_name().unwrap())).unwrap();
    }
    fs::remove_file(world.path("bin/pg_dump")).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ -e {} ]; then echo 'pg_dump: error: invalid page in block 0 of relation' >&2; exit 1; fi\n\
         exec {} \"$@\"\n",
        world.text("broken"),
        server.bin().join("pg_dump").display()
    );
    fs::write(world.path("bin/pg_dump"), script).unwrap();
    fs::set_permissions(world.path("bin/pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    let configure = |socket: &str| {
        let config = format!(
            "[app.shop]\n[[app.shop.source]]\nkind = \"postgres\"\nlabel = \"pg\"\n\
             dsn = \"host={socket} user=postgres\"\ndatabases = [\"shop\"]\nbin = {:?}\n\
             [[app.shop.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = {:?}\n",
            world.text("bin"),
            world.text("bucket")
        );
        fs::write(world.path("copal.toml"), config).unwrap();
    };
    configure(&server.socket());
    world.ok(&["create", "good", "--app", "shop"]);
    server.ask("shop", "INSERT INTO t VALUES (51)");
    fs::write(world.path("bucket/new"), b"in no snapshot").unwrap();
    // Nobody answers: nothing is touched.
    configure(&world.text("nowhere"));
    for more in ["--yes", "--dry-run"] {
        world.fails(&["deploy", "good", "--app", "shop", more], 79, "database");
    }
    assert!(world.path("bucket/new").exists());
    configure(&server.socket());
    let rehearsed = world.json(&["deploy", "good", "--app", "shop", "--dry-run"]);
    assert_eq!(rehearsed["components"][0]["changes"]["replaced"], json!([{ "path": "shop" }]), "{rehearsed}");
    fs::write(world.path("broken"), b"").unwrap();
    let report = world.json(&["deploy", "good", "--app", "shop", "--yes"]);
    assert_eq!(server.ask("shop", "SELECT count(*) FROM t"), "50");
    let kept = report["kept"][0]["databases"][0].as_str().unwrap_or_else(|| panic!("{report}"));
    assert_eq!(server.ask(kept, "SELECT count(*) FROM t"), "51");
    assert!(report["kept"][0]["why"].as_str().unwrap().contains("invalid page"), "{report}");
    assert_eq!(dumped(&world, &report["safety"], "bucket/new"), b"in no snapshot");
}

#[test]
fn d06_a_mount_point_keeps_its_old_state_in_it() {
    let world = World::new();
    fs::create_dir(world.path("bucket")).unwrap();
    mounted(
        "tmpfs",
        &["-t", "tmpfs", "-o", "uid=65534,gid=65534,mode=755", "tmpfs"],
        &world.path("bucket"),
        |bucket| {
            fs::write(bucket.join("a"), b"old").unwrap();
            let config = format!("[app.a]\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = {bucket:?}\n");
            fs::write(world.path("copal.toml"), config).unwrap();
            let nobody = Nobody::of(&world);
            nobody.ok(&["create", "good", "--app", "a"]);
            fs::write(bucket.join("new"), b"in no snapshot").unwrap();
            plant_closed(&bucket.join("closed"));
            let report = nobody.json(&["deploy", "good", "--app", "a", "--yes"]);
            let beside = report["kept"][0]["beside"]["path"].as_str().unwrap_or_else(|| panic!("{report}"));
            let beside = PathBuf::from(beside);
            assert_eq!(fs::read(beside.join("new")).unwrap(), b"in no snapshot");
            assert!(beside.join("closed").is_file());
            assert_eq!(others(bucket, &["a"]), [beside]);
        },
    );
}

/// Something mounted for as long as a body runs.
fn mounted(what: &str, arguments: &[&str], point: &Path, body: impl FnOnce(&Path)) {
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let mounted = Command::new("mount").args(arguments).arg(point).status().unwrap();
    assert!(mounted.success(), "{what} is not mounted");
    let _unmount = Unmount(point);
    body(point);
}

#[test]
fn d06_a_kill_loses_nothing_of_what_stood_there() {
    let hooks = "[[app.hub.hook]]\nwhen = \"start\"\nargv = [\"/bin/sleep\", \"0.02\"]\n";
    let world = application(hooks);
    let (hub, database) = (world.path("hub"), world.path("hub/hub.db"));
    let nobody = Nobody::of(&world);
    nobody.ok(&["create", "good", "--app", "hub"]);
    let (mut budget, mut random) = Budget::new("deploy over a dead application");
    while budget.lasts() {
        for path in others(&hub, &["hub.db", "bucket"]) {
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        let bytes = damage(&database);
        let _ = fs::remove_dir_all(hub.join("bucket"));
        fs::create_dir(hub.join("bucket")).unwrap();
        fs::write(hub.join("bucket/new"), b"in no snapshot").unwrap();
        Nobody::owns(&hub);
        plant_closed(&hub.join("bucket/closed"));
        let deploy = nobody.command(&["deploy", "good", "--app", "hub", "--yes"]);
        let run = run_and_kill(deploy, Duration::from_millis(random.below(500)));
        budget.count(&run);
        nobody.json(&["status"]);
        let kept: Vec<PathBuf> = others(&hub, &["hub.db", "bucket"]);
        if hub.join("bucket/new").exists() {
            assert!(fs::read(&database).unwrap() == bytes, "half of it was put back");
            assert_eq!(kept, Vec::<PathBuf>::new());
        } else {
            assert_eq!(count(&database), "ok\n300");
            assert_eq!(kept.len(), 1, "{kept:?}");
            assert_eq!(fs::read(kept[0].join("new")).unwrap(), b"in no snapshot");
            assert!(kept[0].join("closed").is_file());
            let listed = nobody.json(&["list"]);
            let newest = listed.as_array().unwrap().iter().max_by_key(|one| one["created"].as_str().map(str::to_owned));
            assert!(nobody.dumped(&newest.unwrap()["id"], "hub.db") == bytes, "{listed}");
        }
    }
}

#[test]
fn d06_the_daemon_says_so_before_and_keeps_it() {
    let world = application("");
    let nobody = Nobody::of(&world);
    nobody.ok(&["create", "good", "--app", "hub"]);
    let bytes = damage(&world.path("hub/hub.db"));
    fs::write(world.path("hub/bucket/new"), b"in no snapshot").unwrap();
    plant_closed(&world.path("hub/bucket/closed"));
    let daemon = Daemon::of(nobody.command(&["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0"]));
    let page = daemon.get("/ui/apps/hub/snapshots/good/deploy").text().unwrap();
    assert!(page.contains("kept byte for byte in the safety snapshot"), "{page}");
    assert!(page.contains("What stands there is kept first"), "{page}");
    assert!(fs::read(world.path("hub/hub.db")).unwrap() == bytes);
    let done = daemon.done("/snapshots/good/deploy");
    let result = if done["result"].is_null() { done.clone() } else { done["result"].clone() };
    assert_eq!(count(&world.path("hub/hub.db")), "ok\n300");
    let kept = result["kept"].as_array().unwrap_or_else(|| panic!("{done}"));
    let of = |label: &str| kept.iter().find(|kept| kept["label"] == label).unwrap_or_else(|| panic!("{done}"));
    assert_eq!(of("hub.db")["snapshot"], json!(["hub.db"]), "{done}");
    let beside = Path::new(of("bucket")["beside"]["path"].as_str().unwrap());
    assert_eq!(fs::read(beside.join("new")).unwrap(), b"in no snapshot");
    assert!(nobody.dumped(&result["safety"], "hub.db") == bytes);
    let operations = daemon.get("/ui/operations").text().unwrap();
    let at = operations.find("/ui/operations/").unwrap();
    let link = operations[at..].split('"').next().unwrap();
    let page = daemon.get(link).text().unwrap();
    assert!(page.contains(beside.to_str().unwrap()), "{page}");
}

#[test]
fn d04_a_rehearsal_of_an_application_names_what_is_removed_replaced_and_added() {
    let more = "[[app.hub.source]]\nkind = \"secret\"\nlabel = \"token\"\npath = \"hub/token\"\n\
                [[app.hub.source]]\nkind = \"config\"\nlabel = \"conf\"\npath = \"hub/conf\"\n\
                [[app.hub.source]]\nkind = \"command\"\nlabel = \"said\"\nargv = [\"/bin/echo\", \"hello\"]\n\
                restore = [\"/bin/cat\"]\n";
    let world = application(more);
    fs::write(world.path("hub/token"), b"secret words").unwrap();
    fs::write(world.path("hub/conf"), b"one").unwrap();
    fs::write(world.path("hub/bucket/gone"), b"gone").unwrap();
    world.ok(&["create", "good", "--app", "hub"]);
    let dry = ["deploy", "good", "--app", "hub", "--dry-run"];
    let changes = |report: &Value, label: &str| -> Value {
        let components = report["components"].as_array().unwrap();
        components.iter().find(|one| one["label"] == label).unwrap_or_else(|| panic!("{report}"))["changes"].clone()
    };
    let nothing = json!({ "removed": [], "replaced": [], "added": [], "metadata": [] });
    let report = world.json(&dry);
    for label in ["hub.db", "bucket", "token", "conf"] {
        assert_eq!(changes(&report, label), nothing, "{label}: {report}");
    }
    assert!(changes(&report, "said").is_null(), "{report}");
    sql(&world.path("hub/hub.db"), "delete from t where id > 5");
    fs::remove_file(world.path("hub/bucket/gone")).unwrap();
    fs::write(world.path("hub/bucket/a"), b"another content").unwrap();
    for number in 0..25 {
        fs::write(world.path(&format!("hub/bucket/new{number:02}")), b"new").unwrap();
    }
    fs::write(world.path("hub/token"), b"other words!").unwrap();
    fs::remove_file(world.path("hub/conf")).unwrap();
    let stands = || (support::look(&world.path("hub/bucket")), fs::read(world.path("hub/hub.db")).unwrap());
    let before = stands();
    let report = world.json(&dry);
    let paths = |list: &[&str]| -> Value { list.iter().map(|path| json!({ "path": path })).collect() };
    assert_eq!(changes(&report, "hub.db")["replaced"], paths(&["."]), "{report}");
    assert_eq!(changes(&report, "bucket")["added"], paths(&["gone"]), "{report}");
    assert_eq!(changes(&report, "bucket")["replaced"], paths(&["a"]), "{report}");
    assert_eq!(changes(&report, "bucket")["removed"].as_array().unwrap().len(), 25, "{report}");
    assert_eq!(changes(&report, "token")["replaced"], paths(&["."]), "{report}");
    assert_eq!(changes(&report, "conf")["added"], paths(&["."]), "{report}");
    let text = world.ok(&dry);
    for part in ["removed: 25 paths", "new00", "new19", "and 5 more", "replaced: 1 path", "added: 1 path"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("new20"), "{text}");
    // The same before the question, and nothing is touched by it.
    let run = at_terminal(&world, "copal deploy good --app hub", &[], &[("Replace what the application hub has", "n")]);
    let screen = String::from_utf8_lossy(&run.stdout).into_owned();
    for part in ["removed: 25 paths", "new19", "and 5 more", "replaced: 1 path", "added: 1 path"] {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    assert!(stands() == before, "a rehearsal touched something");
    // Nobody to ask is found out before any work.
    let run =
        support::finish(world.command(&["deploy", "good", "--app", "hub"]).stdin(Stdio::null()).output().unwrap());
    assert_eq!(run.code, 2, "{run:#?}");
    world.ok(&["deploy", "good", "--app", "hub", "--yes"]);
    assert_eq!(fs::read_dir(world.path("hub/bucket")).unwrap().count(), 2);
}

#[test]
fn d04_who_has_a_database_open_is_stopped_before_a_deploy_and_stops_no_rehearsal() {
    let world = application("[[app.hub.hook]]\nwhen = \"stop\"\nargv = [\"/bin/true\"]\n");
    world.ok(&["create", "good", "--app", "hub"]);
    sql(&world.path("hub/hub.db"), "delete from t where id > 5");
    let open = rusqlite::Connection::open(world.path("hub/hub.db")).unwrap();
    open.query_row("select count(*) from t", [], |row| row.get::<_, i64>(0)).unwrap();
    let report = world.json(&["deploy", "good", "--app", "hub", "--dry-run"]);
    assert_eq!(report["components"][0]["changes"]["replaced"], json!([{ "path": "." }]), "{report}");
}
