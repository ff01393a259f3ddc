//! What the tests of deploys share: a repository on the real disk, trees of every kind of file, an
//! unforgiving comparison.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copal_engine::context::SilentMonitor;
use copal_engine::create::{CreateReport, CreateRequest, Exclusions, SourceRequest, create};
use copal_engine::deploy::{CrashPoints, DeployMode, DeployReport, DeployRequest, NoCrash, deploy_until};
use copal_engine::{Clock, Context};
use copal_manifest::entry::Timestamp;
use copal_store::config::{CipherSuite, Parameters};
use copal_store::entropy::OsEntropy;
use copal_store::keys::{Credential, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::repository::{InitOptions, Repository};
use tempfile::TempDir;

#[derive(Debug)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// A repository, and a folder for sources and targets.
pub(crate) struct World {
    pub(crate) context: Context,
    folder: PathBuf,
    _temporary: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::beneath(&std::env::temp_dir())
    }

    /// On the filesystem of a folder.
    pub(crate) fn beneath(folder: &Path) -> Self {
        let temporary = TempDir::new_in(folder).unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let options = InitOptions {
            parameters: Parameters::default(),
            suite: CipherSuite::Aes256Gcm,
            stretch: StretchCost::default(),
            slot_label: "test".into(),
            created_seconds: 0,
        };
        let repository = Repository::init(
            Arc::new(LocalBackend::new(&folder.join("repository"))),
            Arc::new(OsEntropy),
            &Credential::KeyFile(zeroize::Zeroizing::new([7; 32])),
            &options,
        )
        .unwrap();
        let context = Context {
            repository,
            clock: Arc::new(RealClock(Instant::now())),
            monitor: Arc::new(SilentMonitor),
            cache_folder: Some(folder.join("cache")),
            memory: None,
            state_folder: Some(folder.join("state")),
            own_places: Vec::new(),
            interrupt: Arc::new(AtomicBool::new(false)),
            threads: 0,
            host: "test".into(),
            user: "tester".into(),
            program: "test".into(),
        };
        Self { context, folder, _temporary: temporary }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub(crate) fn snapshot(&self, name: &str, source: &Path) -> CreateReport {
        self.snapshot_of(name, vec![SourceRequest { label: String::new(), path: source.to_owned() }])
    }

    /// Without what globs match.
    pub(crate) fn snapshot_without(&self, name: &str, source: &Path, exclude: &[&str]) -> CreateReport {
        let sources = vec![SourceRequest { label: String::new(), path: source.to_owned() }];
        let exclusions = Exclusions::of_patterns(exclude.iter().map(|&glob| glob.to_owned()).collect());
        let request = CreateRequest { name: name.into(), sources, exclusions, ..CreateRequest::default() };
        create(&self.context, &request).unwrap()
    }

    pub(crate) fn snapshot_of(&self, name: &str, sources: Vec<SourceRequest>) -> CreateReport {
        // Files of the last instant are not trusted by the next snapshot: let the instant pass.
        std::thread::sleep(Duration::from_millis(30));
        let request = CreateRequest { name: name.into(), sources, ..CreateRequest::default() };
        create(&self.context, &request).unwrap()
    }

    pub(crate) fn deploy(&self, name: &str, target: &Path, mode: DeployMode) -> copal_engine::Result<DeployReport> {
        self.deploy_until(name, target, mode, &NoCrash)
    }

    pub(crate) fn deploy_until(
        &self,
        name: &str,
        target: &Path,
        mode: DeployMode,
        points: &dyn CrashPoints,
    ) -> copal_engine::Result<DeployReport> {
        deploy_until(&self.context, &request(name, target, mode), points)
    }

    /// Names in a folder that a deploy has left there.
    pub(crate) fn leftovers(&self, folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.contains(".copal-")).collect();
        let pending = self.state().join("pending");
        if let Ok(entries) = fs::read_dir(pending) {
            names.extend(entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()));
        }
        names
    }
}

pub(crate) fn request(name: &str, target: &Path, mode: DeployMode) -> DeployRequest {
    DeployRequest {
        reference: name.into(),
        target: target.to_owned(),
        mode,
        replace: true,
        replace_kind: true,
        ..DeployRequest::default()
    }
}

/// Bytes that neither repeat nor compress, of a seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// A tree with every kind of file.
pub(crate) fn plant(root: &Path) {
    fs::create_dir_all(root.join("folder/deeper/deepest")).unwrap();
    fs::create_dir_all(root.join("empty folder")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("small.txt"), b"a few words\n").unwrap();
    for number in 0..60 {
        let name = format!("folder/deeper/file {number:03}");
        fs::write(root.join(name), noise(number, (number * 97) as usize)).unwrap();
    }
    fs::write(root.join("folder/large"), noise(1000, 3 << 20)).unwrap();
    fs::write(root.join("folder/program"), noise(1001, 400 << 10)).unwrap();
    fs::set_permissions(root.join("folder/program"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join("folder/read-only"), noise(1002, 700)).unwrap();
    fs::set_permissions(root.join("folder/read-only"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"no \xff utf-8 \n")), b"odd name").unwrap();
    symlink("small.txt", root.join("link")).unwrap();
    symlink("/nowhere/\u{1f980}", root.join("folder/dangling")).unwrap();
    fs::write(root.join("linked a"), noise(1003, 5000)).unwrap();
    fs::hard_link(root.join("linked a"), root.join("folder/linked b")).unwrap();
    fs::hard_link(root.join("linked a"), root.join("linked c")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&noise(1004, 65536), 1 << 20).unwrap();
    sparse.write_all_at(&noise(1005, 65536), 6 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
    if is_root() {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("null"),
            rustix::fs::FileType::CharacterDevice,
            0o666.into(),
            device,
        )
        .unwrap();
        rustix::fs::chown(
            root.join("small.txt"),
            Some(rustix::fs::Uid::from_raw(1234)),
            Some(rustix::fs::Gid::from_raw(4321)),
        )
        .unwrap();
    }
    xattr::set(root.join("small.txt"), "user.colour", b"amber").unwrap();
    xattr::set(root.join("folder"), "user.empty", b"").unwrap();
    fs::set_permissions(root.join("empty folder"), fs::Permissions::from_mode(0o1711)).unwrap();
    set_time(&root.join("small.txt"), 1_000_000_000, 123_456_789);
    set_time(&root.join("link"), 999, 1);
    set_time(&root.join("folder/deeper"), 86_400, 999_999_999);
    set_time(root, 1_234_567, 8);
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything of a path that a deploy must put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<blake3::Hash>,
    bytes: u64,
    link: Option<PathBuf>,
    /// The first name of the same file.
    same_as: Option<PathBuf>,
    has_holes: bool,
}

/// A whole tree, as [`Seen`] by path.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    let mut paths = Vec::new();
    while let Some(path) = pending.pop() {
        // A slash after the name of a file would make it no file.
        let whole = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        if fs::symlink_metadata(&whole).unwrap().is_dir() {
            pending.extend(fs::read_dir(&whole).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let whole = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let found = fs::symlink_metadata(&whole).unwrap();
        let kind = found.file_type();
        let kind_name = match () {
            () if kind.is_dir() => "folder",
            () if kind.is_file() => "file",
            () if kind.is_symlink() => "link",
            () if kind.is_fifo() => "pipe",
            () if kind.is_socket() => "socket",
            () if kind.is_char_device() => "character device",
            () => "block device",
        };
        let plain = kind.is_dir() || kind.is_file();
        let attributes = if plain {
            let names: Vec<_> = xattr::list(&whole).unwrap().collect();
            let value = |name: &std::ffi::OsStr| xattr::get(&whole, name).unwrap().unwrap_or_default();
            names.iter().map(|name| (name.as_bytes().to_vec(), value(name))).collect()
        } else {
            BTreeMap::new()
        };
        let first = inodes.entry((found.dev(), found.ino())).or_insert_with(|| path.clone()).clone();
        seen.insert(
            path.clone(),
            Seen {
                kind: kind_name,
                mode: if kind.is_symlink() { 0 } else { found.mode() & 0o7777 },
                owner: (found.uid(), found.gid()),
                modified: (found.mtime(), found.mtime_nsec()),
                device: found.rdev(),
                attributes,
                content: kind.is_file().then(|| blake3::hash(&fs::read(&whole).unwrap())),
                bytes: if kind.is_dir() { 0 } else { found.size() },
                link: kind.is_symlink().then(|| fs::read_link(&whole).unwrap()),
                same_as: (kind.is_file() && first != path).then_some(first),
                has_holes: kind.is_file() && found.blocks() * 512 + (64 << 10) < found.size(),
            },
        );
    }
    seen
}

/// Asserts that two trees cannot be told apart, naming the first path that differs.
#[track_caller]
pub(crate) fn assert_same(wanted: &BTreeMap<PathBuf, Seen>, found: &BTreeMap<PathBuf, Seen>, about: &str) {
    for (path, seen) in wanted {
        assert_eq!(Some(seen), found.get(path), "{about}: {path:?}");
    }
    let extra: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(extra.is_empty(), "{about}: nothing of the snapshot: {extra:?}");
}
