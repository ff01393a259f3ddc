//! Whether every entry stands in a folder. Entries come depth first, so the folder of one is always among
//! those that are open.

use copal_store::{Error, Result};

use crate::entry::{Entry, EntryPath, Node};
use crate::node::columns::Malformed;
use crate::node::entries;

/// The folders that hold the last entry, and the entry itself where it is one.
#[derive(Debug, Default)]
pub(crate) struct OpenFolders(Vec<EntryPath>);

impl OpenFolders {
    /// Whether an entry that follows has its folder; only the root needs none.
    pub(crate) fn hold(&self, path: &EntryPath) -> bool {
        path.parent().is_none_or(|folder| self.0.contains(&folder))
    }

    /// Goes on to an entry.
    pub(crate) fn enter(&mut self, entry: &Entry) {
        self.0.retain(|folder| entry.path.is_within(folder));
        if entry.node == Node::Directory {
            self.0.push(entry.path.clone());
        }
    }
}

/// What a part of a tree asks of the entries before it, and leaves open for those behind it. Snapshots share
/// most nodes: of each this is made once.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    ends: Option<(EntryPath, EntryPath)>,
    /// Folders that must be open before it.
    needs: Vec<EntryPath>,
    /// Folders of it that are open behind it.
    open: Vec<EntryPath>,
    missing: Option<EntryPath>,
}

impl Outline {
    /// Of a leaf's bytes.
    pub fn of_leaf(bytes: &[u8]) -> Result<Self> {
        let entries = entries::decode(bytes).map_err(|Malformed(detail)| Error::damaged("a manifest node", detail))?;
        let mut outline = Self::default();
        for entry in entries {
            let folder = entry.path.parent();
            outline.join(&Self {
                needs: folder.into_iter().collect(),
                open: if entry.node == Node::Directory { vec![entry.path.clone()] } else { Vec::new() },
                ends: Some((entry.path.clone(), entry.path)),
                missing: None,
            });
        }
        Ok(outline)
    }

    /// Adds the part that follows.
    pub fn join(&mut self, next: &Self) {
        let Some((first, last)) = &next.ends else { return };
        for folder in &next.needs {
            let stands_before = self.ends.as_ref().is_none_or(|(begin, _)| folder < begin);
            if self.open.contains(folder) {
            } else if !stands_before {
                self.missing.get_or_insert_with(|| folder.clone());
            } else if self.needs.last() != Some(folder) {
                self.needs.push(folder.clone());
            }
        }
        if self.missing.is_none() {
            self.missing.clone_from(&next.missing);
        }
        self.open.retain(|folder| last.is_within(folder));
        self.open.extend(next.open.iter().cloned());
        self.ends = match self.ends.take() {
            Some((begin, _)) => Some((begin, last.clone())),
            None => Some((first.clone(), last.clone())),
        };
    }

    /// For a whole tree: a folder in which something stands and which is not there, or is no folder.
    #[must_use]
    pub fn missing(&self) -> Option<&EntryPath> {
        self.needs.first().or(self.missing.as_ref())
    }
}
