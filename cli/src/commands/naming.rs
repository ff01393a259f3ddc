//! Which of the words of `create` is the snapshot's name, and which are sources.
//!
//! A word alone is a source. Of several the first is the name, unless it can only be a source: it has a slash
//! or an equals sign, or it is KIND:…. Where it could be both, because something of that name is here that
//! the other words do not name, nobody guesses.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::commands::application;
use crate::exit_code::ProgramError;

/// The words told apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words<'w> {
    /// `None`: one is made.
    pub(crate) name: Option<String>,
    pub(crate) sources: &'w [OsString],
}

/// Of an application: its sources stand in the configuration.
pub(crate) fn of_application<'w>(words: &'w [OsString], named: Option<&str>) -> Result<Words<'w>, ProgramError> {
    match (named, words) {
        (name, []) => Ok(Words { name: name.map(str::to_owned), sources: &[] }),
        (None, [name]) => Ok(Words { name: Some(text(name)?), sources: &[] }),
        _ => Err(ProgramError::usage(
            "the sources of an application stand in the configuration",
            "give one name at most: copal create [NAME] --app APP",
        )),
    }
}

/// Of sources on the command line; `is_here` says whether a path is.
pub(crate) fn of_sources<'w>(
    words: &'w [OsString],
    named: Option<&str>,
    is_here: &dyn Fn(&Path) -> bool,
) -> Result<Words<'w>, ProgramError> {
    if let Some(name) = named {
        return Ok(Words { name: Some(name.to_owned()), sources: words });
    }
    let here = |word: &OsStr| is_here(Path::new(word));
    match words {
        [only] if !is_source(only) && !here(only) => {
            let shown = only.display();
            Err(ProgramError::usage(
                format!("there is no file or folder {shown} here, and a name alone takes nothing"),
                format!("say what to take: copal create {shown} SOURCE"),
            ))
        }
        [first, _, ..] if !is_source(first) => {
            // Nobody takes the same twice: beside its source the name is one.
            let is_taken = words[1..].iter().any(|word| is_same(first, word));
            if here(first) && !is_taken {
                let shown = first.display();
                return Err(ProgramError::usage(
                    format!("{shown} could be the name of the snapshot, and it is a file or folder here as well"),
                    format!("write ./{shown} to take it, or --name {shown} to name the snapshot so"),
                ));
            }
            Ok(Words { name: Some(text(first)?), sources: &words[1..] })
        }
        words => Ok(Words { name: None, sources: words }),
    }
}

/// The same beside a source that is no word: one word that is nothing here is the name.
pub(crate) fn beside_stdin<'w>(
    words: &'w [OsString],
    named: Option<&str>,
    is_here: &dyn Fn(&Path) -> bool,
) -> Result<Words<'w>, ProgramError> {
    match (named, words) {
        (None, [only]) if !is_source(only) && !is_here(Path::new(only)) => {
            Ok(Words { name: Some(text(only)?), sources: &[] })
        }
        _ => of_sources(words, named, is_here),
    }
}

/// Whether a word can be nothing else.
fn is_source(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let is_kind = !matches!(application::spec_of(word), Ok(None));
    bytes.contains(&b'/') || bytes.contains(&b'=') || matches!(bytes, b"." | b"..") || is_kind
}

/// Whether a source is what a plain word names.
fn is_same(word: &OsStr, source: &OsStr) -> bool {
    std::path::absolute(word).ok().is_some_and(|word| std::path::absolute(source).is_ok_and(|source| word == source))
}

fn text(word: &OsStr) -> Result<String, ProgramError> {
    let text = word.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        ProgramError::usage(format!("{} cannot be a name: it is no UTF-8", word.display()), "choose another name")
    })
}

/// What a made name says of the sources: the last part of the first one's path, and how many more there are.
pub(crate) fn described(first: &str, count: usize) -> String {
    match count {
        0 | 1 => first.to_owned(),
        count => format!("{first}+{}", count - 1),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: names and sources are told apart as the help says. Method: examples, in a folder that has
    //! `docs`.

    use super::*;

    fn read(words: &[&str]) -> Result<(Option<String>, usize), ()> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let read = of_sources(&words, None, &|path| path == Path::new("docs")).map_err(drop)?;
        Ok((read.name, read.sources.len()))
    }

    #[test]
    fn the_first_of_several_is_the_name_unless_it_can_only_be_a_source() {
        let named = |name: &str, sources: usize| Ok((Some(name.to_owned()), sources));
        assert_eq!(read(&["monday", "docs"]), named("monday", 1));
        assert_eq!(read(&["2026-11-28 05:00", "/srv"]), named("2026-11-28 05:00", 1));
        assert_eq!(read(&["monday", "a", "b"]), named("monday", 2));
        let all = |sources: usize| Ok((None, sources));
        for words in [
            &["./docs", "x"][..],
            &["/srv", "x"],
            &["a/b", "x"],
            &[".", "x"],
            &["..", "x"],
            &["db=hub.db", "x"],
            &["sqlite:hub.db", "x"],
            &["postgres://host/db", "x"],
            &["docs/", "x"],
        ] {
            assert_eq!(read(words), all(2), "{words:?}");
        }
    }

    #[test]
    fn a_word_alone_is_a_source_and_what_could_be_both_is_asked_about() {
        for word in ["docs", "./gone", "/gone", "sqlite:x", "a=b", "."] {
            assert_eq!(read(&[word]), Ok((None, 1)), "{word}");
        }
        assert_eq!(read(&["monday"]), Err(()), "a name takes nothing");
        assert_eq!(read(&["docs", "photos"]), Err(()));
        assert_eq!(read(&["docs", "photos", "a"]), Err(()));
        for source in ["docs", "docs/", "./docs"] {
            assert_eq!(read(&["docs", source]), Ok((Some("docs".to_owned()), 1)), "{source}");
        }
    }

    #[test]
    fn a_name_that_is_given_as_such_leaves_all_words_sources() {
        let words: Vec<OsString> = ["docs", "photos"].iter().map(Into::into).collect();
        let read = of_sources(&words, Some("docs"), &|_| true).unwrap();
        assert_eq!((read.name.as_deref(), read.sources.len()), (Some("docs"), 2));
        assert_eq!(of_application(&words[..1], None).unwrap().name.as_deref(), Some("docs"));
        assert_eq!(of_application(&[], None).unwrap().name, None);
        assert!(of_application(&words, None).is_err() && of_application(&words[..1], Some("x")).is_err());
    }
}
