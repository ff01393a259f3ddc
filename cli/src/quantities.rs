//! Numbers and sizes of the command line: what is none is refused by a sentence that says what is accepted.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use copal_engine::timespan;

/// A whole number within bounds; the upper one is said where it is one that somebody chose.
pub(crate) fn whole<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.trim().parse().ok().filter(|number| (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match most {
            u64::MAX => format!("write a whole number from {least} on"),
            _ => format!("write a whole number from {least} to {most}"),
        })
    }
}

/// As many as one likes.
pub(crate) fn any<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    whole(0, u64::MAX)(text)
}

/// At least one.
pub(crate) fn some<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    whole(1, u64::MAX)(text)
}

/// Bytes.
pub(crate) fn size(text: &str) -> Result<ByteSize, String> {
    let refused = || "write a size such as 500KB, 32MiB or 1.5GiB, or a number of bytes".to_owned();
    text.trim().parse().map_err(|_| refused())
}

/// The same as a number.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    size(text).map(|size| size.as_u64())
}

/// Seconds, or a length of time with its unit.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.trim().parse() {
        return Ok(seconds);
    }
    let within = timespan::SHORTEST..=timespan::LONGEST;
    timespan::parse(text, within)
        .map(|time: Duration| time.as_secs())
        .map_err(|_| "write a number of seconds, or a duration as 30s, 5m or 4h".to_owned())
}

/// Where to listen.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| "write an address and a port, as 127.0.0.1:7070 or [::1]:7070".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_is_read_and_the_rest_is_told_what_is() {
        assert_eq!((whole::<u8>(0, 50)("7"), any::<u32>(" 9 "), bytes("1.5KiB")), (Ok(7), Ok(9), Ok(1536)));
        assert_eq!(
            (bytes("12"), seconds("90"), seconds("4h"), seconds("1m 30s")),
            (Ok(12), Ok(90), Ok(14_400), Ok(90))
        );
        for text in ["", "zz", "-1", "1.5", "51", "99999999999999999999"] {
            assert_eq!(whole::<u8>(0, 50)(text).unwrap_err(), "write a whole number from 0 to 50", "{text}");
        }
        assert_eq!(some::<u32>("0").unwrap_err(), "write a whole number from 1 on");
        assert_eq!(any::<u32>("4294967296").unwrap_err(), "write a whole number from 0 on");
        for text in ["", "zz", "-1", "5 elephants"] {
            assert!(size(text).unwrap_err().starts_with("write a size"), "{text}");
            assert!(seconds(text).unwrap_err().starts_with("write a number of seconds"), "{text}");
        }
        assert!(address("localhost").is_err() && address("[::1]:70").is_ok());
    }
}
