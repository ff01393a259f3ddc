//! What stays where it is, whatever the snapshot has: what its rules left out of it, and what is mounted in
//! the target.
//!
//! Rules are those of the snapshot, read at the places that its sources take below the target. A snapshot of
//! before rules were kept has none: what it lacks goes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use copal_manifest::entry::{EntryPath, Node};
use copal_manifest::snapshot::{GIT_RULES_SNAPSHOT_VERSION, Rule, Snapshot};
use copal_manifest::tree::TreeReader;
use copal_source::read;
use copal_source::scan::{
    Border, ByContent, Excludes, Expansion, FileKind, Keep, Mark, Scan, ScanEntry, ScanOptions, scan,
};
use copal_source::sqlite::{LOGS, MAGIC, begins_as_log, database_of};

use super::desired::{Desired, Part};
use super::place::Place;
use crate::error::{Error, Result};

/// Paths that a refusal names; more are counted.
const NAMED_MAX: usize = 5;

/// Something that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) path: EntryPath,
    pub(super) border: Border,
}

/// The rules of a deploy.
#[derive(Debug, Default)]
pub(super) struct Stays {
    parts: Vec<PartRules>,
    /// What Copal lives by, below the target.
    own: HashSet<Vec<u8>>,
}

#[derive(Debug, Default)]
struct PartRules {
    /// Which of the target's parts.
    number: usize,
    /// Where the part is below the target.
    at: Vec<u8>,
    /// Where it is in its source, as the rules count.
    base: Vec<u8>,
    patterns: Excludes,
    paths: HashSet<Vec<u8>>,
    mount_points: HashSet<Vec<u8>>,
    by_content: ByContent,
    /// Where not all was taken: the folders that were named.
    named: Option<HashSet<Vec<u8>>>,
}

/// The folder that was looked at last, and whether the snapshot has it marked, and nothing else in it.
#[derive(Debug, Default)]
pub(super) struct LastFolder(Option<(EntryPath, bool)>);

impl Stays {
    /// As the snapshot's captures left it out.
    pub(super) fn of(sources: &[Part<'_>], snapshot: &Snapshot) -> Result<Self> {
        let mut parts = Vec::new();
        let mut expansion = Expansion::default();
        for (number, part) in sources.iter().enumerate() {
            let rules = snapshot.rules_of(&part.source.label);
            if !rules.is_empty() {
                let (at, base) = (part.at.to_slashes(), part.base.to_slashes());
                let rules = PartRules::of(rules, snapshot.version, &mut expansion)?;
                parts.push(PartRules { number, at, base, ..rules });
            }
        }
        Ok(Self { parts, own: HashSet::new() })
    }

    /// Whether a path is what snapshots of before may have alone: the log of a database that their own rules
    /// leave out. It is part of no target; it would be put beside a database of another state.
    pub(super) fn keeps_database_of(&self, path: &EntryPath) -> Option<EntryPath> {
        if self.parts.is_empty() {
            return None;
        }
        let slashes = path.to_slashes();
        let database = database_of(&slashes)?;
        let both_stay = self.keeps(&slashes, false) && self.keeps(database, false);
        EntryPath::from_slashes(database).filter(|_| both_stay)
    }

    /// Whether something that is kept is the log of a database that is not: it goes with that, whatever the
    /// rules say. Left beside the snapshot's database it would be taken for that one's.
    pub(super) fn goes_with_its_database(
        &self,
        desired: &Desired<'_>,
        standing: &read::TreeReader,
        path: &EntryPath,
    ) -> Result<bool> {
        let slashes = path.to_slashes();
        let Some(database) = database_of(&slashes) else { return Ok(false) };
        let Some(at) = EntryPath::from_slashes(database) else { return Ok(false) };
        if self.keeps(database, false) || !desired.chooses(&at, false) {
            return Ok(false);
        }
        if desired.get(&at)?.is_none() && self.keeps_standing(standing, database) {
            return Ok(false);
        }
        if begins(standing, database, |head: [u8; MAGIC.len()]| head == *MAGIC) {
            return Ok(true);
        }
        let is_log = |suffix: &&str| begins(standing, &[database, suffix.as_bytes()].concat(), begins_as_log);
        let wanted = || Ok::<_, Error>(desired.get(&at)?.is_some_and(|item| item.entry.node != Node::Directory));
        Ok(LOGS.iter().any(is_log) && wanted()?)
    }

    /// Whether a file that the snapshot lacks stays for what it is: too large, beside a mark, or never named.
    fn keeps_standing(&self, standing: &read::TreeReader, path: &[u8]) -> bool {
        let Some((part, inside)) = self.parts.iter().find_map(|part| Some((part, part.inside(path)?))) else {
            return false;
        };
        let is_marked = |mark: &Mark| {
            let folder = parent_of(path);
            let name = if folder.is_empty() { mark.name().to_vec() } else { [folder, mark.name()].join(&b'/') };
            let mut head = vec![0; mark.begins().len()];
            let mut read = || standing.open_file(&name).and_then(|file| file.read_at(0, &mut head));
            if mark.begins().is_empty() {
                standing.stat(&name).is_ok()
            } else {
                read().is_ok() && head == mark.begins()
            }
        };
        part.named.as_ref().is_some_and(|named| !is_within_any(&inside, named))
            || standing.stat(path).is_ok_and(|found| part.by_content.is_too_large(found.kind, found.bytes))
            || part.by_content.marks().iter().any(is_marked)
    }

    /// The same, and these paths below the target.
    pub(super) fn and(self, own: impl Iterator<Item = Vec<u8>>) -> Self {
        Self { own: own.collect(), ..self }
    }

    /// Whether something that the snapshot lacks stays for what the capture would have made of it: left out
    /// for what it is or stands beside, or never named. A folder that the snapshot has as a marked one, and
    /// with nothing else in it, keeps what is in it, marked or not by now.
    pub(super) fn keeps_extra(
        &self,
        desired: &Desired<'_>,
        path: &EntryPath,
        left_out: bool,
        last: &mut LastFolder,
    ) -> Result<bool> {
        if left_out || self.parts.is_empty() {
            return Ok(left_out);
        }
        let slashes = path.to_slashes();
        let Some((part, inside)) = self.parts.iter().find_map(|part| Some((part, part.inside(&slashes)?))) else {
            return Ok(false);
        };
        if part.named.as_ref().is_some_and(|named| !is_within_any(&inside, named)) {
            return Ok(true);
        }
        let (Some(folder), false) = (path.parent(), part.by_content.marks().is_empty()) else { return Ok(false) };
        match &last.0 {
            Some((known, only_mark)) if *known == folder => Ok(*only_mark),
            _ => {
                let only_mark = part.has_only_marks(desired, parent_of(&inside))?;
                last.0 = Some((folder, only_mark));
                Ok(only_mark)
            }
        }
    }
}

/// Whether a path or a folder above it is among some.
fn is_within_any(path: &[u8], folders: &HashSet<Vec<u8>>) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    ends.chain([path.len()]).any(|end| folders.contains(&path[..end]))
}

/// The folder above a path with slashes; of a name without one the root.
fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(b"", |at| &path[..at])
}

/// What stays in a standing folder, without a comparison; refused where the snapshot has something in its
/// place.
pub(super) fn find(desired: &Desired<'_>, stays: &Arc<Stays>, place: &Place) -> Result<Vec<Vec<u8>>> {
    if stays.parts.is_empty() {
        return Ok(Vec::new());
    }
    let (mut found, mut conflicts, mut looked_at) = (Vec::new(), Vec::new(), HashSet::new());
    let borders = Some(Arc::clone(stays) as Arc<dyn Keep>);
    let reader = read::TreeReader::open(&place.path)?;
    let mut standing = scan(&place.path, &ScanOptions { borders, ..ScanOptions::default() })?;
    let mut last = LastFolder::default();
    while let Some(entry) = standing.next() {
        let entry = entry?;
        let Some(path) = EntryPath::from_slashes(&entry.path) else { continue };
        match entry.border {
            Some(Border::MountPoint) => continue,
            Some(Border::Kept) => {
                if entry.stat.kind == FileKind::File && stays.goes_with_its_database(desired, &reader, &path)? {
                    continue;
                }
                if desired.get(&path)?.is_some() {
                    conflicts.push(Conflict::LeftOut(path.clone()));
                }
            }
            None => {
                if entry.stat.kind == FileKind::File && stays.goes_with_its_database(desired, &reader, &path)? {
                    continue;
                }
                let stays = stays.keeps_extra(desired, &path, entry.left_out, &mut last)?;
                if !stays || desired.get(&path)?.is_some() {
                    continue;
                }
                standing.pass_over();
            }
        }
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| looked_at.insert(folder.clone())) {
            if desired.get(&folder)?.is_some_and(|item| item.entry.node != Node::Directory) {
                conflicts.push(Conflict::Inside { folder: folder.clone(), stays: path.clone() });
            }
            above = folder.parent();
        }
        found.push(entry.path.into_vec());
    }
    refuse(place, &conflicts, false)?;
    Ok(found)
}

impl Keep for Stays {
    fn keeps(&self, path: &[u8], is_folder: bool) -> bool {
        self.own.contains(path) || self.parts.iter().any(|part| part.keeps(path, is_folder))
    }

    fn by_content(&self, folder: &[u8]) -> Option<&ByContent> {
        let holds = |part: &&PartRules| folder == part.at || part.inside(folder).is_some();
        self.parts.iter().find(holds).map(|part| &part.by_content)
    }
}

impl PartRules {
    /// The rules of one source.
    fn of(rules: &[Rule], version: u16, expansion: &mut Expansion) -> Result<Self> {
        let mut part = Self::default();
        let (mut patterns, mut marks, mut larger_than) = (Vec::new(), Vec::new(), None);
        for rule in rules {
            match rule {
                Rule::Exclude(pattern) => patterns.push(pattern.clone()),
                Rule::Path(path) => drop(part.paths.insert(path.clone())),
                Rule::MountPoint(path) => drop(part.mount_points.insert(path.clone())),
                Rule::OneFileSystem => {}
                Rule::Beside { name, begins } => marks.extend(Mark::new(name, begins)),
                Rule::LargerThan(bytes) => larger_than = Some(*bytes),
                Rule::Unnamed => drop(part.named.get_or_insert_default()),
                Rule::Named(path) => drop(part.named.get_or_insert_default().insert(path.clone())),
            }
        }
        part.patterns = match version {
            ..GIT_RULES_SNAPSHOT_VERSION => Excludes::of_older(&patterns, expansion)?,
            _ => Excludes::new(&patterns)?,
        };
        Ok(Self { by_content: ByContent::new(marks, larger_than), ..part })
    }

    /// Where a path of the target is in the part's source.
    fn inside(&self, path: &[u8]) -> Option<Vec<u8>> {
        let below = match path.strip_prefix(self.at.as_slice()) {
            Some(below) if self.at.is_empty() => below,
            Some([b'/', below @ ..]) => below,
            _ => return None,
        };
        let mut inside = self.base.clone();
        if !inside.is_empty() {
            inside.push(b'/');
        }
        inside.extend_from_slice(below);
        Some(inside)
    }

    fn keeps(&self, path: &[u8], is_folder: bool) -> bool {
        let Some(inside) = self.inside(path) else { return false };
        let database = || database_of(&inside).filter(|_| !is_folder);
        self.mount_points.contains(parent_of(&inside))
            || self.paths.contains(&inside)
            || !self.paths.is_empty() && database().is_some_and(|database| self.paths.contains(database))
            || self.patterns.leaves_out(&inside, is_folder)
    }

    /// Whether the snapshot has marks in a folder of its source, and nothing else there.
    fn has_only_marks(&self, desired: &Desired<'_>, folder: &[u8]) -> Result<bool> {
        let (Some(part), Some(path)) = (desired.parts().get(self.number), EntryPath::from_slashes(folder)) else {
            return Ok(false);
        };
        let mut has_mark = false;
        for entry in TreeReader::new(desired.session(), part.source.tree).entries_from(&path) {
            let entry = entry?;
            if !entry.path.is_within(&path) {
                break;
            }
            let slashes = entry.path.to_slashes();
            let below = slashes.get(folder.len()..).unwrap_or_default();
            let below = below.strip_prefix(b"/").unwrap_or(below);
            let name = below.split(|&byte| byte == b'/').next().unwrap_or_default();
            if name.is_empty() {
                continue;
            }
            let Some(mark) = self.by_content.marks().iter().find(|mark| mark.name() == name) else { return Ok(false) };
            has_mark |= mark.begins().is_empty()
                || matches!(&entry.node, Node::File(content) if content.bytes >= mark.begins().len() as u64);
        }
        Ok(has_mark)
    }
}

/// What stands at the target, but for what is hidden.
pub(super) struct StandingTree<'h> {
    scan: Scan,
    target: &'h Path,
    hidden: &'h [Vec<u8>],
}

impl<'h> StandingTree<'h> {
    pub(super) fn new(scan: Scan, target: &'h Path, hidden: &'h [Vec<u8>]) -> Self {
        Self { scan, target, hidden }
    }

    /// Does not go into the folder that was delivered last.
    pub(super) fn pass_over(&mut self) {
        self.scan.pass_over();
    }
}

impl Iterator for StandingTree<'_> {
    type Item = Result<(EntryPath, ScanEntry)>;

    fn next(&mut self) -> Option<Self::Item> {
        let top = |path: &[u8]| path.split(|&byte| byte == b'/').next().unwrap_or_default().to_vec();
        loop {
            return match self.scan.next()? {
                Ok(found) if !self.hidden.is_empty() && self.hidden.contains(&top(&found.path)) => continue,
                Ok(found) => {
                    let path = EntryPath::from_slashes(&found.path).ok_or_else(|| too_long(self.target, &found.path));
                    Some(path.map(|path| (path, found)))
                }
                Err(error) => Some(Err(error.into())),
            };
        }
    }
}

/// Deeper than any snapshot goes.
fn too_long(target: &Path, path: &[u8]) -> Error {
    let path = target.join(OsStr::from_bytes(path));
    let shown = path.iter().take(target.iter().count() + 1).collect();
    let detail = "holds folders that are too deep to be compared: move it away".into();
    copal_source::Error::Refused { path: shown, detail }.into()
}

/// Whether a file that stands begins in some way; what cannot be read does not.
fn begins<const N: usize>(standing: &read::TreeReader, path: &[u8], so: impl Fn([u8; N]) -> bool) -> bool {
    let mut head = [0; N];
    let read = standing.open_file(path).and_then(|file| file.read_at(0, &mut head));
    read.is_ok_and(|read| read == N) && so(head)
}

/// A place where something that stays is in the way of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The snapshot has content where something is mounted.
    Mounted(EntryPath),
    /// The snapshot has what its own rules leave out.
    LeftOut(EntryPath),
    /// What stays is in a folder, and the snapshot has no folder there.
    Inside { folder: EntryPath, stays: EntryPath },
    /// A folder where the snapshot has none, or the other way round, and nothing is to be removed.
    Kind(EntryPath),
}

impl Conflict {
    fn sentence(&self) -> String {
        match self {
            Self::Mounted(path) => format!("something is mounted at {path}, where the snapshot has content"),
            Self::LeftOut(path) => format!("{path} stays where it is, and the snapshot has something there as well"),
            Self::Inside { folder, stays } => {
                format!("{folder} is no folder in the snapshot, and holds {stays}, which stays")
            }
            Self::Kind(path) => {
                format!("{path} is a folder either here or in the snapshot, and nothing is to be removed")
            }
        }
    }
}

/// Refuses, before anything is touched, what cannot be done without touching what stays; `gentle`: where
/// nothing is to be removed.
pub(super) fn refuse(place: &Place, conflicts: &[Conflict], gentle: bool) -> Result<()> {
    if conflicts.is_empty() {
        return Ok(());
    }
    let mut detail: Vec<String> = conflicts.iter().take(NAMED_MAX).map(Conflict::sentence).collect();
    if conflicts.len() > NAMED_MAX {
        detail.push(format!("and {} more such places", conflicts.len() - NAMED_MAX));
    }
    if conflicts.iter().any(|conflict| matches!(conflict, Conflict::Mounted(_))) {
        detail.push(format!("unmount that, or {} a part with --path", if gentle { "restore" } else { "deploy" }));
    }
    let of_rules = |conflict: &Conflict| matches!(conflict, Conflict::LeftOut(_) | Conflict::Inside { .. });
    let of_kind = |conflict: &Conflict| matches!(conflict, Conflict::Kind(_));
    let ways = match (conflicts.iter().any(of_rules), conflicts.iter().any(of_kind)) {
        (true, _) if gentle => Some("move that away, or leave it out of the restore with --exclude"),
        (true, _) => Some("move that away, or deploy with --delete-excluded"),
        (false, true) => Some("move that away, or restore with --delete"),
        (false, false) => None,
    };
    detail.extend(ways.map(str::to_owned));
    Err(Error::UnfitTarget { target: place.path.clone(), detail: detail.join("; ") })
}

#[cfg(test)]
mod tests {
    //! Goal: rules count from their source's root, wherever a part of it goes. Method: one `check`.

    use super::*;

    fn rules(at: &str, base: &str) -> Stays {
        let patterns = Excludes::new(&["/a/cache/".to_owned(), "*.tmp".to_owned()]).unwrap();
        let (paths, mount_points) = ([b"a/own".to_vec()].into(), [b"a/mnt".to_vec()].into());
        let part =
            PartRules { at: at.into(), base: base.into(), patterns, paths, mount_points, ..PartRules::default() };
        Stays { parts: vec![part], own: HashSet::new() }
    }

    #[test]
    fn rules_count_from_their_source_s_root() {
        let check =
            |rules: &Stays, path: &str, kept: bool| assert_eq!(rules.keeps(path.as_bytes(), true), kept, "{path}");
        let whole = rules("", "");
        for path in ["a/cache", "x.tmp", "b/c.tmp", "a/own", "a/mnt/x"] {
            check(&whole, path, true);
        }
        for path in ["cache", "b/a/cache", "own", "a/mnt", "a/mnt2/x", "a/owner"] {
            check(&whole, path, false);
        }
        let labelled = rules("data", "");
        check(&labelled, "data/a/cache", true);
        check(&labelled, "a/cache", false);
        check(&labelled, "database/x.tmp", false);
        let part = rules("", "a");
        check(&part, "cache", true);
        check(&part, "a/cache", false);
        check(&part, "own", true);
        check(&part, "mnt/x", true);
    }

    #[test]
    fn a_log_is_that_of_a_database_which_stays() {
        let patterns = Excludes::new(&["*.db".to_owned(), "!*.db-shm".to_owned()]).unwrap();
        let (paths, mount_points) = ([b"own".to_vec()].into(), HashSet::new());
        let (at, base) = (b"data".to_vec(), Vec::new());
        let part = PartRules { at, base, patterns, paths, mount_points, ..PartRules::default() };
        let rules = Stays { parts: vec![part], own: HashSet::new() };
        let check = |path: &str, database: Option<&str>| {
            let path = EntryPath::from_slashes(path.as_bytes()).unwrap();
            let found = rules.keeps_database_of(&path).map(|found| found.to_slashes().to_vec());
            assert_eq!(found.as_deref(), database.map(str::as_bytes), "{path}");
        };
        check("data/x/a.db-wal", Some("data/x/a.db"));
        check("data/a.db-journal", Some("data/a.db"));
        check("data/own-wal", Some("data/own"));
        for other in ["data/a.db", "data/a.db-shm", "data/a-wal", "a.db-wal", "data/x/own-wal", "data-wal"] {
            check(other, None);
        }
    }
}
