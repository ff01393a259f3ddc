//! Bundles: a snapshot as one file that another repository can take in.

use crate::problem::{Problem, Result};

/// What a bundle looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BundleFormat {
    /// A gzip tar with `snapshot.yaml`, readable by `tar`.
    #[default]
    HubTar,
    /// Copal's own: encrypted as a whole.
    Native,
}

impl BundleFormat {
    /// By the name in a request.
    pub fn named(name: Option<&str>) -> Result<Self> {
        match name {
            None | Some("" | "hub-tar") => Ok(Self::HubTar),
            Some("native") => Ok(Self::Native),
            Some(other) => Err(Problem::bad_request(format!("{other:?} is no format; hub-tar and native are"))),
        }
    }

    /// Of its file.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::HubTar => "tar.gz",
            Self::Native => "copal",
        }
    }

    /// For its header.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::HubTar => "application/gzip",
            Self::Native => "application/octet-stream",
        }
    }
}
