//! Rules by which a capture left something out: what they take, and which can be kept.

use crate::entry::PATH_BYTES_MAX;
use crate::snapshot::{RULE_BYTES_MAX, Rule};

/// What a rule counts beside its text, so that many short ones are bounded too.
const RULE_OVERHEAD_BYTES: usize = 16;

impl Rule {
    /// What it takes in a payload, about.
    pub(crate) fn bytes(&self) -> usize {
        RULE_OVERHEAD_BYTES
            + match self {
                Self::Exclude(pattern) => pattern.len(),
                Self::Path(path) | Self::MountPoint(path) => path.len(),
                Self::OneFileSystem => 0,
            }
    }

    /// Whether it can be kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Exclude(pattern) => pattern.len() <= RULE_BYTES_MAX,
            Self::Path(path) | Self::MountPoint(path) => (1..=PATH_BYTES_MAX).contains(&path.len()),
            Self::OneFileSystem => true,
        }
    }
}
