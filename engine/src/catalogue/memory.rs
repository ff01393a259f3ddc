//! What a process that lives long remembers of roots: opened, labelled, shared by every reading.
//!
//! Invariants: what a root says never changes, so what was read of it once holds for ever, but for who signed
//! it: a change of keys may sign it again. Which roots are there, and which label is the newest, is looked up
//! at each reading and never remembered. A program of one
//! command has none: the cache serves it as well.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use copal_store::SnapshotId;
use copal_store::keys::Keys;
use copal_store::repository::RootName;

use crate::catalogue::{Listed, is_settled};

/// When more is missing than this, the cache is worth its reading.
const MISSING_MAX: usize = 256;

/// Snapshots by their roots. Shared by all contexts of one repository and one key.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<RootName, Remembered>>);

/// A root as opened, and the label that was applied to it.
struct Remembered {
    label: Option<u64>,
    /// The change of keys, by its number, before which it was read.
    seen: u32,
    listed: Listed,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory(of {} roots)", self.lock().len())
    }
}

impl Memory {
    /// What is known of these roots, and those that have to be read; nothing when too much would have to be.
    pub(super) fn recall(
        &self,
        keys: &Keys,
        roots: &[RootName],
        labels: &BTreeMap<SnapshotId, u64>,
    ) -> Option<(Vec<Listed>, Vec<RootName>)> {
        let kept = self.lock();
        let (mut known, mut missing) = (Vec::with_capacity(roots.len()), Vec::new());
        for root in roots {
            let is_known = |kept: &&Remembered| {
                kept.label == labels.get(&root.snapshot).copied() && is_settled(keys, kept.listed.signer, kept.seen)
            };
            match kept.get(root).filter(is_known) {
                Some(kept) => known.push(kept.listed.clone()),
                None if missing.len() == MISSING_MAX => return None,
                None => missing.push(*root),
            }
        }
        Some((known, missing))
    }

    /// Remembers these and no others, without those that are to be read once more.
    pub(super) fn learn(
        &self,
        seen: u32,
        snapshots: &[Listed],
        labels: &BTreeMap<SnapshotId, u64>,
        unsure: &[RootName],
    ) {
        let mut kept = self.lock();
        for listed in snapshots.iter().filter(|listed| !unsure.contains(&listed.root)) {
            let label = labels.get(&listed.root.snapshot).copied();
            match kept.get_mut(&listed.root) {
                // One that was recalled counted at that change, or it would have been read again.
                Some(kept) if kept.label == label && kept.listed.signer == listed.signer && kept.seen == seen => {}
                _ => drop(kept.insert(listed.root, Remembered { label, seen, listed: listed.clone() })),
            }
        }
        if kept.len() > snapshots.len() {
            let here: std::collections::HashSet<RootName> = snapshots.iter().map(|listed| listed.root).collect();
            kept.retain(|root, _| here.contains(root));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RootName, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
