//! Extended attributes of what stands, against those of an entry.

use copal_manifest::entry::{Entry, Xattr};
use copal_source::read::{Attribute, TreeReader};

use crate::error::Result;

/// Reads the attributes of what stands at an entry's place.
pub(super) fn attributes_differ(reader: &TreeReader, entry: &Entry) -> Result<bool> {
    let found = reader.attributes(&entry.path.to_slashes())?;
    let same = |(wanted, found): (&Xattr, &Attribute)| {
        wanted.name.as_ref() == found.name && wanted.value.as_ref() == found.value
    };
    let wanted = &entry.metadata.xattrs;
    Ok(wanted.len() != found.len() || !wanted.iter().zip(&found).all(same))
}
