//! Texts as people see them: whatever a terminal would obey, or nobody would see, is written as an escape, so
//! that no name is taken for another one. Names come from files, bundles and clients; they may hold anything.

use std::borrow::Cow;

/// Characters that steer, turn or hide text: control characters, marks of direction, spaces of no width or of
/// another kind than the usual one, marks that pick a variant, tags. Of Unicode, what is
/// `Default_Ignorable_Code_Point`, `Cc`, the invisible part of `Cf`, `Zl`, `Zp`, and `Zs` but for the space
/// and the wide one of Chinese and Japanese texts.
const HIDDEN: &[(char, char)] = &[
    ('\0', '\u{1f}'),
    ('\u{7f}', '\u{a0}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2000}', '\u{200f}'),
    ('\u{2028}', '\u{202f}'),
    ('\u{205f}', '\u{206f}'),
    // An empty pattern of Braille looks like a space.
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fdd0}', '\u{fdef}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether a character is not seen, or changes how others are.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    let after = HIDDEN.partition_point(|(first, _)| *first <= character);
    after > 0 && character <= HIDDEN[after - 1].1
}

/// The bytes of a name. A backslash is doubled: a name that spells an escape is not taken for one that needs
/// it. Bytes that are no UTF-8 are escapes as well.
#[must_use]
pub fn name(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                hidden if is_hidden(hidden) => text.extend(hidden.escape_default()),
                plain => text.push(plain),
            }
        }
        for byte in part.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A sentence in which names stand, escaped or not: what is hidden in it comes to light, the rest stays as it
/// is.
#[must_use]
pub fn sentence(text: &str) -> Cow<'_, str> {
    replaced(text, is_hidden, |hidden, into| into.extend(hidden.escape_default()))
}

/// The same of several lines.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let hidden = |character: char| character != '\n' && is_hidden(character);
    replaced(text, hidden, |hidden, into| into.extend(hidden.escape_default()))
}

/// A JSON document with the escapes of JSON for what is hidden: it means the same to programs.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Outside of its strings a document has line ends and no other of these.
    let hidden = |character: char| character != '\n' && is_hidden(character);
    replaced(text, hidden, |hidden, into| {
        for unit in hidden.encode_utf16(&mut [0; 2]) {
            into.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

/// The first of many in a row, and how many there are more: "a, b and 3 more".
#[must_use]
pub fn first_of(items: impl IntoIterator<Item = impl Into<String>>, most: usize) -> String {
    let mut named: Vec<String> = Vec::new();
    let mut more: u64 = 0;
    for item in items {
        if named.len() < most { named.push(item.into()) } else { more += 1 }
    }
    first_and_more(&named, more)
}

/// The same where the rest was only counted.
#[must_use]
pub fn first_and_more(named: &[String], more: u64) -> String {
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

fn replaced(text: &str, hidden: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(&hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hidden(character) { write(character, &mut shown) } else { shown.push(character) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    //! Goal: no two names look the same that are not, and those that hide nothing stay as they are. Method:
    //! examples of each kind.

    use super::*;

    #[test]
    fn t14_hidden_characters_come_to_light_and_others_are_left_alone() {
        assert_eq!(name("späť/日本 🦀 नमस्ते".as_bytes()), "späť/日本 🦀 नमस्ते");
        assert_eq!(name(b"\x1b[2J\n\r\t\x7f"), "\\u{1b}[2J\\n\\r\\t\\u{7f}");
        assert_eq!(name(b"a\xff\xc3b"), "a\\xff\\xc3b");
        assert_eq!(name("\u{9b}31m\u{202e}gpj".as_bytes()), "\\u{9b}31m\\u{202e}gpj");
        assert_eq!(
            name("invoice\u{200d}\u{fe0f}\u{e0041}\u{a0}".as_bytes()),
            "invoice\\u{200d}\\u{fe0f}\\u{e0041}\\u{a0}"
        );
    }

    #[test]
    fn t14_a_name_that_spells_an_escape_is_not_one_that_needs_it() {
        assert_ne!(name("\u{202e}".as_bytes()), name(b"\\u{202e}"));
        assert_ne!(name(b"\xff"), name(b"\\xff"));
        assert_eq!(sentence("he said \\u{202e}"), "he said \\u{202e}");
    }

    #[test]
    fn t14_every_mark_of_direction_and_every_control_character_is_hidden() {
        let marks = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{200e}', '\u{200f}', '\u{61c}']);
        let invisible = ['\u{200b}', '\u{200c}', '\u{2060}', '\u{feff}', '\u{ad}', '\u{115f}', '\u{3164}', '\u{180e}'];
        for character in
            marks.chain(invisible).chain((0..=char::MAX as u32).filter_map(char::from_u32).filter(|c| c.is_control()))
        {
            assert!(is_hidden(character), "{character:?}");
        }
        for character in ['a', ' ', '\u{3000}', 'é', '\u{301}', '\u{fffd}', '~', '¡'] {
            assert!(!is_hidden(character), "{character:?}");
        }
        assert!(HIDDEN.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted");
    }

    #[test]
    fn the_first_of_many_are_named_and_the_rest_is_counted() {
        assert_eq!(first_of(["a", "b"], 2), "a, b");
        assert_eq!(first_of(["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(first_of([] as [&str; 0], 2), "");
        assert_eq!(first_and_more(&["a".to_owned()], 9), "a and 9 more");
    }

    #[test]
    fn t14_json_means_the_same() {
        let text = "[\n  \"a\u{202e}b\u{e0041}\u{7f}\"\n]";
        let shown = json(text);
        assert_eq!(shown, "[\n  \"a\\u202eb\\udb40\\udc41\\u007f\"\n]");
        assert_eq!(lines("a\u{202e}\nb"), "a\\u{202e}\nb");
    }
}
