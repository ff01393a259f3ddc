//! Roots and labels: canonical, bounded, versioned.
#![allow(clippy::unwrap_used)]

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{
    ComponentRecord, Consistency, HookOutcome, HookRecord, Label, LiveRecord, Origin, Phase, Snapshot, SourceKind,
    SourceRecord, is_name,
};
use copal_manifest::tree::TreeRoot;
use copal_store::{ChunkId, Error, SnapshotId};
use proptest::prelude::*;

fn snapshot() -> Snapshot {
    let source = |label: &str| SourceRecord {
        label: label.into(),
        kind: SourceKind::Tree,
        path: b"/srv/b\xffucket".to_vec(),
        tree: TreeRoot { id: ChunkId([3; 32]), height: 2 },
        files: 10,
        entries: 12,
        bytes: 1 << 40,
        device: 66,
        trusted_before: Timestamp { seconds: -5, nanoseconds: 1 },
    };
    Snapshot {
        version: 1,
        id: SnapshotId([1; 16]),
        name: "before upgrade".into(),
        app: "hub".into(),
        created: Timestamp { seconds: 1_700_000_000, nanoseconds: 17 },
        completed: Timestamp { seconds: 1_700_000_009, nanoseconds: 0 },
        phase: Phase::PartiallyFailed,
        origin: Origin::Created,
        host: "db1".into(),
        program: "0.1.0".into(),
        parent: Some(SnapshotId([2; 16])),
        sources: vec![source("bucket"), source("db")],
        tags: vec![("release".into(), "7".into())],
        pinned: true,
        bytes_read: 1,
        bytes_new: 2,
        stored_new: 3,
        chunks_new: 4,
        warnings: vec!["bucket/secret: permission denied".into()],
        live: None,
    }
}

#[test]
fn a_root_reads_as_written() {
    let snapshot = snapshot();
    assert_eq!(Snapshot::decode("root", &snapshot.encode().unwrap()).unwrap(), snapshot);
    let label = Label { version: 1, tags: snapshot.tags, pinned: true };
    assert_eq!(Label::decode("label", &label.encode().unwrap()).unwrap(), label);
}

fn live() -> LiveRecord {
    LiveRecord {
        config_version: "7".into(),
        class: "default".into(),
        trigger: "manual".into(),
        consistency: Consistency::Application,
        captured: Timestamp { seconds: 1_700_000_001, nanoseconds: 0 },
        frozen_microseconds: 900,
        safety: false,
        components: vec![ComponentRecord {
            label: "db".into(),
            service: "hub".into(),
            schema_version: Some("12".into()),
            method: "transaction".into(),
            error: None,
        }],
        hooks: vec![HookRecord {
            service: "hub".into(),
            when: "pre".into(),
            what: "/bin/true".into(),
            outcome: HookOutcome::Done,
            detail: String::new(),
            microseconds: 5,
        }],
    }
}

/// Goal: what needs version 2 says so, and nothing else does. Method: every kind of addition, written and read.
#[test]
fn databases_and_applications_need_version_two() {
    let plain = snapshot();
    assert_eq!(Snapshot::version_needed(&plain.sources, None), 1);
    assert_eq!(plain.encode().unwrap()[0], 1);
    let mut extended = Snapshot { version: 2, live: Some(live()), ..plain.clone() };
    extended.sources[1].kind = SourceKind::Sqlite;
    let payload = extended.encode().unwrap();
    assert_eq!(payload[0], 2);
    assert_eq!(Snapshot::decode("root", &payload).unwrap(), extended);
    for short in 1..payload.len() {
        assert!(Snapshot::decode("root", &payload[..short]).is_err(), "{short} bytes");
    }
    let refused = |snapshot: Snapshot| matches!(snapshot.encode(), Err(Error::Limit { .. }));
    assert!(refused(Snapshot { version: 1, ..extended.clone() }));
    assert!(refused(Snapshot { version: 1, live: Some(live()), ..plain.clone() }));
    let mut doubled = live();
    doubled.components.push(doubled.components[0].clone());
    assert!(refused(Snapshot { version: 2, live: Some(doubled), ..plain }));
}

#[test]
fn a_newer_root_is_not_damage() {
    let mut payload = snapshot().encode().unwrap();
    payload[0] = 9;
    assert!(matches!(Snapshot::decode("root", &payload), Err(Error::Unsupported { found: 9, .. })));
    assert!(matches!(Label::decode("label", &[9]), Err(Error::Unsupported { found: 9, .. })));
    assert!(matches!(Snapshot::decode("root", &[]), Err(Error::Damaged { .. })));
}

#[test]
fn what_is_out_of_bounds_is_neither_written_nor_read() {
    let spoiled: [fn(&mut Snapshot); 5] = [
        |s| s.name = "a/b".into(),
        |s| s.app = "\n".into(),
        |s| s.sources.swap(0, 1),
        |s| s.tags = vec![("b".into(), String::new()), ("a".into(), String::new())],
        |s| s.sources[0].tree.height = 17,
    ];
    for spoil in spoiled {
        let mut snapshot = snapshot();
        spoil(&mut snapshot);
        assert!(matches!(snapshot.encode(), Err(Error::Limit { .. })));
        let payload = copal_store::codec::encode(&snapshot).unwrap();
        assert!(matches!(Snapshot::decode("root", &payload), Err(Error::Damaged { .. })));
    }
}

#[test]
fn names_are_plain() {
    for good in ["a", "2026-11-21 08:00", "größe"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "a/b", "latest", " a", "a\u{7}", &"x".repeat(256)] {
        assert!(!is_name(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn mutated_roots_never_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut payload = snapshot().encode().unwrap();
        let at = place.index(payload.len());
        payload[at] = byte;
        if let Ok(read) = Snapshot::decode("root", &payload) {
            prop_assert_eq!(read.encode().unwrap(), payload.clone());
        }
        prop_assert!(Snapshot::decode("root", &payload[..cut.index(payload.len())]).is_err());
    }
}
