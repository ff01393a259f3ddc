//! Goal: what travels arrives whole, under other secrets too, and meets what is there; what is damaged or
//! foreign leaves nothing behind. Method: real repositories on disk, trees of every kind of file, an
//! unforgiving comparison of what is deployed at the other side.
#![allow(clippy::unwrap_used)]

#[path = "../../engine/tests/deploy_support/mod.rs"]
mod deploy_support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use copal_bundle::Error;
use copal_bundle::{
    CopyRequest, ExportReport, ExportRequest, ExportTarget, ImportReport, ImportRequest, Watch, copy, export, import,
    verify,
};
use copal_engine::catalogue::Catalogue;
use copal_engine::create::SourceRequest;
use copal_engine::deploy::DeployMode;
use copal_engine::verify::VerifyRequest;
use copal_engine::{Error as EngineError, Monitor, Progress};
use copal_manifest::snapshot::Origin;
use copal_store::backend::ObjectKind;
use copal_store::keys::StretchCost;
use deploy_support::{World, assert_same, look, noise, plant};
use proptest::prelude::*;
use zeroize::Zeroizing;

const CHEAP: StretchCost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };
const MIB: usize = 1 << 20;

fn password(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn export_to(world: &World, names: &[&str], since: Option<&str>, file: &Path) -> copal_bundle::Result<ExportReport> {
    let request = ExportRequest {
        references: names.iter().map(|name| (*name).to_owned()).collect(),
        since: since.map(str::to_owned),
        password: password("travel"),
        stretch: CHEAP,
    };
    export(&world.context, &request, ExportTarget::File(file.to_owned()))
}

fn import_from(world: &World, file: &Path, name: Option<&str>) -> copal_bundle::Result<ImportReport> {
    let request = ImportRequest { password: password("travel"), name: name.map(str::to_owned), app: None };
    import(&world.context, File::open(file).unwrap(), &request)
}

/// A page-structured file, a large one, small ones, one with a hole.
fn contents(folder: &Path) {
    fs::create_dir_all(folder.join("bucket")).unwrap();
    let mut database = b"SQLite format 3\0".to_vec();
    database.extend(noise(1, 3 * MIB));
    fs::write(folder.join("hub.db"), database).unwrap();
    fs::write(folder.join("large"), noise(2, 5 * MIB)).unwrap();
    for number in 0..200 {
        fs::write(folder.join(format!("bucket/{number}")), noise(100 + number, 300 + number as usize * 50)).unwrap();
    }
    fs::write(folder.join("empty"), b"").unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(&noise(3, 100_000), 3 << 20).unwrap();
}

/// One percent of the pages of the database, an insertion into the large file, one small file more, one
/// moved, one gone.
fn change(folder: &Path) {
    let database = File::options().write(true).open(folder.join("hub.db")).unwrap();
    database.write_all_at(b"changed", MIB as u64 + 77).unwrap();
    let mut large = fs::read(folder.join("large")).unwrap();
    large.splice(MIB..MIB, b"inserted".iter().copied());
    fs::write(folder.join("large"), large).unwrap();
    fs::write(folder.join("bucket/new"), b"a new one").unwrap();
    fs::rename(folder.join("bucket/7"), folder.join("bucket/moved")).unwrap();
    fs::remove_file(folder.join("bucket/8")).unwrap();
}

fn check_deployed(world: &World, name: &str, source: &Path) {
    let target = world.path(&format!("deployed {name}"));
    world.deploy(name, &target, DeployMode::Auto).unwrap();
    assert_same(&look(source), &look(&target), name);
    fs::remove_dir_all(&target).unwrap();
}

fn check_sound(world: &World) {
    let report = copal_engine::verify::verify(&world.context, &VerifyRequest::default()).unwrap();
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
}

fn objects(world: &World) -> Vec<String> {
    let backend = world.context.repository.backend();
    let kinds = [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Root, ObjectKind::Label];
    let mut names: Vec<String> =
        kinds.iter().flat_map(|kind| backend.list(*kind).unwrap()).map(|object| object.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_arrives_under_other_secrets() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    fs::create_dir(&source).unwrap();
    plant(&source);
    contents(&source);
    let taken = home.snapshot("monday", &source);
    let file = home.path("bundle");
    let exported = export_to(&home, &["monday"], None, &file).unwrap();
    assert_eq!(exported.bundle_bytes, fs::metadata(&file).unwrap().len());
    assert!(!home.path("bundle.part").exists());
    let summary = verify(Watch::of(&home.context), File::open(&file).unwrap(), b"travel").unwrap();
    assert_eq!((summary.snapshots[0].name.as_str(), summary.chunks), ("monday", exported.chunks));
    let report = import_from(&away, &file, None).unwrap();
    let imported = &report.snapshots[0].snapshot;
    assert_eq!(
        (imported.origin, imported.id, imported.created),
        (Origin::Imported, taken.snapshot.id, taken.snapshot.created)
    );
    assert_eq!((imported.sources[0].files, imported.sources[0].bytes), (taken.files, taken.bytes));
    assert_eq!(report.snapshots[0].digest_there, taken.digest);
    check_deployed(&away, "monday", &source);
    check_sound(&away);
    let again = import_from(&away, &file, None).unwrap();
    assert!(again.snapshots[0].was_here && again.bytes == 0, "{again:?}");
}

#[test]
fn what_is_there_already_is_not_stored_again() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    contents(&source);
    home.snapshot("monday", &source);
    let at_home = away.snapshot("own", &source);
    let file = home.path("bundle");
    export_to(&home, &["monday"], None, &file).unwrap();
    let report = import_from(&away, &file, None).unwrap();
    assert_eq!(report.chunks_new, 0, "cut again, all {} bytes meet what is there: {report:?}", at_home.bytes);
    check_deployed(&away, "monday", &source);
}

#[test]
fn a_later_snapshot_travels_as_its_difference() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    contents(&source);
    home.snapshot("monday", &source);
    let first = home.path("first");
    export_to(&home, &["monday"], None, &first).unwrap();
    change(&source);
    home.snapshot("tuesday", &source);
    let second = home.path("second");
    let exported = export_to(&home, &["tuesday"], Some("monday"), &second).unwrap();
    assert!(exported.bytes < 400_000, "{exported:?}");
    assert!(matches!(import_from(&away, &second, None), Err(Error::BundleBase { .. })));
    assert!(objects(&away).is_empty(), "nothing is left of an import that could not be");
    import_from(&away, &first, None).unwrap();
    let report = import_from(&away, &second, None).unwrap();
    assert!(report.bytes_new < 600_000, "{report:?}");
    check_deployed(&away, "tuesday", &source);
    check_sound(&away);
    // Both in one bundle, into a third repository; and the name can be another.
    let third = World::new();
    let both = home.path("both");
    let exported = export_to(&home, &["tuesday", "monday"], None, &both).unwrap();
    assert_eq!(exported.snapshots, ["monday", "tuesday"]);
    assert!(matches!(import_from(&third, &both, Some("x")), Err(Error::Engine(EngineError::Usage(_)))));
    import_from(&third, &both, None).unwrap();
    check_deployed(&third, "tuesday", &source);
    check_sound(&third);
}

#[test]
fn deltas_travel_as_deltas_where_their_base_travels() {
    let home = World::new();
    let source = home.path("source");
    contents(&source);
    home.snapshot("monday", &source);
    let alone = export_to(&home, &["monday"], None, &home.path("alone")).unwrap();
    let database = File::options().write(true).open(source.join("hub.db")).unwrap();
    for page in 0..40 {
        database.write_all_at(b"a row", page * 65_536 + 5000).unwrap();
    }
    home.snapshot("tuesday", &source);
    let both = export_to(&home, &["monday", "tuesday"], None, &home.path("both")).unwrap();
    let growth = both.bundle_bytes - alone.bundle_bytes;
    assert!(
        both.bytes - alone.bytes > 2_500_000 && growth < 600_000,
        "{growth} bytes for {}",
        both.bytes - alone.bytes
    );
    let away = World::new();
    let report = import_from(&away, &home.path("both"), None).unwrap();
    let stored: u64 = report.stored_new;
    assert!(stored < both.bundle_bytes + 2_000_000, "{report:?}");
    check_deployed(&away, "tuesday", &source);
}

#[test]
fn names_are_kept_apart() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    home.snapshot("monday", &source);
    away.snapshot("monday", &source);
    let file = home.path("bundle");
    export_to(&home, &["monday"], None, &file).unwrap();
    let before = objects(&away);
    assert!(
        matches!(import_from(&away, &file, None), Err(Error::Engine(EngineError::NameTaken { name, .. })) if name == "monday")
    );
    assert_eq!(objects(&away), before);
    import_from(&away, &file, Some("theirs")).unwrap();
    check_deployed(&away, "theirs", &source);
}

#[test]
fn a_wrong_password_and_every_damage_leave_nothing_behind() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), noise(9, 200_000)).unwrap();
    fs::write(source.join("text"), "hello ".repeat(3000)).unwrap();
    home.snapshot("monday", &source);
    let file = home.path("bundle");
    export_to(&home, &["monday"], None, &file).unwrap();
    let request = ImportRequest { password: password("other"), name: None, app: None };
    assert!(matches!(import(&away.context, File::open(&file).unwrap(), &request), Err(Error::BundlePassword)));
    assert!(matches!(
        verify(Watch::of(&away.context), File::open(&file).unwrap(), b"other"),
        Err(Error::BundlePassword)
    ));
    let whole = fs::read(&file).unwrap();
    let hurt = home.path("hurt");
    let positions = (0..32).chain([44, 60, 80, 107, 111]).chain((112..whole.len()).step_by(whole.len() / 40));
    for position in positions {
        let mut bytes = whole.clone();
        bytes[position] ^= 4;
        fs::write(&hurt, &bytes).unwrap();
        assert!(import_from(&away, &hurt, None).is_err(), "a flipped bit at {position}");
    }
    for length in [0, 10, 112, 4096, 65_664, whole.len() / 2, whole.len() - 1] {
        fs::write(&hurt, &whole[..length]).unwrap();
        assert!(import_from(&away, &hurt, None).is_err(), "cut off at {length}");
    }
    let mut longer = whole;
    longer.push(0);
    fs::write(&hurt, &longer).unwrap();
    assert!(import_from(&away, &hurt, None).is_err());
    assert!(objects(&away).is_empty(), "{:?}", objects(&away));
}

/// Interrupts after some calls.
struct Interrupting {
    flag: Arc<std::sync::atomic::AtomicBool>,
    left: AtomicU64,
}

impl Monitor for Interrupting {
    fn phase(&self, _name: &'static str) {}
    fn progress(&self, _progress: Progress) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.flag.store(true, Ordering::Relaxed);
        }
    }
    fn notice(&self, _message: &str) {}
}

fn interrupted_after(world: &World, calls: u64) -> copal_engine::Context {
    let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let monitor = Arc::new(Interrupting { flag: Arc::clone(&flag), left: AtomicU64::new(calls) });
    copal_engine::Context { monitor, interrupt: flag, ..world.context.clone() }
}

#[test]
fn an_interrupted_export_and_import_go_on() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    fs::create_dir(&source).unwrap();
    for number in 0..8 {
        fs::write(source.join(format!("file {number}")), noise(40 + number, 3 * MIB)).unwrap();
    }
    home.snapshot("monday", &source);
    let file = home.path("bundle");
    let request =
        ExportRequest { references: vec!["monday".into()], since: None, password: password("travel"), stretch: CHEAP };
    let stopped = export(&interrupted_after(&home, 4), &request, ExportTarget::File(file.clone()));
    assert!(matches!(stopped, Err(Error::Engine(EngineError::Interrupted))), "{stopped:?}");
    let part = fs::metadata(home.path("bundle.part")).unwrap().len();
    assert!(part > MIB as u64 && !file.exists());
    let report = export_to(&home, &["monday"], None, &file).unwrap();
    assert!(report.bytes_resumed > MIB as u64, "{report:?}");
    verify(Watch::of(&home.context), File::open(&file).unwrap(), b"travel").unwrap();
    // A part of something else is not gone on with.
    home.snapshot("tuesday", &source);
    let stopped = export(&interrupted_after(&home, 3), &request, ExportTarget::File(home.path("other")));
    assert!(matches!(stopped, Err(Error::Engine(EngineError::Interrupted))));
    let report = export_to(&home, &["tuesday"], None, &home.path("other")).unwrap();
    assert_eq!(report.bytes_resumed, 0);
    verify(Watch::of(&home.context), File::open(home.path("other")).unwrap(), b"travel").unwrap();

    let request = ImportRequest { password: password("travel"), name: None, app: None };
    let stopped = import(&interrupted_after(&away, 12), File::open(&file).unwrap(), &request);
    assert!(matches!(stopped, Err(Error::Engine(EngineError::Interrupted))), "{stopped:?}");
    assert!(Catalogue::load(&away.context).unwrap().snapshots.is_empty());
    import_from(&away, &file, None).unwrap();
    check_deployed(&away, "monday", &source);
    check_sound(&away);
}

#[test]
fn a_stream_is_the_same_bundle() {
    let home = World::new();
    let source = home.path("source");
    contents(&source);
    home.snapshot("monday", &source);
    let request =
        ExportRequest { references: vec!["monday".into()], since: None, password: password("travel"), stretch: CHEAP };
    let mut stream = Vec::new();
    export(&home.context, &request, ExportTarget::Stream(&mut stream)).unwrap();
    let file = home.path("streamed");
    File::create(&file).unwrap().write_all(&stream).unwrap();
    verify(Watch::of(&home.context), File::open(&file).unwrap(), b"travel").unwrap();
    // No name and no content can be read from it.
    for needle in [&b"monday"[..], b"hub.db", b"bucket", &noise(2, 64)] {
        assert!(!stream.windows(needle.len()).any(|window| window == needle));
    }
}

#[test]
fn copies_send_only_what_lacks_and_keep_names_and_times() {
    let (home, away) = (World::new(), World::new());
    let source = home.path("source");
    contents(&source);
    let monday = home.snapshot("monday", &source);
    change(&source);
    let sources = vec![SourceRequest { label: String::new(), path: source.clone() }];
    let tuesday = home.snapshot_of("tuesday", sources);
    let all = CopyRequest::default();
    let first = copy(&home.context, &away.context, &CopyRequest { references: vec!["monday".into()] }).unwrap();
    assert_eq!(first.snapshots.len(), 1);
    let second = copy(&home.context, &away.context, &all).unwrap();
    assert!(second.snapshots[0].was_here && !second.snapshots[1].was_here);
    assert!(second.bytes_new < 600_000, "{second:?}");
    let catalogue = Catalogue::load(&away.context).unwrap();
    for taken in [&monday, &tuesday] {
        let copied = catalogue.find(&taken.snapshot.name).unwrap();
        let there = &copied.snapshot;
        assert_eq!(
            (there.id, there.created, there.completed),
            (taken.snapshot.id, taken.snapshot.created, taken.snapshot.completed)
        );
    }
    check_deployed(&away, "tuesday", &source);
    check_sound(&away);
    let third = copy(&home.context, &away.context, &all).unwrap();
    assert!(third.bytes_read == 0 && third.chunks_new == 0, "{third:?}");
    assert!(matches!(copy(&home.context, &home.context, &all), Err(Error::Engine(EngineError::Usage(_)))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// Any two states of a tree: the second travels relative to the first and is what it was.
    #[test]
    fn any_change_travels(before in proptest::collection::btree_map("[a-c]{1,2}", 0usize..200_000, 0..6),
                          after in proptest::collection::btree_map("[a-c]{1,2}", 0usize..200_000, 0..6)) {
        let (home, away) = (World::new(), World::new());
        let source = home.path("source");
        let write = |files: &std::collections::BTreeMap<String, usize>| {
            let _ = fs::remove_dir_all(&source);
            fs::create_dir(&source).unwrap();
            for (name, bytes) in files {
                fs::write(source.join(name), noise(*bytes as u64 % 5, *bytes)).unwrap();
            }
        };
        write(&before);
        home.snapshot("before", &source);
        export_to(&home, &["before"], None, &home.path("one")).unwrap();
        write(&after);
        home.snapshot("after", &source);
        export_to(&home, &["after"], Some("before"), &home.path("two")).unwrap();
        import_from(&away, &home.path("one"), None).unwrap();
        import_from(&away, &home.path("two"), None).unwrap();
        check_deployed(&away, "after", &source);
    }
}
