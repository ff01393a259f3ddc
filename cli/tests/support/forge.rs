//! Forgery: what the holder of a key file can do without the program, with the store's own code.

use std::fs;
use std::sync::Arc;

use copal_store::backend::{Backend, ObjectName, publish_bytes};
use copal_store::entropy::OsEntropy;
use copal_store::keys::Credential;
use copal_store::local::LocalBackend;
use copal_store::location::{Location, RecordKind};
use copal_store::repository::Repository;
use copal_store::session::{Reservation, Session};
use copal_store::{ChunkId, fuzzing};
use zeroize::Zeroizing;

use super::{Run, World, finish, noise};

/// The credential of a key file.
pub fn credential(world: &World, key: &str) -> Credential {
    let bytes: [u8; 32] = fs::read(world.path(key)).unwrap().try_into().unwrap();
    Credential::KeyFile(Zeroizing::new(bytes))
}

/// The repository opened by a key file.
pub fn hold(world: &World, key: &str) -> Repository {
    hold_through(Arc::new(LocalBackend::new(&world.repository())), world, key)
}

/// The same through a storage of one's own.
pub fn hold_through(backend: Arc<dyn Backend>, world: &World, key: &str) -> Repository {
    Repository::open(backend, Arc::new(OsEntropy), &credential(world, key)).unwrap()
}

/// The program opened by another key file.
pub fn with_key(world: &World, key: &str, arguments: &[&str]) -> Run {
    let mut command = world.command(arguments);
    command.env("COPAL_KEY_FILE", world.path(key));
    finish(command.output().unwrap())
}

#[track_caller]
pub fn ok_with(world: &World, key: &str, arguments: &[&str]) -> String {
    let run = with_key(world, key, arguments);
    assert_eq!(run.code, 0, "{arguments:?}: {run:#?}");
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// On a machine that has no cache and no memory.
pub fn anew(world: &World, arguments: &[&str]) -> Run {
    for folder in ["new cache", "new state"] {
        fs::remove_dir_all(world.path(folder)).ok();
    }
    finish(world.elsewhere_new(arguments).output().unwrap())
}

/// Adds a key file of that name.
pub fn add_key(world: &World, name: &str, role: &str) {
    let seed = name.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    fs::write(world.path(name), noise(seed, 32)).unwrap();
    world.ok(&["key", "add", "--role", role, "--label", name, "--new-key-file", name]);
}

/// A repository with keys of its own, and another key in each of these roles.
pub fn with_roles(roles: &[&str]) -> World {
    let world = World::new();
    world.ok(&["key", "rotate", "--reseal"]);
    for role in roles {
        add_key(&world, role, role);
    }
    world
}

/// Four files.
pub fn write_source(world: &World, name: &str, seed: u64) {
    fs::create_dir_all(world.path(name)).unwrap();
    for file in 0..4 {
        fs::write(world.path(name).join(format!("file {file}")), noise(seed + file, 20_000)).unwrap();
    }
}

/// A snapshot deploys, on a machine that knows nothing, with the files of its source.
#[track_caller]
pub fn check_deployed(world: &World, snapshot: &str, source: &str) {
    let target = "deployed";
    let run = anew(world, &["deploy", snapshot, target, "--yes"]);
    assert_eq!(run.code, 0, "{snapshot}: {run:#?}");
    for entry in fs::read_dir(world.path(source)).unwrap() {
        let entry = entry.unwrap();
        let deployed = fs::read(world.path(target).join(entry.file_name())).unwrap();
        assert!(deployed == fs::read(entry.path()).unwrap(), "{snapshot}: {:?} differs", entry.path());
    }
    fs::remove_dir_all(world.path(target)).unwrap();
}

/// Puts a payload where nothing stands, signed by the key that opened.
pub fn plant(by: &Repository, name: &ObjectName, payload: &[u8]) {
    publish_bytes(&**by.backend(), name, &fuzzing::seal_whole(by, name, payload).unwrap()).unwrap();
}

/// Stores chunks of these plaintexts in a pack of its own, and its index; where they stand.
pub fn store(by: &Repository, plains: &[Vec<u8>]) -> Vec<(ChunkId, Location)> {
    let session = Session::begin(by).unwrap();
    let mut writer = session.writer().unwrap();
    let mut ids = Vec::new();
    for plain in plains {
        let id = by.keys().chunk_id(plain);
        assert_eq!(session.reserve(&id).unwrap(), Reservation::Mine);
        writer.store(RecordKind::Data, &id, plain, None).unwrap();
        ids.push(id);
    }
    drop(writer);
    session.checkpoint().unwrap();
    let places = ids.iter().map(|id| (*id, session.locate(id).unwrap().unwrap())).collect();
    session.end().unwrap();
    places
}
