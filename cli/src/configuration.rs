//! `copal.toml`: where it is, and what it says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use copal_engine::application::{Configuration, parse};

use crate::environment::{Environment, variable};
use crate::exit_code::ProgramError;

/// Name of the file.
const FILE: &str = "copal.toml";

/// Reads the file that a flag or variable names, else the one in the current folder, else the user's. Where
/// none is, nothing is configured.
pub(crate) fn load(flag: Option<&Path>, environment: &Environment) -> Result<Configuration, ProgramError> {
    let named = flag.map(Path::to_owned).or_else(|| variable("COPAL_CONFIG").map(PathBuf::from));
    if let Some(path) = named {
        let text = fs::read_to_string(&path);
        return parsed(&path, &text.map_err(|error| ProgramError::file("reading the configuration", &path, error))?);
    }
    let places = [Some(PathBuf::from(FILE)), environment.config_folder.as_ref().map(|folder| folder.join(FILE))];
    for path in places.into_iter().flatten() {
        match fs::read_to_string(&path) {
            Ok(text) => return parsed(&path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ProgramError::file("reading the configuration", &path, error)),
        }
    }
    Ok(Configuration::default())
}

fn parsed(path: &Path, text: &str) -> Result<Configuration, ProgramError> {
    parse(path, text).map_err(|mistake| {
        ProgramError::usage(mistake.to_string(), "correct that line; docs/guide/applications.md describes the file")
    })
}
