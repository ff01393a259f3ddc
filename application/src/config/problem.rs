//! Mistakes in the configuration, each with its place.

use std::ops::Range;

use toml::Spanned;

/// A mistake and where it is.
pub(super) struct Problem {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

pub(super) type Resolved<T> = Result<T, Problem>;

pub(super) fn problem<T>(at: &Spanned<T>, message: impl Into<String>) -> Problem {
    Problem { span: at.span(), message: message.into() }
}
