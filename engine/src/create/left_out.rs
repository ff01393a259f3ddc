//! What a create leaves out of a source on purpose, and what the snapshot keeps of that: rules, by which a
//! deploy leaves the same things where they are.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use copal_manifest::snapshot::{RULES_MAX, Rule};
use copal_source::scan::{ByContent, CACHE_MARK_NAME, Excludes, Keep, Listed, ScanOptions};

use crate::context::Context;
use crate::create::exclusions::Exclusions;
use crate::error::{Error, Result};
use crate::own;

/// Folders of other filesystems, and folders that were named, that are kept by name. Of more than that only
/// their mounts protect the ones, and in the others a deploy removes nothing.
const FOLDERS_MAX: usize = 4096;
/// Rules past which nothing that could not be read is kept by name.
const UNREAD_AND_OTHERS_MAX: usize = RULES_MAX - FOLDERS_MAX;

/// What is left out of one source.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// As the snapshot keeps it.
    pub rules: Vec<Rule>,
    /// Copal's own folders in it that no pattern names, whole, for a sentence.
    pub own: Vec<PathBuf>,
    /// What a scan asks; it notes which patterns left something out.
    pub patterns: Arc<Excludes>,
    /// What it asks besides.
    pub by_content: Arc<ByContent>,
    /// Where not all is taken: what was named.
    pub only: Option<Arc<Listed>>,
    /// The patterns as they were given.
    given: Vec<String>,
    /// Whether a scan here asks.
    is_watched: bool,
    /// Rules that a scan has added.
    folders: usize,
    units: Arc<Units>,
}

/// What deploys build beside targets is left out wherever a scan meets it.
#[derive(Debug, Default)]
struct Units {
    met: Mutex<Vec<Vec<u8>>>,
}

impl Keep for Units {
    fn keeps(&self, path: &[u8], _is_folder: bool) -> bool {
        let is_one = own::is_unit(path);
        if is_one {
            self.met.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_vec());
        }
        is_one
    }

    fn by_content(&self, _folder: &[u8]) -> Option<&ByContent> {
        None
    }
}

impl LeftOut {
    /// By the patterns and flags of a request, and without what Copal itself lives by.
    pub fn of(context: &Context, source: &Path, exclusions: &Exclusions) -> Result<Self> {
        own::refuse_source(context, source)?;
        let lines = from_the_source(&exclusions.patterns, source);
        let by_content = Arc::new(exclusions.by_content()?);
        let mut rules: Vec<Rule> = lines.iter().cloned().map(Rule::Exclude).collect();
        rules.extend(exclusions.rules(&by_content));
        let patterns = Arc::new(Excludes::new(&lines)?);
        let mut own = Vec::new();
        for (place, below) in own::folders_within(context, source) {
            let below = below.into_os_string().into_vec();
            if !patterns.covers(&below, true) {
                if place.path.exists() {
                    own.push(source.join(OsStr::from_bytes(&below)));
                }
                rules.push(Rule::Path(below));
            }
        }
        if rules.len() + FOLDERS_MAX > RULES_MAX || !rules.iter().all(Rule::is_sound) {
            let most = RULES_MAX - FOLDERS_MAX;
            return Err(Error::Usage(format!("a snapshot keeps at most {most} patterns of at most 4,096 bytes")));
        }
        let given = exclusions.patterns.clone();
        Ok(Self { rules, own, patterns, by_content, given, is_watched: true, ..Self::default() })
    }

    /// The same where only this is taken.
    pub(crate) fn but_for(mut self, only: Option<&Arc<Listed>>) -> Self {
        self.rules.extend(only.map(|_| Rule::Unnamed));
        Self { only: only.cloned(), ..self }
    }

    /// A scan that leaves the same out.
    pub fn scan_options(&self, one_file_system: bool, threads: usize) -> ScanOptions {
        ScanOptions {
            exclude: Arc::clone(&self.patterns),
            leave_out: self.paths(),
            unwanted: Some(Arc::clone(&self.units) as Arc<dyn Keep>),
            by_content: Arc::clone(&self.by_content),
            only: self.only.clone(),
            one_file_system,
            threads,
            ..ScanOptions::default()
        }
    }

    /// The paths that are left out whatever the patterns say.
    fn paths(&self) -> Vec<Vec<u8>> {
        let path = |rule: &Rule| if let Rule::Path(path) = rule { Some(path.clone()) } else { None };
        self.rules.iter().filter_map(path).collect()
    }

    /// What another snapshot keeps of it.
    pub fn as_kept(rules: Vec<Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Keeps what the scan has met of deploys: another deploy leaves it where it is.
    pub(crate) fn add_units(&mut self) {
        let met = std::mem::take(&mut *self.units.met.lock().unwrap_or_else(PoisonError::into_inner));
        met.into_iter().for_each(|path| self.add_unread(Some(Rule::Path(path))));
    }

    /// The same where no scan here asks the patterns: nobody knows which left something out.
    pub fn unwatched(self) -> Self {
        Self { given: Vec::new(), is_watched: false, ..self }
    }

    /// What was given, and whether each has left something out. That there are no caches is nothing to tell.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (String, bool)> {
        let unused = self.patterns.unused();
        let patterns = self.given.iter().enumerate().map(move |(at, given)| (given.clone(), !unused.contains(&at)));
        let marks = self.by_content.marks().iter().filter(|mark| mark.name() != CACHE_MARK_NAME.as_bytes());
        let marks = marks.map(|mark| (String::from_utf8_lossy(mark.name()).into_owned(), mark.is_used()));
        patterns.chain(marks.filter(|_| self.is_watched))
    }

    /// What could not be read. Where too much is left out to be kept, only the warnings tell.
    pub(crate) fn add_unread(&mut self, rule: Option<Rule>) {
        let known = self.rules.len();
        self.rules.extend(rule.filter(|rule| known < UNREAD_AND_OTHERS_MAX && rule.is_sound()));
    }

    /// A folder that was not entered.
    pub(crate) fn add_mount_point(&mut self, path: Vec<u8>) {
        if self.folders < FOLDERS_MAX {
            self.add_folder(Rule::MountPoint(path));
        }
    }

    /// A folder that was taken whole, if it was named.
    pub(crate) fn add_if_named(&mut self, path: &[u8]) {
        if self.folders < FOLDERS_MAX && self.only.as_ref().is_some_and(|only| only.names(path)) {
            self.add_folder(Rule::Named(path.to_vec()));
        }
    }

    fn add_folder(&mut self, rule: Rule) {
        if rule.is_sound() {
            self.rules.push(rule);
            self.folders += 1;
        }
    }
}

/// Patterns that begin with the source's own path count from there, as whoever writes a whole path means it.
fn from_the_source(patterns: &[String], source: &Path) -> Vec<String> {
    let real = source.canonicalize().ok();
    let names = [Some(source), real.as_deref()].into_iter().flatten().filter_map(Path::to_str);
    let names: Vec<&str> = names.map(|name| name.trim_end_matches('/')).filter(|name| !name.is_empty()).collect();
    let counted = |pattern: &String| {
        let (takes_back, path) = pattern.strip_prefix('!').map_or(("", pattern.as_str()), |path| ("!", path));
        let below = names.iter().find_map(|name| path.strip_prefix(name)?.strip_prefix('/'));
        match below.map(|below| below.trim_start_matches('/')) {
            Some(below) if !below.is_empty() => format!("{takes_back}/{below}"),
            _ => pattern.clone(),
        }
    };
    patterns.iter().map(counted).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: a whole path names what it names. Method: examples.

    use super::*;

    #[test]
    fn a_pattern_with_the_source_s_path_counts_from_there() {
        let check = |source: &str, pattern: &str, line: &str| {
            assert_eq!(from_the_source(&[pattern.to_owned()], Path::new(source)), [line], "{source} {pattern}");
        };
        check("/srv/data", "/srv/data/cache/", "/cache/");
        check("/srv/data/", "!/srv/data/a/*.log", "!/a/*.log");
        check("/srv/data", "/srv/database/x", "/srv/database/x");
        check("/srv/data", "/srv/data", "/srv/data");
        check("/srv/data", "/srv/data/", "/srv/data/");
        check("/srv/data", "srv/data/x", "srv/data/x");
        check("/", "/proc/*", "/proc/*");
    }
}
