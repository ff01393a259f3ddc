//! Goal: comments and prose can be read beside something else. Method: every line that git has of a comment
//! or of a page's prose is measured.
#![allow(clippy::unwrap_used)]

mod support;

use support::files;

/// Characters of a line of a comment or of prose, its indentation included.
const WIDTH_MAX: usize = 110;

/// Whether a line is too long and could be broken: one long word, or one long span of code, cannot.
fn too_long(line: &str) -> bool {
    let spans = line.trim().split('`').enumerate();
    let words: usize = spans.map(|(n, part)| if n % 2 == 1 { 1 } else { part.split_whitespace().count() }).sum();
    line.chars().count() > WIDTH_MAX && words > 1
}

/// The numbers and lines of a page's prose: no blocks, tables, definitions of links or what a program wrote.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let (mut fenced, mut made, mut after_blank, mut block) = (false, false, true, false);
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let begin = line.trim_start();
        if begin.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if begin.starts_with("<!-- duel") || begin.starts_with("<!-- /duel") {
            made = !begin.starts_with("<!-- /");
        }
        block = line.starts_with("    ") && (block || after_blank);
        after_blank = begin.is_empty();
        let definition = begin.starts_with('[') && !begin.starts_with("[`") && begin.contains("]: ");
        if !fenced && !made && !block && !definition && !begin.starts_with(['|', '<', '#']) {
            lines.push((number + 1, line));
        }
    }
    lines
}

#[test]
fn comments_and_prose_end_in_time() {
    let mut long = Vec::new();
    let mut seen = 0;
    for (name, text) in files("*.rs") {
        let comments = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
        for (number, line) in comments.inspect(|_| seen += 1).filter(|(_, line)| too_long(line)) {
            long.push(format!("{name}:{}: {line}", number + 1));
        }
    }
    for (name, text) in files("*.md") {
        for (number, line) in prose(&text).into_iter().inspect(|_| seen += 1).filter(|(_, line)| too_long(line)) {
            long.push(format!("{name}:{number}: {line}"));
        }
    }
    assert!(seen > 10_000, "only {seen} lines were found");
    assert!(long.is_empty(), "{} lines are longer than {WIDTH_MAX} characters:\n{}", long.len(), long.join("\n"));
}

#[test]
fn what_is_too_long_is_seen() {
    let words = "word ".repeat(23);
    assert!(too_long(&words) && !too_long(&"w".repeat(200)));
    let page = format!("{words}\n\n```\n{words}\n```\n\n    {words}\n| {words}\n- item\n\n{words}\n");
    assert_eq!(prose(&page).iter().filter(|(_, line)| too_long(line)).count(), 2);
}
