//! Makes the golden repositories of a format: `cargo run -p copal --example golden -- FOLDER VERSION`, as
//! root (it makes a device).
//!
//! The ones of `testdata/repositories/` were made so once, and every later version must read them: they are
//! added to, never made again. Beside each repository stands what its snapshots must deploy, written from the
//! sources, not from the repository.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use copal_engine::catalogue::relabel;
use copal_engine::context::SilentMonitor;
use copal_engine::create::{CreateRequest, Exclusions, SourceRequest, create};
use copal_engine::removal::{collect_garbage, delete};
use copal_engine::{Clock, Context};
use copal_manifest::entry::Timestamp;
use copal_store::config::{CipherSuite, CutRule, Parameters};
use copal_store::entropy::OsEntropy;
use copal_store::keys::{Credential, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::repository::{InitOptions, Repository};
use copal_store::roles::Role;
use copal_store::session::Session;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use zeroize::Zeroizing;

#[path = "../tests/golden_look/mod.rs"]
mod golden_look;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// 2026-01-01T00:00:00Z.
const NEW_YEAR: i64 = 1_767_225_600;
/// Opens all of them.
const PASSWORD: &[u8] = b"golden";
/// An ACL: the owner reads and writes, user 1234 and the group read.
const ACL: &str = "0200000001000600ffffffff02000400d204000004000400ffffffff10000400ffffffff20000000ffffffff";

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(version)) = (arguments.next(), arguments.next()) else {
        return Err("golden FOLDER VERSION".into());
    };
    let (folder, version) = (PathBuf::from(folder), version.to_string_lossy().into_owned());
    let sources = tempfile::tempdir()?;
    rotated(&folder, &format!("{version}-rotated"), &sources.path().join("rotated"))?;
    plain(&folder, &format!("{version}-plain"), &sources.path().join("plain"))?;
    history(&folder, &format!("{version}-history"), &sources.path().join("history"))?;
    roots(&folder, &format!("{version}-roots"), &sources.path().join("roots"))
}

/// Every look is an hour later.
#[derive(Debug)]
struct HourlyClock(AtomicI64);

impl Clock for HourlyClock {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0.fetch_add(3600, Ordering::Relaxed), nanoseconds: 0 }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        0
    }
}

fn key_file() -> [u8; 32] {
    std::array::from_fn(|number| number as u8)
}

fn new_repository(place: &Path, suite: CipherSuite, parameters: Parameters) -> Outcome<Context> {
    let password = Credential::Password(Zeroizing::new(PASSWORD.to_vec()));
    let stretch = StretchCost::default();
    let options = InitOptions { parameters, suite, stretch, slot_label: "password".into(), created_seconds: NEW_YEAR };
    let backend = Arc::new(LocalBackend::new(place));
    let repository = Repository::init(backend, Arc::new(OsEntropy), &password, &options)?;
    let key = Credential::KeyFile(Zeroizing::new(key_file()));
    repository.add_key_slot(&key, "key file", stretch, NEW_YEAR)?;
    Ok(context_of(repository))
}

fn context_of(repository: Repository) -> Context {
    Context {
        repository,
        clock: Arc::new(HourlyClock(AtomicI64::new(NEW_YEAR))),
        monitor: Arc::new(SilentMonitor),
        cache_folder: None,
        memory: None,
        state_folder: None,
        own_places: Vec::new(),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 0,
        host: "golden".into(),
        user: "alice".into(),
        program: format!("copal {}", env!("CARGO_PKG_VERSION")),
    }
}

/// A snapshot, and what it must deploy.
fn take(context: &Context, expected: &Path, app: &str, name: &str, sources: &[(&str, PathBuf)]) -> Outcome<()> {
    let request = CreateRequest {
        name: name.into(),
        app: app.into(),
        sources: sources
            .iter()
            .map(|(label, path)| SourceRequest { label: (*label).into(), path: path.clone() })
            .collect(),
        ..CreateRequest::default()
    };
    create(context, &request)?;
    fs::create_dir_all(expected)?;
    for (label, path) in sources {
        let file = if label.is_empty() { name.to_owned() } else { format!("{name}.{label}") };
        fs::write(expected.join(format!("{file}.txt")), golden_look::look(path))?;
    }
    Ok(())
}

/// One snapshot of an ordinary tree, opened by a password and by a key file.
fn plain(folder: &Path, name: &str, source: &Path) -> Outcome<()> {
    fs::create_dir_all(source.join("notes/empty folder"))?;
    fs::write(source.join("read me.txt"), "The first golden repository.\n")?;
    fs::write(source.join("empty"), "")?;
    for number in 0..5 {
        fs::write(source.join(format!("notes/{number}.txt")), format!("note {number}\n").repeat(number * 50))?;
    }
    fs::write(source.join("large.txt"), text(1, 250_000))?;
    fs::write(source.join("noise"), noise(1, 40_000))?;
    symlink("read me.txt", source.join("link"))?;
    settle(source)?;
    let place = folder.join(name);
    let context = new_repository(&place, CipherSuite::Aes256Gcm, Parameters::default())?;
    take(&context, &folder.join(format!("{name}.expected")), "", "first", &[("", source.to_owned())])?;
    relabel(&context, "first", &[("season".into(), "winter".into())], &[], None)?;
    fs::write(folder.join(format!("{name}.key")), key_file())?;
    Ok(())
}

/// Snapshots whose roots are of different versions: 1, 4 with patterns and without a user, 5 with both.
fn roots(folder: &Path, name: &str, source: &Path) -> Outcome<()> {
    fs::create_dir_all(source.join("cache"))?;
    fs::write(source.join("kept"), text(8, 60_000))?;
    settle(source)?;
    let place = folder.join(name);
    let expected = folder.join(format!("{name}.expected"));
    let context = new_repository(&place, CipherSuite::Aes256Gcm, Parameters::default())?;
    let nobody = Context { user: String::new(), ..context.clone() };
    let sources = [("", source.to_owned())];
    take(&nobody, &expected, "", "one", &sources)?;
    for (name, context) in [("four", &nobody), ("five", &context)] {
        let left_out = source.join("cache/left out");
        fs::write(&left_out, "gone with the next start\n")?;
        let request = CreateRequest {
            name: name.into(),
            sources: vec![SourceRequest { label: String::new(), path: source.to_owned() }],
            exclusions: Exclusions::of_patterns(vec!["cache/*".into()]),
            ..CreateRequest::default()
        };
        settle(source)?;
        create(context, &request)?;
        fs::remove_file(&left_out)?;
        settle(source)?;
        fs::write(expected.join(format!("{name}.txt")), golden_look::look(source))?;
    }
    Ok(())
}

/// Four snapshots of a database and a tree of every kind of entry; one is deleted, and its packs are
/// condemned and not yet swept.
fn history(folder: &Path, name: &str, source: &Path) -> Outcome<()> {
    let (database, files) = (source.join("database"), source.join("files"));
    fs::create_dir_all(&files)?;
    write_pages(&database, 0)?;
    plant(&files)?;
    settle(source)?;
    let place = folder.join(name);
    let expected = folder.join(format!("{name}.expected"));
    let parameters = Parameters { cut_rule: CutRule::FastCdc2020, ..Parameters::default() };
    let context = new_repository(&place, CipherSuite::ChaCha20Poly1305, parameters)?;
    let sources = [("db", database.clone()), ("files", files.clone())];
    take(&context, &expected, "shop", "one", &sources)?;

    write_pages(&database, 1)?;
    fs::remove_file(files.join("goes"))?;
    fs::write(files.join("comes"), text(3, 3_000))?;
    settle(source)?;
    take(&context, &expected, "shop", "two", &sources)?;

    fs::write(files.join("only in the deleted one"), noise(4, 20_000))?;
    settle(source)?;
    take(&context, &expected, "shop", "deleted", &sources)?;
    fs::remove_file(files.join("only in the deleted one"))?;
    for file in fs::read_dir(&expected)? {
        let path = file?.path();
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"deleted")) {
            fs::remove_file(path)?;
        }
    }

    write_pages(&database, 2)?;
    settle(source)?;
    take(&context, &expected, "shop", "three", &sources)?;
    relabel(&context, "one", &[("reason".into(), "before the upgrade".into())], &[], Some(true))?;
    relabel(&context, "two", &[("a".into(), "1".into()), ("b".into(), "2".into())], &[], None)?;
    relabel(&context, "two", &[], &["a".into()], None)?;

    delete(&context, &["shop/deleted".into()])?;
    let living = Session::begin(&context.repository)?;
    let report = collect_garbage(&context, false)?;
    if report.packs_waiting == 0 {
        return Err("nothing was condemned".into());
    }
    living.end()?;
    Ok(())
}

/// A repository whose keys were rotated between two snapshots: objects of both epochs.
fn rotated(folder: &Path, name: &str, source: &Path) -> Outcome<()> {
    fs::create_dir_all(source)?;
    fs::write(source.join("old"), text(6, 90_000))?;
    write_pages(&source.join("database"), 0)?;
    settle(source)?;
    let place = folder.join(name);
    let expected = folder.join(format!("{name}.expected"));
    let key = Credential::KeyFile(Zeroizing::new(key_file()));
    let stretch = StretchCost::default();
    let options = InitOptions {
        parameters: Parameters::default(),
        suite: CipherSuite::Aes256Gcm,
        stretch,
        slot_label: "owner".into(),
        created_seconds: NEW_YEAR,
    };
    let context =
        context_of(Repository::init(Arc::new(LocalBackend::new(&place)), Arc::new(OsEntropy), &key, &options)?);
    let sources = [("", source.to_owned())];
    take(&context, &expected, "", "before", &sources)?;
    context.repository.rotate_keys(&key, stretch, NEW_YEAR)?;
    // A key that was removed stays in the roster, and so does a narrow one.
    let other = |byte| Credential::KeyFile(Zeroizing::new([byte; 32]));
    let gone = context.repository.add_key_slot(&other(1), "gone", stretch, NEW_YEAR)?;
    context.repository.add_role_slot(&other(2), "reader", Role::Read, stretch, NEW_YEAR)?;
    context.repository.remove_key_slot(gone, NEW_YEAR)?;
    write_pages(&source.join("database"), 1)?;
    fs::write(source.join("new"), text(7, 40_000))?;
    settle(source)?;
    take(&context, &expected, "", "after", &sources)?;
    relabel(&context, "after", &[("epoch".into(), "1".into())], &[], Some(true))?;
    Ok(())
}

/// Every kind of entry.
fn plant(root: &Path) -> Outcome<()> {
    fs::create_dir_all(root.join("many"))?;
    // More than one node of the tree.
    for number in 0..700 {
        symlink(format!("../file {number}"), root.join(format!("many/link {number:04}")))?;
    }
    fs::write(root.join("goes"), text(2, 2_000))?;
    fs::write(root.join("first name"), "two names\n")?;
    fs::hard_link(root.join("first name"), root.join("second name"))?;
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"no utf-8: \xff\xfe")), "bytes\n")?;
    fs::write(root.join("set user id"), "#!/bin/sh\n")?;
    fs::set_permissions(root.join("set user id"), PermissionsExt::from_mode(0o4755))?;
    fs::write(root.join("read only"), "r\n")?;
    fs::set_permissions(root.join("read only"), PermissionsExt::from_mode(0o400))?;
    fs::write(root.join("attributes"), "x\n")?;
    xattr::set(root.join("attributes"), "user.comment", b"golden \xff")?;
    xattr::set(root.join("attributes"), "system.posix_acl_access", &hex::decode(ACL)?)?;
    let sparse = File::create(root.join("sparse"))?;
    sparse.set_len(3 << 20)?;
    sparse.write_all_at(&text(5, 5_000), 1 << 20)?;
    mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0)?;
    mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3))?;
    Ok(())
}

/// A page-structured file of more than 16 chunks; each version changes some rows of some pages.
fn write_pages(path: &Path, version: u8) -> Outcome<()> {
    let mut pages = text(9, 20 * (64 << 10));
    pages[..16].copy_from_slice(b"SQLite format 3\0");
    for change in 0..usize::from(version) * 3 {
        let at = 70_000 + change * 130_000;
        pages[at..at + 8].copy_from_slice(&[b'0' + version; 8]);
    }
    Ok(fs::write(path, pages)?)
}

/// Times that do not depend on when this runs: of each path its own.
fn settle(root: &Path) -> Outcome<()> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
    }
    paths.sort();
    // Children before their folders.
    for path in paths.iter().rev() {
        let relative = path.strip_prefix(root)?.as_os_str().as_bytes();
        let hash = blake3::hash(relative);
        let nanoseconds = u64::from(u16::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]));
        let time =
            SystemTime::UNIX_EPOCH + Duration::from_secs(NEW_YEAR as u64 - 1000) + Duration::from_nanos(nanoseconds);
        let times = rustix::fs::Timestamps { last_access: to_timespec(time)?, last_modification: to_timespec(time)? };
        rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn to_timespec(time: SystemTime) -> Outcome<rustix::fs::Timespec> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(rustix::fs::Timespec { tv_sec: since.as_secs().try_into()?, tv_nsec: since.subsec_nanos().into() })
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Lines with numbers: it compresses well and repeats nowhere.
fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    for line in 0u64.. {
        if out.len() >= bytes {
            break;
        }
        out.extend_from_slice(format!("line {line} of text {seed}, and so it goes on and on\n").as_bytes());
    }
    out.truncate(bytes);
    out
}
