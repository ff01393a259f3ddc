//! Goal: every backend and every decorator keeps every promise. Method: the one suite over all of them.
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use copal_sim::{
    Disk, FaultBackend, FaultMode, MemoryBackend, Operation, Process, RecordingBackend, StaleBackend, Troubles,
    conformance,
};
use copal_store::backend::{Backend, ObjectKind, ObjectName, publish_bytes};
use copal_store::local::LocalBackend;

#[test]
fn memory_conforms() {
    conformance::check(&|| Arc::new(MemoryBackend::new()));
}

#[test]
fn local_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let made = AtomicU64::new(0);
    conformance::check(&|| {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Arc::new(LocalBackend::new(&folder.path().join(format!("new/{number}"))))
    });
}

#[test]
fn local_conforms_on_the_simulated_disk() {
    conformance::check(&|| Arc::new(LocalBackend::on(Path::new("/new"), Process::new(&Disk::new()).files())));
}

/// Reads and writes that are cut short are no errors: the rest is asked for.
#[test]
fn local_conforms_where_every_transfer_is_short() {
    conformance::check(&|| {
        let process = Process::new(&Disk::new());
        process.trouble(Troubles { short: 2, ..Troubles::default() }, 1);
        Arc::new(LocalBackend::on(Path::new("/above/new"), process.files()))
    });
}

#[test]
fn stale_without_other_writers_conforms() {
    conformance::check(&|| Arc::new(StaleBackend::without_lag(Arc::new(MemoryBackend::new()))));
}

#[test]
fn decorators_conform_one_over_the_other() {
    conformance::check(&|| {
        let local = LocalBackend::on(Path::new("/new"), Process::new(&Disk::new()).files());
        Arc::new(RecordingBackend::new(Arc::new(FaultBackend::new(Arc::new(StaleBackend::without_lag(Arc::new(
            local,
        )))))))
    });
}

#[test]
fn recording_conforms() {
    conformance::check(&|| Arc::new(RecordingBackend::new(Arc::new(MemoryBackend::new()))));
}

#[test]
fn fault_without_a_plan_conforms() {
    conformance::check(&|| Arc::new(FaultBackend::new(Arc::new(MemoryBackend::new()))));
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(ObjectKind::Pack, text).unwrap()
}

#[test]
fn a_recording_counts_operations_and_bytes() {
    let backend = RecordingBackend::new(Arc::new(MemoryBackend::new()));
    backend.prepare().unwrap();
    publish_bytes(&backend, &name("aa"), &[1; 1000]).unwrap();
    backend.read_range(&name("aa"), 10, &mut [0; 100]).unwrap();
    backend.read(&name("aa"), 1000).unwrap();
    let tally = |operation| {
        let tally = backend.tally(operation, ObjectKind::Pack);
        (tally.count, tally.bytes)
    };
    assert_eq!(tally(Operation::Publish), (1, 1000));
    assert_eq!(tally(Operation::ReadRange), (1, 100));
    assert_eq!(tally(Operation::Read), (1, 1000));
    assert_eq!(backend.tally(Operation::Read, ObjectKind::Index).count, 0);
    backend.reset();
    assert_eq!(backend.total(Operation::Publish).count, 0);
}

#[test]
fn a_fault_fails_once_or_for_good_and_can_tear_a_batch() {
    let memory = MemoryBackend::new();
    let backend = FaultBackend::new(Arc::new(memory.clone()));
    backend.prepare().unwrap();
    backend.plan(Some(Operation::Append), 2, FaultMode::FailOnce(io::ErrorKind::StorageFull));
    publish_bytes(&backend, &name("aa"), b"first").unwrap();
    let error = publish_bytes(&backend, &name("bb"), b"second").unwrap_err();
    assert!(
        matches!(&error, copal_store::Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
    assert!(backend.has_fired());
    publish_bytes(&backend, &name("bb"), b"second").unwrap();

    backend.plan(Some(Operation::Delete), 1, FaultMode::CrashTorn);
    assert!(backend.delete(&[name("aa"), name("bb")]).is_err());
    assert!(backend.read(&name("bb"), 10).is_err(), "a dead process reads");
    let left: Vec<ObjectName> = memory.objects().into_iter().map(|object| object.name).collect();
    assert_eq!(left, [name("bb")]);
}
