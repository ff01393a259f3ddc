//! What is to be left out of trees, as a request or a configuration says it.

use copal_manifest::snapshot::Rule;
use copal_source::scan::{ByContent, CACHE_MARK_BEGINS, CACHE_MARK_NAME, Mark};

use crate::error::{Error, Result};

/// What is to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Patterns, each a line of `.gitignore`; one that begins with a source's absolute path counts from
    /// there.
    pub patterns: Vec<String>,
    /// Stay on each source's filesystem.
    pub one_file_system: bool,
    /// Of a folder that is marked as a cache only the mark is taken.
    pub caches: bool,
    /// Of a folder in which this is only this is taken: `NAME`, or `NAME:BEGIN` for a file whose content
    /// begins so.
    pub if_present: Vec<String>,
    /// Files of more bytes are left out.
    pub larger_than: Option<u64>,
}

impl Exclusions {
    /// Patterns alone.
    #[must_use]
    pub fn of_patterns(patterns: Vec<String>) -> Self {
        Self { patterns, ..Self::default() }
    }

    /// Whether a word can say what marks a folder.
    #[must_use]
    pub fn is_mark(word: &str) -> bool {
        mark_of(word).is_some()
    }

    /// What a scan asks beside the patterns.
    pub(super) fn by_content(&self) -> Result<ByContent> {
        let cache = Mark::new(CACHE_MARK_NAME.as_bytes(), CACHE_MARK_BEGINS).filter(|_| self.caches);
        let bad = |word: &String| {
            Error::Usage(format!("{word:?} is no name of a file in a folder: write NAME, or NAME:BEGIN"))
        };
        let given = self.if_present.iter().map(|word| mark_of(word).ok_or_else(|| bad(word)));
        let marks = given.chain(cache.map(Ok)).collect::<Result<_>>()?;
        Ok(ByContent::new(marks, self.larger_than))
    }

    /// What a snapshot keeps of it, but for the patterns.
    pub(super) fn rules(&self, by_content: &ByContent) -> impl Iterator<Item = Rule> {
        let one_file_system = self.one_file_system.then_some(Rule::OneFileSystem);
        let marks = by_content.marks().iter();
        let marks = marks.map(|mark| Rule::Beside { name: mark.name().to_vec(), begins: mark.begins().to_vec() });
        one_file_system.into_iter().chain(marks).chain(self.larger_than.map(Rule::LargerThan))
    }
}

fn mark_of(word: &str) -> Option<Mark> {
    let (name, begins) = word.split_once(':').unwrap_or((word, ""));
    let mark = Mark::new(name.as_bytes(), begins.as_bytes())?;
    let rule = Rule::Beside { name: mark.name().to_vec(), begins: mark.begins().to_vec() };
    rule.is_sound().then_some(mark)
}
