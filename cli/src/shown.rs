//! Values as people see them: sizes, times, ids; names as every part of Copal shows them.

use bytesize::ByteSize;
pub(crate) use copal_engine::moment::{rfc3339, shown as time};
pub(crate) use copal_manifest::shown::{json, lines, name as escaped, sentence};
use copal_store::SnapshotId;

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

    use copal_manifest::entry::Timestamp;

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
