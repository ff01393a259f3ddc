//! How the schema of a snapshot stands to the one that the application understands: by the order that the
//! configuration gives, or as numbers. What cannot be told is never guessed.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read, Seek};

use copal_source::hook::HOOK_TIMEOUT;
use copal_source::process::{Program, run};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::config::{Source, VersionOrder};
use crate::error::{Error, Result};

/// Most bytes that a command may write about the order of versions.
const ORDER_BYTES_MAX: u64 = 1 << 20;

/// How `found` stands to `supported`; `None` where nobody can tell.
pub(super) fn compare(source: &Source, found: &str, supported: &str) -> Result<Option<Ordering>> {
    if found == supported {
        return Ok(Some(Ordering::Equal));
    }
    let known = match &source.version_order {
        None => return Ok(as_numbers(found, supported)),
        Some(VersionOrder::List(known)) => known.clone(),
        Some(VersionOrder::Command(argv)) => asked(&source.label, argv)?,
    };
    let place = |version: &str| known.iter().position(|one| one == version);
    Ok(place(found).zip(place(supported)).map(|(found, supported)| found.cmp(&supported)))
}

/// Numbers between dots, with as many digits as one likes. Anything else has no order of its own.
fn as_numbers(a: &str, b: &str) -> Option<Ordering> {
    let numbers = |version: &str| -> Option<Vec<(usize, String)>> {
        let number = |part: &str| {
            let is_number = !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
            let digits = part.trim_start_matches('0');
            is_number.then(|| (digits.len(), digits.to_owned()))
        };
        version.split('.').map(number).collect()
    };
    Some(numbers(a)?.cmp(&numbers(b)?))
}

/// What a command writes: one version a line, the oldest first.
fn asked(label: &str, argv: &[String]) -> Result<Vec<String>> {
    let program = argv.first().cloned().unwrap_or_default();
    let failed = |detail: String| {
        Error::from(copal_source::Error::Program {
            program: format!("{program}, which says the order of the versions of {label:?},"),
            detail,
        })
    };
    let unkept = |error: io::Error| failed(format!("cannot be heard: {error}"));
    let mut file = bounded_memory().map_err(unkept)?;
    let output = Some(file.try_clone().map_err(unkept)?);
    let ended = run(Program { argv, environment: &[], input: None, output, timeout: HOOK_TIMEOUT });
    if !ended.is_success() {
        return Err(failed(ended.sentence()));
    }
    // The program wrote through the same position.
    let bytes = file.stream_position().map_err(unkept)?;
    let mut text = String::new();
    file.rewind().map_err(unkept)?;
    file.take(bytes).read_to_string(&mut text).map_err(unkept)?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect())
}

/// A file in memory that does not grow: whoever writes more than fits fails.
fn bounded_memory() -> io::Result<File> {
    let file = memfd_create("versions", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, ORDER_BYTES_MAX)?;
    fcntl_add_seals(&file, SealFlags::GROW)?;
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_people_count_or_not_at_all() {
        for (a, b, order) in [
            ("9", "10", Some(Ordering::Less)),
            ("1.9.2", "1.10", Some(Ordering::Less)),
            ("2", "2", Some(Ordering::Equal)),
            ("2.0", "2", Some(Ordering::Greater)),
            ("0010", "9", Some(Ordering::Greater)),
            ("99999999999999999999998", "99999999999999999999999", Some(Ordering::Less)),
            ("20240101_a", "20240101_b", None),
            ("v1", "v2", None),
            ("1.2-beta", "1.2", None),
            ("", "1", None),
            ("-1", "1", None),
        ] {
            assert_eq!(as_numbers(a, b), order, "{a} and {b}");
            assert_eq!(as_numbers(b, a), order.map(Ordering::reverse), "{b} and {a}");
        }
    }
}
