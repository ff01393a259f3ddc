//! A walk over stored nodes as an iterator: after an error there is nothing more.

use copal_store::Result;

/// Goes forward to the next thing found.
pub(crate) trait Advance {
    /// What is found.
    type Item;

    /// `None` at the end.
    fn advance(&mut self) -> Result<Option<Self::Item>>;
}

/// The walk; it ends after an error.
pub(crate) struct Walk<A> {
    pub(crate) inner: A,
    ended: bool,
}

impl<A> Walk<A> {
    pub(crate) fn new(inner: A) -> Self {
        Self { inner, ended: false }
    }
}

impl<A: Advance> Iterator for Walk<A> {
    type Item = Result<A::Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.inner.advance().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
