//! Which entries the patterns of a restore choose. Pure.

use copal_manifest::entry::EntryPath;
use copal_source::scan::Excludes;

use super::Selection;
use crate::error::Result;

/// A selection, compiled.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    include: Option<Excludes>,
    exclude: Option<Excludes>,
}

impl Chosen {
    pub(super) fn new(selection: &Selection) -> Result<Self> {
        let compiled = |patterns: &[String]| (!patterns.is_empty()).then(|| Excludes::new(patterns)).transpose();
        Ok(Self { include: compiled(&selection.include)?, exclude: compiled(&selection.exclude)? })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// Whether a path of a source is chosen: by itself or with a folder above it. The root is, where nothing
    /// is asked for by name.
    pub(super) fn takes(&self, path: &EntryPath, is_folder: bool) -> bool {
        if path.is_root() {
            return self.include.is_none();
        }
        let path = path.to_slashes();
        self.include.as_ref().is_none_or(|include| include.covers(&path, is_folder)) && !self.excludes(&path, is_folder)
    }

    /// Whether something below a folder may be chosen.
    pub(super) fn may_lead(&self, folder: &EntryPath) -> bool {
        folder.is_root() || !self.excludes(&folder.to_slashes(), true)
    }

    fn excludes(&self, path: &[u8], is_folder: bool) -> bool {
        self.exclude.as_ref().is_some_and(|exclude| exclude.covers(path, is_folder))
    }
}
