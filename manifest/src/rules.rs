//! Rules by which a capture left something out: what they take, and which can be kept.

use crate::entry::PATH_BYTES_MAX;
use crate::snapshot::{NAME_BYTES_MAX, RULE_BYTES_MAX, Rule};

/// What a rule counts beside its text, so that many short ones are bounded too.
const RULE_OVERHEAD_BYTES: usize = 16;

impl Rule {
    /// What it takes in a payload, about.
    pub(crate) fn bytes(&self) -> usize {
        RULE_OVERHEAD_BYTES
            + match self {
                Self::Exclude(pattern) => pattern.len(),
                Self::Path(path) | Self::MountPoint(path) | Self::Named(path) => path.len(),
                Self::Beside { name, begins } => name.len() + begins.len(),
                Self::OneFileSystem | Self::LargerThan(_) | Self::Unnamed => 0,
            }
    }

    /// Whether it can be kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Exclude(pattern) => pattern.len() <= RULE_BYTES_MAX,
            Self::Path(path) | Self::MountPoint(path) | Self::Named(path) => (1..=PATH_BYTES_MAX).contains(&path.len()),
            Self::Beside { name, begins } => {
                let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.iter().any(|b| b"/\0".contains(b));
                is_name && !matches!(&name[..], b"." | b"..") && begins.len() <= RULE_BYTES_MAX
            }
            Self::OneFileSystem | Self::LargerThan(_) | Self::Unnamed => true,
        }
    }

    /// Whether it came with version 5.
    pub(crate) fn is_of_version_5(&self) -> bool {
        matches!(self, Self::Beside { .. } | Self::LargerThan(_) | Self::Unnamed | Self::Named(_))
    }
}
