//! Roles: what the holder of a key slot may do. The program refuses what a role may not do, and where it can,
//! the slot does not even hold the secret: a creating key opens no data and no manifest, a maintaining key
//! opens no data.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The role of a key slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Everything, key slots included.
    #[default]
    Full,
    /// Takes snapshots; opens neither data nor manifests, not even those it wrote.
    Create,
    /// Opens everything; changes nothing.
    Read,
    /// Lists, labels, removes and collects; opens manifests and no data.
    Maintain,
}

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Store chunks and publish snapshots.
    Store,
    /// Open roots, labels and manifests.
    OpenManifests,
    /// Open file contents.
    OpenData,
    /// Label and remove snapshots, collect.
    Maintain,
    /// Add and remove key slots, rotate keys.
    ManageKeys,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Full, Self::Create, Self::Read, Self::Maintain];

    /// Whether the role includes an action.
    #[must_use]
    pub fn may(self, action: Action) -> bool {
        match self {
            Self::Full => true,
            Self::Create => matches!(action, Action::Store),
            Self::Read => matches!(action, Action::OpenManifests | Action::OpenData),
            Self::Maintain => matches!(action, Action::OpenManifests | Action::Maintain),
        }
    }

    /// Refuses what the role does not include.
    pub fn require(self, action: Action) -> Result<()> {
        if self.may(action) {
            return Ok(());
        }
        Err(Error::NotPermitted { role: self, what: action.what().into() })
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Create => "create",
            Self::Read => "read",
            Self::Maintain => "maintain",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Action {
    fn what(self) -> &'static str {
        match self {
            Self::Store => "store data or take snapshots",
            Self::OpenManifests => "open snapshots",
            Self::OpenData => "open data",
            Self::Maintain => "label, remove or collect",
            Self::ManageKeys => "manage keys",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_table_says() {
        use Action::{Maintain, ManageKeys, OpenData, OpenManifests, Store};
        let table = [
            (Role::Full, &[Store, OpenManifests, OpenData, Maintain, ManageKeys][..]),
            (Role::Create, &[Store]),
            (Role::Read, &[OpenManifests, OpenData]),
            (Role::Maintain, &[OpenManifests, Maintain]),
        ];
        for (role, allowed) in table {
            for action in [Store, OpenManifests, OpenData, Maintain, ManageKeys] {
                assert_eq!(role.may(action), allowed.contains(&action), "{role} {action:?}");
                assert_eq!(role.require(action).is_ok(), allowed.contains(&action));
            }
        }
    }
}
