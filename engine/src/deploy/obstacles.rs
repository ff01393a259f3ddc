//! What keeps a planned deploy from being carried out, found before anything is decided.
//!
//! A journal that is committed has to be carried out, and a tree that was exchanged has to be removed. What a
//! person has forbidden (immutable files, mounts, swap space) is therefore asked for first: a deploy that
//! cannot be finished does not begin.

use copal_source::target::{Obstacles, TargetTree, Touch};

use super::place::{Place, WriteRoot};
use super::plan::{Action, Change, Over, Plan};
use super::run::Run;
use crate::error::{Error, Result};

/// Most paths that are named.
const NAMED_MAX: usize = 8;

/// What keeps the changes of a plan from being made in place, as a sentence.
pub(super) fn in_place(run: &Run<'_>, root: &WriteRoot, plan: &Plan) -> Result<Option<String>> {
    let mut obstacles = Obstacles::of(&root.tree)?;
    let mut found = Vec::new();
    for change in &plan.changes {
        run.context.check_interrupt()?;
        found.extend(of_change(&mut obstacles, root, change)?);
        if found.len() > NAMED_MAX {
            break;
        }
    }
    for folder in plan.folders.iter().filter(|folder| folder.touched) {
        if found.len() > NAMED_MAX {
            break;
        }
        let path = root.path(&folder.path);
        found.extend(obstacles.to(&path, Touch::Metadata)?.map(|why| (path, why)));
    }
    Ok(sentence(&found))
}

fn of_change(obstacles: &mut Obstacles<'_>, root: &WriteRoot, change: &Change) -> Result<Vec<(Vec<u8>, &'static str)>> {
    let path = root.path(&change.path);
    let touch = match change.action {
        Action::Remove | Action::Create { over: Over::Folder } => return Ok(obstacles.to_removal(&path, NAMED_MAX)?),
        Action::Create { over: Over::Nothing } => Touch::Create,
        Action::Create { over: Over::Other } => Touch::Replace,
        Action::Patch { .. } => Touch::Write,
        Action::Metadata => Touch::Metadata,
    };
    Ok(obstacles.to(&path, touch)?.map(|why| (path, why)).into_iter().collect())
}

/// What keeps the tree that stands at a target from being removed after it was exchanged, as a sentence.
pub(super) fn to_exchange(place: &Place) -> Result<Option<String>> {
    let tree = match TargetTree::open(&place.path) {
        Ok(tree) => tree,
        // A file or a link is removed by its name.
        Err(_) => {
            let root = WriteRoot::open(&place.path, true)?;
            let name = root.file.clone().unwrap_or_default();
            let found = Obstacles::of(&root.tree)?.to(&name, Touch::Replace)?;
            return Ok(sentence(&found.map(|why| (name, why)).into_iter().collect::<Vec<_>>()));
        }
    };
    Ok(sentence(&Obstacles::of(&tree)?.to_removal(b"", NAMED_MAX + 1)?))
}

fn sentence(found: &[(Vec<u8>, &'static str)]) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let named = found.iter().take(NAMED_MAX).map(|(path, why)| {
        let path = if path.is_empty() { "it".into() } else { String::from_utf8_lossy(path) };
        format!("{path} {why}")
    });
    let mut named: Vec<String> = named.collect();
    if found.len() > NAMED_MAX {
        named.push("there are more".into());
    }
    Some(named.join("; "))
}

pub(super) fn unfit(place: &Place, detail: String) -> Error {
    Error::UnfitTarget { target: place.path.clone(), detail }
}
