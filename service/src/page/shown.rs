//! Values as people read them.

use copal_engine::catalogue::FUTURE_SECONDS;

use crate::http::escaped;
use crate::platform::SnapshotView;

/// A name: none is taken for another.
pub(super) fn name(text: &str) -> String {
    copal_manifest::shown::name(text.as_bytes())
}

/// "1.5 MiB".
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// "1 file", "2 files".
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// "3 minutes ago".
pub(super) fn age(created: &str, now: jiff::Timestamp) -> String {
    let Ok(created) = created.parse::<jiff::Timestamp>() else { return created.to_owned() };
    let seconds = now.as_second().saturating_sub(created.as_second());
    if seconds < -FUTURE_SECONDS {
        return "dated in the future".into();
    }
    let (number, one, many) = match seconds {
        ..5 => return "just now".into(),
        5..60 => (seconds, "second", "seconds"),
        60..3600 => (seconds / 60, "minute", "minutes"),
        3600..86_400 => (seconds / 3600, "hour", "hours"),
        _ => (seconds / 86_400, "day", "days"),
    };
    format!("{} ago", count(number.unsigned_abs(), one, many))
}

/// "2026-11-21 07:12:06 UTC".
pub(super) fn time(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// The page of a snapshot. By id: a name may be given again.
pub(super) fn place(snapshot: &SnapshotView) -> String {
    format!("/ui/apps/{}/snapshots/{}", escaped(&snapshot.app), snapshot.id)
}

#[cfg(test)]
mod tests {
    //! Goal: figures read well. Method: examples.

    use super::*;

    #[test]
    fn sizes_and_ages() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536 << 10), "1.5 MiB");
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        let now: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(age("2026-11-21T11:59:59Z", now), "just now");
        assert_eq!(age("2026-11-21T11:57:00Z", now), "3 minutes ago");
        assert_eq!(age("2026-11-20T10:00:00Z", now), "1 day ago");
        assert_eq!(age("2026-11-21T12:05:00Z", now), "just now");
        assert_eq!(age("2036-01-01T00:00:00Z", now), "dated in the future");
        assert_eq!(age("never", now), "never");
    }
}
