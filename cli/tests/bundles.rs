//! Goal: what `docs/guide/bundles.md` and the rows H4–H7 and H10 of the requirements promise, by the built
//! program. Method: real repositories and databases; the system's own tar reads what is exported, Python-free
//! hostile archives are made by hand.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use support::{Run, World, finish, noise};

/// The program with a bundle's password.
fn with(world: &World, password: &str, arguments: &[&str]) -> Run {
    let mut command = world.command(arguments);
    if !password.is_empty() {
        command.env("COPAL_BUNDLE_PASSWORD", password);
    }
    finish(command.output().unwrap())
}

#[track_caller]
fn ok(world: &World, password: &str, arguments: &[&str]) -> Run {
    let run = with(world, password, arguments);
    assert_eq!(run.code, 0, "{arguments:?}: {run:#?}");
    run
}

#[track_caller]
fn json(world: &World, password: &str, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_slice(&ok(world, password, &[arguments, &["--json"]].concat()).stdout).unwrap()
}

/// A database with credentials that only `key` opens, and a bucket that its rows name.
fn instance(folder: &Path, key: u8) {
    fs::create_dir_all(folder.join("bucket/sub")).unwrap();
    let database = Connection::open(folder.join("hub.db")).unwrap();
    let text = |text: &str| text.bytes().map(|byte| byte ^ key).collect::<Vec<u8>>();
    database
        .execute_batch(
            "PRAGMA user_version = 7; CREATE TABLE credential (secret BLOB); CREATE TABLE object (path TEXT);",
        )
        .unwrap();
    database.execute("INSERT INTO credential VALUES (?1)", [text(&format!("secret of {key}"))]).unwrap();
    for number in 0..20 {
        database.execute("INSERT INTO object VALUES (?1)", [format!("sub/{number}")]).unwrap();
        fs::write(folder.join(format!("bucket/sub/{number}")), noise(u64::from(key) * 100 + number, 5000)).unwrap();
    }
    drop(database);
    fs::write(folder.join("key"), [key; 32]).unwrap();
}

/// Decrypts the credential with the key that stands beside it.
fn credential(database: &Path, key: &[u8]) -> String {
    let database = Connection::open(database).unwrap();
    let sealed: Vec<u8> = database.query_row("SELECT secret FROM credential", [], |row| row.get(0)).unwrap();
    let plain = sealed.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    String::from_utf8(plain).unwrap_or_default()
}

fn captured(world: &World, name: &str, key: u8) -> std::path::PathBuf {
    let source = world.path(&format!("source {name}"));
    instance(&source, key);
    let part = |label: &str| format!("{label}={}", source.join(label).display());
    world.ok(&["create", name, &part("hub.db"), &part("bucket"), &part("key")]);
    source
}

fn stored(world: &World) -> (String, usize) {
    let packs = walk(&world.repository().join("packs")) + walk(&world.repository().join("index"));
    (world.ok(&["list", "--json"]), packs)
}

fn walk(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { walk(&path) } else { 1 }).sum()
}

/// Name, type and content of a member of an archive.
type Member<'m> = (&'m str, u8, &'m [u8]);

#[test]
fn a_bundle_goes_from_one_repository_to_another() {
    let (home, away) = (World::new(), World::new());
    fs::create_dir_all(home.path("source/folder")).unwrap();
    fs::write(home.path("source/folder/file"), noise(1, 300_000)).unwrap();
    home.create("monday", "source");
    let exported = json(&home, "travel", &["export", "monday", "monday.copal"]);
    assert_eq!(exported["bundle_bytes"], fs::metadata(home.path("monday.copal")).unwrap().len());
    assert!(!home.path("monday.copal.part").exists());
    let file = home.text("monday.copal");
    assert!(json(&away, "travel", &["verify", &file])["ok"].as_bool().unwrap());
    assert_eq!(with(&away, "wrong", &["verify", &file]).code, 12);
    assert_eq!(with(&away, "wrong", &["import", &file]).code, 12);
    assert_eq!(with(&away, "", &["import", &file]).code, 2);
    let imported = json(&away, "travel", &["import", &file]);
    assert_eq!(imported["snapshots"][0]["name"], "monday");
    let listed: serde_json::Value = serde_json::from_str(&away.ok(&["list", "--json"])).unwrap();
    assert_eq!((&listed[0]["origin"], &listed[0]["name"]), (&"imported".into(), &"monday".into()));
    let there: serde_json::Value = serde_json::from_str(&home.ok(&["list", "--json"])).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["created"]), (&there[0]["id"], &there[0]["created"]));
    away.ok(&["deploy", "monday", "target"]);
    assert_eq!(fs::read(away.path("target/folder/file")).unwrap(), noise(1, 300_000));
    // What stands there is not replaced unasked, and a name is taken once.
    assert_eq!(with(&home, "travel", &["export", "monday", "monday.copal"]).code, 2);
    ok(&home, "travel", &["export", "monday", "monday.copal", "--force"]);
    assert!(json(&away, "travel", &["import", &file])["snapshots"][0]["was_here"].as_bool().unwrap());
    let mut hurt = fs::read(&file).unwrap();
    hurt[200_000] ^= 1;
    fs::write(away.path("hurt"), hurt).unwrap();
    assert_eq!(with(&away, "travel", &["import", "hurt"]).code, 69);
    assert_eq!(with(&away, "travel", &["verify", "hurt"]).code, 69);
}

#[test]
fn a_stream_is_exported_and_imported() {
    let (home, away) = (World::new(), World::new());
    fs::create_dir(home.path("source")).unwrap();
    fs::write(home.path("source/file"), noise(2, 2_000_000)).unwrap();
    home.create("monday", "source");
    let bundle = ok(&home, "travel", &["export", "monday", "-"]).stdout;
    let mut child = away
        .command(&["import", "-", "streamed"])
        .env("COPAL_BUNDLE_PASSWORD", "travel")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bundle).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    away.ok(&["deploy", "streamed", "target"]);
    assert_eq!(fs::read(away.path("target/file")).unwrap(), noise(2, 2_000_000));
}

#[test]
fn copies_need_the_other_repositorys_key() {
    let (home, away) = (World::new(), World::new());
    fs::write(away.path("other key"), noise(77, 32)).unwrap();
    away.ok(&["key", "add", "--label", "other", "--new-key-file", "other key"]);
    fs::create_dir(home.path("source")).unwrap();
    fs::write(home.path("source/file"), noise(3, 100_000)).unwrap();
    home.create("monday", "source");
    home.create("tuesday", "source");
    let to = away.repository();
    let to = to.to_str().unwrap();
    let other = away.text("other key");
    fs::write(home.path("short"), [1; 5]).unwrap();
    assert_eq!(home.run(&["copy", "--to", to, "--to-key-file", "short"]).code, 2);
    fs::write(home.path("wrong"), [1; 32]).unwrap();
    assert_eq!(home.run(&["copy", "--to", to, "--to-key-file", "wrong"]).code, 12);
    let copied = home.json(&["copy", "--to", to, "--to-key-file", &other]);
    assert_eq!(copied["snapshots"].as_array().unwrap().len(), 2);
    let again = home.json(&["copy", "--to", to, "--to-key-file", &other]);
    assert_eq!((&again["bytes"], &again["chunks_new"]), (&0.into(), &0.into()));
    away.ok(&["deploy", "tuesday", "target"]);
    assert_eq!(fs::read(away.path("target/file")).unwrap(), noise(3, 100_000));
}

#[test]
fn h04_a_hub_tar_has_the_manifest_the_database_and_the_bucket() {
    let world = World::new();
    let source = captured(&world, "monday", 0x41);
    let exported = json(&world, "travel", &["export", "monday", "hub.tgz", "--format", "hub-tar"]);
    assert_eq!(exported["portable"], true);
    let listed = Command::new("tar").args(["tzf", "hub.tgz"]).current_dir(world.path("")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = listed.lines().collect();
    assert_eq!(&names[..4], ["snapshot.yaml", "hub.db", "bucket/", "bucket/sub/"]);
    assert_eq!(names.len(), 24);
    fs::create_dir(world.path("unpacked")).unwrap();
    let unpacked =
        Command::new("tar").args(["xzf", "../hub.tgz"]).current_dir(world.path("unpacked")).status().unwrap();
    assert!(unpacked.success());
    let database = Connection::open(world.path("unpacked/hub.db")).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    assert_eq!(fs::read(world.path("unpacked/bucket/sub/7")).unwrap(), fs::read(source.join("bucket/sub/7")).unwrap());
    let manifest = fs::read_to_string(world.path("unpacked/snapshot.yaml")).unwrap();
    assert!(
        manifest.contains("name: monday") && manifest.contains("key: ") && manifest.contains("portable: true"),
        "{manifest}"
    );
    assert!(manifest.contains("db_version: ") && manifest.contains('7'), "{manifest}");
    let mut all = fs::read(world.path("hub.tgz")).unwrap();
    all.extend(manifest.bytes());
    assert!(!all.windows(16).any(|window| window == [0x41; 16]), "the raw key is in the bytes");
    assert!(!manifest.contains(&"41".repeat(16)));
    // As a stream, too.
    let stream = ok(&world, "travel", &["export", "monday", "-", "--format", "hub-tar"]).stdout;
    assert!(stream.starts_with(&[0x1f, 0x8b]));
}

#[test]
fn h05_without_a_password_the_key_is_left_out_and_an_import_warns() {
    let (home, away) = (World::new(), World::new());
    captured(&home, "monday", 0x42);
    let exported = json(&home, "", &["export", "monday", "hub.tgz", "--format", "hub-tar"]);
    assert_eq!(exported["portable"], false);
    assert!(exported["warnings"][0].as_str().unwrap().contains("key is left out"));
    let imported = json(&away, "", &["import", &home.text("hub.tgz")]);
    assert!(imported["warnings"][0].as_str().unwrap().contains("no key"), "{imported}");
    away.ok(&["deploy", "monday", "target"]);
    let database = Connection::open(away.path("target/hub.db")).unwrap();
    let rows: i64 = database.query_row("SELECT count(*) FROM object", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 20, "plain rows are fine");
}

#[test]
fn h06_a_wrong_password_leaves_nothing_behind() {
    let (home, away) = (World::new(), World::new());
    captured(&home, "monday", 0x43);
    ok(&home, "travel", &["export", "monday", "hub.tgz", "--format", "hub-tar"]);
    let before = stored(&away);
    let file = home.text("hub.tgz");
    assert_eq!(with(&away, "wrong", &["import", &file]).code, 12);
    assert_eq!(with(&away, "", &["import", &file]).code, 2);
    assert_eq!(stored(&away), before);
    ok(&away, "travel", &["import", &file]);
    // Another snapshot of the same name is refused, and that, too, stores nothing.
    let before = stored(&away);
    assert_eq!(with(&away, "travel", &["import", &file]).code, 1);
    assert_eq!(stored(&away), before);
}

#[test]
fn h07_each_instances_key_stays_its_own() {
    let world = World::new();
    captured(&world, "a", 0x61);
    for (name, key) in [("b", 0x62), ("c", 0x63)] {
        let other = World::new();
        captured(&other, name, key);
        ok(&other, "travel", &["export", name, "hub.tgz", "--format", "hub-tar"]);
        ok(&world, "travel", &["import", &other.text("hub.tgz")]);
    }
    for (name, key) in [("b", 0x62), ("c", 0x63), ("a", 0x61u8)] {
        world.ok(&["deploy", name, "live", "--yes"]);
        let found = finish(world.command(&["dump", name, "key"]).output().unwrap()).stdout;
        assert_eq!(found, [key; 32], "the key of {name}");
        assert_eq!(credential(&world.path("live/hub.db"), &found), format!("secret of {key}"));
    }
    // A native bundle carries it as well, and it is wrapped again where it arrives.
    let third = World::new();
    ok(&world, "travel", &["export", "b", "b.copal"]);
    ok(&third, "travel", &["import", &world.text("b.copal")]);
    assert_eq!(finish(third.command(&["dump", "b", "key"]).output().unwrap()).stdout, [0x62; 32]);
}

/// An archive of members: name, type, content.
fn archive(world: &World, name: &str, members: &[(&str, u8, &[u8])]) -> String {
    let mut tar = Vec::new();
    for (path, kind, content) in members {
        let mut header = [0u8; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = *kind;
        if matches!(kind, b'1' | b'2') {
            header[157..168].copy_from_slice(b"/etc/passwd");
        }
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    zipped(world, name, &tar)
}

fn zipped(world: &World, name: &str, tar: &[u8]) -> String {
    let mut child = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(File::create(world.path(name)).unwrap())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    assert!(child.wait().unwrap().success());
    world.text(name)
}

fn database(world: &World) -> Vec<u8> {
    let path = world.path("sound.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1);").unwrap();
    fs::read(path).unwrap()
}

/// Long names and records of PAX are kept in memory by whoever reads an archive: they are refused before they
/// are.
#[test]
fn h10_what_an_archive_says_of_a_member_is_bounded() {
    let world = World::new();
    let database = database(&world);
    let (said, name) = (vec![b'x'; 8 << 20], [b"bucket/".as_slice(), &[b'n'; 200], b"\0"].concat());
    let sound: [Member<'_>; 5] = [
        ("snapshot.yaml", b'0', b"name: monday\n"),
        ("hub.db", b'0', &database),
        ("bucket/", b'5', b""),
        ("././@LongLink", b'L', &name),
        ("bucket/n", b'0', b"x"),
    ];
    for kind in *b"LKx" {
        let file =
            archive(&world, "hostile.tgz", &[&sound[..3], &[("././@LongLink", kind, &said)], &sound[4..]].concat());
        let run = world.run(&["import", &file, "hostile"]);
        assert!(run.code == 69 && run.stderr.contains("too long"), "{}: {run:#?}", char::from(kind));
    }
    let file = archive(&world, "sound.tgz", &sound);
    world.ok(&["import", &file, "sound"]);
}

#[test]
fn h10_malformed_archives_are_refused_and_nothing_lands_anywhere() {
    let world = World::new();
    let database = database(&world);
    let yaml: &[u8] = b"name: monday\n";
    let sound: [(&str, u8, &[u8]); 4] =
        [("snapshot.yaml", b'0', yaml), ("hub.db", b'0', &database), ("bucket/", b'5', b""), ("bucket/a", b'0', b"x")];
    let before = stored(&world);
    let outside = world.path("outside");
    let escape = format!("bucket/../../{}", outside.file_name().unwrap().to_str().unwrap());
    let long = "x".repeat(90_000);
    let not_a_database = vec![7u8; 4096];
    let hostile: Vec<(&str, Vec<Member<'_>>)> = vec![
        ("leads out", vec![(&escape, b'0', b"x")]),
        ("absolute", vec![("/etc/copal-was-here", b'0', b"x")]),
        ("symbolic link", vec![("bucket/link", b'2', b"")]),
        ("hard link", vec![("bucket/link", b'1', b"")]),
        ("device", vec![("bucket/null", b'3', b"")]),
        ("pipe", vec![("bucket/pipe", b'6', b"")]),
        ("foreign member", vec![("other", b'0', b"x")]),
        ("twice", vec![("bucket/a", b'0', b"y")]),
        ("a folder of a file", vec![("bucket/a/b", b'0', b"y")]),
        ("two manifests", vec![("snapshot.yaml", b'0', yaml)]),
        ("two databases", vec![("./hub.db", b'0', &database)]),
    ];
    for (what, members) in &hostile {
        let file = archive(&world, "hostile.tgz", &[&sound[..], members].concat());
        let run = world.run(&["import", &file, "hostile"]);
        assert_eq!(run.code, 69, "{what}: {run:#?}");
    }
    let replaced: Vec<(&str, Vec<Member<'_>>)> = vec![
        ("no manifest", vec![sound[1], sound[2]]),
        ("no database", vec![sound[0], sound[2]]),
        ("nothing", vec![]),
        ("bad yaml", vec![("snapshot.yaml", b'0', b"name: [unclosed"), sound[1]]),
        ("yaml without a name", vec![("snapshot.yaml", b'0', b"title: x\n"), sound[1]]),
        ("a name that is none", vec![("snapshot.yaml", b'0', b"name: a/b\n"), sound[1]]),
        ("yaml that is no text", vec![("snapshot.yaml", b'0', b"\xff\xfe"), sound[1]]),
        ("a long manifest", vec![("snapshot.yaml", b'0', long.as_bytes()), sound[1]]),
        ("a foreign key", vec![("snapshot.yaml", b'0', b"name: m\nkey: abc\n"), sound[1]]),
        ("no database in it", vec![sound[0], ("hub.db", b'0', &not_a_database)]),
        ("a short database", vec![sound[0], ("hub.db", b'0', &database[..50])]),
        ("a database that ends in a page", vec![sound[0], ("hub.db", b'0', &database[..database.len() - 100])]),
    ];
    for (what, members) in &replaced {
        let file = archive(&world, "hostile.tgz", members);
        let run = with(&world, "travel", &["import", &file, "hostile"]);
        assert_eq!(run.code, 69, "{what}: {run:#?}");
    }
    let whole = fs::read(archive(&world, "sound.tgz", &sound)).unwrap();
    for length in [0, 1, 10, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        fs::write(world.path("cut.tgz"), &whole[..length]).unwrap();
        let run = world.run(&["import", "cut.tgz", "hostile", "--format", "hub-tar"]);
        assert_eq!(run.code, 69, "cut off at {length}: {run:#?}");
    }
    let mut behind = whole.clone();
    behind.extend_from_slice(b"more");
    fs::write(world.path("behind.tgz"), behind).unwrap();
    assert_eq!(world.run(&["import", "behind.tgz", "hostile"]).code, 69);
    // A bomb: zeros that claim to be an object.
    let zeros = vec![0u8; 200 << 20];
    let file = archive(&world, "bomb.tgz", &[sound[0], sound[1], ("bucket/zeros", b'0', &zeros)]);
    assert!(fs::metadata(&file).unwrap().len() < 400_000);
    assert_eq!(world.run(&["import", &file, "hostile"]).code, 69);
    let file = archive(&world, "sized.tgz", &[sound[0], sound[1], ("bucket/object", b'0', &noise(5, 100_000))]);
    assert_eq!(world.run(&["import", &file, "hostile", "--max-size", "50KB"]).code, 69);
    assert_eq!(stored(&world), before, "nothing is left behind");
    assert!(!outside.exists() && !Path::new("/etc/copal-was-here").exists());
    world.ok(&["import", &world.text("sound.tgz"), "sound"]);
    world.ok(&["deploy", "sound", "target"]);
    assert_eq!(fs::read(world.path("target/hub.db")).unwrap(), database);
}

/// A hub-tar of a hub that stood elsewhere: a hook gets both places, or only the new one where the archive
/// does not know the other.
#[test]
fn h15_an_imported_hub_tar_tells_a_hook_where_the_bucket_was() {
    let (home, away) = (World::new(), World::new());
    for world in [&home, &away] {
        fs::create_dir_all(world.path("hub/bucket")).unwrap();
        fs::write(world.path("hub/bucket/object"), "an object").unwrap();
        let database = Connection::open(world.path("hub/hub.db")).unwrap();
        database.execute_batch("CREATE TABLE object (path TEXT)").unwrap();
        let path = world.text("hub/bucket/object");
        database.execute("INSERT INTO object VALUES (?1)", [&path]).unwrap();
        let rewrite = "UPDATE object SET path = replace(path, '$COPAL_OLD_BUCKET/', '$COPAL_NEW_BUCKET/')";
        let script =
            format!("[ -z \"${{COPAL_OLD_BUCKET+set}}\" ] && echo unset > unset || sqlite3 hub/hub.db \"{rewrite}\"");
        let config = format!(
            "[app.hub]\n[[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"hub.db\"\npath = \"hub/hub.db\"\n\
             [[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"hub/bucket\"\n\
             [[app.hub.hook]]\nwhen = \"rewrite\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n"
        );
        fs::write(world.path("copal.toml"), config).unwrap();
    }
    home.ok(&["create", "monday", "--app", "hub"]);
    home.ok(&["export", "hub/monday", "hub.tgz", "--format", "hub-tar"]);
    away.ok(&["import", &home.text("hub.tgz"), "monday", "--app", "hub"]);
    away.ok(&["deploy", "hub/monday", "--app", "hub", "--yes"]);
    let database = Connection::open(away.path("hub/hub.db")).unwrap();
    let path: String = database.query_row("SELECT path FROM object", [], |row| row.get(0)).unwrap();
    assert_eq!(path, away.text("hub/bucket/object"));
    assert!(!away.path("unset").exists());
    drop(database);
    // One that says nothing of places.
    let repack = "mkdir x && tar xzf hub.tgz -C x && sed -i '/^paths:/,/^[a-z]/{/^paths:/d;/^ /d}' x/snapshot.yaml && \
                  sed -i 's/^name:.*/name: tuesday/' x/snapshot.yaml && tar czf bare.tgz -C x snapshot.yaml hub.db bucket";
    let repacked = Command::new("/bin/sh").args(["-c", repack]).current_dir(home.path("")).status().unwrap();
    assert!(repacked.success());
    assert!(!fs::read_to_string(home.path("x/snapshot.yaml")).unwrap().contains("paths"));
    away.ok(&["import", &home.text("bare.tgz"), "tuesday", "--app", "hub"]);
    away.ok(&["deploy", "hub/tuesday", "--app", "hub", "--yes"]);
    assert!(away.path("unset").exists());
}
