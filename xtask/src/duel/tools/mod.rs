//! The programs that are compared, each as the command lines that its manual gives for a phase, with its
//! defaults.

mod borg;
mod bupstash;
mod copal;
mod kopia;
mod restic;
mod rustic;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Names of all tools: the product first, then its peers.
pub(super) const NAMES: [&str; 7] = ["copal", COPAL_KEY_FILE, "restic", "rustic", "borg", "bupstash", "kopia"];
/// Copal without a password.
pub(super) const COPAL_KEY_FILE: &str = "copal-key-file";
/// What needs no password spends no time on stretching one: these are compared with each other.
pub(super) const WITH_KEY_FILE: [&str; 2] = [COPAL_KEY_FILE, "bupstash"];

const PASSWORD: &str = "a duel of snapshots";

/// A backup program and a repository of its own. A phase may take several commands, whose times are added.
pub(super) trait Tool {
    fn name(&self) -> &'static str;
    fn room(&self) -> &Room;
    /// Asks the program.
    fn version(&self) -> Command {
        self.room().command(["--version"])
    }
    /// Makes the repository.
    fn init(&self) -> Result<Vec<Command>>;
    /// Takes a snapshot of the source.
    fn create(&self, name: &str) -> Result<Vec<Command>>;
    /// Lists the snapshots.
    fn list(&self) -> Result<Vec<Command>>;
    /// Puts a snapshot into a folder that is absent.
    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>>;
    /// Makes a folder that drifted equal to the snapshot again.
    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>>;
    /// Deletes snapshots and returns their space.
    fn remove(&self, names: &[String]) -> Result<Vec<Command>>;
    /// What a reader should know of how it was called.
    fn remark(&self) -> &'static str;
}

/// Where one tool works: nothing of one is seen by another, or by the user's own configuration.
pub(super) struct Room {
    pub(super) program: PathBuf,
    pub(super) source: PathBuf,
    folder: PathBuf,
}

impl Room {
    fn repository(&self) -> PathBuf {
        self.folder.join("repository")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().envs([
            ("PATH", env::var_os("PATH").unwrap_or_default()),
            ("HOME", self.folder.clone().into()),
            ("XDG_CACHE_HOME", self.at("cache").into()),
            ("XDG_STATE_HOME", self.at("state").into()),
            ("XDG_CONFIG_HOME", self.at("config").into()),
            ("LC_ALL", "C.UTF-8".into()),
        ]);
        command
    }
}

/// Opens a tool whose program was found; its room is emptied.
pub(super) fn open(name: &str, program: PathBuf, folder: PathBuf, source: PathBuf) -> Result<Box<dyn Tool>> {
    let room = Room { program, source, folder };
    Ok(match name {
        "copal" => Box::new(copal::Copal { room, unlock: copal::Unlock::Password }),
        COPAL_KEY_FILE => Box::new(copal::Copal { room, unlock: copal::Unlock::KeyFile }),
        "restic" => Box::new(restic::Restic(room)),
        "rustic" => Box::new(rustic::Rustic(room)),
        "borg" => Box::new(borg::Borg(room)),
        "bupstash" => Box::new(bupstash::Bupstash(room)),
        "kopia" => Box::new(kopia::Kopia(room)),
        _ => bail!("no tool is called {name}; there are {}", NAMES.join(", ")),
    })
}

/// The bytes of the repository as it lies on disk; a cache beside it does not count.
pub(super) fn repository_bytes(tool: &dyn Tool) -> Result<u64> {
    fn sum(folder: &Path) -> Result<u64> {
        let mut bytes = 0;
        for entry in folder.read_dir().with_context(|| format!("listing {}", folder.display()))? {
            let entry = entry?;
            bytes += if entry.file_type()?.is_dir() { sum(&entry.path())? } else { entry.metadata()?.len() };
        }
        Ok(bytes)
    }
    sum(&tool.room().repository())
}

/// The program of a name in the folders of installed peers, else on the PATH.
pub(super) fn find(name: &str, peers: &Path) -> Option<PathBuf> {
    let installed = [peers.join("bin"), peers.join("venv/bin")];
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates = installed.into_iter().chain(env::split_paths(&path)).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file())
}

/// What a command prints, for looking ids up outside the measured time.
fn output_of(mut command: Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Empties a folder of everything, for tools that remove nothing when they restore.
fn emptying(target: &Path) -> Command {
    let mut command = Command::new("find");
    command.arg(target).args(["-mindepth", "1", "-delete"]);
    command
}
