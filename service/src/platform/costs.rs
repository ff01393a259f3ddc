//! What the repository costs: counted by walking every manifest, so in the background, once for each change
//! of the catalogue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use copal_engine::Context;
use copal_engine::inspect::{Stats, stats};

use crate::metrics::Costs;
use crate::platform::views::uuid;
use crate::problem::Result;

/// One count.
#[derive(Clone, Debug)]
pub(crate) struct CostsReading {
    /// Of the catalogue that was counted.
    pub(crate) generation: u64,
    /// Sums.
    pub(crate) stats: Stats,
    /// Snapshot → stored bytes that only it needs.
    pub(crate) unique: HashMap<String, u64>,
}

/// The newest count.
#[derive(Debug, Default)]
pub(crate) struct CostsKept {
    newest: Mutex<Option<Arc<CostsReading>>>,
    counting: AtomicBool,
}

impl CostsKept {
    pub(crate) fn get(&self) -> Option<Arc<CostsReading>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count(&self, context: &Context, generation: u64) -> Result<Arc<CostsReading>> {
        if let Some(kept) = self.get().filter(|kept| kept.generation == generation) {
            return Ok(kept);
        }
        let stats = stats(context)?;
        let unique = stats.snapshots.iter().map(|size| (uuid(size.listed.snapshot.id), size.unique_stored)).collect();
        let reading = Arc::new(CostsReading { generation, stats, unique });
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&reading));
        Ok(reading)
    }

    /// At most one count at a time; the next request for figures asks again.
    pub(crate) fn in_background(&self, count: impl FnOnce() + Send + 'static) {
        if !self.counting.swap(true, Ordering::AcqRel) {
            std::thread::spawn(count);
        }
    }

    /// The next one may begin.
    pub(crate) fn counted(&self) {
        self.counting.store(false, Ordering::Release);
    }
}

impl CostsReading {
    pub(crate) fn sums(&self) -> Costs {
        Costs {
            stored: self.stats.stored,
            saved_by_deduplication: self.stats.saved_by_deduplication,
            saved_by_deltas: self.stats.saved_by_deltas,
            saved_by_compression: self.stats.saved_by_compression,
        }
    }
}
