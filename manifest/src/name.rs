//! Names that new snapshots can have. Those of snapshots that are there already follow [`is_name`] alone, so
//! that every one of them can be read; one whose name is reserved is reached by its id.

use copal_store::SnapshotId;

use crate::shown::is_hidden;
use crate::snapshot::{NAME_BYTES_MAX, is_name};

/// What routes of the daemon, and words that name snapshots by their age, use. A route takes `import` for its
/// own word, a browser takes `.` and `..` for folders.
pub const RESERVED_NAMES: [&str; 6] = ["import", "export", "deploy", "latest", ".", ".."];

/// Digits of a time without separators, which clients of the daemon use for one.
const TIME_DIGITS: usize = 14;

/// Why a new snapshot cannot have a name; `None` when it can.
#[must_use]
pub fn new_name_fault(name: &str) -> Option<String> {
    if RESERVED_NAMES.contains(&name) || name.starts_with("latest:") {
        return Some("it is a word of commands and routes, so the snapshot could not be reached by it".into());
    }
    if name.len() == TIME_DIGITS && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("{TIME_DIGITS} digits stand for a time, so the snapshot could not be reached by it"));
    }
    if whole_id(name).is_some() {
        return Some("it looks like the id of a snapshot, and would be taken for that one".into());
    }
    if let Some(hidden) = name.chars().find(|&character| is_hidden(character) && !joins(character)) {
        return Some(format!("it has a character that is not seen ({})", hidden.escape_default()));
    }
    (!is_name(name)).then(|| {
        format!("a name has 1 to {NAME_BYTES_MAX} bytes, no slash, no control character and no space at its ends")
    })
}

/// The id that a text is the whole of, in any of the usual forms.
#[must_use]
pub fn whole_id(text: &str) -> Option<SnapshotId> {
    let plain = text.strip_prefix("urn:uuid:").unwrap_or(text).replace(['-', '{', '}'], "");
    SnapshotId::from_hex(&plain.to_ascii_lowercase())
}

/// Some scripts and pictures need them inside of words.
fn joins(character: char) -> bool {
    matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}')
}

#[cfg(test)]
mod tests {
    //! Goal: a new name reaches its snapshot everywhere. Method: examples.

    use super::*;

    #[test]
    fn names_of_routes_ages_times_and_ids_are_reserved() {
        let reserved =
            [".", "..", "20261127173000", "01a21e32-01aa-7d26-af74-dbac84b44e92", "01a21e3201aa7d26af74dbac84b44e92"];
        for name in
            RESERVED_NAMES.iter().chain(&reserved).chain(&["latest:a", "", "a/b", " a", "a\u{202e}b", "a\u{200b}"])
        {
            assert!(new_name_fault(name).is_some(), "{name}");
        }
        for name in [
            "a",
            "importer",
            "latest-2",
            "2026112717300",
            "202611271730000",
            "2026-11-27 17:30",
            "...",
            "größe",
            "❤\u{fe0f}",
        ] {
            assert_eq!(new_name_fault(name), None, "{name}");
        }
    }
}
