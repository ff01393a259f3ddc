//! Names for snapshots that were given none: host, source, time.

use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::Snapshot;

use crate::context::Context;
use crate::error::Result;
use crate::moment::compact;

/// Longest part of a name in bytes: three of them and what stands between leave room for a number.
const PART_BYTES_MAX: usize = 64;

/// `HOST-SOURCE-TIME`, a name that no snapshot of the application has. The time has microseconds, so that two
/// creates that begin in one second differ; where two had the same clock the second gets a number.
pub fn made_name(context: &Context, app: &str, source: &str) -> Result<String> {
    let roots = context.repository.roots()?;
    // A name that somebody holds by its tag alone is passed over too: there are enough.
    let is_taken = |name: &str| {
        let tag = context.repository.keys().name_tag(Snapshot::full_name(app, name).as_bytes());
        roots.iter().any(|root| root.tag == tag)
    };
    Ok(numbered(&described(&context.host, source, context.clock.now()), &is_taken))
}

/// The same without a look at what is there.
fn described(host: &str, source: &str, now: Timestamp) -> String {
    let parts = [part(host), part(source), compact(now)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn numbered(name: &str, is_taken: &dyn Fn(&str) -> bool) -> String {
    if !is_taken(name) {
        return name.to_owned();
    }
    let mut candidates = (2u64..).map(|number| format!("{name}-{number}"));
    candidates.find(|candidate| !is_taken(candidate)).unwrap_or_else(|| name.to_owned())
}

/// What is left of a text when only letters, digits and `.`, `_`, `+` stay: no shell and no route reads
/// anything else into it.
fn part(text: &str) -> String {
    let plain = |character: char| {
        if character.is_alphanumeric() || matches!(character, '.' | '_' | '+') { character } else { '-' }
    };
    let mut part: String = text.chars().map(plain).collect();
    let end = (0..=PART_BYTES_MAX.min(part.len())).rev().find(|&end| part.is_char_boundary(end)).unwrap_or(0);
    part.truncate(end);
    part.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    //! Goal: a made name is one that a new snapshot can have, and says what it is of. Method: examples.

    use copal_manifest::name::new_name_fault;

    use super::*;

    const NOW: Timestamp = Timestamp { seconds: 1_767_225_600, nanoseconds: 381_204_999 };

    #[test]
    fn it_says_host_source_and_time() {
        for (host, source, expected) in [
            ("alder", "data", "alder-data-20260101T000000.381204Z"),
            ("alder", "", "alder-20260101T000000.381204Z"),
            ("", "", "20260101T000000.381204Z"),
            ("db1.example.org", "größe", "db1.example.org-größe-20260101T000000.381204Z"),
            ("a/b", " x y ", "a-b-x-y-20260101T000000.381204Z"),
            ("latest:", "..", "latest-20260101T000000.381204Z"),
        ] {
            assert_eq!(described(host, source, NOW), expected);
        }
    }

    #[test]
    fn every_made_name_can_be_one() {
        let odd = ["\u{202e}", "\n\t", "a\u{200b}b", "....", "/", "00000000000000000000000000000000"];
        let long = "ß".repeat(300);
        for text in odd.into_iter().chain([long.as_str()]) {
            for seconds in [i64::MIN, -1, 0, i64::MAX] {
                let name = described(text, text, Timestamp { seconds, nanoseconds: 0 });
                assert_eq!(new_name_fault(&format!("{name}-{}", u64::MAX)), None, "{name}");
            }
        }
    }

    #[test]
    fn one_that_is_taken_gets_a_number() {
        let taken = ["a", "a-2"];
        assert_eq!(numbered("a", &|name| taken.contains(&name)), "a-3");
    }
}
