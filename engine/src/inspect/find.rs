//! In which snapshots a path is, and its versions.

use std::collections::{BTreeMap, HashMap};

use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::SourceRecord;
use copal_manifest::tree::{Change, TreeReader, TreeRoot, diff};
use copal_store::session::Session;
use globset::{GlobBuilder, GlobMatcher};

use crate::catalogue::{Catalogue, Listed};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::inspect::place::display;

/// A version of a path found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The snapshot.
    pub listed: Listed,
    /// Display path.
    pub path: Vec<u8>,
    /// The entry.
    pub entry: Entry,
    /// 1, 2, … numbering distinct contents of this path in the order of time.
    pub version: u64,
}

/// Paths that match a glob (with a slash: the whole display path, else the last name) or, without glob
/// characters, contain the pattern in their last name; over all snapshots, by path and time. After the first
/// snapshot of an application only differences are read.
pub fn find(context: &Context, pattern: &str) -> Result<Vec<Found>> {
    let matcher = Matcher::new(pattern)?;
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let mut lines: HashMap<(String, String), Line> = HashMap::new();
    let mut found = Vec::new();
    for listed in &catalogue.snapshots {
        for source in &listed.snapshot.sources {
            context.check_interrupt()?;
            let line = lines.entry((listed.snapshot.app.clone(), source.label.clone())).or_default();
            line.advance(&session, source, &matcher)?;
            for (path, (entry, version)) in &line.current {
                let path = display(source, path);
                found.push(Found { listed: listed.clone(), path, entry: entry.clone(), version: *version });
            }
        }
    }
    session.end()?;
    found.sort_by(|a, b| a.path.cmp(&b.path).then(a.listed.snapshot.created.cmp(&b.listed.snapshot.created)));
    Ok(found)
}

/// One source through time: the matching entries of the snapshot reached last.
#[derive(Default)]
struct Line {
    tree: Option<TreeRoot>,
    current: BTreeMap<EntryPath, (Entry, u64)>,
    /// All contents seen of each path; the version is the place in this list.
    versions: HashMap<EntryPath, Vec<Node>>,
}

impl Line {
    fn advance(&mut self, session: &Session, source: &SourceRecord, matcher: &Matcher) -> Result<()> {
        match self.tree.replace(source.tree) {
            None => {
                for entry in TreeReader::new(session, source.tree).entries() {
                    self.put(entry?, source, matcher);
                }
            }
            Some(before) => {
                for change in diff(session, before, session, source.tree) {
                    match change? {
                        Change::Removed(entry) => drop(self.current.remove(&entry.path)),
                        Change::Added(entry) | Change::Changed { after: entry, .. } => self.put(entry, source, matcher),
                    }
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, entry: Entry, source: &SourceRecord, matcher: &Matcher) {
        if !matcher.matches(&display(source, &entry.path)) {
            return;
        }
        let versions = self.versions.entry(entry.path.clone()).or_default();
        let place = versions.iter().position(|node| *node == entry.node).unwrap_or_else(|| {
            versions.push(entry.node.clone());
            versions.len() - 1
        });
        self.current.insert(entry.path.clone(), (entry, place as u64 + 1));
    }
}

enum Matcher {
    Whole(GlobMatcher),
    Name(GlobMatcher),
    Part(Vec<u8>),
}

impl Matcher {
    fn new(pattern: &str) -> Result<Self> {
        if pattern.is_empty() {
            return Err(Error::Usage("an empty pattern finds nothing".into()));
        }
        let pattern = pattern.trim_start_matches('/');
        let whole = pattern.contains('/');
        if !whole && !pattern.contains(['*', '?', '[', '{']) {
            return Ok(Self::Part(pattern.as_bytes().to_vec()));
        }
        let glob = GlobBuilder::new(pattern).literal_separator(whole).build().map_err(|error| {
            copal_source::Error::Pattern { pattern: pattern.to_owned(), detail: error.kind().to_string() }
        })?;
        Ok(if whole { Self::Whole(glob.compile_matcher()) } else { Self::Name(glob.compile_matcher()) })
    }

    fn matches(&self, shown: &[u8]) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let name = shown.rsplit(|&b| b == b'/').next().unwrap_or(shown);
        let path = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
        match self {
            Self::Whole(glob) => glob.is_match(path(shown)),
            Self::Name(glob) => glob.is_match(path(name)),
            Self::Part(part) => name.windows(part.len()).any(|window| window == part),
        }
    }
}
