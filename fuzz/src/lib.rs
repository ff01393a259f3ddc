//! Fuzz targets as ordinary functions: each takes any bytes and panics when a promise is broken. What a
//! decoder says about bytes that mean nothing is an error; what it must never do is panic, hang, take memory
//! that the bytes do not pay for, or believe them.
//!
//! `tests/replay.rs` runs every target over its corpus and over a fixed budget of mutations; `README.md` says
//! how a real fuzzing run starts.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bundles;
pub mod cutter;
pub mod formats;
pub mod journal;
pub mod manifests;
pub mod mutation;
pub mod objects;
pub mod operations;
pub mod tampering;
pub mod world;

/// One target.
pub struct Target {
    /// Its name: that of its corpus folder and of its program for a fuzzing engine.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs that get deep into it, to mutate.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations of the usual test run.
    pub budget: u64,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "envelope", run: formats::envelope, seeds: formats::envelope_seeds, budget: 20_000 },
    Target { name: "index_block", run: formats::index_block, seeds: formats::index_block_seeds, budget: 20_000 },
    Target { name: "record", run: formats::record, seeds: formats::record_seeds, budget: 6_000 },
    Target { name: "config", run: objects::config, seeds: objects::config_seeds, budget: 1_500 },
    Target { name: "key_slot", run: objects::key_slot, seeds: objects::key_slot_seeds, budget: 1_500 },
    Target { name: "pack", run: objects::pack, seeds: objects::pack_seeds, budget: 1_500 },
    Target { name: "index", run: objects::index, seeds: objects::index_seeds, budget: 1_500 },
    Target { name: "root", run: objects::root, seeds: objects::root_seeds, budget: 1_500 },
    Target { name: "label", run: objects::label, seeds: objects::label_seeds, budget: 1_500 },
    Target { name: "condemned", run: objects::condemned, seeds: objects::condemned_seeds, budget: 1_500 },
    Target { name: "parity", run: objects::parity, seeds: objects::parity_seeds, budget: 800 },
    Target { name: "session", run: objects::session, seeds: objects::session_seeds, budget: 500 },
    Target { name: "tree_node", run: manifests::tree_node, seeds: manifests::tree_node_seeds, budget: 20_000 },
    Target { name: "snapshot", run: manifests::snapshot, seeds: manifests::snapshot_seeds, budget: 20_000 },
    Target { name: "entry_path", run: manifests::entry_path, seeds: manifests::entry_path_seeds, budget: 20_000 },
    Target { name: "deploy_journal", run: journal::deploy_journal, seeds: journal::seeds, budget: 150 },
    Target { name: "bundle", run: bundles::native, seeds: bundles::native_seeds, budget: 1_000 },
    Target { name: "hub_tar", run: bundles::hub_tar, seeds: bundles::hub_tar_seeds, budget: 3_000 },
    Target { name: "cutter", run: cutter::cutter, seeds: cutter::seeds, budget: 300 },
    Target { name: "tampering", run: tampering::tampering, seeds: tampering::seeds, budget: 1_500 },
    Target { name: "operations", run: operations::operations, seeds: operations::seeds, budget: 40 },
];
