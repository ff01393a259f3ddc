//! The audit log: who did what, when and from where. Lines of JSON, appended; no secret and no content is
//! ever in one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use copal_manifest::shown;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A file that is longer is put aside.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files put aside that are kept.
const FILES_KEPT: u32 = 8;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    /// RFC 3339.
    pub time: String,
    /// Name of the token, `local` without access rules, `schedule` for the daemon itself, empty for somebody
    /// unknown.
    pub actor: String,
    /// Id of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Address that the request came from.
    pub peer: String,
    /// HTTP method, or the verb of a scheduled operation.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// The operation that it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The code word of its problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Refusals of clients that are not known that have no line before this one: only so many a minute have.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    file: Mutex<File>,
}

impl Audit {
    /// Of a state folder.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("audit.log");
        Ok(Self { file: Mutex::new(append_to(&path)?), path })
    }

    /// Appends. What cannot be written is said in the daemon's own log: an answer is not held back for it.
    pub fn write(&self, line: &AuditLine) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = serde_json::to_string(line).map_err(io::Error::from).and_then(|text| {
            // People read it on a terminal.
            file.write_all(format!("{}\n", shown::json(&text)).as_bytes())?;
            if file.metadata()?.len() > FILE_BYTES_MAX {
                *file = self.put_aside()?;
            }
            Ok(())
        });
        if let Err(error) = written {
            tracing::error!(%error, path = %self.path.display(), "the audit log cannot be written");
        }
    }

    /// The newest lines, newest first.
    pub fn newest(&self, limit: usize) -> io::Result<Vec<AuditLine>> {
        let mut file = File::open(&self.path)?;
        // A line has some 300 bytes.
        let tail = (limit as u64).saturating_mul(1024).min(file.metadata()?.len());
        file.seek(SeekFrom::End(-i64::try_from(tail).unwrap_or(0)))?;
        let mut bytes = Vec::new();
        file.take(tail).read_to_end(&mut bytes)?;
        let lines = bytes.split(|&byte| byte == b'\n').rev();
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).take(limit).collect())
    }

    fn put_aside(&self) -> io::Result<File> {
        let aside = |number: u32| self.path.with_extension(format!("log.{number}"));
        for number in (1..FILES_KEPT).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, aside(1))?;
        append_to(&self.path)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}
