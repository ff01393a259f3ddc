//! What a create leaves out of a source on purpose, and what the snapshot keeps of that: rules, by which a
//! deploy leaves the same things where they are.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copal_manifest::snapshot::{RULES_MAX, Rule};
use copal_source::scan::Excludes;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::own;

/// Folders of other filesystems that are kept by name; of more than that only their mounts protect them.
const MOUNT_POINTS_MAX: usize = 4096;
/// Rules past which nothing that could not be read is kept by name.
const UNREAD_AND_OTHERS_MAX: usize = RULES_MAX - MOUNT_POINTS_MAX;

/// What is left out of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    /// As the snapshot keeps it.
    pub(crate) rules: Vec<Rule>,
    /// Copal's own folders in it that no pattern names, whole, for a sentence.
    pub(crate) own: Vec<PathBuf>,
    /// What a scan asks; it notes which patterns left something out.
    pub(crate) patterns: Arc<Excludes>,
    /// The patterns as they were given.
    given: Vec<String>,
}

impl LeftOut {
    /// By the patterns and flags of a request, and without what Copal itself lives by.
    pub(crate) fn of(context: &Context, source: &Path, exclude: &[String], one_file_system: bool) -> Result<Self> {
        own::refuse_source(context, source)?;
        let lines = from_the_source(exclude, source);
        let mut rules: Vec<Rule> = lines.iter().cloned().map(Rule::Exclude).collect();
        if one_file_system {
            rules.push(Rule::OneFileSystem);
        }
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
        if rules.len() + MOUNT_POINTS_MAX > RULES_MAX || !rules.iter().all(Rule::is_sound) {
            let most = RULES_MAX - MOUNT_POINTS_MAX;
            return Err(Error::Usage(format!("a snapshot keeps at most {most} patterns of at most 4,096 bytes")));
        }
        Ok(Self { rules, own, patterns, given: exclude.to_vec() })
    }

    /// The paths that are left out whatever the patterns say.
    pub(crate) fn paths(&self) -> Vec<Vec<u8>> {
        let path = |rule: &Rule| if let Rule::Path(path) = rule { Some(path.clone()) } else { None };
        self.rules.iter().filter_map(path).collect()
    }

    /// The same where no scan here asks the patterns: nobody knows which left something out.
    pub(crate) fn unwatched(self) -> Self {
        Self { given: Vec::new(), ..self }
    }

    /// The patterns as given, and whether each has left something out.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&str, bool)> {
        let unused = self.patterns.unused();
        self.given.iter().enumerate().map(move |(at, given)| (given.as_str(), !unused.contains(&at)))
    }

    /// What could not be read. Where too much is left out to be kept, only the warnings tell.
    pub(crate) fn add_unread(&mut self, rule: Option<Rule>) {
        let known = self.rules.len();
        self.rules.extend(rule.filter(|rule| known < UNREAD_AND_OTHERS_MAX && rule.is_sound()));
    }

    /// A folder that was not entered.
    pub(crate) fn add_mount_point(&mut self, path: Vec<u8>) {
        let known = self.rules.iter().filter(|rule| matches!(rule, Rule::MountPoint(_))).count();
        let rule = Rule::MountPoint(path);
        if known < MOUNT_POINTS_MAX && rule.is_sound() {
            self.rules.push(rule);
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
