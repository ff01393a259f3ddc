//! Goal: whoever may store a snapshot makes no command endless (T12). Method: a file whose tree of pieces
//! names the same children again and again, so that five small nodes stand for a million million pieces,
//! stored with a key of the repository; commands that walk it are asked to stop.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use copal_manifest::content::{Cutting, FileContent, Pieces};
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::Snapshot;
use copal_manifest::tree::{TreeBuilder, TreeRoot};
use copal_store::location::RecordKind;
use copal_store::repository::RootName;
use copal_store::session::{Reservation, Session};
use copal_store::{ChunkId, SnapshotId};
use rustix::process::{Pid, Signal, kill_process};

use daemon::Daemon;
use serde_json::json;
use support::forge::hold;
use support::{Run, World, finish};

/// Members of each node, the most that one may have.
const MEMBERS: u64 = 1024;
/// Levels of nodes: of a file of a million million bytes, each a piece.
const LEVELS: u8 = 4;
/// A command that goes on for so long after it was asked to stop goes on for ever.
const FOREVER: Duration = Duration::from_secs(120);

fn number(node: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        node.push(value as u8 | 0x80);
        value >>= 7;
    }
    node.push(value as u8);
}

/// A node of pieces that has one member so many times.
fn node_of(height: u8, length: u64, member: &ChunkId) -> Vec<u8> {
    let mut node = vec![1, b'P', height];
    number(&mut node, MEMBERS);
    (0..MEMBERS).for_each(|_| number(&mut node, length));
    (0..MEMBERS).for_each(|_| node.extend_from_slice(member.as_bytes()));
    node
}

fn entry(path: &str, node: Node) -> Entry {
    let mode = if matches!(node, Node::Directory) { 0o755 } else { 0o644 };
    let path = EntryPath::from_slashes(path.as_bytes()).unwrap();
    Entry { path, metadata: Metadata { mode, ..Metadata::default() }, node }
}

/// Stores a snapshot like another, with a file `endless` alone.
fn forge(world: &World, like: &str, name: &str, byte: u8) {
    let repository = hold(world, "key");
    let tag = repository.keys().name_tag(like.as_bytes());
    let root = repository.roots().unwrap().into_iter().find(|root| root.tag == tag).unwrap();
    let mut snapshot = Snapshot::decode("a root", &repository.read_root(&root).unwrap()).unwrap();
    let session = Session::begin(&repository).unwrap();
    let mut writer = session.writer().unwrap();
    let mut id = repository.keys().chunk_id(&[byte]);
    if session.reserve(&id).unwrap() == Reservation::Mine {
        writer.store(RecordKind::Data, &id, &[byte], None).unwrap();
    }
    for height in 0..LEVELS {
        // A leaf says twice the length of a chunk.
        let length = if height == 0 { 2 } else { MEMBERS.pow(height.into()) };
        id = writer.store_node(&node_of(height, length, &id), || None).unwrap();
    }
    let pieces = Pieces::Tree(TreeRoot { id, height: LEVELS - 1 });
    let content = FileContent { bytes: MEMBERS.pow(LEVELS.into()), cutting: Cutting::Content, pieces };
    let mut builder = TreeBuilder::new(&repository.keys().tree_boundary_key());
    builder.push(&entry("", Node::Directory), &mut writer).unwrap();
    builder.push(&entry("endless", Node::File(content)), &mut writer).unwrap();
    snapshot.sources[0].tree = builder.finish(&mut writer).unwrap();
    drop(writer);
    snapshot.id = SnapshotId([byte + 1; 16]);
    snapshot.name = name.into();
    let full = Snapshot::full_name(&snapshot.app, name);
    let root = RootName { tag: repository.keys().name_tag(full.as_bytes()), snapshot: snapshot.id };
    let durable = session.seal_packs().unwrap().sync().unwrap().publish_index().unwrap();
    durable.publish_root(root, &snapshot.encode().unwrap()).unwrap();
    session.end().unwrap();
}

/// Runs a command, asks it to stop while it walks, and waits for its end.
fn stopped(world: &World, mut command: Command, what: &str) -> Run {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    while world.objects_in("sessions").is_empty() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(5));
    }
    // It may still be on its way to the file: then it stops there.
    sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "{what}: it ended by itself");
    kill_process(pid, Signal::TERM).unwrap();
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if asked.elapsed() > FOREVER {
            child.kill().unwrap();
            panic!("{what}: it goes on for ever");
        }
        sleep(Duration::from_millis(5));
    }
    finish(child.wait_with_output().unwrap())
}

#[test]
fn t12_a_forged_tree_of_pieces_makes_no_command_endless() {
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/file"), b"content").unwrap();
    fs::write(world.path("password"), "of the bundle").unwrap();
    world.create("like", "source");
    forge(&world, "like", "zeros", 0);
    // A file of as many zeros, so that nothing differs.
    fs::create_dir(world.path("folder")).unwrap();
    File::create(world.path("folder/endless")).unwrap().set_len(MEMBERS.pow(LEVELS.into())).unwrap();
    for arguments in [
        &["deploy", "zeros", "target", "--yes", "--dry-run"][..],
        &["deploy", "zeros", "folder", "--yes", "--dry-run"],
        &["deploy", "zeros", "target", "--yes"],
        &["restore", "zeros", "restored", "--yes"],
        &["dump", "zeros", "endless"],
        &["export", "zeros", "bundle", "--bundle-password-file", "password"],
    ] {
        let what = format!("{arguments:?}");
        let run = stopped(&world, world.command(arguments), &what);
        assert_eq!(run.code, 130, "{what}: {run:#?}");
        assert!(!world.path("target").exists(), "{what}");
    }
    // Each node is looked at once.
    world.ok(&["verify"]);
    world.ok(&["gc"]);
}

#[test]
fn t12_a_daemon_cancels_the_deploy_of_a_forged_tree_of_pieces() {
    let world = World::new();
    let source = "[app.data]\ndefault = true\n[[app.data.source]]\nkind = \"tree\"\npath = \"source\"\n";
    fs::write(world.path("copal.toml"), source).unwrap();
    fs::create_dir(world.path("source")).unwrap();
    fs::write(world.path("source/file"), b"content").unwrap();
    world.ok(&["create", "like", "--app", "data"]);
    forge(&world, "data/like", "zeros", 0);
    let daemon = Daemon::start(&world, &[]);
    let id = daemon.post("/snapshots/zeros/deploy").headers()["x-operation"].to_str().unwrap().to_owned();
    let begun = Instant::now();
    while daemon.json(&format!("/operations/{id}"))["state"] != "running" {
        assert!(begun.elapsed() < FOREVER);
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(500));
    daemon.post(&format!("/operations/{id}/cancel"));
    let ended = daemon.json(&format!("/operations/{id}?wait=60"));
    assert_eq!((&ended["state"], &ended["error"]["exit_code"]), (&json!("canceled"), &json!(130)), "{ended}");
    assert_eq!(fs::read(world.path("source/file")).unwrap(), b"content");
    assert_eq!(daemon.end(), 0);
}
