//! Roots and labels: canonical, bounded, versioned.
#![allow(clippy::unwrap_used)]

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Label, Origin, Phase, Snapshot, SourceKind, SourceRecord, is_name};
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
    }
}

#[test]
fn a_root_reads_as_written() {
    let snapshot = snapshot();
    assert_eq!(Snapshot::decode("root", &snapshot.encode().unwrap()).unwrap(), snapshot);
    let label = Label { version: 1, tags: snapshot.tags, pinned: true };
    assert_eq!(Label::decode("label", &label.encode().unwrap()).unwrap(), label);
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
