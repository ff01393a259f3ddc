//! `snapshot.yaml`: the name, and the key encrypted by a password.

use std::collections::BTreeMap;

use copal_store::entropy::Entropy;
use copal_store::keys::StretchCost;
use copal_store::secret::{open_with_password, seal_with_password};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hub_tar::left_out::{HubRule, judged};

/// Longest manifest in bytes: with the rules of what was left out, of which most have few.
pub(super) const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Longest path in it.
const PATH_BYTES_MAX: usize = 4096;
/// How a key begins that was encrypted here.
const KEY_PREFIX: &str = "copal-v1:";

/// What the manifest says. Unknown fields are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HubManifest {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) db_version: Option<String>,
    /// Where the sources stood, by label: what is in the database may name these places.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) paths: BTreeMap<String, String>,
    /// What the capture of the bucket left out, so that a deploy leaves it where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<HubRule>,
    /// Whether it can be used by another instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) portable: Option<bool>,
}

impl HubManifest {
    /// Where a source stood; nothing where that is not known or no path.
    pub(super) fn path_of(&self, label: &str) -> Vec<u8> {
        let path = self
            .paths
            .get(label)
            .filter(|path| path.starts_with('/') && path.len() <= PATH_BYTES_MAX && !path.contains(char::is_control));
        path.map(|path| path.clone().into_bytes()).unwrap_or_default()
    }

    pub(super) fn encode(&self) -> Result<String> {
        let text = serde_saphyr::to_string(self).map_err(|error| Error::internal(format!("the manifest: {error}")))?;
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Error::usage(format!(
                "{} rules of what was left out are more than the snapshot.yaml of a hub-tar holds: export it as native",
                self.left_out.len()
            )));
        }
        Ok(text)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |detail: String| Error::BadBundle(format!("snapshot.yaml: {detail}"));
        let text = std::str::from_utf8(bytes).map_err(|_| bad("it is no text".into()))?;
        let manifest: Self = serde_saphyr::from_str(text).map_err(|error| bad(first_line(&error.to_string())))?;
        if !copal_manifest::snapshot::is_name(&manifest.name) {
            return Err(bad("its name cannot be that of a snapshot".into()));
        }
        judged(&manifest.left_out)?;
        Ok(manifest)
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A key as it stands in the manifest.
pub(super) fn seal_key(entropy: &dyn Entropy, password: &[u8], cost: StretchCost, key: &[u8]) -> Result<String> {
    Ok(format!("{KEY_PREFIX}{}", hex::encode(seal_with_password(entropy, password, cost, key)?)))
}

pub(super) fn open_key(password: &[u8], text: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bad = || Error::BadBundle("snapshot.yaml: its key is not one that copal encrypted".into());
    let sealed = text.trim().strip_prefix(KEY_PREFIX).and_then(|digits| hex::decode(digits).ok()).ok_or_else(bad)?;
    match open_with_password(password, &sealed) {
        Err(copal_store::Error::WrongKey) => Err(Error::BundlePassword),
        opened => opened.map_err(|_| bad()),
    }
}
