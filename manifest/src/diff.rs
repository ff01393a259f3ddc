//! Differences of two trees of entries. Equal subtrees are passed unread.

use copal_store::Result;
use copal_store::session::ChunkSource;

use crate::cursor::{Cursor, Front};
use crate::entry::Entry;
use crate::tree::TreeRoot;
use crate::walk::{Advance, Walk};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only in the second tree.
    Added(Entry),
    /// Only in the first tree.
    Removed(Entry),
    /// In both, not equal (inode and change time do not count).
    Changed {
        /// In the first tree.
        before: Entry,
        /// In the second tree.
        after: Entry,
    },
}

/// Differences in path order; equal subtrees are skipped unread, so the cost follows the changes. It ends
/// after an error.
pub fn diff<'a>(
    source_a: &'a dyn ChunkSource,
    a: TreeRoot,
    source_b: &'a dyn ChunkSource,
    b: TreeRoot,
) -> Box<dyn Iterator<Item = Result<Change>> + 'a> {
    Box::new(Walk::new(Differences { a: Cursor::new(source_a, a), b: Cursor::new(source_b, b) }))
}

struct Differences<'a> {
    a: Cursor<'a>,
    b: Cursor<'a>,
}

/// What to do about two fronts.
enum Step {
    SkipBoth,
    OpenA,
    OpenB,
    OpenBoth,
    TakeA,
    TakeB,
    TakeBoth,
    End,
}

impl Differences<'_> {
    fn step(&mut self) -> Step {
        match (self.a.front(), self.b.front()) {
            (Front::Node { child: a, height: high_a }, Front::Node { child: b, height: high_b }) => {
                match high_a.cmp(&high_b) {
                    std::cmp::Ordering::Equal if a.id == b.id => Step::SkipBoth,
                    std::cmp::Ordering::Equal => Step::OpenBoth,
                    std::cmp::Ordering::Greater => Step::OpenA,
                    std::cmp::Ordering::Less => Step::OpenB,
                }
            }
            (Front::Node { .. }, _) => Step::OpenA,
            (_, Front::Node { .. }) => Step::OpenB,
            (Front::Entry(a), Front::Entry(b)) => match a.path.cmp(&b.path) {
                std::cmp::Ordering::Less => Step::TakeA,
                std::cmp::Ordering::Equal => Step::TakeBoth,
                std::cmp::Ordering::Greater => Step::TakeB,
            },
            (Front::Entry(_), Front::End) => Step::TakeA,
            (Front::End, Front::Entry(_)) => Step::TakeB,
            (Front::End, Front::End) => Step::End,
        }
    }
}

impl Advance for Differences<'_> {
    type Item = Change;

    fn advance(&mut self) -> Result<Option<Change>> {
        loop {
            match self.step() {
                Step::SkipBoth => {
                    self.a.skip_node();
                    self.b.skip_node();
                }
                Step::OpenA => self.a.open_node()?,
                Step::OpenB => self.b.open_node()?,
                Step::OpenBoth => {
                    self.a.open_node()?;
                    self.b.open_node()?;
                }
                Step::TakeA => return Ok(self.a.take_entry().map(Change::Removed)),
                Step::TakeB => return Ok(self.b.take_entry().map(Change::Added)),
                Step::TakeBoth => {
                    if let (Some(before), Some(after)) = (self.a.take_entry(), self.b.take_entry())
                        && !is_same(&before, &after)
                    {
                        return Ok(Some(Change::Changed { before, after }));
                    }
                }
                Step::End => return Ok(None),
            }
        }
    }
}

/// Equal but for the evidence of capture.
fn is_same(a: &Entry, b: &Entry) -> bool {
    let (x, y) = (&a.metadata, &b.metadata);
    a.node == b.node && (x.mode, x.uid, x.gid, x.modified) == (y.mode, y.uid, y.gid, y.modified) && x.xattrs == y.xattrs
}
