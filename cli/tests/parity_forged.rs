//! Goal: nobody seals parity, so whoever can put a file there can say anything in it: it costs no memory,
//! harms no pack, and is gone after a repair. Method: objects of parity that claim packs of two GiB, of
//! packs that are sound, damaged, and not there, with and without holes in the place of shards; the kernel
//! says how much memory the built program had.
#![allow(clippy::unwrap_used)]

mod support;

use std::cmp::Reverse;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::forge::{check_deployed, write_source};
use support::{Run, World, flip, noise};
use wait4::Wait4;

/// With packs of a MiB the largest that is read has some 17.
const MEMORY_MAX: u64 = 160 << 20;

fn with_parity() -> World {
    let world = World::bare();
    world.ok(&["init", "--parity", "10", "--pack-size", "1MiB"]);
    write_source(&world, "source", 1);
    fs::write(world.path("source/large"), noise(50, 2_500_000)).unwrap();
    world.create("monday", "source");
    world
}

/// Runs it; nothing may take more than the limit.
#[track_caller]
fn bounded(world: &World, arguments: &[&str]) -> Run {
    let [out, log] = ["out", "log"].map(|name| File::create(world.path(name)).unwrap());
    let mut command = world.command(arguments);
    let used = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().unwrap().wait4().unwrap();
    let text = |name| fs::read(world.path(name)).unwrap();
    let peak = used.rusage.maxrss;
    assert!(peak < MEMORY_MAX, "{arguments:?} took {} MiB", peak >> 20);
    Run {
        code: used.status.code().unwrap_or(-1),
        stdout: text("out"),
        stderr: String::from_utf8_lossy(&text("log")).into_owned(),
    }
}

/// An object that describes a pack of so many bytes in 1,024 shards; behind the description stands what
/// `shards` says.
fn forged(like: &Path, pack_bytes: u64, shards: u64) -> Vec<u8> {
    let envelope = fs::read(like).unwrap()[..32].to_vec();
    let shard_bytes = (pack_bytes.div_ceil(1024)).max(1024).next_power_of_two();
    let data = pack_bytes.div_ceil(shard_bytes);
    let mut description = pack_bytes.to_le_bytes().to_vec();
    for number in [shard_bytes, data, shards] {
        description.extend_from_slice(&(number as u32).to_le_bytes());
    }
    // Of a shard of zeros: a hole in the file is one.
    let hash = blake3::hash(&vec![0; shard_bytes as usize]);
    for _ in 0..data + shards {
        description.extend_from_slice(&hash.as_bytes()[..16]);
    }
    let check = blake3::hash(&description);
    description.extend_from_slice(&check.as_bytes()[..16]);
    [envelope, description].concat()
}

fn put(path: &Path, bytes: &[u8], hole: u64) {
    fs::remove_file(path).ok();
    fs::write(path, bytes).unwrap();
    File::options().write(true).open(path).unwrap().set_len(bytes.len() as u64 + hole).unwrap();
}

fn id_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// That of the largest pack first.
fn parity(world: &World) -> Vec<PathBuf> {
    let mut objects = world.objects_in("parity");
    objects.sort_by_key(|object| (Reverse(fs::metadata(object).unwrap().len()), object.clone()));
    objects
}

fn pack_of(world: &World, parity: &Path) -> PathBuf {
    world.objects_in("packs").into_iter().find(|pack| id_of(pack) == id_of(parity)).unwrap()
}

const CLAIMS: [(u64, u64, u64); 4] = [
    // Pack, shards of parity, and a hole behind the description.
    (2 << 30, 1024, 0),
    (2 << 30, 1024, 2 << 30),
    (16 << 20, 1024, 16 << 20),
    (16 << 20, 100, 16 << 20),
];

#[test]
fn t07_forged_parity_of_a_sound_pack_costs_nothing_and_is_replaced() {
    for (pack_bytes, shards, hole) in CLAIMS {
        let world = with_parity();
        let object = parity(&world).remove(0);
        let sound = fs::read(&object).unwrap();
        put(&object, &forged(&object, pack_bytes, shards), hole);
        let named = bounded(&world, &["verify"]);
        assert_eq!(named.code, 69, "{named:#?}");
        assert!(String::from_utf8_lossy(&named.stdout).contains(&id_of(&object)), "{named:#?}");
        check_deployed(&world, "monday", "source");
        let repaired = bounded(&world, &["verify", "--repair"]);
        assert_eq!(repaired.code, 0, "{repaired:#?}");
        assert_eq!(fs::read(&object).unwrap(), sound, "the parity of the pack is made again");
        assert_eq!(bounded(&world, &["verify"]).code, 0);
    }
}

#[test]
fn t07_parity_of_other_bytes_of_the_same_length_is_replaced() {
    let world = with_parity();
    let [one, other] = [0, 1].map(|at| parity(&world).remove(at));
    let sound = fs::read(&one).unwrap();
    // Another pack's, and one that says of a few shards that they were zeros: it "brings back" garbage.
    let mut few = sound.clone();
    let hashes = 32 + 20;
    few[hashes..hashes + 16].copy_from_slice(&blake3::hash(&[0; 1024]).as_bytes()[..16]);
    let data = u32::from_le_bytes(sound[44..48].try_into().unwrap()) as usize;
    let shards = u32::from_le_bytes(sound[48..52].try_into().unwrap()) as usize;
    let end = hashes + 16 * (data + shards);
    let check = blake3::hash(&few[32..end]);
    few[end..end + 16].copy_from_slice(&check.as_bytes()[..16]);
    for forged in [fs::read(&other).unwrap(), few, sound[..80].to_vec(), Vec::new()] {
        put(&one, &forged, 0);
        let named = bounded(&world, &["verify"]);
        assert_eq!(named.code, 69, "{named:#?}");
        check_deployed(&world, "monday", "source");
        let repaired = bounded(&world, &["verify", "--repair"]);
        assert_eq!(repaired.code, 0, "{repaired:#?}");
        assert_eq!(fs::read(&one).unwrap(), sound);
    }
}

#[test]
fn t07_forged_parity_of_a_damaged_pack_costs_no_memory() {
    for (pack_bytes, shards, hole) in CLAIMS {
        let world = with_parity();
        let object = parity(&world).remove(0);
        let pack = pack_of(&world, &object);
        put(&object, &forged(&object, pack_bytes, shards), hole);
        for offset in 0..4 {
            flip(&pack, 3000 + offset * 200_000, 1);
        }
        for arguments in [&["verify"][..], &["verify", "--repair"], &["verify"], &["gc"]] {
            let run = bounded(&world, arguments);
            assert!([0, 69].contains(&run.code), "{arguments:?}: {run:#?}");
        }
        bounded(&world, &["deploy", "monday", "target", "--yes"]);
        // What is lost is there again with its source.
        let run = bounded(&world, &["verify", "--repair", "--from", "source"]);
        assert_eq!(run.code, 0, "{run:#?}");
        check_deployed(&world, "monday", "source");
    }
}

#[test]
fn t07_parity_of_packs_that_are_not_there_is_named_and_removed() {
    let world = with_parity();
    let before = parity(&world);
    for (number, (pack_bytes, shards, hole)) in CLAIMS.into_iter().cycle().take(40).enumerate() {
        let path = before[0].with_file_name(format!("{number:032x}"));
        put(&path, &forged(&before[0], pack_bytes, shards), hole);
    }
    // A pack with a hole that nothing here wrote, and its parity.
    let pack = pack_of(&world, &before[0]);
    let strange = pack.parent().unwrap().join(format!("{}ffffffff", &id_of(&pack)[..24]));
    put(&strange, &fs::read(&pack).unwrap(), 1 << 30);
    let named = bounded(&world, &["verify"]);
    assert_eq!(named.code, 0, "{named:#?}");
    assert!(named.stderr.contains("40 objects of parity"), "{named:#?}");
    // One more thing to mend, so that the index is made again.
    let fragment = world.objects_in("index").remove(0);
    flip(&fragment, 100, 2);
    let repaired = bounded(&world, &["verify", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:#?}");
    let after: Vec<_> = parity(&world).into_iter().filter(|path| !before.contains(path)).collect();
    assert!(after.iter().all(|path| !id_of(path).starts_with("0000")), "{after:?}");
    check_deployed(&world, "monday", "source");
}
