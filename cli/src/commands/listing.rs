//! Which paths of its sources `copal create` takes, as files or standard input list them.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::exit_code::ProgramError;

/// The name of standard input.
const STDIN: &str = "-";
/// A list past this is a mistake.
const LIST_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct Listing {
    /// Take of the sources only what this file names, one path a line; - is standard input. A path is
    /// absolute, or counts from the source (LABEL/PATH where that has a label); a folder is taken whole
    #[arg(long, value_name = "FILE")]
    files_from: Vec<PathBuf>,
    /// The same with a zero byte after each path, as `find -print0` writes them
    #[arg(long, value_name = "FILE")]
    files_from0: Vec<PathBuf>,
}

impl Listing {
    /// Whether standard input is one of the lists.
    pub(super) fn reads_stdin(&self) -> bool {
        self.files_from.iter().chain(&self.files_from0).any(|file| file.as_os_str() == STDIN)
    }

    /// Whether there is a list.
    pub(super) fn is_given(&self) -> bool {
        !self.files_from.is_empty() || !self.files_from0.is_empty()
    }

    /// All that is named; `None` without a list.
    pub(super) fn paths(&self) -> Result<Option<Vec<Vec<u8>>>, ProgramError> {
        if !self.is_given() {
            return Ok(None);
        }
        let mut paths = Vec::new();
        for (files, end) in [(&self.files_from, b'\n'), (&self.files_from0, 0)] {
            for file in files {
                let text = read(file)?;
                let named = text.split(|&byte| byte == end).map(|line| if end == b'\n' { unix(line) } else { line });
                paths.extend(named.filter(|path| !path.is_empty()).map(<[u8]>::to_vec));
            }
        }
        Ok(Some(paths))
    }
}

/// A line without what other systems end it with.
fn unix(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn read(file: &Path) -> Result<Vec<u8>, ProgramError> {
    let failed = |error| ProgramError::file("reading the list", file, error);
    let mut text = Vec::new();
    let mut limited: Box<dyn Read> = match file.as_os_str() == STDIN {
        true => Box::new(io::stdin().lock().take(LIST_BYTES_MAX + 1)),
        false => Box::new(fs::File::open(file).map_err(failed)?.take(LIST_BYTES_MAX + 1)),
    };
    limited.read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LIST_BYTES_MAX {
        return Err(ProgramError::usage(
            format!("the list {} has more than 1 GiB", file.display()),
            "name folders instead of the files in them",
        ));
    }
    Ok(text)
}

/// The name of a stream in a snapshot.
pub(super) fn stream_name(text: &str) -> Result<String, String> {
    let name = OsString::from(text);
    let is_one = Path::new(&name).file_name() == Some(name.as_os_str()) && copal_manifest::snapshot::is_name(text);
    if is_one { Ok(text.to_owned()) } else { Err("write the name of a file, without a folder".into()) }
}
