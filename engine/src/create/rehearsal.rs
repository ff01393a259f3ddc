//! What a create would take and read, told by metadata alone. Nothing is written, in the repository or
//! elsewhere.

use std::collections::HashSet;
use std::path::PathBuf;

use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::{Snapshot, SourceRecord};
use copal_manifest::tree::TreeReader;
use copal_source::scan::{FileKind, FileStat};
use copal_store::session::Session;

use super::creation::{Naming, check_names, unmatched_of};
use super::evidence::is_unchanged;
use super::input::Input;
use super::left_out::LeftOut;
use super::parent::Parent;
use super::{CreateRequest, inputs_of, naming_of};
use crate::catalogue::{has_name, name_taken};
use crate::context::Context;
use crate::error::Result;

/// What would be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// What the create would compare with.
    pub parent: Option<Snapshot>,
    /// Non-folder entries.
    pub files: u64,
    /// Logical bytes.
    pub bytes: u64,
    /// Files that the parent lacks.
    pub files_new: u64,
    /// Files of which nothing vouches that they are as in the parent.
    pub files_changed: u64,
    /// Files that need not be read.
    pub files_unchanged: u64,
    /// Files of the parent that are gone.
    pub files_gone: u64,
    /// Bytes of new and changed files: no more than that is read, nor added.
    pub bytes_to_read: u64,
    /// What could not be looked at.
    pub warnings: Vec<String>,
    /// How many.
    pub unread_files: u64,
    /// Copal's own folders that would be left out.
    pub left_out: Vec<PathBuf>,
    /// Patterns that would leave nothing out.
    pub unmatched: Vec<String>,
}

/// Looks at the sources, and compares them with the parent.
pub fn rehearse(context: &Context, request: &CreateRequest) -> Result<Rehearsal> {
    let inputs = inputs_of(request, None)?;
    let naming = naming_of(request);
    check_names(&naming)?;
    let session = Session::begin_looking(&context.repository)?;
    session.stop_when(&context.interrupt);
    let full_name = Snapshot::full_name(&naming.app, &naming.name);
    if has_name(&context.repository, session.roots(), &full_name)? {
        return Err(name_taken(&without_cache(context), full_name));
    }
    let parent = parent_of(context, &session, &naming, &inputs)?;
    let mut rehearsal = Rehearsal::default();
    let mut left_out = Vec::new();
    for input in &inputs {
        let source = parent.as_ref().and_then(|parent| parent.source(&input.label, &input.path));
        left_out.push(rehearsal.take(context, &session, input, source.as_deref(), naming.force_read)?);
    }
    rehearsal.left_out = left_out.iter().flat_map(|one| one.own.iter().cloned()).collect();
    rehearsal.unmatched = unmatched_of(left_out.iter());
    rehearsal.parent = parent.map(|parent| parent.snapshot().clone());
    Ok(rehearsal)
}

/// Reading a cache may write it.
fn without_cache(context: &Context) -> Context {
    Context { cache_folder: None, memory: None, state_folder: None, ..context.clone() }
}

fn parent_of(context: &Context, session: &Session, naming: &Naming, inputs: &[Input]) -> Result<Option<Parent>> {
    use copal_store::roles::Action;
    if !context.repository.keys().role().may(Action::OpenManifests) {
        return Ok(None);
    }
    let places: Vec<_> = inputs.iter().map(|input| (input.label.clone(), input.path.clone())).collect();
    Parent::choose(&without_cache(context), session, &naming.app, &places, naming.parent.as_deref())
}

impl Rehearsal {
    fn take(
        &mut self,
        context: &Context,
        session: &Session,
        input: &Input,
        parent: Option<&SourceRecord>,
        force_read: bool,
    ) -> Result<LeftOut> {
        context.monitor.phase("scanning");
        let left_out = input.left_out(context)?;
        let (entries, reader) = input.open(&left_out, context.worker_threads())?;
        let mut before = parent.map(|parent| TreeReader::new(session, parent.tree).entries().peekable());
        let mut met: HashSet<(u64, u64)> = HashSet::new();
        let is_file = |entry: &Entry| entry.node != Node::Directory;
        for (number, found) in entries.enumerate() {
            context.check_interrupt()?;
            let found = match found {
                Ok(found) => found,
                Err(error) if number == 0 => return Err(error.into()),
                Err(error) => {
                    self.unread(error.to_string());
                    continue;
                }
            };
            let Some(path) = EntryPath::from_slashes(&found.path) else { continue };
            let mut known = None;
            while let Some(entry) = before.as_mut().and_then(|before| before.next_if(|entry| comes_by(entry, &path))) {
                let entry = entry?;
                if entry.path == path {
                    known = Some(entry);
                } else {
                    self.files_gone += u64::from(is_file(&entry));
                }
            }
            if found.stat.kind == FileKind::Directory {
                continue;
            }
            self.files += 1;
            let FileStat { kind, links, device, inode, bytes, .. } = found.stat;
            let again = links > 1 && !met.insert((device, inode));
            let bytes = if kind == FileKind::File && !again { bytes } else { 0 };
            self.bytes += bytes;
            let vouched = |entry: &Entry| {
                let trusted = parent.map(|parent| parent.trusted_before);
                // Another name of a file is taken as such: nothing of it is read.
                again || !force_read && trusted.is_some_and(|trusted| is_unchanged(entry, &found.stat, trusted))
            };
            match known {
                Some(entry) if vouched(&entry) => self.files_unchanged += 1,
                Some(_) => {
                    self.files_changed += 1;
                    self.bytes_to_read += bytes;
                }
                None => {
                    self.files_new += 1;
                    self.bytes_to_read += bytes;
                }
            }
        }
        for entry in before.into_iter().flatten() {
            self.files_gone += u64::from(is_file(&entry?));
        }
        for path in left_out.only.iter().flat_map(|only| only.unmet()) {
            if let Err(error) = reader.stat(&path) {
                self.unread(error.to_string());
            }
        }
        Ok(left_out)
    }

    fn unread(&mut self, why: String) {
        self.warnings.push(why);
        self.unread_files += 1;
    }
}

/// Whether the parent's next entry is at a path or before it; an error is taken at once.
fn comes_by(entry: &copal_store::Result<Entry>, path: &EntryPath) -> bool {
    entry.as_ref().map_or(true, |entry| entry.path <= *path)
}
