//! Goal: after a deploy the target cannot be told from the snapshot, whatever stood there, and nothing
//! outside it was touched; what stood there already is neither fetched nor written. Method: real trees on the
//! real disk, with every kind of file.
#![allow(clippy::unwrap_used)]

mod deploy_support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use copal_engine::Error;
use copal_engine::create::SourceRequest;
use copal_engine::deploy::{DeployMode, deploy, target_is_occupied};
use deploy_support::{World, assert_same, look, noise, plant, request, set_time};

const MODES: [DeployMode; 3] = [DeployMode::Auto, DeployMode::Swap, DeployMode::InPlace];

/// Spoils a tree in every way that a deploy has to mend.
fn spoil(root: &Path) {
    fs::write(root.join("small.txt"), b"other words").unwrap();
    fs::remove_file(root.join("empty")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("empty/inside"), b"extra").unwrap();
    fs::remove_dir_all(root.join("folder/deeper/deepest")).unwrap();
    fs::write(root.join("folder/deeper/deepest"), b"a file where a folder was").unwrap();
    fs::remove_file(root.join("link")).unwrap();
    symlink("elsewhere", root.join("link")).unwrap();
    fs::remove_file(root.join("folder/linked b")).unwrap();
    fs::write(root.join("folder/linked b"), b"no longer linked").unwrap();
    let large = File::options().write(true).open(root.join("folder/large")).unwrap();
    large.write_all_at(b"drift", 1_500_000).unwrap();
    let sparse = File::options().write(true).open(root.join("sparse")).unwrap();
    sparse.write_all_at(b"a hole was here", 3 << 20).unwrap();
    fs::create_dir_all(root.join("extra/tree")).unwrap();
    fs::write(root.join("extra/tree/file"), b"extra").unwrap();
    fs::write(root.join("folder/deeper/file 0000"), b"extra beside").unwrap();
    fs::remove_file(root.join("folder/deeper/file 007")).unwrap();
    fs::set_permissions(root.join("folder/program"), fs::Permissions::from_mode(0o600)).unwrap();
    xattr::set(root.join("folder/program"), "user.extra", b"1").unwrap();
    xattr::remove(root.join("folder"), "user.empty").unwrap();
    fs::remove_file(root.join("pipe")).unwrap();
    set_time(&root.join("empty folder"), 5, 5);
}

#[test]
fn an_absent_target_becomes_the_snapshot() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    let wanted = look(&source);
    world.snapshot("s", &source);
    for (number, mode) in MODES.into_iter().enumerate() {
        let target = world.path(&format!("parents/that/lack/target {number}"));
        assert!(!target_is_occupied(&target).unwrap());
        let report = world.deploy("s", &target, mode).unwrap();
        assert_same(&wanted, &look(&target), mode.name());
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        assert_eq!(report.bytes_kept, 0);
        assert!(report.bytes_written > 3 << 20 && report.bytes_written < report.bytes_total, "{report:?}");
        assert!(world.leftovers(target.parent().unwrap()).is_empty());
    }
}

#[test]
fn an_empty_folder_becomes_the_snapshot() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    world.snapshot("s", &source);
    for (number, mode) in MODES.into_iter().enumerate() {
        let target = world.path(&format!("target {number}"));
        fs::create_dir(&target).unwrap();
        assert!(!target_is_occupied(&target).unwrap());
        let mut asked = request("s", &target, mode);
        asked.replace = false;
        deploy(&world.context, &asked).unwrap();
        assert_same(&look(&source), &look(&target), mode.name());
    }
}

#[test]
fn a_spoilt_target_becomes_the_snapshot_again() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    let wanted = look(&source);
    world.snapshot("s", &source);
    for (number, mode) in MODES.into_iter().enumerate() {
        for force_read in [false, true] {
            let target = world.path(&format!("target {number} {force_read}"));
            world.deploy("s", &target, DeployMode::Auto).unwrap();
            spoil(&target);
            let mut asked = request("s", &target, mode);
            asked.force_read = force_read;
            let report = deploy(&world.context, &asked).unwrap();
            assert_same(&wanted, &look(&target), mode.name());
            assert!(report.files_changed >= 10, "{report:?}");
            assert!(world.leftovers(target.parent().unwrap()).is_empty());
        }
    }
}

#[test]
fn the_source_itself_is_rolled_back() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    let first = look(&source);
    world.snapshot("first", &source);
    spoil(&source);
    let second = look(&source);
    world.snapshot("second", &source);
    for (name, wanted) in [("first", &first), ("second", &second), ("first", &first)] {
        world.deploy(name, &source, DeployMode::InPlace).unwrap();
        assert_same(wanted, &look(&source), name);
    }
}

#[test]
fn an_occupied_target_needs_consent_and_a_dry_run_changes_nothing() {
    let world = World::new();
    let (source, target) = (world.path("source"), world.path("target"));
    plant(&source);
    world.snapshot("s", &source);
    fs::create_dir(&target).unwrap();
    fs::write(target.join("precious"), b"data").unwrap();
    assert!(target_is_occupied(&target).unwrap());
    let before = look(&target);
    let mut asked = request("s", &target, DeployMode::Auto);
    asked.replace = false;
    assert!(matches!(deploy(&world.context, &asked), Err(Error::TargetNotEmpty(_))));
    asked.dry_run = true;
    let planned = deploy(&world.context, &asked).unwrap();
    assert_same(&before, &look(&target), "dry run");
    let done = world.deploy("s", &target, DeployMode::Auto).unwrap();
    assert_eq!(
        (planned.files_changed, planned.bytes_written, planned.mode),
        (done.files_changed, done.bytes_written, done.mode)
    );
}

/// C6: a deploy reads and writes only what the target lacks.
#[test]
fn what_is_written_grows_with_the_drift() {
    let world = World::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("database"), noise(1, 32 << 20)).unwrap();
    for number in 0..200 {
        fs::write(source.join(format!("{number}")), noise(2 + number, 4096)).unwrap();
    }
    world.snapshot("s", &source);
    let target = world.path("target");
    world.deploy("s", &target, DeployMode::Auto).unwrap();
    let inode = fs::metadata(target.join("database")).unwrap().ino();
    for drift in [0usize, 1, 4] {
        let database = File::options().write(true).open(target.join("database")).unwrap();
        for number in 0..drift {
            database.write_all_at(b"drift", ((number * 5) << 20) as u64 + 12345).unwrap();
            fs::write(target.join(format!("{number}")), b"drift").unwrap();
        }
        drop(database);
        let report = world.deploy("s", &target, DeployMode::Auto).unwrap();
        assert_same(&look(&source), &look(&target), "after drift");
        assert_eq!(report.mode, DeployMode::InPlace);
        assert_eq!(report.files_changed, if drift == 0 { 0 } else { 1 + drift as u64 });
        assert!(report.bytes_written <= (drift as u64) * ((256 << 10) + 4096), "{report:?}");
        assert_eq!(report.bytes_written + report.bytes_kept, report.bytes_total);
        assert_eq!(fs::metadata(target.join("database")).unwrap().ino(), inode, "patched, not replaced");
    }
}

#[test]
fn links_in_the_target_lead_nowhere() {
    let world = World::new();
    let (source, outside) = (world.path("source"), world.path("outside"));
    plant(&source);
    world.snapshot("s", &source);
    for mode in MODES {
        let target = world.path(&format!("target {}", mode.name()));
        world.deploy("s", &target, DeployMode::Auto).unwrap();
        fs::create_dir_all(outside.join("deeper")).unwrap();
        fs::write(outside.join("deeper/file 001"), b"not yours").unwrap();
        fs::write(outside.join("large"), noise(1000, 3 << 20)).unwrap();
        fs::write(outside.join("extra"), b"not yours").unwrap();
        fs::set_permissions(outside.join("large"), fs::Permissions::from_mode(0o600)).unwrap();
        let before = look(&outside);
        fs::remove_dir_all(target.join("folder")).unwrap();
        symlink(&outside, target.join("folder")).unwrap();
        fs::remove_file(target.join("small.txt")).unwrap();
        symlink(outside.join("extra"), target.join("small.txt")).unwrap();
        // Another name of a file outside: neither its content nor its mode may change through it.
        fs::remove_file(target.join("linked a")).unwrap();
        fs::hard_link(outside.join("large"), target.join("linked a")).unwrap();
        world.deploy("s", &target, mode).unwrap();
        assert_same(&look(&source), &look(&target), mode.name());
        assert_same(&before, &look(&outside), "outside");
    }
}

#[test]
fn a_link_as_target_must_lead_to_a_folder() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    world.snapshot("s", &source);
    fs::create_dir(world.path("real")).unwrap();
    symlink(world.path("real"), world.path("link")).unwrap();
    world.deploy("s", &world.path("link"), DeployMode::Auto).unwrap();
    assert_same(&look(&source), &look(&world.path("real")), "behind the link");
    assert!(fs::symlink_metadata(world.path("link")).unwrap().is_symlink());
    symlink(world.path("nowhere"), world.path("dangling")).unwrap();
    assert!(matches!(world.deploy("s", &world.path("dangling"), DeployMode::Auto), Err(Error::Usage(_))));
}

#[test]
fn one_file_is_deployed_as_a_file() {
    let world = World::new();
    let source = world.path("hub.db");
    fs::write(&source, noise(1, 8 << 20)).unwrap();
    set_time(&source, 1_000, 7);
    let wanted = look(&source);
    world.snapshot("s", &source);
    for mode in MODES {
        let target = world.path(&format!("deployed {}", mode.name()));
        let report = world.deploy("s", &target, mode).unwrap();
        assert_eq!((report.files_total, report.bytes_written), (1, 8 << 20));
        assert_same(&wanted, &look(&target), mode.name());
        let file = File::options().write(true).open(&target).unwrap();
        file.write_all_at(b"drift", 5_000_000).unwrap();
        file.set_len(7 << 20).unwrap();
        let report = world.deploy("s", &target, mode).unwrap();
        assert_same(&wanted, &look(&target), mode.name());
        assert!(mode == DeployMode::Swap || report.bytes_written < 2 << 20, "{report:?}");
        fs::remove_file(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("inside"), b"a folder where a file was").unwrap();
        match world.deploy("s", &target, mode) {
            Err(Error::ModeUnavailable { .. }) => assert_eq!(mode, DeployMode::InPlace),
            outcome => {
                outcome.unwrap();
                assert_same(&wanted, &look(&target), mode.name());
            }
        }
    }
    assert!(world.leftovers(&world.path("")).is_empty());
}

#[test]
fn a_part_is_deployed() {
    let world = World::new();
    let source = world.path("source");
    plant(&source);
    fs::hard_link(source.join("folder/linked b"), source.join("folder/zz linked")).unwrap();
    let wanted = look(&source.join("folder"));
    world.snapshot("s", &source);
    let target = world.path("target");
    for _ in 0..2 {
        let mut asked = request("s", &target, DeployMode::Auto);
        asked.path = Some(b"folder".to_vec());
        deploy(&world.context, &asked).unwrap();
        assert_same(&wanted, &look(&target), "part");
        fs::remove_file(target.join("large")).unwrap();
    }
    let mut asked = request("s", &world.path("one"), DeployMode::Auto);
    asked.path = Some(b"folder/large".to_vec());
    deploy(&world.context, &asked).unwrap();
    assert_eq!(fs::read(world.path("one")).unwrap(), noise(1000, 3 << 20));
    asked.path = Some(b"no/such".to_vec());
    assert!(matches!(deploy(&world.context, &asked), Err(Error::NoSuchPath { .. })));
}

#[test]
fn labelled_sources_stand_below_the_target() {
    let world = World::new();
    let (tree, file) = (world.path("tree"), world.path("file"));
    plant(&tree);
    fs::write(&file, noise(5, 100_000)).unwrap();
    let label = |label: &str, path: &Path| SourceRequest { label: label.into(), path: path.to_owned() };
    world.snapshot_of("s", vec![label("bucket", &tree), label("hub.db", &file)]);
    let target = world.path("target");
    for mode in [DeployMode::Auto, DeployMode::InPlace, DeployMode::Swap] {
        world.deploy("s", &target, mode).unwrap();
        assert_same(&look(&tree), &look(&target.join("bucket")), "tree");
        assert_same(&look(&file), &look(&target.join("hub.db")), "file");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
        spoil(&target.join("bucket"));
        fs::write(target.join("hub.db"), b"spoilt").unwrap();
        fs::write(target.join("extra"), b"extra").unwrap();
    }
}

#[test]
fn a_missing_chunk_is_found_before_anything_is_written() {
    let world = World::new();
    let (source, target) = (world.path("source"), world.path("target"));
    plant(&source);
    world.snapshot("s", &source);
    world.deploy("s", &target, DeployMode::Auto).unwrap();
    spoil(&target);
    let before = look(&target);
    for shard in fs::read_dir(world.path("repository/packs")).unwrap() {
        for pack in fs::read_dir(shard.unwrap().path()).unwrap() {
            fs::remove_file(pack.unwrap().path()).unwrap();
        }
    }
    for mode in MODES {
        let error = world.deploy("s", &target, mode).unwrap_err();
        assert!(matches!(&error, Error::Store(error) if error.is_integrity()), "{error}");
        assert_same(&before, &look(&target), mode.name());
    }
    assert!(world.leftovers(&world.path("")).is_empty());
}

#[test]
fn a_damaged_pack_leaves_the_target_as_it_was() {
    let world = World::new();
    let (source, target) = (world.path("source"), world.path("target"));
    plant(&source);
    world.snapshot("s", &source);
    world.deploy("s", &target, DeployMode::Auto).unwrap();
    spoil(&target);
    fs::write(target.join("folder/large"), b"all of it is gone").unwrap();
    let before = look(&target);
    let mut packs = Vec::new();
    for shard in fs::read_dir(world.path("repository/packs")).unwrap() {
        packs.extend(fs::read_dir(shard.unwrap().path()).unwrap().map(|pack| pack.unwrap().path()));
    }
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let pack = File::options().read(true).write(true).open(packs.last().unwrap()).unwrap();
    for at in (40_000..pack.metadata().unwrap().len() - 100_000).step_by(10_000) {
        let mut byte = [0];
        pack.read_exact_at(&mut byte, at).unwrap();
        pack.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    for mode in MODES {
        let error = world.deploy("s", &target, mode).unwrap_err();
        assert!(matches!(&error, Error::DeployFailed { .. }), "{error}");
        assert_same(&before, &look(&target), mode.name());
    }
    assert!(world.leftovers(&world.path("")).is_empty());
}
