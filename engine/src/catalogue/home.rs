//! Whether the latest snapshot is one of the place that it is about to go to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use copal_manifest::snapshot::{Snapshot, SourceRecord};

use crate::catalogue::{Catalogue, Listed, plain_path};

/// The newest snapshot that was taken of `target` itself, or of `part` there, where the `chosen` one was not:
/// it is of another place, or of another host while this one has its own. `None`: nothing speaks against it.
#[must_use]
pub fn other_home<'c>(
    catalogue: &'c Catalogue,
    chosen: &Snapshot,
    target: &Path,
    part: Option<&[u8]>,
    host: &str,
) -> Option<&'c Listed> {
    let target: PathBuf = target.components().collect();
    let is_of_here = |snapshot: &Snapshot| snapshot.sources.iter().any(|source| home(source, &target, part));
    let newest_first = catalogue.snapshots.iter().rev();
    let of_here: Vec<&Listed> = newest_first.filter(|listed| is_of_here(&listed.snapshot)).collect();
    let own = of_here.iter().copied().find(|listed| listed.snapshot.host == host);
    match (is_of_here(chosen), own) {
        (true, Some(own)) if chosen.host != host => Some(own),
        (true, _) => None,
        (false, own) => own.or_else(|| of_here.first().copied()),
    }
}

/// Whether a source goes back to where it was when its snapshot, or that part of it, becomes `target`.
fn home(source: &SourceRecord, target: &Path, part: Option<&[u8]>) -> bool {
    if source.path.is_empty() {
        return false;
    }
    let path = plain_path(&source.path);
    let part = part.map(|part| plain_path(part).strip_prefix("/").map_or_else(|_| plain_path(part), Path::to_owned));
    match (source.label.as_str(), part) {
        ("", None) => path == target,
        ("", Some(part)) => path.join(part).components().eq(target.components()),
        (label, None) => path == target.join(label),
        (label, Some(part)) => {
            part.strip_prefix(OsStr::from_bytes(label.as_bytes())).is_ok_and(|rest| path.join(rest) == target)
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what would be put back into another source's place is found, and nothing else is. Method:
    //! examples.

    use copal_manifest::entry::Timestamp;
    use copal_manifest::snapshot::SourceKind;
    use copal_manifest::tree::TreeRoot;
    use copal_store::ChunkId;

    use super::*;

    fn source(label: &str, path: &str) -> SourceRecord {
        SourceRecord {
            label: label.into(),
            kind: SourceKind::Tree,
            path: path.into(),
            tree: TreeRoot { id: ChunkId([0; 32]), height: 0 },
            files: 0,
            entries: 0,
            bytes: 0,
            device: 0,
            trusted_before: Timestamp { seconds: 0, nanoseconds: 0 },
        }
    }

    #[test]
    fn a_source_is_at_home_where_it_was_taken_from() {
        for (label, path, part, target, is_home) in [
            ("", "/srv/a", None, "/srv/a", true),
            ("", "/srv/a/", None, "/srv/a", true),
            ("", "/srv/a", None, "/srv", false),
            ("", "/srv/a", None, "/srv/a/b", false),
            ("", "/srv/a", Some("b/c"), "/srv/a/b/c", true),
            ("", "/srv/a", Some("/b/"), "/srv/a/b", true),
            ("", "/srv/a", Some("b"), "/srv/a", false),
            ("data", "/srv/data", None, "/srv", true),
            ("data", "/srv/other", None, "/srv", false),
            ("data", "/srv/other", Some("data"), "/srv/other", true),
            ("data", "/srv/other", Some("data/x"), "/srv/other/x", true),
            ("data", "/srv/other", Some("more/x"), "/srv/other/x", false),
            ("", "", None, "", false),
        ] {
            let found = home(&source(label, path), Path::new(target), part.map(str::as_bytes));
            assert_eq!(found, is_home, "{label:?} {path} {part:?} {target}");
        }
    }
}
