//! SQLite databases that are met among files. Rows that are committed may stand in a log beside the file, and
//! the file may be in the midst of a change: read as files the two are of several moments. So such a database
//! is read through SQLite, and its log is left out: it is in the one file. Where SQLite cannot be asked all
//! are read as files, and that is told.

use std::sync::Arc;

use copal_manifest::entry::{Entry, EntryPath};
use copal_source::read::{OpenFile, PinnedBytes, TreeReader};
use copal_source::scan::{FileKind, FileStat};
use copal_source::sqlite::{LOGS, MAGIC, PreparedSqlite, SIDECARS, logs_with_rows};

use super::{Capture, FileKey, content_of};
use crate::error::Result;

impl Capture<'_, '_> {
    /// Whether a path belongs to a database that is in the snapshot as one file.
    pub(super) fn is_beside_a_database(&self, path: &EntryPath) -> bool {
        let slashes = path.to_slashes();
        let bases = SIDECARS.iter().filter_map(|suffix| slashes.strip_suffix(suffix.as_bytes()));
        !self.databases.is_empty() && bases.into_iter().any(|base| self.databases.contains(base))
    }

    /// The state of a file that is a database with a log; none for what is read as a file.
    pub(super) fn pin_database(&mut self, path: &EntryPath, stat: &FileStat) -> Option<Arc<dyn PinnedBytes>> {
        let root = self.databases_below.clone()?;
        let slashes = path.to_slashes();
        let file = self.reader.open_file(&slashes).ok()?;
        if stat.bytes == 0 || !is_database(&file) {
            return None;
        }
        if !self.has_log_with_rows(path) {
            // The file is all of it. A log that fills from here on is of later, and would not fit.
            self.databases.insert(slashes);
            return None;
        }
        let name = self.shared.named(path);
        match PreparedSqlite::pin_met(&root, &slashes, &file) {
            Ok(pinned) => {
                let notice = format!("{name}: a SQLite database, read through SQLite with the rows of its log");
                self.shared.context.monitor.notice(&notice);
                Some(Arc::new(pinned))
            }
            Err(error) => {
                self.warnings.push(format!(
                    "{name}: a SQLite database whose log may hold rows; SQLite could not be asked ({error}), so it is in the \
                     snapshot as files of several moments: name it as sqlite:PATH"
                ));
                self.torn_files += 1;
                None
            }
        }
    }

    fn has_log_with_rows(&self, path: &EntryPath) -> bool {
        if path.is_root() {
            return self.databases_below.as_deref().is_some_and(|root| !logs_with_rows(root).is_empty());
        }
        LOGS.iter().any(|suffix| {
            let log = self.reader.stat(&[path.to_slashes().as_slice(), suffix.as_bytes()].concat());
            log.is_ok_and(|log| log.kind == FileKind::File && log.bytes > 0)
        })
    }

    pub(super) fn take_database(
        &mut self,
        path: EntryPath,
        pinned: Arc<dyn PinnedBytes>,
        parent: Option<Entry>,
        key: Option<FileKey>,
    ) -> Result<()> {
        let slashes = path.to_slashes();
        let stat = pinned.stat();
        let reader = TreeReader::of_pinned_at(pinned, &slashes);
        self.databases.insert(slashes);
        self.take_large(&reader, path, stat, content_of(parent), key)
    }
}

fn is_database(file: &OpenFile) -> bool {
    let mut head = [0; MAGIC.len()];
    file.read_at(0, &mut head).is_ok_and(|read| read == head.len()) && &head == MAGIC
}
