//! What the tests of the program share: the built binary in a world of its own (home, cache, state,
//! repository), sources, an unforgiving comparison of trees.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub mod forge;
pub mod guarded;
pub mod kill;
pub mod known;
pub mod postgres;
pub mod shop;
pub mod terminal;

/// The program under test.
pub const COPAL: &str = env!("CARGO_BIN_EXE_copal");

/// A home, a repository opened by a key file, and room for sources and targets.
pub struct World {
    folder: PathBuf,
    _temporary: TempDir,
}

/// How a run ended.
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl fmt::Debug for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(formatter, "exit {code}\n{}\n{stderr}", String::from_utf8_lossy(stdout))
    }
}

impl World {
    /// With a repository.
    pub fn new() -> Self {
        let world = Self::bare();
        world.ok(&["init"]);
        world
    }

    /// Without one.
    pub fn bare() -> Self {
        Self::beneath(&std::env::temp_dir())
    }

    /// With one of the first format, and the key file as its only slot.
    pub fn of_the_first_format() -> Self {
        let world = Self::bare();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("testdata/repositories");
        let copied = Command::new("cp").arg("-r").arg(golden.join("v1-plain")).arg(world.repository()).status();
        assert!(copied.unwrap().success());
        fs::copy(golden.join("v1-plain.key"), world.path("key")).unwrap();
        // What git does not keep when it is empty.
        for folder in ["sessions", "leases", "condemned", "labels", "tmp"] {
            let _ = fs::create_dir(world.repository().join(folder));
        }
        world.ok(&["key", "remove", "password"]);
        world
    }

    /// Without one, on the filesystem of a folder.
    pub fn beneath(folder: &Path) -> Self {
        let temporary = TempDir::new_in(folder).unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        fs::write(folder.join("key"), noise(0, 32)).unwrap();
        Self { folder, _temporary: temporary }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The same as text, for arguments.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    /// The program with nothing of the surroundings but what this world has.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(COPAL), arguments)
    }

    /// The same with other folders for local state, as on another machine.
    pub fn elsewhere(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("XDG_CACHE_HOME", self.path("cache elsewhere")).env("XDG_STATE_HOME", self.path("state elsewhere"));
        command
    }

    /// On a machine that never saw this repository.
    pub fn elsewhere_new(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("XDG_CACHE_HOME", self.path("new cache")).env("XDG_STATE_HOME", self.path("new state"));
        command
    }

    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("COPAL_REPO", self.repository())
            .env("COPAL_KEY_FILE", self.path("key"))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        finish(self.command(arguments).output().unwrap())
    }

    /// Must succeed; its standard output.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {run:#?}");
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// Must succeed with `--json`; its document.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Must fail with an exit code and a code word, in JSON and in text; the error document.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], exit: i32, code: &str) -> Value {
        let run = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(run.code, exit, "{arguments:?}: {run:#?}");
        let error = run.error();
        assert_eq!(error["code"], code, "{arguments:?}: {error}");
        let text = self.run(arguments);
        assert_eq!(text.code, exit, "{arguments:?}: {text:#?}");
        text.assert_two_lines(&error);
        error
    }

    /// A snapshot of a source, as JSON. Files of the last instant are not trusted by the next snapshot, so it
    /// waits.
    #[track_caller]
    pub fn create(&self, name: &str, source: &str) -> Value {
        std::thread::sleep(std::time::Duration::from_millis(30));
        self.json(&["create", name, source])
    }

    /// Every object of the repository with its bytes.
    pub fn objects(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files_below(&self.repository()).into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }

    /// Objects of one folder of the repository.
    pub fn objects_in(&self, folder: &str) -> Vec<PathBuf> {
        files_below(&self.repository().join(folder))
    }
}

pub fn finish(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Run {
    /// By SIGKILL, or before the program could say anything.
    pub fn was_killed(&self) -> bool {
        self.code == -1
    }

    /// The error document, the last line of standard error.
    #[track_caller]
    pub fn error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_else(|| panic!("nothing on stderr: {self:#?}"));
        let document: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        let error = document["error"].clone();
        for field in ["code", "message", "hint"] {
            assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {document}");
        }
        assert_eq!((document.as_object().unwrap().len(), error.as_object().unwrap().len()), (1, 3), "{document}");
        error
    }

    /// The same error for people: what happened to which thing, then what to do next.
    #[track_caller]
    fn assert_two_lines(&self, error: &Value) {
        if self.stderr.starts_with("error: ") {
            return; // The parser of the command line has its own form, with the usage.
        }
        let lines: Vec<&str> = self.stderr.lines().collect();
        let [.., what, next] = lines.as_slice() else { panic!("{self:#?}") };
        assert!(what.starts_with("copal: "), "{what}");
        assert_eq!(next.trim(), error["hint"].as_str().unwrap());
        assert!(next.starts_with("  "), "{next}");
    }
}

/// Bytes that neither repeat nor compress, of a seed.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// A tree with files of several sizes, links, odd names and holes.
pub fn plant(root: &Path) {
    fs::create_dir_all(root.join("folder/deeper")).unwrap();
    fs::create_dir_all(root.join("empty folder")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("small.txt"), b"a few words\n").unwrap();
    for number in 0..40 {
        fs::write(root.join(format!("folder/deeper/file {number:03}")), noise(number, number as usize * 97)).unwrap();
    }
    fs::write(root.join("folder/large"), noise(1000, 3 << 20)).unwrap();
    fs::write(root.join("folder/program"), noise(1001, 300 << 10)).unwrap();
    fs::set_permissions(root.join("folder/program"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"no \xff utf-8 \n")), b"odd name").unwrap();
    symlink("small.txt", root.join("link")).unwrap();
    symlink("/nowhere", root.join("folder/dangling")).unwrap();
    fs::write(root.join("linked a"), noise(1003, 5000)).unwrap();
    fs::hard_link(root.join("linked a"), root.join("folder/linked b")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&noise(1004, 65536), 1 << 20).unwrap();
    sparse.set_len(5 << 20).unwrap();
    fs::set_permissions(root.join("empty folder"), fs::Permissions::from_mode(0o1711)).unwrap();
}

/// Everything of a path that a deploy must put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<blake3::Hash>,
    link: Option<PathBuf>,
    /// The first name of the same file.
    same_as: Option<PathBuf>,
    has_holes: bool,
}

impl Seen {
    /// But for the time of its last change.
    pub fn without_time(mut self) -> Self {
        self.modified = (0, 0);
        self
    }

    /// What an archive keeps of it: not whether it has holes, nor access lists and attributes of trusted
    /// users.
    pub fn is_as_archived(&self, other: &Self) -> bool {
        let attributes = |seen: &Self| {
            let user = seen.attributes.iter().filter(|(name, _)| name.starts_with(b"user."));
            user.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        // The group's bits of a file with an access list are its mask.
        let mode =
            |seen: &Self| if seen.attributes.keys().any(|name| name.starts_with(b"system.")) { 0 } else { seen.mode };
        (mode(self) == 0 || mode(other) == 0 || self.mode == other.mode)
            && (self.owner, self.modified, self.device) == (other.owner, other.modified, other.device)
            && (&self.content, &self.link) == (&other.content, &other.link)
            && attributes(self) == attributes(other)
    }
}

/// A whole tree, by path.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![PathBuf::new()];
    let mut looked = 0;
    while let Some(path) = paths.get(looked).cloned() {
        looked += 1;
        if fs::symlink_metadata(below(root, &path)).is_ok_and(|found| found.is_dir()) {
            let entries = fs::read_dir(below(root, &path)).unwrap();
            paths.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        }
    }
    paths.sort();
    let mut inodes = BTreeMap::new();
    let mut see = |path: PathBuf| {
        let whole = below(root, &path);
        let found = fs::symlink_metadata(&whole).unwrap_or_else(|error| panic!("{}: {error}", whole.display()));
        let first = inodes.entry((found.dev(), found.ino())).or_insert_with(|| path.clone()).clone();
        let seen = Seen {
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            modified: (found.mtime(), found.mtime_nsec()),
            device: found.rdev(),
            attributes: attributes(&whole),
            content: found.is_file().then(|| blake3::hash(&fs::read(&whole).unwrap())),
            link: found.is_symlink().then(|| fs::read_link(&whole).unwrap()),
            same_as: (first != path).then_some(first),
            has_holes: found.is_file() && found.blocks() * 512 + (64 << 10) < found.size(),
        };
        (path, seen)
    };
    paths.into_iter().map(&mut see).collect()
}

/// A slash after the name of a file would make it no file.
fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

/// Extended attributes, access lists among them.
fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let names = xattr::list(path).into_iter().flatten();
    let value = |name: &OsStr| xattr::get(path, name).ok().flatten().unwrap_or_default();
    names.map(|name| (name.as_bytes().to_vec(), value(&name))).collect()
}

/// Two trees cannot be told apart; names the first path that differs.
#[track_caller]
pub fn assert_same(wanted: &BTreeMap<PathBuf, Seen>, found: &BTreeMap<PathBuf, Seen>) {
    for (path, seen) in wanted {
        assert_eq!(Some(seen), found.get(path), "{path:?}");
    }
    let extra: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(extra.is_empty(), "should not be there: {extra:?}");
}

/// Regular files below a folder, sorted.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { pending.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Flips one bit of a file.
pub fn flip(path: &Path, offset: u64, bit: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).unwrap();
}

/// Names of the fields of a JSON object, sorted.
#[track_caller]
pub fn fields(document: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> =
        document.as_object().unwrap_or_else(|| panic!("{document}")).keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

/// A field that is a number.
#[track_caller]
pub fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("{field} of {document}"))
}
