//! What `copal create` is told to leave out, and files of patterns.

use std::fs;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use copal_engine::create::Exclusions;

use crate::exit_code::ProgramError;

#[derive(Debug, Args)]
pub(super) struct Excluding {
    /// Leave out what matches this pattern; may be given again
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave out what matches the patterns in this file, one a line, as in .gitignore
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Leave out what is in folders that are marked as caches by a CACHEDIR.TAG, but for that
    #[arg(long)]
    exclude_caches: bool,
    /// Leave out what is in folders with something of this NAME, but for that, or with a file that begins
    /// with BEGIN; may be given again
    #[arg(long, value_name = "NAME[:BEGIN]", value_parser = mark)]
    exclude_if_present: Vec<String>,
    /// Leave out files that are larger, such as 500MiB
    #[arg(long, value_name = "SIZE")]
    exclude_larger_than: Option<ByteSize>,
    /// Stay on the filesystem of each source
    #[arg(short = 'x', long)]
    one_file_system: bool,
}

impl Excluding {
    /// As they were typed, and as they stand in files.
    pub(super) fn patterns(&self) -> Result<Vec<String>, ProgramError> {
        all_patterns(&self.exclude, &self.exclude_file)
    }

    /// All of it, with these patterns.
    pub(super) fn exclusions(&self, patterns: Vec<String>) -> Exclusions {
        Exclusions {
            patterns,
            one_file_system: self.one_file_system,
            caches: self.exclude_caches,
            if_present: self.exclude_if_present.clone(),
            larger_than: self.exclude_larger_than.map(|size| size.as_u64()),
        }
    }
}

/// What marks a folder.
fn mark(word: &str) -> Result<String, String> {
    if Exclusions::is_mark(word) { Ok(word.to_owned()) } else { Err("write the name of a file, or NAME:BEGIN".into()) }
}

/// Patterns of the command line, then those in files.
pub(super) fn all_patterns(given: &[String], files: &[PathBuf]) -> Result<Vec<String>, ProgramError> {
    let mut all = given.to_vec();
    for file in files {
        let text =
            fs::read_to_string(file).map_err(|error| ProgramError::file("reading the patterns in", file, error))?;
        all.extend(patterns(&text));
    }
    Ok(all)
}

/// The lines of a file of patterns that are not passed over: as git does, without the mark that some editors
/// put in front.
fn patterns(text: &str) -> impl Iterator<Item = String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let says_something = |line: &&str| !line.trim_end_matches(' ').is_empty() && !line.starts_with('#');
    text.lines().filter(says_something).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    //! Goal: files of patterns are read as git reads them. Method: examples.

    use super::*;

    #[test]
    fn a_file_of_patterns_has_comments_and_empty_lines() {
        let found: Vec<_> = patterns("# all\n*.tmp\n\n!keep.tmp  \n/cache/\n").collect();
        assert_eq!(found, ["*.tmp", "!keep.tmp  ", "/cache/"]);
    }
}
