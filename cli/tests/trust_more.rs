//! Goal: what `trust.rs` shows, one step aside: objects put *beside* others, under names that are free (rows
//! T2 to T4, T8). Method: the same, each forgery made with the store's own code by the holder of a key, its
//! cost told by the built program on a machine that has no cache.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::process::Command;

use copal_manifest::entry::Node;
use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::{TreeBuilder, TreeReader};
use copal_store::backend::{ObjectKind, ObjectName, publish_bytes};
use copal_store::fuzzing::{seal_fragment, seal_whole, seal_whole_unsigned};
use copal_store::location::{Location, RecordKind};
use copal_store::repository::{Repository, RootName};
use copal_store::session::{ChunkSource, DeltaBase, Reservation, Session};
use copal_store::{ChunkId, ObjectId, SnapshotId};

use support::forge::{anew, hold, with_key};
use support::{Run, World, noise};

#[track_caller]
fn ok_anew(world: &World, arguments: &[&str]) -> String {
    let run = anew(world, arguments);
    assert_eq!(run.code, 0, "{arguments:?}: {run:#?}");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

fn add_key(world: &World, name: &str, role: &str, seed: u64) {
    fs::write(world.path(name), noise(seed, 32)).unwrap();
    world.ok(&["key", "add", "--role", role, "--label", name, "--new-key-file", name]);
}

fn with_thief() -> World {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    add_key(&world, "thief", "create", 20);
    world
}

fn write_source(world: &World, name: &str, seed: u64) {
    fs::create_dir_all(world.path(name)).unwrap();
    for file in 0..4 {
        fs::write(world.path(name).join(format!("file {file}")), noise(seed + file, 20_000)).unwrap();
    }
}

#[track_caller]
fn check_deployed(world: &World, snapshot: &str, source: &str) {
    let target = "deployed";
    ok_anew(world, &["deploy", snapshot, target, "--yes"]);
    for entry in fs::read_dir(world.path(source)).unwrap() {
        let entry = entry.unwrap();
        let deployed = fs::read(world.path(target).join(entry.file_name())).unwrap();
        assert!(deployed == fs::read(entry.path()).unwrap(), "{snapshot}: {:?} differs", entry.path());
    }
    fs::remove_dir_all(world.path(target)).unwrap();
}

/// A snapshot as its root says.
fn read_snapshot(owner: &Repository, name: &str) -> (RootName, Snapshot) {
    let tag = owner.keys().name_tag(name.as_bytes());
    let root = owner.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let payload = owner.read_root(&root).unwrap();
    (root, Snapshot::decode("a root", &payload).unwrap())
}

/// Puts an object of the thief's where nothing stands; whether it could.
fn plant(thief: &Repository, name: &str, payload: &[u8], is_signed: bool) -> bool {
    let name = ObjectName::new(ObjectKind::Root, name).unwrap();
    if thief.backend().stat(&name).is_ok() {
        return false;
    }
    let seal = if is_signed { seal_whole } else { seal_whole_unsigned };
    publish_bytes(&**thief.backend(), &name, &seal(thief, &name, payload).unwrap()).unwrap();
    true
}

#[test]
fn t02_a_root_beside_one_that_was_sealed_again_changes_and_loses_nothing() {
    for is_signed in [true, false] {
        let world = with_thief();
        write_source(&world, "source", 30);
        write_source(&world, "other", 40);
        world.create("monday", "source");
        world.ok(&["key", "rotate", "--reseal"]);
        world.ok(&["key", "rotate"]);
        let run = with_key(&world, "thief", &["create", "of the thief", "other"]);
        assert_eq!(run.code, 0, "{run:#?}");
        let (owner, thief) = (hold(&world, "key"), hold(&world, "thief"));
        let (root, snapshot) = read_snapshot(&owner, "monday");
        let (_, of_thief) = read_snapshot(&owner, "of the thief");
        let forged = Snapshot { sources: of_thief.sources, ..snapshot }.encode().unwrap();
        let own = root.object_name();
        let mut planted = usize::from(plant(&thief, &own, &forged, is_signed));
        for epoch in 1..=4 {
            planted += usize::from(plant(&thief, &format!("{own}-{epoch:08x}"), &forged, is_signed));
        }
        assert!(planted >= 3);
        for round in 0..2 {
            ok_anew(&world, &["gc"]);
            ok_anew(&world, &["gc"]);
            check_deployed(&world, "monday", "source");
            if round == 0 {
                ok_anew(&world, &["key", "reseal"]);
            }
        }
        ok_anew(&world, &["verify"]);
        // It goes wholly when it is deleted.
        world.ok(&["delete", "monday", "--yes"]);
        assert!(!ok_anew(&world, &["list"]).contains("monday"));
    }
}

#[test]
fn t02_a_root_that_nobody_signed_is_not_signed_by_a_reseal() {
    let world = with_thief();
    write_source(&world, "source", 50);
    world.create("monday", "source");
    let (owner, thief) = (hold(&world, "key"), hold(&world, "thief"));
    let (_, snapshot) = read_snapshot(&owner, "monday");
    let id = SnapshotId([7; 16]);
    let root = RootName { tag: owner.keys().name_tag(b"planted"), snapshot: id };
    let forged = Snapshot { id, name: "planted".into(), ..snapshot }.encode().unwrap();
    assert!(plant(&thief, &root.object_name(), &forged, false));
    world.ok(&["key", "rotate", "--reseal"]);
    world.ok(&["key", "reseal"]);
    let shown = world.json(&["show", "planted"]);
    assert!(shown["key"].is_null(), "{shown}");
    // It pushes no other out, and is no parent.
    world.ok(&["forget", "--keep-last", "1"]);
    check_deployed(&world, "monday", "source");
    world.create("tuesday", "source");
    assert_eq!(world.json(&["show", "tuesday"])["parent"], world.json(&["show", "monday"])["id"]);
}

/// Entries of an index that say of each chunk that it is the thief's.
fn made_up(thief: &Repository, ids: &[ChunkId]) -> Vec<(ChunkId, Location)> {
    let session = Session::begin(thief).unwrap();
    let mut writer = session.writer().unwrap();
    let mut places = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let plain = noise(900 + number as u64, 20_000);
        let own = thief.keys().chunk_id(&plain);
        assert_eq!(session.reserve(&own).unwrap(), Reservation::Mine);
        writer.store(RecordKind::Data, &own, &plain, None).unwrap();
        places.push((*id, own));
    }
    drop(writer);
    session.checkpoint().unwrap();
    let located: Vec<_> = places.iter().map(|(id, own)| (*id, session.locate(own).unwrap().unwrap())).collect();
    session.end().unwrap();
    located
}

#[test]
fn t02_what_strangers_say_is_no_reason_to_give_up_what_a_removed_key_stored() {
    let world = with_thief();
    add_key(&world, "robot", "create", 21);
    write_source(&world, "source", 60);
    let run = with_key(&world, "robot", &["create", "of the robot", "source"]);
    assert_eq!(run.code, 0, "{run:#?}");
    let thief = hold(&world, "thief");
    let robot = hold(&world, "robot").keys().signer().unwrap();
    let files = (0..4).map(|file| thief.keys().chunk_id(&noise(60 + file, 20_000)));
    let mut entries = made_up(&thief, &files.collect::<Vec<_>>());
    // Longer than any other, so that it is asked first.
    let place = entries[0].1;
    entries.extend((0..5000u32).map(|number| (thief.keys().chunk_id(&number.to_le_bytes()), place)));
    for (number, author) in [robot, thief.keys().signer().unwrap()].into_iter().enumerate() {
        let (name, bytes) = seal_fragment(&thief, ObjectId([0xee + number as u8; 16]), &entries, author).unwrap();
        publish_bytes(&**thief.backend(), &name, &bytes).unwrap();
    }
    world.ok(&["key", "remove", "robot"]);
    for _ in 0..3 {
        ok_anew(&world, &["gc"]);
        check_deployed(&world, "of the robot", "source");
    }
    world.ok(&["key", "remove", "thief"]);
    for _ in 0..3 {
        ok_anew(&world, &["gc"]);
        check_deployed(&world, "of the robot", "source");
    }
    world.ok(&["verify", "--repair"]);
    world.ok(&["gc"]);
    check_deployed(&world, "of the robot", "source");
    ok_anew(&world, &["verify"]);
}

#[test]
fn t04_deltas_that_decode_to_something_else_do_not_outlive_a_repair() {
    let world = with_thief();
    write_source(&world, "source", 120);
    world.create("monday", "source");
    let thief = hold(&world, "thief");
    let session = Session::begin(&thief).unwrap();
    let mut writer = session.writer().unwrap();
    let base = noise(1, 40_000);
    let base_id = thief.keys().chunk_id(&base);
    assert_eq!(session.reserve(&base_id).unwrap(), Reservation::Mine);
    writer.store(RecordKind::Data, &base_id, &base, None).unwrap();
    write_source(&world, "victim", 130);
    for file in 0..4 {
        let id = thief.keys().chunk_id(&noise(130 + file, 20_000));
        assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
        let delta = DeltaBase { id: base_id, plain: &base };
        writer.store(RecordKind::Data, &id, &base[..20_000], Some(delta)).unwrap();
    }
    assert_eq!(writer.deltas_stored(), 4);
    drop(writer);
    session.checkpoint().unwrap();
    session.end().unwrap();
    for step in [&["verify", "--repair"][..], &["gc"], &["verify"]] {
        let run = world.run(step);
        assert!(run.code == 0 || step[0] == "verify", "{step:?}: {run:#?}");
        let name = format!("after {}", step.join(" "));
        world.create(&name, "victim");
        check_deployed(&world, &name, "victim");
        check_deployed(&world, "monday", "source");
        world.ok(&["delete", &name, "--yes"]);
    }
    world.ok(&["verify"]);
}

/// A snapshot by the thief, of the same folder, the newest there is: every file looks as it does on disk, and
/// has another's bytes.
fn plant_parent(world: &World, name: &str) {
    let (owner, thief) = (hold(world, "key"), hold(world, "thief"));
    let (_, mut snapshot) = read_snapshot(&owner, "monday");
    let (reading, session) = (Session::begin(&owner).unwrap(), Session::begin(&thief).unwrap());
    let mut writer = session.writer().unwrap();
    for source in &mut snapshot.sources {
        let entries: Vec<_> =
            TreeReader::new(&reading, source.tree).entries().collect::<Result<_, copal_store::Error>>().unwrap();
        let of_first = entries.iter().find_map(|entry| match &entry.node {
            Node::File(content) => Some(content.clone()),
            _ => None,
        });
        let mut builder = TreeBuilder::new(&owner.keys().tree_boundary_key());
        for mut entry in entries {
            if let Node::File(content) = &mut entry.node {
                *content = of_first.clone().unwrap();
            }
            builder.push(&entry, &mut writer).unwrap();
        }
        source.tree = builder.finish(&mut writer).unwrap();
    }
    drop(writer);
    snapshot.id = SnapshotId([9; 16]);
    snapshot.name = name.into();
    snapshot.created.seconds += 5;
    let root = RootName { tag: owner.keys().name_tag(name.as_bytes()), snapshot: snapshot.id };
    let durable = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
    durable.publish_root(root, &snapshot.encode().unwrap()).unwrap();
    session.end().unwrap();
    reading.end().unwrap();
}

#[test]
fn t04_a_parent_of_another_key_is_not_believed() {
    let world = with_thief();
    write_source(&world, "source", 70);
    std::thread::sleep(std::time::Duration::from_millis(60));
    world.create("monday", "source");
    plant_parent(&world, "made up");
    world.create("tuesday", "source");
    check_deployed(&world, "tuesday", "source");
    let run = world.run(&["create", "wednesday", "source", "--parent", "made up"]);
    assert!(run.code == 0 && run.stderr.contains("another key"), "{run:#?}");
    check_deployed(&world, "wednesday", "source");
    check_deployed(&world, "monday", "source");
}

#[test]
fn t02_a_snapshot_with_the_id_of_another_takes_nothing_with_it() {
    let world = with_thief();
    write_source(&world, "source", 80);
    write_source(&world, "other", 90);
    world.create("monday", "source");
    world.ok(&["pin", "monday"]);
    let run = with_key(&world, "thief", &["create", "of the thief", "other"]);
    assert_eq!(run.code, 0, "{run:#?}");
    let (owner, thief) = (hold(&world, "key"), hold(&world, "thief"));
    let (root, snapshot) = read_snapshot(&owner, "monday");
    let (_, of_thief) = read_snapshot(&owner, "of the thief");
    let forge = |name: &str, tag: &str, id: SnapshotId| {
        let mut forged = Snapshot { name: name.into(), id, sources: of_thief.sources.clone(), ..snapshot.clone() };
        forged.created.seconds -= 100;
        let root = RootName { tag: owner.keys().name_tag(tag.as_bytes()), snapshot: id };
        assert!(plant(&thief, &root.object_name(), &forged.encode().unwrap(), true));
    };
    forge("decoy", "decoy", root.snapshot);
    // The same name, and a name that is not that of the object.
    forge("monday", "monday", SnapshotId([5; 16]));
    forge("monday", "else", SnapshotId([6; 16]));
    let id = root.snapshot.to_string();
    for reference in ["monday", id.as_str()] {
        check_deployed(&world, reference, "source");
    }
    let verdict = anew(&world, &["verify"]);
    assert_eq!(verdict.code, 69, "{verdict:#?}");
    for forged in ["decoy", "else", "05".repeat(16).as_str()] {
        ok_anew(&world, &["delete", forged, "--yes"]);
    }
    assert_eq!(world.json(&["show", "monday"])["pinned"], true);
    world.create("tuesday", "source");
    world.ok(&["forget", "--keep-last", "1"]);
    ok_anew(&world, &["gc"]);
    check_deployed(&world, "monday", "source");
    ok_anew(&world, &["verify"]);
}

#[test]
fn t02_labels_that_do_not_count_stop_neither_a_reseal_nor_a_pin() {
    let world = with_thief();
    write_source(&world, "source", 100);
    world.create("monday", "source");
    world.ok(&["tag", "monday", "reason=keep"]);
    let thief = hold(&world, "thief");
    let (root, _) = read_snapshot(&hold(&world, "key"), "monday");
    let name = format!("{}-{:016x}", root.snapshot, u64::MAX);
    let name = ObjectName::new(ObjectKind::Label, name).unwrap();
    let payload = copal_store::codec::encode(&(1u16, Vec::<(String, String)>::new(), false)).unwrap();
    publish_bytes(&**thief.backend(), &name, &seal_whole(&thief, &name, &payload).unwrap()).unwrap();
    world.ok(&["key", "rotate", "--reseal"]);
    world.ok(&["pin", "monday"]);
    let shown = world.json(&["show", "monday"]);
    assert_eq!((&shown["pinned"], &shown["tags"]["reason"]), (&true.into(), &"keep".into()), "{shown}");
    world.ok(&["verify"]);
}

#[test]
fn t02_a_thousand_forged_sentences_cost_a_collection_no_time() {
    let world = with_thief();
    write_source(&world, "source", 110);
    world.create("monday", "source");
    let thief = hold(&world, "thief");
    let packs = copal_store::check::packs(&thief).unwrap();
    let payload = copal_store::codec::encode(&(packs, Vec::<SnapshotId>::new())).unwrap();
    for number in 0..1000u32 {
        let name = ObjectName::new(ObjectKind::Condemned, format!("{number:032x}")).unwrap();
        publish_bytes(&**thief.backend(), &name, &seal_whole(&thief, &name, &payload).unwrap()).unwrap();
    }
    world.ok(&["gc"]);
    assert_eq!(thief.backend().list(ObjectKind::Condemned).unwrap().len(), 0);
    check_deployed(&world, "monday", "source");
}

#[test]
fn t03_a_process_that_lives_long_follows_a_rotation_and_ends_with_its_key() {
    let world = World::new();
    world.ok(&["key", "rotate"]);
    add_key(&world, "bert", "full", 22);
    let (own, berts) = (hold(&world, "key"), hold(&world, "bert"));
    world.ok(&["key", "remove", "bert"]);
    world.ok(&["key", "rotate"]);
    assert!(Session::begin(&berts).is_err());
    let session = Session::begin(&own).unwrap();
    let mut writer = session.writer().unwrap();
    let plain = noise(1, 50_000);
    let id = own.keys().chunk_id(&plain);
    assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
    writer.store(RecordKind::Data, &id, &plain, None).unwrap();
    drop(writer);
    session.checkpoint().unwrap();
    assert_eq!(session.read_chunk(&id).unwrap(), plain);
    for pack in own.backend().list(ObjectKind::Pack).unwrap() {
        let bytes = own.backend().read(&pack.name, 1 << 30).unwrap();
        assert_eq!(u32::from_le_bytes(bytes[9..13].try_into().unwrap()), 2);
    }
    session.end().unwrap();
}

#[test]
fn t03_slots_and_rosters_that_look_right_lock_nobody_out() {
    let world = World::new();
    let keys = world.repository().join("keys");
    let slot = world.json(&["key", "list"])[0]["id"].as_str().unwrap().to_owned();
    let bytes = fs::read(keys.join(slot)).unwrap();
    for number in 0..200u32 {
        let id = u128::from(number).to_be_bytes();
        let mut copied = bytes.clone();
        copied[16..32].copy_from_slice(&id);
        fs::write(keys.join(hex(&id)), copied).unwrap();
    }
    // A roster of a newer program, as far as its clear bytes say.
    let mut newer = fs::read(keys.join("roster-00000001")).unwrap();
    newer[7] = 9;
    fs::write(keys.join("roster-00000007"), &newer).unwrap();
    fs::write(keys.join("roster-ffffffff"), &newer).unwrap();
    world.ok(&["list"]);
    assert!(world.run(&["key", "list"]).stderr.contains("roster-00000007"));
    assert_eq!(world.run(&["verify"]).code, 69);
    world.ok(&["key", "rotate"]);
    world.ok(&["list"]);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key addition that was killed before its roster: grants and no slot.
#[test]
fn t03_grants_that_an_interrupted_command_left_go_with_the_next_change_of_keys() {
    let world = World::new();
    world.ok(&["key", "rotate"]);
    let keys = world.repository().join("keys");
    let slot = world.json(&["key", "list"])[0]["id"].as_str().unwrap().to_owned();
    let grant = fs::read(keys.join(format!("{slot}-00000001"))).unwrap();
    for remedy in [&["key", "rotate"][..], &["key", "remove", &"ab".repeat(16)], &["verify", "--repair"]] {
        fs::write(keys.join(format!("{}-00000001", "ab".repeat(16))), &grant).unwrap();
        let named = world.run(&["verify"]);
        assert!(named.code == 0 && named.stderr.contains("counts for nothing"), "{named:#?}");
        world.ok(remedy);
        let clear = world.run(&["verify"]);
        assert!(clear.code == 0 && !clear.stderr.contains("counts for nothing"), "{clear:#?}");
    }
}

/// What an addition, a removal, a former owner's branch leave in `keys/` goes with a repair by an owner whose
/// machine knows better.
#[test]
fn t03_a_repair_clears_what_counts_for_nothing_among_the_keys() {
    let world = World::new();
    world.ok(&["key", "rotate"]);
    add_key(&world, "bert", "full", 23);
    let keys = world.repository().join("keys");
    let before: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path()).collect();
    let before: Vec<_> = before.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    world.ok(&["key", "remove", "bert"]);
    for (bytes, path) in before.iter().filter(|(_, path)| !path.exists()) {
        fs::write(path, bytes).unwrap();
    }
    fs::write(keys.join("notes"), "of somebody").unwrap();
    assert_eq!(world.run(&["verify"]).code, 69);
    let repaired = world.run(&["verify", "--repair"]);
    assert!(says(&repaired, "counted for nothing"), "{repaired:#?}");
    assert!(keys.join("notes").exists());
    fs::remove_file(keys.join("notes")).unwrap();
    ok_anew(&world, &["verify"]);
    assert_eq!(with_key(&world, "bert", &["list"]).code, 12);
}

fn says(run: &Run, words: &str) -> bool {
    String::from_utf8_lossy(&run.stdout).contains(words)
}

#[test]
fn t03_pipes_links_and_rubbish_where_a_machine_remembers_keys_hang_nothing() {
    let world = World::new();
    let folder = world.path("state/copal/known-keys");
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let put: [&dyn Fn(); 4] = [
        &|| assert!(Command::new("mkfifo").arg(&file).status().unwrap().success()),
        &|| std::os::unix::fs::symlink("/dev/zero", &file).unwrap(),
        &|| fs::create_dir(&file).unwrap(),
        &|| fs::write(&file, noise(3, 9000)).unwrap(),
    ];
    for put in put {
        fs::remove_file(&file).or_else(|_| fs::remove_dir(&file)).unwrap();
        put();
        let mut child = world.command(&["list"]).spawn().unwrap();
        let mut waited = 0;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if waited > 600 => {
                    child.kill().unwrap();
                    panic!("it hangs");
                }
                None => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
            waited += 1;
        };
        assert!(status.success());
    }
}
