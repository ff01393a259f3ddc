//! Goal: cuts depend on content and secret only. Method: one stream cut in many ways gives one answer; golden
//! answers pin it.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use copal_chunker::{Cut, Cutter, HARD_CONTEXT_BYTES, Rule, Sizes, WINDOW_BYTES, looks_page_structured};
use proptest::prelude::*;

const SIZES: Sizes = Sizes { min: 32 << 10, average: 64 << 10, max: 128 << 10 };
const RULES: [Rule; 2] = [Rule::AesWindow, Rule::FastCdc2020];

fn cutter(rule: Rule) -> Cutter {
    Cutter::new(rule, SIZES, &[3; 32]).unwrap()
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn cuts_of(cutter: &Cutter, bytes: &[u8]) -> Vec<Cut> {
    let (mut run, mut cuts) = (cutter.start(), Vec::new());
    run.feed(bytes, &mut cuts);
    run.finish(&mut cuts);
    cuts
}

fn chunks<'b>(cutter: &Cutter, bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut begin = 0;
    cuts_of(cutter, bytes)
        .iter()
        .map(|cut| {
            let chunk = &bytes[begin..cut.offset as usize];
            begin = cut.offset as usize;
            chunk
        })
        .collect()
}

#[test]
fn the_pieces_in_which_bytes_come_do_not_matter() {
    let bytes = noise(1, 3 << 20);
    for rule in RULES {
        let cutter = cutter(rule);
        let whole = cuts_of(&cutter, &bytes);
        for piece in [1usize, 7, 15, 16, 17, 4096, 100_003, 1 << 20] {
            let (mut run, mut cuts) = (cutter.start(), Vec::new());
            let length = if piece == 1 { 300_000 } else { bytes.len() };
            bytes[..length].chunks(piece).for_each(|piece| run.feed(piece, &mut cuts));
            run.finish(&mut cuts);
            let expected = if piece == 1 { cuts_of(&cutter, &bytes[..length]) } else { whole.clone() };
            assert_eq!(cuts, expected, "{rule:?} in pieces of {piece}");
        }
    }
}

#[test]
fn lengths_stay_within_limits_and_near_the_mean() {
    let bytes = noise(2, 24 << 20);
    for rule in RULES {
        let cutter = cutter(rule);
        let cuts = cuts_of(&cutter, &bytes);
        assert_eq!(cuts.last().unwrap().offset, bytes.len() as u64);
        let mut before = Cut { offset: 0, hard: true };
        for cut in &cuts[..cuts.len() - 1] {
            let length = cut.offset - before.offset;
            assert!(length <= u64::from(SIZES.max), "{rule:?}: {length}");
            assert!(cut.hard || length >= u64::from(SIZES.min), "{rule:?}: {length}");
            before = *cut;
        }
        let mean = bytes.len() / cuts.len();
        assert!((48 << 10..96 << 10).contains(&mean), "{rule:?}: the mean is {mean}");
    }
}

#[test]
fn an_insertion_at_the_front_changes_few_chunks() {
    let bytes = noise(3, 16 << 20);
    for rule in RULES {
        let cutter = cutter(rule);
        let before: HashSet<&[u8]> = chunks(&cutter, &bytes).into_iter().collect();
        let shifted = [b"x", &bytes[..]].concat();
        let new = chunks(&cutter, &shifted).into_iter().filter(|chunk| !before.contains(chunk)).count();
        assert!(new <= 6, "{rule:?}: {new} new chunks");
    }
}

#[test]
fn secrets_decide() {
    let bytes = noise(4, 4 << 20);
    for rule in RULES {
        let places = |secret: u8| -> HashSet<u64> {
            let cutter = Cutter::new(rule, SIZES, &[secret; 32]).unwrap();
            cuts_of(&cutter, &bytes).iter().map(|cut| cut.offset).collect()
        };
        let (one, other) = (places(1), places(2));
        assert!(one.intersection(&other).count() <= 2, "{rule:?}: only the end is common");
    }
}

#[test]
fn poor_content_is_not_cut_to_dust() {
    for period in [1usize, 2, 3, 8, 17, 512, 4095, 5000] {
        let unit = noise(5, period);
        let bytes: Vec<u8> = unit.iter().copied().cycle().take(4 << 20).collect();
        for secret in 0..4 {
            for rule in RULES {
                let cuts = cuts_of(&Cutter::new(rule, SIZES, &[secret; 32]).unwrap(), &bytes);
                assert!(cuts.len() <= (4 << 20) / 4096 + 2, "{rule:?}, period {period}: {} cuts", cuts.len());
            }
        }
    }
}

/// Cuts a file as several threads would: each begins at the first hard cut in its segment and ends at the
/// first in the next.
fn cut_in_segments(cutter: &Cutter, bytes: &[u8], segment: usize) -> Vec<u64> {
    let begin_of = |from: usize| if from == 0 { Some(0) } else { cutter.first_hard_cut(bytes, from) };
    let mut all = Vec::new();
    for from in (0..bytes.len()).step_by(segment) {
        let Some(begin) = begin_of(from).filter(|begin| *begin < from + segment) else { continue };
        let end = begin_of(from + segment).unwrap_or(bytes.len());
        let before = &bytes[begin.saturating_sub(WINDOW_BYTES)..begin];
        let (mut run, mut cuts) = (cutter.start_after(before), Vec::new());
        run.feed(&bytes[begin..end], &mut cuts);
        run.finish(&mut cuts);
        all.extend(cuts.iter().map(|cut| cut.offset + begin as u64));
    }
    all
}

#[test]
fn segments_cut_apart_give_the_cuts_of_one_run() {
    let bytes = noise(6, 12 << 20);
    let cutter = cutter(Rule::AesWindow);
    let serial: Vec<u64> = cuts_of(&cutter, &bytes).iter().map(|cut| cut.offset).collect();
    assert!(cuts_of(&cutter, &bytes).iter().filter(|cut| cut.hard).count() > 8);
    for segment in [2 << 20, 3_000_001, 5 << 20, 20 << 20] {
        assert_eq!(cut_in_segments(&cutter, &bytes, segment), serial, "segments of {segment}");
    }
}

#[test]
fn a_hard_cut_is_found_with_its_context_only() {
    let bytes = noise(7, 8 << 20);
    let cutter = cutter(Rule::AesWindow);
    for cut in cuts_of(&cutter, &bytes).iter().filter(|cut| cut.hard) {
        let place = cut.offset as usize;
        let begin = place.saturating_sub(HARD_CONTEXT_BYTES);
        assert_eq!(cutter.first_hard_cut(&bytes[begin..], place - begin), Some(place - begin));
    }
}

#[test]
fn cuts_have_golden_answers() {
    let bytes = noise(8, 1 << 20);
    let text: String = RULES
        .iter()
        .map(|rule| {
            let cuts: Vec<String> = cuts_of(&cutter(*rule), &bytes).iter().map(|cut| cut.offset.to_string()).collect();
            format!("{rule:?}: {}\n", cuts.join(" "))
        })
        .collect();
    assert_eq!(text, include_str!("golden_cuts.txt"));
}

#[test]
fn sizes_outside_the_limits_are_refused() {
    for (min, average, max) in [(0, 64, 128), (64, 100, 128), (512, 256, 1024), (64, 256, 9 << 20), (256, 512, 300)] {
        for rule in RULES {
            assert!(Cutter::new(rule, Sizes { min, average, max }, &[0; 32]).is_err());
        }
    }
}

#[test]
fn page_structured_files_are_known_by_their_content() {
    let with = |offset: usize, magic: &[u8]| {
        let mut head = vec![0; 70_000];
        head[offset..offset + magic.len()].copy_from_slice(magic);
        head
    };
    for head in [with(0, b"SQLite format 3\0"), with(0x438, b"\x53\xef"), with(0x10040, b"_BHRfS_M"), with(0, b"XFSB")]
    {
        assert!(looks_page_structured(&head));
    }
    let mut page = vec![0u8; 8192];
    page[12..20].copy_from_slice(&[40, 0, 0, 30, 0, 32, 4, 32]);
    assert!(looks_page_structured(&page.repeat(3)));
    for head in [noise(9, 70_000), vec![0; 70_000], b"plain text".repeat(900), Vec::new(), vec![b'x'; 600]] {
        assert!(!looks_page_structured(&head));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_split_of_any_bytes(seed in 0u64..1000, pieces in prop::collection::vec(1usize..3000, 1..40), period in 1usize..5000) {
        let sizes = Sizes { min: 64, average: 256, max: 1024 };
        let total: usize = pieces.iter().sum();
        let bytes: Vec<u8> = noise(seed, period).into_iter().cycle().take(total).collect();
        for rule in RULES {
            let cutter = Cutter::new(rule, sizes, &[9; 32]).unwrap();
            let (mut run, mut cuts, mut at) = (cutter.start(), Vec::new(), 0);
            for piece in &pieces {
                run.feed(&bytes[at..at + piece], &mut cuts);
                at += piece;
            }
            run.finish(&mut cuts);
            prop_assert_eq!(cuts, cuts_of(&cutter, &bytes));
        }
    }
}
