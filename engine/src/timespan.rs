//! Lengths of time as people write them, in the configuration and on command lines: `250ms`, `30s`, `5m`,
//! `1h 30m`, `36h`, `7d`, `2w`, `3mo`, `1y`, or ISO 8601 (`PT30S`). Every reader gives its bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// The shortest time that a bound can ask for and that is not nothing.
pub const SHORTEST: Duration = Duration::from_nanos(1);
/// The longest time that means something here: a hundred years.
pub const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads one; the error is a sentence that says what is wanted.
pub fn parse(text: &str, within: RangeInclusive<Duration>) -> Result<Duration, String> {
    let unreadable = || "write a duration as 250ms, 30s, 5m, 1h 30m, 7d, 2w, 3mo or 1y".to_owned();
    let span: Span = text.trim().parse().map_err(|_| unreadable())?;
    if span.is_negative() || span.is_zero() {
        return Err("the duration must be longer than nothing".into());
    }
    // Years and months have no fixed length: they are those that begin with an ordinary year.
    let base = jiff::civil::date(2023, 1, 1);
    let length = span.to_duration(SpanRelativeTo::from(base)).map_err(|_| unreadable())?;
    let length = Duration::try_from(length).map_err(|_| unreadable())?;
    if within.contains(&length) {
        return Ok(length);
    }
    Err(format!("the duration must be between {} and {}", shown(*within.start()), shown(*within.end())))
}

/// As it could be written again, in its largest unit that says it exactly.
fn shown(time: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
    ];
    let nanoseconds = time.as_nanos();
    let unit = UNITS.iter().find(|(length, _)| nanoseconds >= *length && nanoseconds.is_multiple_of(*length));
    match unit {
        Some((length, unit)) => format!("{}{unit}", nanoseconds / length),
        None => format!("{nanoseconds}ns"),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: one reading of times, whoever asks. Method: examples of every accepted form, and of those that
    //! are none.

    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("1h 30m", 5400),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("36h", 36 * 3600),
            ("7d", 7 * DAY),
            ("1d 12h", DAY + DAY / 2),
            ("2w", 14 * DAY),
            ("1mo", 31 * DAY),
            ("1y", 365 * DAY),
            ("PT30S", 30),
            (" 30s ", 30),
        ] {
            assert_eq!(parse(text, SHORTEST..=LONGEST), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms", SHORTEST..=LONGEST), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_time_is_refused_in_words() {
        for text in ["", "7", "-1d", "0s", "x", "5 parsecs", "999999999y", "1e9s", "200y"] {
            let refused = parse(text, SHORTEST..=LONGEST).unwrap_err();
            assert!(refused.contains("duration"), "{text}: {refused}");
        }
    }

    #[test]
    fn bounds_hold_and_are_told() {
        let within = Duration::from_secs(1)..=Duration::from_secs(31 * DAY);
        assert_eq!(parse("31d", within.clone()), Ok(Duration::from_secs(31 * DAY)));
        let refused = parse("32d", within.clone()).unwrap_err();
        assert_eq!(refused, "the duration must be between 1s and 31d");
        assert!(parse("999ms", within).is_err());
    }
}
