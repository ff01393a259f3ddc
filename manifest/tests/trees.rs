//! The tree of entries against a sorted map as model, and what operations on it cost in node reads.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::tree::{
    Change, NodeShape, Outline, Reference, TreeBuilder, TreeReader, TreeRoot, diff, references,
};
use copal_store::{ChunkId, Error};
use proptest::prelude::*;
use support::{BOUNDARY_KEY, Nodes, build, file, metadata, path};

fn names(count: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..count).map(|i| file(&format!("d{:03}/file{:05}", i % 97, i), i as u64)).collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn kinds() -> impl Strategy<Value = Node> {
    prop_oneof![
        Just(Node::Directory),
        Just(Node::Fifo),
        Just(Node::Socket),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::CharDevice { major, minor }),
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| Node::BlockDevice { major, minor }),
        proptest::collection::vec(1u8..=255, 1..40).prop_map(|target| Node::Symlink(target.into())),
        any::<u64>().prop_map(|version| file("x", version).node),
    ]
}

prop_compose! {
    fn entries()(map in proptest::collection::btree_map(
        proptest::collection::vec("[a-c\u{e9}]{1,3}", 1..4), (kinds(), any::<u32>()), 0..900)
    ) -> BTreeMap<EntryPath, Entry> {
        map.into_iter().map(|(names, (node, number))| {
            let path = path(&names.join("/"));
            (path.clone(), Entry { path, metadata: metadata(number.into()), node })
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_holds_what_was_put_in(entries in entries(), wanted in "[a-c]{1,3}") {
        let nodes = Nodes::default();
        let all: Vec<Entry> = entries.values().cloned().collect();
        let tree = TreeReader::new(&nodes, build(&nodes, &all));
        prop_assert_eq!(&tree.entries().collect::<Result<Vec<_>, _>>().unwrap(), &all);
        let wanted = path(&wanted);
        let found = tree.get(&wanted).unwrap();
        prop_assert_eq!(found.as_ref(), entries.get(&wanted));
        let after: Vec<Entry> = entries.range(wanted.clone()..).map(|(_, entry)| entry.clone()).collect();
        prop_assert_eq!(tree.entries_from(&wanted).collect::<Result<Vec<_>, _>>().unwrap(), after);
    }

    #[test]
    fn differences_are_those_of_the_maps(a in entries(), b in entries(), shared in entries()) {
        let nodes = Nodes::default();
        let join = |own: &BTreeMap<EntryPath, Entry>| {
            let mut all = shared.clone();
            all.extend(own.clone());
            all
        };
        let (a, b) = (join(&a), join(&b));
        let [root_a, root_b] = [&a, &b].map(|map| build(&nodes, &map.values().cloned().collect::<Vec<_>>()));
        let mut expected = Vec::new();
        for key in a.keys().chain(b.keys()).collect::<std::collections::BTreeSet<_>>() {
            match (a.get(key), b.get(key)) {
                (Some(entry), None) => expected.push(Change::Removed(entry.clone())),
                (None, Some(entry)) => expected.push(Change::Added(entry.clone())),
                (Some(before), Some(after)) if before.node != after.node
                    || Entry { metadata: after.metadata.clone(), ..before.clone() } != *after
                    || (before.metadata.modified, before.metadata.gid, &before.metadata.xattrs)
                        != (after.metadata.modified, after.metadata.gid, &after.metadata.xattrs) =>
                    expected.push(Change::Changed { before: before.clone(), after: after.clone() }),
                _ => {}
            }
        }
        prop_assert_eq!(diff(&nodes, root_a, &nodes, root_b).collect::<Result<Vec<_>, _>>().unwrap(), expected);
    }

    #[test]
    fn mutated_nodes_never_panic_and_never_read_as_another_spelling(seed in any::<u64>(), place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let nodes = Nodes::default();
        let entries: Vec<Entry> = (0..60).map(|i| file(&format!("f{i:02}"), seed.wrapping_add(i) % 1000)).collect();
        let root = build(&nodes, &entries);
        for (id, mut bytes) in nodes.all() {
            let at = place.index(bytes.len());
            bytes[at] = byte;
            nodes.replace(id, bytes.clone());
            let reader = TreeReader::new(&nodes, root);
            if let Ok(read) = reader.entries().collect::<Result<Vec<_>, _>>() {
                let again = Nodes::default();
                build(&again, &read);
                prop_assert!(again.all().iter().any(|(_, node)| *node == bytes));
            }
            let _ = references(&bytes, NodeShape::Entries(0), &mut |_| {});
            let _ = references(&bytes, NodeShape::Entries(1), &mut |_| {});
            let _ = references(&bytes, NodeShape::Pieces(0), &mut |_| {});
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for shape in [NodeShape::Entries(0), NodeShape::Entries(1), NodeShape::Pieces(0), NodeShape::Pieces(3)] {
            for kind in [b'E', b'P'] {
                let height = match shape { NodeShape::Entries(height) | NodeShape::Pieces(height) => height };
                let with_head = [&[1, kind, height], bytes.as_slice()].concat();
                let _ = references(&with_head, shape, &mut |_| {});
            }
        }
    }
}

#[test]
fn the_empty_tree_is_empty() {
    let nodes = Nodes::default();
    let root = build(&nodes, &[]);
    assert_eq!(root.height, 0);
    assert_eq!(TreeReader::new(&nodes, root).entries().count(), 0);
    let some = build(&nodes, &[file("a", 1)]);
    assert_eq!(diff(&nodes, root, &nodes, some).count(), 1);
}

#[test]
fn a_change_rewrites_one_node_of_each_level() {
    let nodes = Nodes::default();
    let mut entries = names(50_000);
    let first = build(&nodes, &entries);
    let before = nodes.count();
    entries[25_000] = Entry { path: entries[25_000].path.clone(), ..file("x", 777_777) };
    let second = build(&nodes, &entries);
    let written = nodes.count() - before;
    assert_eq!(written, usize::from(first.height) + 1);
    entries.remove(10_000);
    let before = nodes.count();
    let third = build(&nodes, &entries);
    assert!(nodes.count() - before <= 2 * (usize::from(second.height) + 1), "{}", nodes.count() - before);
    let (changes, reads) =
        nodes.reads_of(|| diff(&nodes, first, &nodes, third).collect::<Result<Vec<_>, _>>().unwrap());
    assert_eq!(changes.len(), 2);
    assert!(reads <= 4 * 2 * (usize::from(first.height) + 1), "{reads}");
    let (_, reads) = nodes.reads_of(|| diff(&nodes, third, &nodes, third).count());
    assert_eq!(reads, 0);
}

#[test]
fn the_tree_does_not_remember_how_it_came_about() {
    let nodes = Nodes::default();
    let entries = names(20_000);
    let whole = build(&nodes, &entries);
    let fewer: Vec<Entry> = entries.iter().step_by(2).cloned().collect();
    build(&nodes, &fewer);
    assert_eq!(build(&nodes, &entries), whole);
}

#[test]
fn a_lookup_reads_one_node_of_each_level() {
    let nodes = Nodes::default();
    let entries = names(100_000);
    let root = build(&nodes, &entries);
    let reader = TreeReader::new(&nodes, root);
    for entry in entries.iter().step_by(9_973) {
        let (found, reads) = nodes.reads_of(|| reader.get(&entry.path).unwrap());
        assert_eq!(found.as_ref(), Some(entry));
        assert!(reads <= usize::from(root.height) + 1, "{reads}");
    }
    let mut iterator = reader.entries();
    let far = &entries[90_000].path;
    let (_, reads) = nodes.reads_of(|| iterator.seek(far).unwrap());
    assert!(reads <= usize::from(root.height) + 1, "{reads}");
    assert_eq!(iterator.next().unwrap().unwrap().path, *far);
}

#[test]
fn references_name_every_node_and_chunk() {
    let nodes = Nodes::default();
    let entries = names(3_000);
    let root = build(&nodes, &entries);
    let mut pending = vec![(root.id, NodeShape::Entries(root.height))];
    let (mut seen, mut chunks) = (0, 0);
    while let Some((id, shape)) = pending.pop() {
        seen += 1;
        let bytes = nodes.all().into_iter().find(|(node, _)| *node == id).unwrap().1;
        references(&bytes, shape, &mut |reference| match reference {
            Reference::Node { id, shape } => pending.push((id, shape)),
            Reference::Chunk(..) => chunks += 1,
        })
        .unwrap();
    }
    assert_eq!((seen, chunks), (nodes.count(), entries.len()));
}

#[test]
fn unsound_entries_are_not_written() {
    let nodes = Nodes::default();
    let mut sink = &nodes;
    let mut builder = TreeBuilder::of_loose_entries(&BOUNDARY_KEY);
    builder.push(&file("b", 1), &mut sink).unwrap();
    let not_ascending = builder.push(&file("a", 1), &mut sink);
    assert!(matches!(not_ascending, Err(Error::Limit { .. })));
    let mut odd = file("c", 1);
    odd.metadata.mode = 0o100_644;
    assert!(matches!(builder.push(&odd, &mut sink), Err(Error::Limit { .. })));
    let onward = Entry { node: Node::HardLink(path("z")), ..file("d", 1) };
    assert!(matches!(builder.push(&onward, &mut sink), Err(Error::Limit { .. })));
}

#[test]
fn a_node_in_a_wrong_place_is_damage() {
    let nodes = Nodes::default();
    let root = build(&nodes, &names(5_000));
    let other = build(&nodes, &[file("zzz", 1)]);
    let top = nodes.all().into_iter().find(|(id, _)| *id == root.id).unwrap().1;
    let mut children = Vec::new();
    references(&top, NodeShape::Entries(root.height), &mut |reference| {
        if let Reference::Node { id, .. } = reference {
            children.push(id);
        }
    })
    .unwrap();
    let stranger = nodes.all().into_iter().find(|(id, _)| *id == other.id).unwrap().1;
    nodes.replace(children[1], stranger);
    let outcome: Result<Vec<_>, _> = TreeReader::new(&nodes, root).entries().collect();
    assert!(matches!(outcome, Err(Error::Damaged { .. })), "{outcome:?}");
    nodes.remove(&children[0]);
    let outcome: Result<Vec<_>, _> = TreeReader::new(&nodes, root).entries().collect();
    assert!(matches!(outcome, Err(Error::Missing { .. })));
    let too_high = TreeRoot { height: 3, ..other };
    assert!(TreeReader::new(&nodes, too_high).entries().next().unwrap().is_err());
}

#[test]
fn a_newer_node_is_not_damage() {
    let nodes = Nodes::default();
    let root = build(&nodes, &[file("a", 1)]);
    let mut bytes = nodes.all()[0].1.clone();
    bytes[0] = 2;
    nodes.replace(root.id, bytes);
    let outcome = TreeReader::new(&nodes, root).entries().next().unwrap();
    assert!(matches!(outcome, Err(Error::Unsupported { found: 2, supported: 1, .. })), "{outcome:?}");
}

/// The outline of a whole tree, from those of its nodes.
fn outline(nodes: &Nodes, id: ChunkId, shape: NodeShape) -> Outline {
    let bytes = nodes.all().into_iter().find(|(other, _)| *other == id).unwrap().1;
    let NodeShape::Entries(1..) = shape else { return Outline::of_leaf(&bytes).unwrap() };
    let mut sum = Outline::default();
    references(&bytes, shape, &mut |reference| {
        if let Reference::Node { id, shape } = reference {
            sum.join(&outline(nodes, id, shape));
        }
    })
    .unwrap();
    sum
}

#[test]
fn t05_an_entry_without_its_folder_is_not_written_and_is_found_across_nodes() {
    let folder = |name: &str| Entry { node: Node::Directory, ..file(name, 1) };
    let check = |entries: &[Entry], missing: Option<&str>| {
        let nodes = Nodes::default();
        let tree = build(&nodes, entries);
        let found = outline(&nodes, tree.id, NodeShape::Entries(tree.height));
        assert_eq!(found.missing().map(ToString::to_string).as_deref(), missing);
        let mut sink = &nodes;
        let mut builder = TreeBuilder::new(&BOUNDARY_KEY);
        let refused = entries.iter().filter(|entry| builder.push(entry, &mut sink).is_err()).count();
        assert_eq!(refused > 0, missing.is_some());
    };
    // Enough for several nodes, with folders that are open over the ends of many.
    let sound = || {
        let mut entries = vec![folder("")];
        for outer in ["a", "b"] {
            entries.push(folder(outer));
            for inner in 0..40 {
                entries.push(folder(&format!("{outer}/{inner:02}")));
                entries.extend((0..50).map(|number| file(&format!("{outer}/{inner:02}/{number:03}"), number)));
            }
            entries.push(file(&format!("{outer}/last"), 1));
        }
        entries
    };
    check(&sound(), None);
    for gone in ["a", "a/07", "b/39", "b"] {
        let mut entries = sound();
        entries.retain(|entry| entry.path != path(gone));
        check(&entries, Some(gone));
        let mut entries = sound();
        entries.iter_mut().filter(|entry| entry.path == path(gone)).for_each(|entry| entry.node = Node::Fifo);
        check(&entries, Some(gone));
    }
}
