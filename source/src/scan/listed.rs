//! Paths that were named: of a tree only these are taken, with what is beneath them and the folders that
//! lead to them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::order_of;

/// Named paths of one tree.
#[derive(Debug, Default)]
pub struct Listed {
    /// In the order of a scan, each once.
    keys: Vec<Box<[u8]>>,
    /// Which were found in their folder.
    met: Vec<AtomicBool>,
}

/// How a path stands to those that were named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is one.
    Named,
    /// One is beneath it.
    Leads,
    /// Neither.
    Unnamed,
}

impl Listed {
    /// Relative paths, slash-separated raw bytes, none of them empty.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut keys: Vec<Box<[u8]>> = paths.into_iter().map(|path| order_of(&path)).collect();
        keys.sort_unstable();
        keys.dedup();
        let met = keys.iter().map(|_| AtomicBool::new(false)).collect();
        Self { keys, met }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a path was named.
    #[must_use]
    pub fn names(&self, path: &[u8]) -> bool {
        self.keys.binary_search(&order_of(path)).is_ok()
    }

    /// Paths that no scan has found: they are not there, or a rule left out what leads to them, or they are
    /// beneath another that was named.
    pub fn unmet(&self) -> impl Iterator<Item = Vec<u8>> {
        let unmet = self.keys.iter().zip(&self.met).filter(|(_, met)| !met.load(Ordering::Relaxed));
        unmet.map(|(key, _)| key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect())
    }

    /// Notes that a path is there.
    pub(super) fn standing(&self, path: &[u8]) -> Standing {
        let key = order_of(path);
        match self.keys.binary_search(&key) {
            Ok(at) => {
                self.met[at].store(true, Ordering::Relaxed);
                Standing::Named
            }
            Err(next) => {
                let below = self.keys.get(next).and_then(|next| next.strip_prefix(&*key));
                if below.is_some_and(|below| below.first() == Some(&0)) { Standing::Leads } else { Standing::Unnamed }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a path is known as named, or as leading to one. Method: examples with names that sort around a
    //! slash.

    use super::*;

    #[test]
    fn paths_are_named_or_lead_to_what_is() {
        let listed = Listed::new(["a/b", "a-b", "c", "a/b", "d/e/f"].map(|path| path.as_bytes().to_vec()));
        let check = |path: &str, standing| assert_eq!(listed.standing(path.as_bytes()), standing, "{path}");
        check("a", Standing::Leads);
        check("a-b", Standing::Named);
        check("a/b", Standing::Named);
        check("a/bc", Standing::Unnamed);
        check("d", Standing::Leads);
        check("d/e", Standing::Leads);
        check("d/ef", Standing::Unnamed);
        check("", Standing::Unnamed);
        assert_eq!(listed.unmet().collect::<Vec<_>>(), [b"c".to_vec(), b"d/e/f".to_vec()]);
        assert!(listed.names(b"c") && !listed.names(b"d"));
    }
}
