//! The cutter: the same cuts however the bytes come, and whoever cuts which segment.

use copal_chunker::{Cut, Cutter, HARD_CONTEXT_BYTES, Rule, Sizes, WINDOW_BYTES};
use copal_sim::{Choices, noise};

/// The first 16 bytes choose rule, sizes, secret and the splitting; the others are cut, repeated a while.
pub fn cutter(data: &[u8]) {
    let Some((head, bytes)) = data.split_first_chunk::<16>() else { return };
    let mut choices = Choices::new(u64::from_le_bytes([head[0], head[1], head[2], head[3], head[4], head[5], 0, 0]));
    let rule = if head[6] % 2 == 0 { Rule::AesWindow } else { Rule::FastCdc2020 };
    let average = 256u32 << (head[7] % 6);
    let sizes = Sizes { min: average / 2, average, max: average * 2 };
    let Ok(cutter) = Cutter::new(rule, sizes, &[head[8]; 32]) else { return };
    let mut text = Vec::new();
    for round in 0..1 + head[9] % 8 {
        text.extend_from_slice(bytes);
        text.extend_from_slice(&noise(u64::from(round), usize::from(head[10]) * 64));
    }
    let mut whole = Vec::new();
    let mut run = cutter.start();
    run.feed(&text, &mut whole);
    run.finish(&mut whole);
    check(&text, &whole, sizes);
    let mut pieces = Vec::new();
    let mut run = cutter.start();
    let mut rest = text.as_slice();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(choices.below(1 + u64::from(head[11]) * 40) as usize));
        run.feed(piece, &mut pieces);
        rest = if piece.is_empty() { rest } else { after };
        if piece.is_empty() {
            let (one, after) = rest.split_at(1);
            run.feed(one, &mut pieces);
            rest = after;
        }
    }
    run.finish(&mut pieces);
    assert_eq!(whole, pieces, "other cuts when the bytes come in other pieces");
    if cutter.has_hard_cuts() && !text.is_empty() {
        by_segments(&cutter, &text, &whole, choices.below(text.len() as u64) as usize);
    }
}

fn check(text: &[u8], cuts: &[Cut], sizes: Sizes) {
    let mut before = 0;
    for cut in cuts {
        assert!(cut.offset > before && cut.offset - before <= u64::from(sizes.max), "a chunk of no or too many bytes");
        before = cut.offset;
    }
    assert_eq!(before, text.len() as u64, "the last cut is the end");
}

/// From the first hard cut after any place on, the cuts are those of the whole.
fn by_segments(cutter: &Cutter, text: &[u8], whole: &[Cut], place: usize) {
    let from = place.saturating_sub(HARD_CONTEXT_BYTES);
    let Some(hard) = cutter.first_hard_cut(&text[from..], place - from).map(|at| at + from) else { return };
    let mut later = Vec::new();
    let mut run = cutter.start_after(&text[hard.saturating_sub(WINDOW_BYTES)..hard]);
    run.feed(&text[hard..], &mut later);
    run.finish(&mut later);
    let moved: Vec<u64> = later.iter().map(|cut| cut.offset + hard as u64).collect();
    let expected: Vec<u64> = whole.iter().map(|cut| cut.offset).filter(|offset| *offset > hard as u64).collect();
    assert_eq!(moved, expected, "other cuts after a hard cut at {hard}");
}

/// Noise, text, zeros; each rule.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for head in 0..4u8 {
        let head = [9, 1, 2, 3, 4, head, head, head * 2, 5, 3, 40, 9, 0, 0, 0, 0];
        for bytes in [noise(2, 20_000), b"abc".repeat(3000), vec![0; 10_000]] {
            seeds.push([&head[..], &bytes].concat());
        }
    }
    seeds
}
