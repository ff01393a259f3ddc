//! `copal.toml`: where it is, and what it says.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use copal_application::{Configuration, parse};
use rustix::fs::{OFlags, fgetxattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::environment::{Environment, variable};
use crate::exit_code::ProgramError;

/// Name of the file.
const FILE: &str = "copal.toml";

/// Reads the file that a flag or variable names, else the one in the current folder, else the user's. Where
/// none is, nothing is configured. It names programs to run, so one that was not named must belong to whoever
/// calls, or to root, and nobody else may write it.
pub(crate) fn load(flag: Option<&Path>, environment: &Environment) -> Result<Configuration, ProgramError> {
    let named = flag.map(Path::to_owned).or_else(|| variable("COPAL_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        let text = fs::read_to_string(&path);
        return parsed(&path, &text.map_err(|error| ProgramError::file("reading the configuration", &path, error))?);
    }
    let places = [Some(PathBuf::from(FILE)), environment.config_folder.as_ref().map(|folder| folder.join(FILE))];
    for path in places.into_iter().flatten() {
        match read_own(&path) {
            Ok(text) => return parsed(&path, &text?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ProgramError::file("reading the configuration", &path, error)),
        }
    }
    Ok(Configuration::default())
}

/// The text of a file that only the caller or root can have written; the inner error says whose it is.
fn read_own(path: &Path) -> io::Result<Result<String, ProgramError>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(Err(refused(path, "is no regular file")));
    }
    if found.uid() != geteuid().as_raw() && found.uid() != 0 {
        return Ok(Err(refused(path, &format!("belongs to the user {}", found.uid()))));
    }
    // Where there is an ACL, the group's bits are the mask of all that it names.
    let acl = fgetxattr(&file, "system.posix_acl_access", &mut [0u8; 1]);
    let has_acl = !matches!(acl, Err(Errno::NODATA | Errno::OPNOTSUPP));
    let group_writes = found.mode() & 0o020 != 0 && (has_acl || found.gid() != getegid().as_raw());
    let others = found.mode() & 0o002 != 0 || group_writes;
    if others {
        return Ok(Err(refused(path, "may be written by others")));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Ok(text))
}

fn refused(path: &Path, why: &str) -> ProgramError {
    ProgramError::usage(
        format!("the configuration {} {why}, and it names programs to run: it is not read", path.display()),
        "look at it, then name it with --config, or give it to yourself and take the others' right to write",
    )
}

fn parsed(path: &Path, text: &str) -> Result<Configuration, ProgramError> {
    parse(path, text).map_err(|mistake| {
        ProgramError::usage(mistake.to_string(), "correct that line; docs/guide/applications.md describes the file")
    })
}
