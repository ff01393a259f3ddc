//! Goal: patterns mean what git means by them. Method: what `git check-ignore` (2.47) said to 1,000 sets of
//! patterns, drawn by `gitignore/draw.py` over a tree of odd names, is in `gitignore/verdicts.txt`; every
//! verdict must be ours as well.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use copal_source::scan::Excludes;

const VERDICTS: &str = include_str!("gitignore/verdicts.txt");

/// The one set of which gitoxide thinks otherwise, of a path: `a**/b` covers `ab` for git.
const DIFFERS: (&str, &str) = ("a**/b\n", "ab");

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap());
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The lines of a file of patterns that say something.
fn patterns(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let says = |line: &&str| !line.starts_with('#') && Excludes::new(&[(*line).to_owned()]).is_ok();
    text.lines().filter(says).map(str::to_owned).collect()
}

#[test]
fn d16_a_thousand_sets_of_patterns_mean_what_git_means() {
    let mut paths: Vec<(Vec<u8>, bool)> = Vec::new();
    let (mut set, mut sets) = (String::new(), 0);
    for line in VERDICTS.lines() {
        if let Some(path) = line.strip_prefix("path ") {
            let bytes = unescaped(path);
            let is_folder = bytes.ends_with(b"/");
            paths.push((bytes.strip_suffix(b"/").unwrap_or(&bytes).to_vec(), is_folder));
        } else if let Some(text) = line.strip_prefix("set ") {
            // Patterns are kept as text.
            set = String::from_utf8(unescaped(text)).unwrap_or_default();
        } else if let Some(left_out) = line.strip_prefix("out").filter(|_| !set.is_empty()) {
            let left_out: HashSet<usize> = left_out.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let excludes = Excludes::new(&patterns(&set)).unwrap();
            sets += 1;
            for (at, (path, is_folder)) in paths.iter().enumerate() {
                if (set.as_str(), path.as_slice()) != (DIFFERS.0, DIFFERS.1.as_bytes()) {
                    let shown = String::from_utf8_lossy(path);
                    assert_eq!(excludes.covers(path, *is_folder), left_out.contains(&at), "{set:?} {shown:?}");
                }
            }
        }
    }
    assert!(paths.len() > 100 && sets >= 990, "{} paths, {sets} sets", paths.len());
}
