//! Lists of pieces against plain vectors as model, and what comparing them costs.
#![allow(clippy::unwrap_used)]

mod support;

use copal_manifest::content::{INLINE_PIECES_MAX, Piece, Pieces, PlacedPiece};
use proptest::prelude::*;
use support::{Nodes, chunk, list};

fn placed(pieces: &[Piece]) -> Vec<PlacedPiece> {
    let mut offset = 0;
    pieces
        .iter()
        .map(|piece| {
            let placed = PlacedPiece { offset, piece: *piece };
            offset += piece.bytes();
            placed
        })
        .collect()
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        8 => (0u64..5000, 1u32..100_000).prop_map(|(number, bytes)| match chunk(number) {
            Piece::Chunk { id, .. } => Piece::Chunk { id, bytes },
            hole => hole,
        }),
        1 => (1u64..1 << 40).prop_map(|bytes| Piece::Hole { bytes }),
    ];
    proptest::collection::vec(piece, 0..2500).prop_map(|mut list| {
        list.dedup_by(|a, b| matches!((a, b), (Piece::Hole { .. }, Piece::Hole { .. })));
        list
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_list_holds_what_was_put_in(model in pieces(), from in 0u64..200_000_000, length in 0u64..10_000_000) {
        let nodes = Nodes::default();
        let content = list(&nodes, &model);
        prop_assert_eq!(content.bytes, model.iter().map(Piece::bytes).sum::<u64>());
        prop_assert_eq!(matches!(content.pieces, Pieces::Inline(_)), model.len() <= INLINE_PIECES_MAX);
        let all = content.pieces(&nodes, 0, content.bytes).collect::<Result<Vec<_>, _>>().unwrap();
        prop_assert_eq!(&all, &placed(&model));
        let to = from + length;
        let part = content.pieces(&nodes, from, to).collect::<Result<Vec<_>, _>>().unwrap();
        let expected: Vec<_> =
            placed(&model).into_iter().filter(|p| p.offset < to && p.offset + p.piece.bytes() > from).collect();
        prop_assert_eq!(part, expected);
    }

    #[test]
    fn changed_pieces_are_those_that_differ_in_place(a in pieces(), b in pieces(), cut in any::<prop::sample::Index>()) {
        let nodes = Nodes::default();
        // The second list shares a beginning with the first.
        let shared = &a[..cut.index(a.len() + 1)];
        let mut b: Vec<Piece> = shared.iter().copied().chain(b).collect();
        b.dedup_by(|a, b| matches!((a, b), (Piece::Hole { .. }, Piece::Hole { .. })));
        let (old, new) = (list(&nodes, &a), list(&nodes, &b));
        let changed = new.changed_pieces(&old, &nodes).collect::<Result<Vec<_>, _>>().unwrap();
        let before = placed(&a);
        let expected: Vec<_> = placed(&b).into_iter().filter(|piece| !before.contains(piece)).collect();
        prop_assert_eq!(changed, expected);
    }
}

#[test]
fn neighbouring_holes_are_one() {
    let nodes = Nodes::default();
    let content =
        list(&nodes, &[Piece::Hole { bytes: 5 }, Piece::Hole { bytes: 7 }, chunk(1), Piece::Hole { bytes: 1 }]);
    let expected = vec![Piece::Hole { bytes: 12 }, chunk(1), Piece::Hole { bytes: 1 }];
    assert_eq!(content.pieces, Pieces::Inline(expected));
}

#[test]
fn one_changed_chunk_of_a_million_costs_a_path() {
    let nodes = Nodes::default();
    let mut pieces: Vec<Piece> = (0..1_000_000).map(chunk).collect();
    let old = list(&nodes, &pieces);
    let before = nodes.count();
    pieces[400_000] = chunk(5_000_000);
    let new = list(&nodes, &pieces);
    let Pieces::Tree(tree) = new.pieces else { panic!("a long list is a tree") };
    let levels = usize::from(tree.height) + 1;
    assert!(nodes.count() - before <= 2 * levels, "{} nodes written", nodes.count() - before);
    let (changed, reads) = nodes.reads_of(|| new.changed_pieces(&old, &nodes).collect::<Result<Vec<_>, _>>().unwrap());
    assert_eq!(changed, [PlacedPiece { offset: 400_000 * 65536, piece: chunk(5_000_000) }]);
    assert!(reads <= 4 * levels, "{reads} nodes read");
}

#[test]
fn the_pieces_of_many_ranges_read_no_node_twice() {
    let nodes = Nodes::default();
    let content = list(&nodes, &(0..100_000).map(chunk).collect::<Vec<_>>());
    let ranges = (0..1000u64).map(|number| number * 100 * 65536 + 5..number * 100 * 65536 + 65537);
    let ((), all) = nodes.reads_of(|| assert_eq!(content.pieces(&nodes, 0, u64::MAX).count(), 100_000));
    let (found, reads) =
        nodes.reads_of(|| content.pieces_of_ranges(&nodes, ranges.clone()).collect::<Result<Vec<_>, _>>().unwrap());
    assert!(reads <= all, "{reads} nodes read, of {all}");
    let wanted = ranges.flat_map(|range| {
        let first = range.start / 65536;
        [first, first + 1].map(|number| PlacedPiece { offset: number * 65536, piece: chunk(number) })
    });
    assert_eq!(found, wanted.collect::<Vec<_>>());
    // What lies between is not read.
    let few = [10 * 65536..11 * 65536, 90_000 * 65536..90_001 * 65536];
    let (found, reads) = nodes.reads_of(|| content.pieces_of_ranges(&nodes, few.into_iter()).count());
    assert!(found == 2 && reads <= 8, "{found} pieces, {reads} nodes read");
}

#[test]
fn an_insertion_keeps_the_nodes_behind_it() {
    let nodes = Nodes::default();
    let pieces: Vec<Piece> = (0..100_000).map(chunk).collect();
    list(&nodes, &pieces);
    let before = nodes.count();
    let shifted: Vec<Piece> = std::iter::once(chunk(777_777)).chain(pieces).collect();
    list(&nodes, &shifted);
    assert!(nodes.count() - before <= 8, "{} nodes written", nodes.count() - before);
}

#[test]
fn repeated_chunks_make_bounded_nodes() {
    let nodes = Nodes::default();
    let content = list(&nodes, &vec![chunk(1); 100_000]);
    assert_eq!(content.pieces(&nodes, 0, u64::MAX).count(), 100_000);
    assert!(nodes.count() < 20, "equal nodes are one: {}", nodes.count());
}
