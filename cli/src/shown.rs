//! Values as people see them: sizes, times, ids; names as every part of Copal shows them.

use bytesize::ByteSize;
use copal_manifest::entry::Timestamp;
pub(crate) use copal_manifest::shown::{json, lines, name as escaped, sentence};
use copal_store::SnapshotId;
use jiff::tz::TimeZone;

/// "1.5 MiB".
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// "12 MiB/s"; nothing for no time at all.
pub(crate) fn rate(bytes: u64, milliseconds: u64) -> String {
    match (u128::from(bytes) * 1000).checked_div(u128::from(milliseconds)) {
        Some(rate) => format!("{}/s", size(u64::try_from(rate).unwrap_or(u64::MAX))),
        None => "at once".into(),
    }
}

/// "1.5 s".
pub(crate) fn duration(milliseconds: u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        _ => format!("{} min {} s", milliseconds / 60_000, milliseconds / 1000 % 60),
    }
}

/// "1 file", "2 files".
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A part of a whole, "42%".
pub(crate) fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "0%".into() } else { format!("{:.1}%", part as f64 * 100.0 / whole as f64) }
}

/// RFC 3339 in UTC; a time that no calendar has is its nearest end.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    match far(at) {
        Some((year, [month, day, hour, minute, second])) => {
            let sign = if year < 0 { '-' } else { '+' };
            format!("{sign}{:06}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", year.abs())
        }
        None => moment(at).to_string(),
    }
}

/// "2026-11-21 07:12:06", UTC.
pub(crate) fn time(at: Timestamp) -> String {
    if let Some((year, [month, day, hour, minute, second])) = far(at) {
        return format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    }
    moment(at).to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Year, month, day, hour, minute and second of a time outside the years 1 to 9999, in the calendar of today carried on: file systems
/// keep such times, and calendars for people have no room for them.
fn far(at: Timestamp) -> Option<(i64, [i64; 5])> {
    let day = at.seconds.div_euclid(86_400);
    let second = at.seconds.rem_euclid(86_400);
    // Eras of 400 years, which begin on the first of March: a leap day is the last of its year.
    let from_march = day + 719_468;
    let (era, of_era) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let clock = [second / 3600, second / 60 % 60, second % 60];
    let date = [month, of_year - (153 * shifted + 2) / 5 + 1, clock[0], clock[1], clock[2]];
    (!(1..=9999).contains(&year)).then_some((year, date))
}

fn moment(at: Timestamp) -> jiff::Timestamp {
    let end = if at.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let nanoseconds = i32::try_from(at.nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(at.seconds, nanoseconds).unwrap_or(end)
}

/// The usual form of a UUID.
pub(crate) fn uuid(id: SnapshotId) -> String {
    let hex = id.to_string();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The part of a UUID that a table shows: it tells snapshots taken a millisecond apart from each other.
pub(crate) fn short_id(id: SnapshotId) -> String {
    uuid(id)[..13].to_owned()
}

#[cfg(test)]
mod tests {
    //! Goal: figures read well. Method: examples.

    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(size(1536 << 10), "1.5 MiB");
        assert_eq!(duration(61_000), "1 min 1 s");
        assert_eq!(rate(2 << 20, 2000), "1.0 MiB/s");
        assert_eq!(share(1, 4), "25.0%");
        assert_eq!(count(1, "file", "files"), "1 file");
    }

    #[test]
    fn times_are_rfc_3339_in_utc_whatever_they_are() {
        assert_eq!(rfc3339(Timestamp { seconds: 0, nanoseconds: 0 }), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Timestamp { seconds: 1, nanoseconds: 500_000_000 }), "1970-01-01T00:00:01.5Z");
        assert_eq!(time(Timestamp { seconds: 86_400, nanoseconds: 1 }), "1970-01-02 00:00:00");
        for seconds in [i64::MIN, i64::MAX] {
            assert!(rfc3339(Timestamp { seconds, nanoseconds: u32::MAX }).ends_with('Z'));
        }
        // As `date -u -d @SECONDS` has them.
        for (seconds, expected) in [
            (i64::MAX, "+292277026596-12-04T15:30:07Z"),
            (253_402_300_800, "+010000-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (-62_135_596_801, "+000000-12-31T23:59:59Z"),
            (-62_167_219_201, "-000001-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(Timestamp { seconds, nanoseconds: 0 }), expected);
        }
        assert_eq!(time(Timestamp { seconds: 4_000_000_000_000, nanoseconds: 0 }), "128724-12-15 07:06:40");
    }

    #[test]
    fn ids_are_uuids() {
        let id = SnapshotId([0x01, 0x93, 0x4f, 0x1e, 0x2a, 0x4b, 0x7c, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0x0f]);
        assert_eq!(uuid(id), "01934f1e-2a4b-7c00-8000-00000000000f");
        assert_eq!(short_id(id), "01934f1e-2a4b");
    }
}
