//! Points in time as people and programs see them, in UTC.

use copal_manifest::entry::Timestamp;
use jiff::tz::TimeZone;

/// RFC 3339; a year that has more digits than four has six and a sign.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    match far(at) {
        Some((year, [month, day, hour, minute, second])) => {
            let year = match year {
                1..=9999 => format!("{year:04}"),
                ..=-1 => format!("-{:06}", year.unsigned_abs()),
                _ => format!("+{year:06}"),
            };
            format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
        }
        None => moment(at).to_string(),
    }
}

/// "2026-11-21 07:12:06".
#[must_use]
pub fn shown(at: Timestamp) -> String {
    if let Some((year, [month, day, hour, minute, second])) = far(at) {
        return format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    }
    moment(at).to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// "20261121T071206.381204Z": sorts as text does, and has no character that a path or a shell would mind.
#[must_use]
pub fn compact(at: Timestamp) -> String {
    if far(at).is_some() {
        return rfc3339(at).replace(':', "");
    }
    moment(at).strftime("%Y%m%dT%H%M%S%.6fZ").to_string()
}

/// Year, month, day, hour, minute and second of a time outside the years 1 to 9999, or in the last hours of
/// 9999, which jiff has not: in the calendar of today carried on. File systems keep such times, and calendars
/// for people have no room for them.
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
    let is_far = !(1..=9999).contains(&year) || at.seconds > jiff::Timestamp::MAX.as_second();
    is_far.then_some((year, date))
}

fn moment(at: Timestamp) -> jiff::Timestamp {
    let end = if at.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let nanoseconds = i32::try_from(at.nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(at.seconds, nanoseconds).unwrap_or(end)
}
