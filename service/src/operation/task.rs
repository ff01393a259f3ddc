//! What an operation has to do, as it is kept on disk: a daemon that starts again reads it and goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What to do. Secrets are no part of it: they live in memory only, beside the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Task {
    /// Takes a snapshot.
    Create {
        /// Its name.
        name: String,
        /// Its tags.
        tags: BTreeMap<String, String>,
        /// Whether automatic removal passes it over.
        pinned: bool,
    },
    /// Puts a snapshot back.
    Deploy {
        /// Which: its id, because a name may be deleted and given again while the operation waits.
        id: String,
        /// Its name, for people.
        name: String,
        /// SHA-256 of its root: what is deployed is what was looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// Whether to go on where nobody can say which schema is newer.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        any_schema: bool,
    },
    /// Deletes a snapshot.
    Delete {
        /// Which.
        id: String,
        /// Its name, for people.
        name: String,
    },
    /// Writes a bundle to a client; never waits in a queue, never outlives the request.
    Export {
        /// Which.
        id: String,
        /// Its name, for people.
        name: String,
    },
    /// Reads a bundle that a client has sent.
    Import {
        /// Name that the snapshot gets.
        name: String,
        /// The bundle, in the daemon's own folder; removed when the operation ends, however it ends.
        staged: PathBuf,
    },
    /// Hashes everything again.
    Verify {
        /// Ids; empty: the whole repository.
        snapshots: Vec<String>,
        /// Structure only.
        quick: bool,
    },
    /// Returns the space of what no snapshot reaches.
    Collect {
        /// Whether what the rules of the applications let go is removed first.
        #[serde(default)]
        retention: bool,
    },
}

impl Task {
    /// The verb.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Deploy { .. } => "deploy",
            Self::Delete { .. } => "delete",
            Self::Export { .. } => "export",
            Self::Import { .. } => "import",
            Self::Verify { .. } => "verify",
            Self::Collect { .. } => "collect",
        }
    }

    /// The name that the task will bring into being.
    #[must_use]
    pub fn new_name(&self) -> Option<&str> {
        match self {
            Self::Create { name, .. } | Self::Import { name, .. } => Some(name),
            _ => None,
        }
    }

    /// What it is about, for people.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Deploy { name, .. }
            | Self::Delete { name, .. }
            | Self::Export { name, .. }
            | Self::Import { name, .. } => name,
            Self::Verify { .. } | Self::Collect { .. } => "",
        }
    }
}
