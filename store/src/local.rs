//! A repository in a local folder. (Skeleton of the agreed interface.)

use std::path::Path;

/// Objects as files below one folder.
#[derive(Debug)]
pub struct LocalBackend {
    _private: (),
}

impl LocalBackend {
    /// A backend at a folder, which need not exist yet.
    #[must_use]
    pub fn new(_folder: &Path) -> Self {
        todo!()
    }
}
