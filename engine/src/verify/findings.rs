//! What was found, and the chunks that each finding costs.

use std::collections::{BTreeMap, HashMap};

use copal_manifest::snapshot::Snapshot;
use copal_store::check::{Damage, Trouble};
use copal_store::pack::pack_name;
use copal_store::session::Session;
use copal_store::{ChunkId, Error as StoreError};

use crate::catalogue::Listed;
use crate::error::Result;
use crate::verify::{DamagedItem, PATHS_MAX};

#[derive(Default)]
pub(super) struct Findings {
    items: Vec<DamagedItem>,
    /// Of each item the trouble.
    troubles: Vec<Trouble>,
    numbers: HashMap<(String, String), usize>,
    /// Chunk → items that cost it.
    lost: BTreeMap<ChunkId, Vec<usize>>,
}

impl Findings {
    /// The number of an item, which is made when it is new.
    pub(super) fn item(&mut self, kind: &str, id: &str, detail: &str) -> usize {
        self.item_of(Trouble::Damaged, kind, id, detail)
    }

    /// The same of what a newer version wrote.
    pub(super) fn newer(&mut self, kind: &str, id: &str, detail: &str) -> usize {
        self.item_of(Trouble::Newer, kind, id, detail)
    }

    fn item_of(&mut self, trouble: Trouble, kind: &str, id: &str, detail: &str) -> usize {
        let key = (kind.to_owned(), id.to_owned());
        *self.numbers.entry(key).or_insert_with(|| {
            self.troubles.push(trouble);
            self.items.push(DamagedItem {
                kind: kind.to_owned(),
                id: id.to_owned(),
                detail: detail.to_owned(),
                snapshots: Vec::new(),
                paths: Vec::new(),
                paths_total: 0,
            });
            self.items.len() - 1
        })
    }

    /// A node or chunk that does not read, or has no place. Where one object costs many chunks, the object is
    /// the item.
    pub(super) fn lose(&mut self, session: &Session, kind: &str, id: &ChunkId, error: &StoreError) -> Result<()> {
        let item = match (error, session.lost_pack(id)?) {
            (StoreError::Damaged { object, detail }, _) if object.starts_with("index/") => {
                self.item("index", object.trim_start_matches("index/"), detail)
            }
            (StoreError::Unsupported { what, .. }, _) => {
                let (folder, name) = what.split_once('/').unwrap_or((kind, what));
                let kind = match folder {
                    "packs" => "pack",
                    "index" => "index",
                    _ => kind,
                };
                self.newer(kind, name.rsplit('/').next().unwrap_or(name), &error.to_string())
            }
            (StoreError::Missing { .. }, Some(pack)) => {
                self.item("pack", pack_name(pack).name(), "it is missing from the repository")
            }
            _ => self.item(kind, &id.to_string(), &error.to_string()),
        };
        self.cost(*id, item);
        Ok(())
    }

    pub(super) fn push_damage(&mut self, damage: Damage) {
        // The walk over the manifests met it as a node before.
        let is_known = damage.kind == "chunk" && self.numbers.contains_key(&("node".into(), damage.id.clone()));
        if is_known && damage.chunks.iter().all(|chunk| self.lost.contains_key(chunk)) {
            return;
        }
        let item = self.item_of(damage.trouble, damage.kind, &damage.id, &damage.detail);
        for chunk in damage.chunks {
            self.cost(chunk, item);
        }
    }

    pub(super) fn costs_nothing(&self) -> bool {
        self.lost.is_empty()
    }

    pub(super) fn is_lost(&self, chunk: &ChunkId) -> bool {
        self.lost.contains_key(chunk)
    }

    /// A delta is lost with its base.
    pub(super) fn lose_with(&mut self, chunk: ChunkId, base: &ChunkId) {
        for item in self.lost.get(base).cloned().unwrap_or_default() {
            self.cost(chunk, item);
        }
    }

    /// Says that a lost chunk hurts a snapshot, and which path in it where that is known.
    pub(super) fn hurt(&mut self, chunk: &ChunkId, snapshot: &str, path: Option<&str>) {
        let Some(items) = self.lost.get(chunk) else { return };
        for &number in items {
            let item = &mut self.items[number];
            item.hurt_snapshot(snapshot);
            let Some(path) = path else { continue };
            if item.paths.last().is_some_and(|last| last == path) {
                continue;
            }
            if item.paths.len() < PATHS_MAX {
                if item.paths.iter().any(|known| known == path) {
                    continue;
                }
                item.paths.push(path.to_owned());
            }
            item.paths_total += 1;
        }
    }

    pub(super) fn hurt_by_item(&mut self, item: usize, snapshot: &str) {
        self.items[item].hurt_snapshot(snapshot);
    }

    /// A snapshot as a whole is hurt.
    pub(super) fn hurt_wholly(&mut self, listed: &Listed, detail: &str) {
        let item = self.item("snapshot", &listed.root.object_name(), detail);
        self.hurt_by_item(item, &Snapshot::full_name(&listed.snapshot.app, &listed.snapshot.name));
    }

    /// What is damaged, and what a newer version wrote.
    pub(super) fn into_items(self) -> (Vec<DamagedItem>, Vec<DamagedItem>) {
        let mut items = (Vec::new(), Vec::new());
        for (item, trouble) in self.items.into_iter().zip(self.troubles) {
            match trouble {
                Trouble::Damaged => items.0.push(item),
                Trouble::Newer => items.1.push(item),
            }
        }
        items
    }

    fn cost(&mut self, chunk: ChunkId, item: usize) {
        let costs = self.lost.entry(chunk).or_default();
        if !costs.contains(&item) {
            costs.push(item);
        }
    }
}

impl DamagedItem {
    fn hurt_snapshot(&mut self, snapshot: &str) {
        if !self.snapshots.iter().any(|known| known == snapshot) {
            self.snapshots.push(snapshot.to_owned());
        }
    }
}
