//! What Copal itself lives by: the repository, its key, the cache, the state. No command may write over them,
//! and no snapshot takes them along.
//!
//! A place is known by the filesystem and inode of each folder on the way to it, and by where its filesystem
//! has it: links, bind mounts, `..` and other spellings lead to the same answer. Links on the way count as
//! well, because without them the place is lost too. What is not there yet is known by the nearest folder
//! that is.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use copal_source::mounts::in_filesystem;

pub use crate::context::OwnPlace;

use crate::context::Context;
use crate::error::{Error, Result};

/// What the names have in their middle, or begin with, of what an application's deploy builds beside targets.
pub const UNIT: &str = ".copal-unit-";
/// Digits that follow: hexadecimal ones that nobody could know before.
const UNIT_DIGITS: usize = 12;

/// Links that are followed on the way to a place, as many as the system follows.
const LINKS_MAX: usize = 40;

/// Whether a path is of what an application's deploy builds beside a target or in it, and where the old state
/// is until the deploy ends: never a part of what stands there.
#[must_use]
pub fn is_unit(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let Some(at) = name.windows(UNIT.len()).rposition(|part| part == UNIT.as_bytes()) else { return false };
    let Some((digits, suffix)) = name[at + UNIT.len()..].split_at_checked(UNIT_DIGITS) else { return false };
    name[0] == b'.'
        && digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && matches!(suffix, b"" | b".top" | b".old" | b".in" | b".making")
}

/// How a target stands to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Is,
    LiesIn,
    Holds,
}

/// All places of a context.
fn places(context: &Context) -> Vec<OwnPlace> {
    let folder = |what, path: &Option<PathBuf>| path.as_ref().map(|path| OwnPlace::new(what, path));
    let mut places = context.own_places.clone();
    places.extend(folder("the state folder", &context.state_folder));
    places.extend(folder("the cache folder", &context.cache_folder));
    places
}

/// Refuses a target that is, holds, or lies in what Copal lives by, before anything is touched. Every command
/// that writes where a person says asks here first.
pub fn refuse(context: &Context, target: &Path) -> Result<()> {
    refuse_relations(context, target, &[Relation::Is, Relation::LiesIn, Relation::Holds])
}

/// The same for who leaves alone what the target holds beside its own entries: [`places_within`] names that.
pub(crate) fn refuse_within(context: &Context, target: &Path) -> Result<()> {
    refuse_relations(context, target, &[Relation::Is, Relation::LiesIn])
}

fn refuse_relations(context: &Context, target: &Path, refused: &[Relation]) -> Result<()> {
    let wanted = Way::to(target);
    for OwnPlace { what, path } in places(context) {
        let relations = ways_to(&path).into_iter().filter_map(|way| wanted.relation(&way));
        let found = relations.filter(|relation| refused.contains(relation)).min_by_key(|relation| *relation as u8);
        if let Some(relation) = found {
            let relation = match relation {
                Relation::Is => "is",
                Relation::LiesIn => "lies in",
                Relation::Holds => "holds",
            };
            return Err(Error::OwnPlace { target: target.to_owned(), relation, what, place: path });
        }
    }
    Ok(())
}

/// The folders of Copal's own that lie below a source, each with its path from there.
pub(crate) fn folders_within(context: &Context, source: &Path) -> Vec<(OwnPlace, PathBuf)> {
    let mut found = places_within(context, source);
    found.retain(|(place, _)| !place.path.is_file());
    found
}

/// All of Copal's own that lies below a folder, and the links that lead to it, each with its path from there.
pub(crate) fn places_within(context: &Context, folder: &Path) -> Vec<(OwnPlace, PathBuf)> {
    let folder = Way::to(folder);
    let mut found = Vec::new();
    for place in places(context) {
        let ways = ways_to(&place.path).into_iter().filter_map(|way| way.below(&folder));
        found.extend(ways.filter(|below| !below.as_os_str().is_empty()).map(|below| (place.clone(), below)));
    }
    found
}

/// Refuses a source that is the repository itself, or a part of it.
pub(crate) fn refuse_source(context: &Context, source: &Path) -> Result<()> {
    let wanted = Way::to(source);
    for OwnPlace { what, path } in context.own_places.iter().filter(|place| place.what == OwnPlace::REPOSITORY) {
        if let Some(relation @ (Relation::Is | Relation::LiesIn)) = wanted.relation(&Way::to(path)) {
            let relation = if relation == Relation::Is { "is" } else { "lies in" };
            return Err(Error::OwnPlace { target: source.to_owned(), relation, what, place: path.clone() });
        }
    }
    Ok(())
}

/// A path that is free of links, with what each folder on it is known by.
struct Way {
    path: PathBuf,
    /// From the path itself up to the root.
    steps: Vec<Step>,
}

/// Filesystem and inode of what is there, and the rest of the path that is not.
#[derive(PartialEq, Eq)]
struct Step {
    device: u64,
    inode: u64,
    missing: PathBuf,
}

impl Way {
    /// The way to what a path leads to; a link at its end is followed to a folder only, as a target is.
    fn to(path: &Path) -> Self {
        Self::of(resolved(path, &mut Vec::new()))
    }

    fn of(path: PathBuf) -> Self {
        let mut steps = Vec::new();
        for place in path.ancestors() {
            let Some((base, found)) =
                place.ancestors().find_map(|base| fs::symlink_metadata(base).ok().map(|found| (base, found)))
            else {
                continue;
            };
            let missing = place.strip_prefix(base).unwrap_or(Path::new("")).to_owned();
            steps.push(Step { device: found.dev(), inode: found.ino(), missing });
        }
        Self { path, steps }
    }

    /// How this stands to a place of Copal's own.
    fn relation(&self, own: &Self) -> Option<Relation> {
        let lies_below = |below: PathBuf, relation| if below.as_os_str().is_empty() { Relation::Is } else { relation };
        match self.below(own) {
            Some(below) => Some(lies_below(below, Relation::LiesIn)),
            None => own.below(self).map(|below| lies_below(below, Relation::Holds)),
        }
    }

    /// The path from another place to this one; an empty one where they are the same.
    fn below(&self, other: &Self) -> Option<PathBuf> {
        let top = other.steps.first()?;
        if let Some(depth) = self.steps.iter().position(|step| step == top) {
            let above = self.path.ancestors().nth(depth)?;
            return self.path.strip_prefix(above).ok().map(Path::to_owned);
        }
        let (this, other) = (in_filesystem(&self.path)?, in_filesystem(&other.path)?);
        this.below(&other).map(Path::to_owned)
    }
}

/// The way to a place, and to each link on the way to it.
fn ways_to(path: &Path) -> Vec<Way> {
    let mut links = Vec::new();
    let end = resolved(path, &mut links);
    links.push(end);
    links.into_iter().map(Way::of).collect()
}

/// A path without links, absolute; the links on the way are collected, each at its own place. What is missing
/// stays as written.
fn resolved(path: &Path, links: &mut Vec<PathBuf>) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut left: Vec<OsString> = reversed(&absolute);
    let mut at = PathBuf::from("/");
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        let target = if links.len() < LINKS_MAX { fs::read_link(&at).ok() } else { None };
        let Some(target) = target else { continue };
        links.push(at.clone());
        at.pop();
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        left.extend(reversed(&target));
    }
    at
}

/// The parts of a path, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    //! Goal: every spelling of a place is that place. Method: one folder with links, one `check`.

    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_spelling_of_a_place_is_that_place() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        fs::create_dir_all(at("h/repo/packs")).unwrap();
        fs::create_dir_all(at("elsewhere")).unwrap();
        symlink(at("h"), at("link")).unwrap();
        symlink("../h/repo", at("elsewhere/repo")).unwrap();
        fs::write(at("h/key"), b"k").unwrap();
        fs::hard_link(at("h/key"), at("elsewhere/key")).unwrap();
        let check = |target: &str, own: &str, expected: Option<Relation>| {
            let wanted = Way::to(&at(target));
            let found = ways_to(&at(own)).into_iter().find_map(|way| wanted.relation(&way));
            assert_eq!(found, expected, "{target} and {own}");
        };
        check("h", "h/repo", Some(Relation::Holds));
        check("link", "h/repo", Some(Relation::Holds));
        check("h/../h/./repo", "link/repo", Some(Relation::Is));
        check("link/repo/packs", "h/repo", Some(Relation::LiesIn));
        check("h/repo/new/er", "h/repo", Some(Relation::LiesIn));
        check("elsewhere", "elsewhere/repo", Some(Relation::Holds));
        check("h", "elsewhere/repo", Some(Relation::Holds));
        check("elsewhere/key", "h/key", Some(Relation::Is));
        check("h/repos", "h/repo", None);
        check("elsewhere", "h/repo", None);
        check("h/state", "h/state/copal", Some(Relation::Holds));
        check("h/state/copal/x", "h/state/copal", Some(Relation::LiesIn));
        check("h/other", "h/state/copal", None);
    }
}
