//! Records of captures in the state folder: what is under way, what waits for its upload, what failed.
//!
//! A record is a JSON document that is replaced whole, behind a line with the tag of the state folder's
//! secret: it says which programs are run to let an application go on, so nobody else's is believed. It is
//! local and never the only copy of a finished snapshot: once the snapshot's root is in the repository the
//! record says so, and the root is the truth.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use copal_engine::state::{Record, StateSecret, TAG_BYTES, open_parent, real};
use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Consistency, HookRecord, SourceKind};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, failed};

/// Version of the records written here.
const VERSION: u16 = 1;
/// Longest record that is read.
const RECORD_BYTES_MAX: u64 = 16 << 20;
/// Length of a tag as text.
const TAG_TEXT_BYTES: usize = 2 * TAG_BYTES;

/// Where a capture stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapturePhase {
    /// The application is being brought to hold still.
    Quiescing,
    /// Its sources are being captured.
    Capturing,
    /// It is being let go on.
    Resuming,
    /// It goes on; what was captured is on its way into the repository.
    Uploading,
    /// The snapshot is in the repository.
    Completed,
    /// The same, with sources or files missing.
    PartiallyFailed,
    /// There is no snapshot.
    Failed,
    /// Ended on request; there is no snapshot.
    Canceled,
}

impl CapturePhase {
    /// The word in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiescing => "quiescing",
            Self::Capturing => "capturing",
            Self::Resuming => "resuming",
            Self::Uploading => "uploading",
            Self::Completed => "completed",
            Self::PartiallyFailed => "partially_failed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing more happens to it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::PartiallyFailed | Self::Failed | Self::Canceled)
    }

    /// Whether the application may be held still.
    #[must_use]
    pub fn may_be_frozen(self) -> bool {
        matches!(self, Self::Quiescing | Self::Capturing | Self::Resuming)
    }
}

/// An error as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedError {
    /// A word for programs.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// When.
    pub time: Timestamp,
}

/// One source of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentState {
    /// Its label.
    pub label: String,
    /// Its service.
    pub service: String,
    /// Its kind.
    pub kind: SourceKind,
    /// Where it was captured from, for people and for deploys to other places.
    pub place: String,
    /// Where it stands.
    pub phase: CapturePhase,
    /// How it was captured.
    pub method: String,
    /// Version of its schema.
    pub schema_version: Option<String>,
    /// A copy or clone that outlives the process: the upload reads this.
    pub kept: Option<PathBuf>,
    /// Metadata that the copy stands for.
    pub stands: Option<KeptMetadata>,
    /// The source as it stands in the repository already, in hexadecimal.
    pub stored: Option<String>,
    /// Bytes of it.
    pub bytes_total: u64,
    /// Why it is missing.
    pub error: Option<String>,
}

/// Metadata of a file that something else stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMetadata {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content, in seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// A capture of an application, from its first hook to the end of its upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRecord {
    /// `VERSION` of the writer.
    pub version: u16,
    /// The snapshot's id, in hexadecimal.
    pub id: String,
    /// The snapshot's name.
    pub name: String,
    /// The application.
    pub app: String,
    /// Id of the repository that it is for.
    pub repository: String,
    /// Snapshot class.
    pub class: String,
    /// What caused it.
    pub trigger: String,
    /// Version of the application's configuration.
    pub config_version: String,
    /// Taken before a deploy.
    pub safety: bool,
    /// Tags of the snapshot.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
    /// Where it stands.
    pub phase: CapturePhase,
    /// Begin.
    pub created: Timestamp,
    /// When the application went on.
    pub captured: Option<Timestamp>,
    /// When the snapshot was in the repository.
    pub uploaded: Option<Timestamp>,
    /// For how long the application held still.
    pub frozen_microseconds: u64,
    /// How far its sources agree.
    pub consistency: Consistency,
    /// Whether every source is held by something that outlives the process.
    pub resumable: bool,
    /// Bytes of the upload so far.
    pub bytes_done: u64,
    /// Bytes of the upload.
    pub bytes_total: u64,
    /// Plaintext bytes that the repository lacked.
    pub bytes_new: u64,
    /// The sources.
    pub components: Vec<ComponentState>,
    /// Results of hooks so far.
    pub hooks: Vec<HookRecord>,
    /// What has to be done to let the application go on, should nobody have done it.
    pub resume: Vec<ResumeStep>,
    /// Why it failed.
    pub error: Option<RecordedError>,
}

/// A step that lets the application go on, as a watchdog needs it: with nothing left to be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeStep {
    /// The service.
    pub service: String,
    /// What.
    pub action: ResumeAction,
    /// For how long at most.
    pub timeout_milliseconds: u64,
    /// Variables for the program.
    pub environment: Vec<(String, String)>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeAction {
    /// Runs a program.
    Command(Vec<String>),
    /// Thaws a filesystem.
    Thaw(PathBuf),
    /// Signals the process whose id a file holds.
    Signal {
        /// Name of the signal, without `SIG`.
        signal: String,
        /// The file.
        pid_file: PathBuf,
    },
}

impl CaptureRecord {
    /// Reads the record of a state folder; none: there is no such file. One that nothing vouches for, or that
    /// is damaged or newer, is an error that names the file.
    pub(super) fn read(state_folder: &Path, path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = read_vouched(state_folder, path)? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| unreadable(path, error.to_string()))?;
        if record.version > VERSION {
            return Err(unreadable(path, format!("it was written by a newer version ({})", record.version)));
        }
        Ok(Some(record))
    }

    /// One source is not captured as what it is.
    pub(super) fn note_failure(&mut self, label: &str, why: &str) {
        for state in self.components.iter_mut().filter(|state| state.label == label) {
            state.phase = CapturePhase::Failed;
            state.error = Some(why.to_owned());
        }
    }

    pub(crate) const fn version() -> u16 {
        VERSION
    }
}

fn unreadable(path: &Path, detail: String) -> Error {
    let source = io::Error::new(io::ErrorKind::InvalidData, detail);
    failed("reading", path, source)
}

/// What a tag binds a document to, beside what it says: its place in the state folder.
fn name_of<'p>(state_folder: &Path, path: &'p Path) -> &'p [u8] {
    path.strip_prefix(state_folder).unwrap_or(path).as_os_str().as_bytes()
}

/// A document of the state folder: the tag of its secret in hexadecimal, a line break, and what the tag
/// vouches for. None: there is no such file.
pub(super) fn read_vouched(state_folder: &Path, path: &Path) -> Result<Option<Vec<u8>>> {
    let Some((above, name)) = open_parent(&real(path))? else { return Ok(None) };
    let mut bytes = Vec::new();
    match above.open_own_file(&name, RECORD_BYTES_MAX) {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened?.take(RECORD_BYTES_MAX).read_to_end(&mut bytes),
    }
    .map_err(|error| failed("reading", path, error))?;
    let tag = bytes.split_first_chunk::<TAG_TEXT_BYTES>().and_then(|(text, rest)| {
        let mut tag = [0; TAG_BYTES];
        hex::decode_to_slice(text, &mut tag).ok()?;
        Some((tag, rest.strip_prefix(b"\n")?))
    });
    let secret = StateSecret::find(state_folder)?;
    match (tag, secret) {
        (Some((tag, document)), Some(secret))
            if secret.vouches(Record::Application, name_of(state_folder, path), document, &tag) =>
        {
            Ok(Some(document.to_vec()))
        }
        _ => Err(unreadable(path, "the secret of this state folder does not vouch for it".into())),
    }
}

/// Writes a document beside its place and gives it its name; synced before and after when it has to last.
pub(super) fn write_json(state_folder: &Path, path: &Path, document: &impl Serialize, durable: bool) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(document).map_err(|error| Error::internal(error.to_string()))?;
    write_vouched(state_folder, path, &bytes, durable)
}

/// The same for bytes. The secret was made when the application was first held.
pub(super) fn write_vouched(state_folder: &Path, path: &Path, document: &[u8], durable: bool) -> Result<()> {
    let secret = StateSecret::find(state_folder)?;
    let secret = secret.ok_or_else(|| Error::internal("the secret of the state folder is gone"))?;
    let tag = hex::encode(secret.tag(Record::Application, name_of(state_folder, path), document));
    let new = path.with_extension("new");
    let io = |error| failed("writing", path, error);
    let sync = |file: &File| if durable { file.sync_all() } else { Ok(()) };
    // It may name servers and programs: nobody else's to read.
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create(true).truncate(true), 0o600);
    let mut file = options.open(&new).map_err(io)?;
    file.write_all(&[tag.as_bytes(), b"\n", document].concat()).and_then(|()| sync(&file)).map_err(io)?;
    fs::rename(&new, path).map_err(io)?;
    match path.parent() {
        Some(folder) => File::open(folder).and_then(|folder| sync(&folder)).map_err(io),
        None => Ok(()),
    }
}
