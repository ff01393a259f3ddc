//! Tags: which a snapshot and its label can have. Nothing here knows what they mean.

/// Longest key of a tag in bytes.
const TAG_KEY_BYTES_MAX: usize = 255;
/// Longest value of a tag in bytes.
const TAG_VALUE_BYTES_MAX: usize = 4096;
/// Most tags.
pub(crate) const TAGS_MAX: usize = 256;

/// Sorted, without doubles, named and bounded.
pub(crate) fn tags_are_sound(tags: &[(String, String)]) -> bool {
    tags_fault(tags).is_none() && tags.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

/// Why a snapshot cannot have so many or so long tags; `None`: it can.
#[must_use]
pub fn tags_fault(tags: &[(String, String)]) -> Option<String> {
    if tags.len() > TAGS_MAX {
        return Some(format!("a snapshot has at most {TAGS_MAX} tags, not {}", tags.len()));
    }
    let (key, value) = tags
        .iter()
        .find(|(key, value)| !(1..=TAG_KEY_BYTES_MAX).contains(&key.len()) || value.len() > TAG_VALUE_BYTES_MAX)?;
    Some(format!(
        "a tag has a key of 1 to {TAG_KEY_BYTES_MAX} bytes and a value of at most {TAG_VALUE_BYTES_MAX}, not of {} and {}",
        key.len(),
        value.len()
    ))
}
