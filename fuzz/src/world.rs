//! What operations need, around a repository in memory: a clock that stands still, no caches, one thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use copal_engine::context::SilentMonitor;
use copal_engine::{Clock, Context};
use copal_manifest::entry::Timestamp;
use copal_sim::world::{credential, options};
use copal_sim::{MemoryBackend, SeededEntropy};
use copal_store::repository::Repository;

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: 1_700_000_000, nanoseconds: 0 }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        0
    }
}

/// With a fresh repository and a folder for local state.
#[must_use]
pub fn context(state: &Path) -> Context {
    let entropy = Arc::new(SeededEntropy::new(1));
    let repository = Repository::init(Arc::new(MemoryBackend::new()), entropy, &credential(), &options());
    Context {
        repository: repository.expect("a repository can be made"),
        clock: Arc::new(Still),
        monitor: Arc::new(SilentMonitor),
        cache_folder: None,
        memory: None,
        state_folder: Some(state.to_owned()),
        own_places: Vec::new(),
        interrupt: Arc::new(AtomicBool::new(false)),
        threads: 1,
        host: "here".into(),
        user: String::new(),
        program: "fuzz".into(),
    }
}
