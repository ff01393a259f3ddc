//! Which paths are left out: globs, read as `.gitignore` reads its lines. No file system here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{Error, Result};

/// The patterns, compiled. The last one that matches a path decides.
#[derive(Debug, Default)]
pub struct Excludes {
    rules: Vec<Rule>,
    /// Patterns with a slash, against the whole relative path; then the rule of each.
    paths: GlobSet,
    path_rules: Vec<usize>,
    /// Patterns without, against the last name; then the rule of each.
    names: GlobSet,
    name_rules: Vec<usize>,
}

#[derive(Debug)]
struct Rule {
    effect: Effect,
    folders_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    LeaveOut,
    TakeBack,
}

impl Excludes {
    /// Compiles them.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let mut compiled = Self::default();
        let (mut paths, mut names) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let invalid = |detail: String| Error::Pattern { pattern: pattern.clone(), detail };
            let (effect, rest) = match pattern.strip_prefix('!') {
                Some(rest) => (Effect::TakeBack, rest),
                None => (Effect::LeaveOut, pattern.as_str()),
            };
            let (folders_only, rest) = match rest.strip_suffix('/') {
                Some(rest) => (true, rest),
                None => (false, rest),
            };
            let anchored = rest.contains('/');
            let glob = rest.strip_prefix('/').unwrap_or(rest);
            if glob.is_empty() {
                return Err(invalid("it names nothing".into()));
            }
            let glob = GlobBuilder::new(glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| invalid(error.kind().to_string()))?;
            let (set, rules) =
                if anchored { (&mut paths, &mut compiled.path_rules) } else { (&mut names, &mut compiled.name_rules) };
            set.add(glob);
            rules.push(compiled.rules.len());
            compiled.rules.push(Rule { effect, folders_only });
        }
        let built = |set: GlobSetBuilder| {
            set.build()
                .map_err(|error| Error::Pattern { pattern: patterns.join(" "), detail: error.kind().to_string() })
        };
        compiled.paths = built(paths)?;
        compiled.names = built(names)?;
        Ok(compiled)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path or a folder above it is left out.
    #[must_use]
    pub fn covers(&self, path: &[u8], is_folder: bool) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.into_iter().any(|(at, _)| self.leaves_out(&path[..at], true)) || self.leaves_out(path, is_folder)
    }

    /// Whether a path (not the root) is left out. What is beneath a folder left out is never asked about.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        if self.is_empty() {
            return false;
        }
        let (_, name) = crate::beneath::split(path);
        let last = |set: &GlobSet, rules: &[usize], text: &[u8]| {
            let candidate = Candidate::new(Path::new(OsStr::from_bytes(text)));
            let matched = set.matches_candidate(&candidate);
            matched.into_iter().map(|at| rules[at]).filter(|&rule| is_folder || !self.rules[rule].folders_only).max()
        };
        let decisive = last(&self.paths, &self.path_rules, path).max(last(&self.names, &self.name_rules, name));
        decisive.is_some_and(|rule| self.rules[rule].effect == Effect::LeaveOut)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: patterns mean what a user of `.gitignore` expects. Method: the examples of gitignore(5), one `check`.

    use super::*;

    #[track_caller]
    fn check(patterns: &[&str], path: &[u8], is_folder: bool, left_out: bool) {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        assert_eq!(Excludes::new(&patterns).unwrap().leaves_out(path, is_folder), left_out, "{patterns:?}");
    }

    #[test]
    fn without_a_slash_the_last_name_decides_at_any_depth() {
        check(&["*.log"], b"a.log", false, true);
        check(&["*.log"], b"deep/down/a.log", false, true);
        check(&["*.log"], b"a.logs", false, false);
        check(&["cache"], b"x/cache", true, true);
        check(&["[ab]?"], b"x/b1", false, true);
    }

    #[test]
    fn with_a_slash_the_pattern_is_anchored() {
        check(&["/top"], b"top", false, true);
        check(&["/top"], b"x/top", false, false);
        check(&["doc/*.txt"], b"doc/a.txt", false, true);
        check(&["doc/*.txt"], b"doc/sub/a.txt", false, false);
        check(&["doc/*.txt"], b"x/doc/a.txt", false, false);
        check(&["**/doc/*.txt"], b"x/doc/a.txt", false, true);
        check(&["**/doc/*.txt"], b"doc/a.txt", false, true);
        check(&["a/**/b"], b"a/b", false, true);
        check(&["a/**/b"], b"a/x/y/b", false, true);
        check(&["abc/**"], b"abc/x/y", false, true);
        check(&["abc/**"], b"abc", true, false);
    }

    #[test]
    fn a_trailing_slash_means_folders_only() {
        check(&["build/"], b"x/build", true, true);
        check(&["build/"], b"x/build", false, false);
        check(&["/x/build/"], b"x/build", true, true);
    }

    #[test]
    fn the_last_match_decides_and_an_exclamation_mark_takes_back() {
        check(&["*.log", "!keep.log"], b"x/keep.log", false, false);
        check(&["!keep.log", "*.log"], b"x/keep.log", false, true);
        check(&["*", "!/x/keep"], b"x/keep", false, false);
        check(&["\\!odd"], b"!odd", false, true);
    }

    #[test]
    fn a_folder_covers_what_is_beneath_it() {
        let rules = Excludes::new(&["build/".to_owned(), "!keep".to_owned()]).unwrap();
        assert!(
            rules.covers(b"x/build/a", false) && rules.covers(b"build/keep", false) && rules.covers(b"build", true)
        );
        assert!(!rules.covers(b"build", false) && !rules.covers(b"x/builds/a", false));
    }

    #[test]
    fn names_need_not_be_text() {
        check(&["*.log"], b"\xff\xfe.log", false, true);
        check(&["*.log"], b"\xff\xfe", false, false);
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        for bad in ["[", "", "!", "/", "a{b"] {
            let error = Excludes::new(&[bad.to_owned()]).unwrap_err();
            assert!(matches!(error, Error::Pattern { ref pattern, .. } if pattern == bad), "{bad:?}: {error}");
        }
    }
}
