//! What is said of keys and of what lies among them: who wrote an object, how far that counts today, and what
//! counts for nothing.

use crate::roles::Role;
use crate::signing::SignerId;

/// Who wrote an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The key that signed it.
    pub signer: SignerId,
    /// What people call the key; `None`: it is in no roster of this repository.
    pub label: Option<String>,
    /// Its role, while it has one: `None` for a key that was removed, or never there.
    pub role: Option<Role>,
}

/// How far what a key signed counts today: whoever had a key may have made with it what carries its
/// signature, also after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// An owner's key; and all, where nobody signs.
    Owner,
    /// Another key that may create.
    Creator,
    /// A key that may not create.
    NoCreator,
    /// A key that an owner removed.
    Removed {
        /// Whether it was an owner's.
        was_owner: bool,
    },
    /// A key that no owner ever put into the roster.
    Unknown,
    /// Nobody has signed it, in a repository whose keys sign.
    Unsigned,
}

impl Standing {
    /// Whether it is of a key that may create now.
    #[must_use]
    pub fn may_create(self) -> bool {
        matches!(self, Self::Owner | Self::Creator)
    }

    /// Said of a snapshot that such a key has signed.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Owner => "an owner's",
            Self::Creator => "a creating key's",
            Self::NoCreator => "its key may not create",
            Self::Removed { .. } => "its key was removed",
            Self::Unknown => "its key is unknown",
            Self::Unsigned => "not signed",
        }
    }
}

/// An object in `keys/` that counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrangeKeyObject {
    /// Its name with the folder.
    pub object: String,
    /// Why it does not count.
    pub detail: String,
    /// Whether this program knows what it is: no newer one can have written it.
    pub is_known: bool,
    /// Whether an interrupted change of keys leaves such a thing: a slot or grant in no roster, a roster
    /// before the newest. Nothing is hurt by it, and it goes with the next change of keys.
    pub is_leftover: bool,
}
