//! Which paths are left out: patterns, each a line of `.gitignore`, read by gitoxide's parser and matcher. No
//! file system here.

use std::sync::atomic::{AtomicBool, Ordering};

use gix_glob::Pattern;
use gix_glob::pattern::Case;
use gix_glob::wildmatch::Mode;

use crate::sqlite::database_of;
use crate::{Error, Result};

/// Patterns that braces of one older pattern may stand for.
const ALTERNATIVES_MAX: usize = 4096;

/// What braces of all older patterns of one snapshot may stand for, in bytes, each pattern with
/// [`PATTERN_BYTES`] beside its text.
const EXPANDED_BYTES_MAX: usize = 8 << 20;
/// What a pattern takes beside its text, about.
const PATTERN_BYTES: usize = 16;

/// How much older patterns may still stand for. One for all of a snapshot, whose author decides how many
/// there are.
#[derive(Debug)]
pub struct Expansion {
    bytes_left: usize,
}

impl Default for Expansion {
    fn default() -> Self {
        Self { bytes_left: EXPANDED_BYTES_MAX }
    }
}

/// The patterns, parsed. The last one that matches a path decides.
#[derive(Debug, Default)]
pub struct Excludes {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    /// Whether it has left something out.
    used: AtomicBool,
}

impl Excludes {
    /// Parses them. Lines that git would pass over (empty, comments) are errors here: whoever gave one meant
    /// something by it.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let rules = patterns.iter().map(|text| Rule::new(text, text)).collect::<Result<_>>()?;
        Ok(Self { rules })
    }

    /// The same for patterns that a snapshot of before version 4 keeps. `{a,b}` stood for both then, and
    /// nothing was a comment or trailing space; the rest is read as git reads it.
    pub fn of_older(patterns: &[String], expansion: &mut Expansion) -> Result<Self> {
        let mut rules = Vec::new();
        older(patterns, expansion, |text, line| {
            rules.push(Rule::new(text, &line)?);
            Ok(())
        })?;
        Ok(Self { rules })
    }

    /// The lines of git that say what older patterns said.
    pub fn lines_of_older(patterns: &[String], expansion: &mut Expansion) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        older(patterns, expansion, |_, line| {
            lines.push(line);
            Ok(())
        })?;
        Ok(lines)
    }

    /// Whether a path or a folder above it is left out.
    #[must_use]
    pub fn covers(&self, path: &[u8], is_folder: bool) -> bool {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.into_iter().any(|(at, _)| self.leaves_out(&path[..at], true)) || self.leaves_out(path, is_folder)
    }

    /// Whether a path (not the root) is left out. What is beneath a folder left out is never asked about.
    ///
    /// One thing is not git's: a database that is left out takes its logs with it, because each is worth
    /// nothing without the other, and a log of one state destroys a database of another. A pattern that takes
    /// the log itself back does so.
    #[must_use]
    pub fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        self.decision(path, is_folder).unwrap_or_else(|| {
            let database = database_of(path).filter(|_| !is_folder);
            database.is_some_and(|database| self.decision(database, false) == Some(true))
        })
    }

    /// What the last pattern that matches a path says: that it is left out, or taken back.
    fn decision(&self, path: &[u8], is_folder: bool) -> Option<bool> {
        let name_at = path.iter().rposition(|&byte| byte == b'/').map(|at| at + 1);
        let matches = |rule: &&Rule| {
            let (path, mode) = (path.into(), Mode::NO_MATCH_SLASH_LITERAL);
            rule.pattern.matches_repo_relative_path(path, name_at, Some(is_folder), Case::Sensitive, mode)
        };
        let decisive = self.rules.iter().rev().find(matches)?;
        let leaves_out = !decisive.pattern.is_negative();
        if leaves_out && !decisive.used.load(Ordering::Relaxed) {
            decisive.used.store(true, Ordering::Relaxed);
        }
        Some(leaves_out)
    }

    /// Which patterns have left nothing out so far, by their place in the list; those that take back are not
    /// among them.
    #[must_use]
    pub fn unused(&self) -> Vec<usize> {
        let unused = |rule: &Rule| !rule.pattern.is_negative() && !rule.used.load(Ordering::Relaxed);
        self.rules.iter().enumerate().filter(|(_, rule)| unused(rule)).map(|(at, _)| at).collect()
    }
}

impl Rule {
    fn new(text: &str, line: &str) -> Result<Self> {
        let invalid = |detail: &str| Error::Pattern { pattern: text.to_owned(), detail: detail.into() };
        if line.contains('\n') {
            return Err(invalid("it has more than one line"));
        }
        if line.starts_with('#') {
            return Err(invalid(r"it is a comment; write \# for a name that begins so"));
        }
        let parsed = gix_ignore::parse(line.as_bytes(), false).next();
        let Some((pattern, ..)) = parsed.filter(|(pattern, ..)| !pattern.text.is_empty()) else {
            return Err(invalid("it names nothing"));
        };
        Ok(Self { pattern, used: AtomicBool::new(false) })
    }
}

/// Hands on what each older pattern stands for, as a line of git's.
fn older(
    patterns: &[String],
    expansion: &mut Expansion,
    mut take: impl FnMut(&str, String) -> Result<()>,
) -> Result<()> {
    for text in patterns {
        for line in alternatives(text) {
            let left = expansion.bytes_left.checked_sub(line.len() + PATTERN_BYTES);
            expansion.bytes_left = left.ok_or_else(|| Error::Pattern {
                pattern: text.clone(),
                detail: "its braces, and those of the patterns before it, stand for more than any snapshot needs"
                    .into(),
            })?;
            take(text, older_line(&line))?;
        }
    }
    Ok(())
}

/// What git would pass over or cut off, escaped.
fn older_line(line: &str) -> String {
    let kept = line.trim_end_matches(' ');
    let spaces = if kept.ends_with('\\') { "" } else { &line[kept.len()..] };
    let begin = if line.starts_with('#') { "\\" } else { "" };
    let kept = if spaces.is_empty() { line } else { kept };
    format!("{begin}{kept}{}", spaces.replace(' ', "\\ "))
}

/// What the braces of a pattern stand for; the pattern itself where there are none, or too many.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut whole = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, inside, after)) = first_braces(rest) {
        let choices: Vec<String> = inside.iter().flat_map(|choice| alternatives(choice)).collect();
        if whole.len() * choices.len() > ALTERNATIVES_MAX {
            return vec![pattern.to_owned()];
        }
        let extended = whole.iter().flat_map(|so_far| choices.iter().map(move |one| format!("{so_far}{before}{one}")));
        whole = extended.collect();
        rest = after;
    }
    whole.into_iter().map(|so_far| so_far + rest).collect()
}

/// What stands before the first braces, what is between their commas, and what follows. Escaped ones and
/// those in brackets are none.
fn first_braces(text: &str) -> Option<(&str, Vec<&str>, &str)> {
    let (mut escaped, mut in_brackets, mut depth) = (false, false, 0_usize);
    let (mut opened, mut from, mut choices) = (0, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b']' => in_brackets = false,
            _ if in_brackets => {}
            b'[' => in_brackets = true,
            b'{' => {
                if depth == 0 {
                    (opened, from) = (at, at + 1);
                }
                depth += 1;
            }
            b',' if depth == 1 => {
                choices.push(&text[from..at]);
                from = at + 1;
            }
            b'}' if depth == 1 => {
                choices.push(&text[from..at]);
                return Some((&text[..opened], choices, &text[at + 1..]));
            }
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    //! Goal: patterns mean what git means by them; older ones keep what they meant. Method: the examples of
    //! gitignore(5), one `check`; `source/tests/gitignore.rs` has what git itself said to thousands.

    use super::*;

    fn owned(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[track_caller]
    fn check(patterns: &[&str], path: &[u8], is_folder: bool, left_out: bool) {
        assert_eq!(Excludes::new(&owned(patterns)).unwrap().leaves_out(path, is_folder), left_out, "{patterns:?}");
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
        check(&["\\#odd"], b"#odd", false, true);
    }

    #[test]
    fn braces_classes_and_spaces_are_git_s() {
        check(&["{a,b}"], b"{a,b}", false, true);
        check(&["{a,b}"], b"a", false, false);
        check(&["[[:alpha:]]"], b"x", false, true);
        check(&["[[:alpha:]]"], b"1", false, false);
        check(&["trail\\ "], b"trail ", false, true);
        check(&["trail  "], b"trail", false, true);
        // No names, and no error either.
        check(&["["], b"[", false, false);
        check(&["a{b"], b"a{b", false, true);
    }

    #[test]
    fn a_folder_covers_what_is_beneath_it() {
        let rules = Excludes::new(&owned(&["build/", "!keep"])).unwrap();
        assert!(
            rules.covers(b"x/build/a", false) && rules.covers(b"build/keep", false) && rules.covers(b"build", true)
        );
        assert!(!rules.covers(b"build", false) && !rules.covers(b"x/builds/a", false));
    }

    #[test]
    fn a_database_that_is_left_out_takes_its_logs_with_it() {
        for log in ["a.db-wal", "x/a.db-shm", "x/a.db-journal"] {
            check(&["*.db"], log.as_bytes(), false, true);
            check(&["*.db"], log.as_bytes(), true, false);
            check(&["*.db", "!a.db"], log.as_bytes(), false, false);
            check(&["*.db", "!*.db-*"], log.as_bytes(), false, false);
        }
        check(&["*.db"], b"a.db-walnut", false, false);
        check(&["*-wal"], b"a.db-wal", false, true);
        check(&["*-wal"], b"a.db-shm", false, false);
        check(&["/x/a.db"], b"y/a.db-wal", false, false);
        check(&["*"], b"-wal", false, true);
        check(&["x/"], b"x/-wal", false, false);
        let rules = Excludes::new(&owned(&["x/"])).unwrap();
        assert!(rules.covers(b"x/a.db-wal", false));
    }

    #[test]
    fn names_need_not_be_text() {
        check(&["*.log"], b"\xff\xfe.log", false, true);
        check(&["*.log"], b"\xff\xfe", false, false);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in ["", "!", "/", "!/", " ", "#a", "a\nb"] {
            let error = Excludes::new(&[bad.to_owned()]).unwrap_err();
            assert!(matches!(error, Error::Pattern { ref pattern, .. } if pattern == bad), "{bad:?}: {error}");
        }
    }

    #[test]
    fn what_left_nothing_out_is_known() {
        let rules = Excludes::new(&owned(&["*.log", "nothing", "a", "!a", "under/"])).unwrap();
        for path in ["x.log", "a", "under"] {
            let _ = rules.leaves_out(path.as_bytes(), false);
        }
        assert_eq!(rules.unused(), [1, 2, 4]);
    }

    #[test]
    fn older_patterns_keep_their_meaning() {
        let check = |pattern: &str, path: &str, left_out: bool| {
            let rules = Excludes::of_older(&owned(&[pattern]), &mut Expansion::default()).unwrap();
            assert_eq!(rules.leaves_out(path.as_bytes(), false), left_out, "{pattern:?} {path:?}");
        };
        for path in ["x.jpg", "x.png", "d/y.jpg"] {
            check("*.{jpg,png}", path, true);
        }
        check("*.{jpg,png}", "{jpg,png}", false);
        check("/{a,b{1,2}}/c", "b2/c", true);
        check("/{a,b{1,2}}/c", "b/c", false);
        check("\\{a}", "{a}", true);
        check("[{]a,b[}]", "{a,b}", true);
        check("#a", "#a", true);
        check("trail  ", "trail  ", true);
        check("trail\\ ", "trail ", true);
        check("!{a,b}", "a", false);
    }
}
