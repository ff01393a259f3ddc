//! Roots and labels: canonical, bounded, versioned.
#![allow(clippy::unwrap_used)]

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{
    ComponentRecord, Consistency, HookOutcome, HookRecord, Label, LiveRecord, Origin, Phase, Rule, Snapshot,
    SourceKind, SourceRecord, SourceRules, is_name,
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
        rules: Vec::new(),
        user: String::new(),
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

/// Goal: what needs version 2 says so, and nothing else does. Method: every kind of addition, written and
/// read.
#[test]
fn databases_and_applications_need_version_two() {
    let plain = snapshot();
    assert_eq!(plain.version_needed(), 1);
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

/// One of each kind.
fn rules() -> Vec<SourceRules> {
    let rules = vec![
        Rule::Exclude("node_modules/".into()),
        Rule::OneFileSystem,
        Rule::Path(b"backup".to_vec()),
        Rule::MountPoint(b"mnt/\xff".to_vec()),
    ];
    vec![SourceRules { label: "bucket".into(), rules }]
}

/// Goal: rules need version 3, and nothing without rules has it. Method: with and without a record of an
/// application.
#[test]
fn rules_need_version_three() {
    let plain = snapshot();
    for live in [None, Some(live())] {
        let ruled = Snapshot { version: 3, live: live.clone(), rules: rules(), ..plain.clone() };
        assert_eq!((ruled.version_needed(), ruled.version_to_write()), (3, 4));
        let payload = ruled.encode().unwrap();
        assert_eq!(payload[0], 3);
        let found = Snapshot::decode("root", &payload).unwrap();
        assert_eq!((&found, found.rules_of("bucket").len(), found.rules_of("db").len()), (&ruled, 4, 0));
        for short in 1..payload.len() {
            assert!(Snapshot::decode("root", &payload[..short]).is_err(), "{short} bytes");
        }
        assert!(matches!(Snapshot { version: 2, ..ruled }.encode(), Err(Error::Limit { .. })));
    }
    let spoiled: [fn(&mut Vec<SourceRules>); 6] = [
        |rules| rules[0].label = "another".into(),
        |rules| rules[0].rules.clear(),
        |rules| rules.push(rules[0].clone()),
        |rules| rules[0].rules.push(Rule::Path(Vec::new())),
        |rules| rules[0].rules.push(Rule::Exclude("x".repeat(4097))),
        |rules| rules[0].rules = vec![Rule::OneFileSystem; 65_537],
    ];
    for spoil in spoiled {
        let mut snapshot = Snapshot { version: 3, rules: rules(), ..plain.clone() };
        spoil(&mut snapshot.rules);
        assert!(matches!(snapshot.encode(), Err(Error::Limit { .. })));
    }
}

/// Goal: the page says what is written. Method: the example's hexadecimal digits are those of a payload that
/// is made here.
#[test]
fn the_page_shows_the_rules_of_version_three() {
    let plain = snapshot();
    let ruled = Snapshot { version: 3, rules: rules(), ..plain.clone() };
    let (ruled, plain) =
        (ruled.encode().unwrap(), Snapshot { version: 2, live: Some(live()), ..plain }.encode().unwrap());
    let fixed = Snapshot::decode("root", &plain).unwrap();
    let before = Snapshot { version: 1, live: None, ..fixed }.encode().unwrap();
    assert_eq!(&ruled[1..before.len()], &before[1..]);
    let dump: String = ruled[before.len()..].iter().map(|byte| format!("{byte:02x}")).collect();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format/snapshot-root.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&dump), "docs/format/snapshot-root.md should say {dump}");
}

/// Goal: a user needs version 5, and nothing without one has it; the page says what is written. Method: with
/// and without what else a snapshot may have; the example's digits.
#[test]
fn a_user_needs_version_five() {
    let plain = snapshot();
    for (live, rules) in [(None, Vec::new()), (Some(live()), Vec::new()), (Some(live()), rules())] {
        let named = Snapshot { version: 5, live, rules, user: "alice".into(), ..plain.clone() };
        assert_eq!((named.version_needed(), named.version_to_write()), (5, 5));
        let payload = named.encode().unwrap();
        assert_eq!(payload[0], 5);
        assert_eq!(Snapshot::decode("root", &payload).unwrap(), named);
        for short in 1..payload.len() {
            assert!(Snapshot::decode("root", &payload[..short]).is_err(), "{short} bytes");
        }
        assert!(matches!(Snapshot { version: 4, ..named.clone() }.encode(), Err(Error::Limit { .. })));
        for spoiled in ["x".repeat(256), "a\nb".into()] {
            assert!(matches!(Snapshot { user: spoiled, ..named.clone() }.encode(), Err(Error::Limit { .. })));
        }
    }
    let named = Snapshot { version: 5, user: "alice".into(), ..plain.clone() };
    let (before, payload) = (plain.encode().unwrap(), named.encode().unwrap());
    assert_eq!(&payload[1..before.len()], &before[1..]);
    let dump: String = payload[before.len()..].iter().map(|byte| format!("{byte:02x}")).collect();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format/snapshot-root.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&dump), "docs/format/snapshot-root.md should say {dump}");
}

/// Goal: rules that came with version 5 need it, and the page says how they are written. Method: one of
/// each, with lower versions and out of bounds; the page's digits.
#[test]
fn the_rules_of_version_five_need_it() {
    let rules = vec![
        Rule::Beside { name: b"CACHEDIR.TAG".to_vec(), begins: b"Sig".to_vec() },
        Rule::LargerThan(1 << 20),
        Rule::Unnamed,
        Rule::Named(b"a/b".to_vec()),
    ];
    let of = |rules: Vec<Rule>| vec![SourceRules { label: "bucket".into(), rules }];
    let plain = Snapshot { user: String::new(), ..snapshot() };
    for rule in &rules {
        let ruled = Snapshot { rules: of(vec![rule.clone()]), ..plain.clone() };
        assert_eq!((ruled.version_needed(), ruled.version_to_write()), (5, 5), "{rule:?}");
        assert!(matches!(Snapshot { version: 4, ..ruled }.encode(), Err(Error::Limit { .. })), "{rule:?}");
    }
    let whole = Snapshot { version: 5, rules: of(rules), ..plain.clone() };
    let payload = whole.encode().unwrap();
    assert_eq!(Snapshot::decode("root", &payload).unwrap(), whole);
    let before = Snapshot { version: 1, live: None, rules: Vec::new(), ..plain.clone() }.encode().unwrap();
    let dump: String = payload[before.len()..].iter().map(|byte| format!("{byte:02x}")).collect();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format/snapshot-root.md");
    assert!(std::fs::read_to_string(page).unwrap().contains(&dump), "docs/format/snapshot-root.md should say {dump}");
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
        let rule = Rule::Beside { name: name.to_vec(), begins: Vec::new() };
        let spoiled = Snapshot { version: 5, rules: of(vec![rule]), ..plain.clone() };
        assert!(matches!(spoiled.encode(), Err(Error::Limit { .. })), "{name:?}");
    }
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
        let sound = snapshot().encode().unwrap();
        let mut payload = sound.clone();
        let at = place.index(payload.len());
        payload[at] = byte;
        if let Ok(read) = Snapshot::decode("root", &payload) {
            prop_assert_eq!(read.encode().unwrap(), payload.clone());
        }
        // Of the sound one: a changed length can make a whole payload of a part of the other.
        prop_assert!(Snapshot::decode("root", &sound[..cut.index(sound.len())]).is_err());
    }
}
