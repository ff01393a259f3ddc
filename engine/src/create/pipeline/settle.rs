//! The coordinator's other half: results come back and are put into the tree, in path order.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use copal_chunker::Cutter;
use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::Rule;
use copal_source::scan::FileKind;

use super::{Batch, Capture, FileKey, Waiting};
use crate::create::clones::{CLONE_BYTES_MIN, ContentIdentity};
use crate::create::extent::{Extent, ExtentDone};
use crate::create::large::{Assembled, Assembly, LargeFile, Part};
use crate::create::small::{ATTEMPTS, Outcome, SmallFile, capture_without_content};
use crate::error::{Error, Result};
use crate::storing::promise::Promise;

impl Capture<'_, '_> {
    pub(super) fn settle_what_is_ready(&mut self) -> Result<()> {
        while let Some(front) = self.window.front_mut() {
            let ready = match front {
                Waiting::Ready(..)
                | Waiting::Begin(_)
                | Waiting::Reuse { .. }
                | Waiting::Link(..)
                | Waiting::End(_) => true,
                Waiting::Part(promise) => promise.is_kept(),
                Waiting::Batched { batch, .. } => match self.batches.get_mut(batch) {
                    Some(Batch::Out(promise)) => promise.is_kept(),
                    Some(Batch::Back(_)) => true,
                    None => false,
                },
            };
            if !ready {
                break;
            }
            self.settle_front()?;
        }
        Ok(())
    }

    /// Waits for the front and puts it into the tree.
    pub(super) fn settle_front(&mut self) -> Result<()> {
        match self.window.pop_front() {
            None => Ok(()),
            Some(Waiting::Ready(entry, key)) => self.place(entry, key),
            Some(Waiting::Batched { batch, key }) => {
                let outcome = self.next_of_batch(batch)?;
                self.place_outcome(outcome, key)
            }
            Some(Waiting::Link(file, key)) => self.place_link(*file, key),
            Some(Waiting::Begin(large)) => {
                self.assembly = Some(Assembly::new(*large));
                Ok(())
            }
            Some(Waiting::Part(promise)) => {
                self.jobs_open -= 1;
                let done = promise.wait()?;
                match &mut self.assembly {
                    Some(assembly) => assembly.add(done, &mut self.sink),
                    None => Err(Error::Internal("a part without its file".into())),
                }
            }
            Some(Waiting::Reuse { begin, to }) => {
                let session = self.shared.session;
                let Some(assembly) = &mut self.assembly else {
                    return Err(Error::Internal("a part without its file".into()));
                };
                let bytes = assembly.reuse(begin, to, session, &mut self.sink)?;
                self.shared.meter.bytes_done(bytes);
                Ok(())
            }
            Some(Waiting::End(key)) => {
                let assembly = self.assembly.take().ok_or(Error::Internal("an end without its file".into()))?;
                let outcome = self.finish_large(assembly)?;
                self.shared.meter.file_done();
                self.place_outcome(outcome, key)
            }
        }
    }

    fn next_of_batch(&mut self, number: u64) -> Result<Outcome> {
        if number == self.batch_number {
            self.end_batch_now()?;
        }
        if let Some(Batch::Out(_)) = self.batches.get(&number)
            && let Some(Batch::Out(promise)) = self.batches.remove(&number)
        {
            self.jobs_open -= 1;
            self.batches.insert(number, Batch::Back(promise.wait()?.into()));
        }
        let missing = || Error::Internal("a batch without its files".into());
        let Some(Batch::Back(outcomes)) = self.batches.get_mut(&number) else { return Err(missing()) };
        let outcome = outcomes.pop_front().ok_or_else(missing)?;
        if outcomes.is_empty() {
            self.batches.remove(&number);
        }
        Ok(outcome)
    }

    /// A file that changed is read again, in its turn.
    fn finish_large(&mut self, first: Assembly) -> Result<Outcome> {
        let mut assembly = first;
        for attempt in 1.. {
            let (path, stat) = (assembly.large.path.clone(), assembly.large.stat());
            let name = self.shared.named(&path);
            let warning = |what: &str| format!("{name}: {what}");
            match assembly.finish(&mut self.sink) {
                Err(trouble) => return Outcome::of(trouble),
                Ok(Assembled::Still(entry)) => return Ok(Outcome::Taken(entry)),
                Ok(Assembled::Changed(entry)) if attempt == ATTEMPTS => {
                    return Ok(Outcome::Changing(entry, warning("it changed while it was read")));
                }
                Ok(Assembled::Torn) if attempt == ATTEMPTS => {
                    let whole = self.root.join(OsStr::from_bytes(&path.to_slashes()));
                    let why = warning("it kept changing while it was read, and is left out");
                    return Ok(Outcome::Unread(why, Some(whole)));
                }
                Ok(_) => {}
            }
            let cutter = self.shared.cutter;
            let large = match LargeFile::open(self.shared, &self.reader, path, &stat, None, None) {
                Ok(large) => large,
                Err(trouble) => return Outcome::of(trouble),
            };
            let extents = extents_of(&large, cutter);
            assembly = Assembly::new(large);
            let mut under_way = VecDeque::new();
            for extent in extents {
                under_way.push_back(self.send_extent(extent)?);
                if under_way.len() >= self.jobs_max {
                    self.add_part(&mut assembly, under_way.pop_front())?;
                }
            }
            while !under_way.is_empty() {
                self.add_part(&mut assembly, under_way.pop_front())?;
            }
        }
        Err(Error::Internal("attempts without end".into()))
    }

    fn add_part(&mut self, assembly: &mut Assembly, promise: Option<Promise<ExtentDone>>) -> Result<()> {
        let Some(promise) = promise else { return Ok(()) };
        self.jobs_open -= 1;
        assembly.add(promise.wait()?, &mut self.sink)
    }

    pub(super) fn place_outcome(&mut self, outcome: Outcome, key: Option<FileKey>) -> Result<()> {
        match outcome {
            Outcome::Taken(entry) => self.place(entry, key),
            Outcome::Changing(entry, warning) => {
                self.warnings.push(warning);
                self.torn_files += 1;
                self.place(entry, key)
            }
            Outcome::Unread(why, whole) => {
                let below = whole.and_then(|whole| self.below_root(&whole));
                self.unread(why, below.map(Rule::Path));
                Ok(())
            }
            Outcome::Vanished => Ok(()),
        }
    }

    /// Another name: of the first one if that is in the tree, else the file is captured under this one.
    fn place_link(&mut self, file: SmallFile, key: FileKey) -> Result<()> {
        if let Some((first, metadata)) = self.placed.get(&key) {
            let node = Node::HardLink(first.clone());
            let entry = Entry { path: file.path, metadata: metadata.clone(), node };
            self.shared.meter.file_done();
            return self.place(entry, None);
        }
        if file.stat.kind != FileKind::File {
            let outcome = capture_without_content(&file).or_else(Outcome::of)?;
            self.shared.meter.file_done();
            return self.place_outcome(outcome, Some(key));
        }
        let cutter = self.shared.cutter;
        let outcome = match LargeFile::open(self.shared, &self.reader, file.path, &file.stat, None, None) {
            Err(trouble) => Outcome::of(trouble)?,
            Ok(large) => {
                let extents = extents_of(&large, cutter);
                let mut assembly = Assembly::new(large);
                for extent in extents {
                    let promise = self.send_extent(extent)?;
                    self.add_part(&mut assembly, Some(promise))?;
                }
                self.finish_large(assembly)?
            }
        };
        self.place_outcome(outcome, Some(key))
    }

    /// The folder that is missing above a path, the outermost one: nothing stands in a snapshot without the
    /// folder that holds it.
    fn missing_above(&mut self, path: &EntryPath) -> Option<EntryPath> {
        while self.folders.last().is_some_and(|folder| !path.is_within(folder)) {
            self.folders.pop();
        }
        let mut missing = None;
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| self.folders.last() != Some(folder)) {
            above = folder.parent();
            missing = Some(folder);
        }
        missing
    }

    /// What is in a folder that was away, or could not be read, when its turn came, is left out with it.
    fn leave_out_orphan(&mut self, folder: EntryPath) {
        if self.missing.as_ref() != Some(&folder) {
            let name = self.shared.named(&folder);
            let why = format!("{name}: the folder could not be read when its turn came; what is in it is left out");
            self.unread(why, Some(Rule::Path(folder.to_slashes().to_vec())));
            self.missing = Some(folder);
        }
    }

    fn place(&mut self, entry: Entry, key: Option<FileKey>) -> Result<()> {
        if let Some(folder) = self.missing_above(&entry.path) {
            self.leave_out_orphan(folder);
            return Ok(());
        }
        match self.builder.push(&entry, &mut self.sink) {
            Err(copal_store::Error::Limit { what, .. }) => {
                self.unread(what, Some(Rule::Path(entry.path.to_slashes().to_vec())));
                return Ok(());
            }
            other => other?,
        }
        self.entries += 1;
        self.files += u64::from(entry.node != Node::Directory);
        if let Node::File(content) = &entry.node {
            self.bytes = self.bytes.saturating_add(content.bytes);
            if self.shared.cloned && content.bytes >= CLONE_BYTES_MIN {
                self.contents.push((entry.path.to_slashes().to_vec(), ContentIdentity::of(content)));
            }
        }
        if entry.node == Node::Directory {
            self.folders.push(entry.path.clone());
        }
        if let Some(key) = key {
            self.placed.insert(key, (entry.path, entry.metadata));
        }
        Ok(())
    }
}

/// The parts of a file of which all is read.
fn extents_of(large: &LargeFile, cutter: &Cutter) -> Vec<Extent> {
    let extent = |part| match part {
        Part::Read(extent) => Some(extent),
        Part::Reuse { .. } => None,
    };
    large.parts(cutter).filter_map(extent).collect()
}
