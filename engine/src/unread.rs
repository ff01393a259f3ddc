//! What this machine remembers of roots that it cannot walk: the packs that were there when a collection
//! first met them.
//!
//! A root of a newer version, or one that somebody has made up, may reach all that was there when it was
//! stored, and nothing that was stored later. So a collection that has met it before may take what came
//! since, and need not stand still until it is deleted. When a pack of those days is gone, another program
//! has collected, and may have moved what the root reaches: then all that is there now counts as of those
//! days. What is remembered is lost without harm: everything stays then.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use copal_store::repository::RootName;
use copal_store::{PackId, codec};
use serde::{Deserialize, Serialize};

use crate::known_keys;
use crate::state::own_folder;

const VERSION: u16 = 1;
const FOLDER: &str = "unread-snapshots";
/// Length of the BLAKE3 sum that stands before the document.
const SUM_BYTES: usize = 32;
/// Roots that are remembered; for any beyond everything stays.
const ROOTS_MAX: usize = 64;
/// A file that is longer is none of ours.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u16,
    /// By the name of the root's object.
    roots: Vec<(String, Vec<PackId>)>,
}

/// The memory of one repository; without a path there is none.
#[derive(Debug, Default)]
pub(crate) struct UnreadRoots {
    path: Option<PathBuf>,
}

impl UnreadRoots {
    pub(crate) fn of(state_folder: Option<&Path>, repository: &str) -> Self {
        Self { path: state_folder.map(|folder| folder.join(FOLDER).join(repository)) }
    }

    /// The packs that stay for these roots, which are all that cannot be walked now.
    pub(crate) fn kept_for(&self, unread: &[RootName], present: &HashSet<PackId>) -> HashSet<PackId> {
        let Some(path) = &self.path else { return present.clone() };
        let before = read(path).unwrap_or_default();
        let (now, kept) = remembered(&before, unread, present);
        // What could not be written down must not be relied on by the next one: that one keeps all again.
        if now != before && write(path, &now).is_none() {
            return present.clone();
        }
        kept
    }
}

type Memory = BTreeMap<String, Vec<PackId>>;

/// What is to be remembered now, and which packs stay.
fn remembered(before: &Memory, unread: &[RootName], present: &HashSet<PackId>) -> (Memory, HashSet<PackId>) {
    let (mut now, mut kept) = (Memory::new(), HashSet::new());
    let mut all: Vec<PackId> = present.iter().copied().collect();
    all.sort_unstable();
    // Those that are known come first, so that no newcomers push them out.
    let (known, new): (Vec<&RootName>, Vec<&RootName>) =
        unread.iter().partition(|root| before.contains_key(&root.object_name()));
    for root in known.into_iter().chain(new) {
        let name = root.object_name();
        let of_those_days = before.get(&name).filter(|packs| packs.iter().all(|pack| present.contains(pack)));
        let packs = of_those_days.unwrap_or(&all);
        kept.extend(packs.iter().copied());
        if now.len() < ROOTS_MAX {
            now.insert(name, packs.clone());
        } else {
            kept.extend(all.iter().copied());
        }
    }
    (now, kept)
}

fn read(path: &Path) -> Option<Memory> {
    let file = own_folder(path.parent()?).ok()?;
    let file = file.open_own_file(path.file_name()?.as_encoded_bytes(), FILE_BYTES_MAX).ok()?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let (sum, document) = bytes.split_at_checked(SUM_BYTES)?;
    if blake3::hash(document).as_bytes() != sum {
        return None;
    }
    let document: Document = codec::decode("unread snapshots", document).ok()?;
    (document.version == VERSION).then(|| document.roots.into_iter().collect())
}

fn write(path: &Path, memory: &Memory) -> Option<()> {
    let roots = memory.iter().map(|(name, packs)| (name.clone(), packs.clone())).collect();
    let document = codec::encode(&Document { version: VERSION, roots }).ok()?;
    let bytes = [blake3::hash(&document).as_bytes().as_slice(), &document].concat();
    known_keys::replace(path.parent()?, path, &bytes).ok()
}

#[cfg(test)]
mod tests {
    //! Goal: nothing that a root may reach is given up, and what came later is. Method: examples.
    use super::*;
    use copal_store::SnapshotId;

    fn root(number: u8) -> RootName {
        RootName { tag: [number; 16], snapshot: SnapshotId([number; 16]) }
    }

    fn packs(numbers: &[u8]) -> HashSet<PackId> {
        numbers.iter().map(|number| PackId([*number; 16])).collect()
    }

    #[test]
    fn t02_what_was_there_when_a_root_was_first_met_stays() {
        let (memory, kept) = remembered(&Memory::new(), &[root(1)], &packs(&[1, 2]));
        assert_eq!(kept, packs(&[1, 2]));
        let (memory, kept) = remembered(&memory, &[root(1)], &packs(&[1, 2, 3]));
        assert_eq!(kept, packs(&[1, 2]), "what came later may go");
        let (memory, kept) = remembered(&memory, &[root(1), root(2)], &packs(&[1, 2, 3]));
        assert_eq!(kept, packs(&[1, 2, 3]), "another one is met later");
        let (memory, kept) = remembered(&memory, &[root(1)], &packs(&[2, 4]));
        assert_eq!(kept, packs(&[2, 4]), "another program has collected");
        let (memory, _) = remembered(&memory, &[], &packs(&[2, 4]));
        assert!(memory.is_empty(), "what is deleted is forgotten");
    }

    #[test]
    fn t02_more_roots_than_are_remembered_keep_everything() {
        let many: Vec<RootName> = (0..=ROOTS_MAX as u8).map(root).collect();
        let (memory, _) = remembered(&Memory::new(), &many, &packs(&[1]));
        let (_, kept) = remembered(&memory, &many, &packs(&[1, 2]));
        assert_eq!(kept, packs(&[1, 2]));
        let (_, kept) = remembered(&memory, &many[..ROOTS_MAX], &packs(&[1, 2]));
        assert_eq!(kept, packs(&[1]));
    }
}
