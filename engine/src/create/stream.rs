//! A source that comes as a stream: one file of the snapshot, stored while it is read.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use copal_manifest::entry::{Entry, EntryPath, Metadata, Node, Timestamp};
use copal_manifest::snapshot::{SourceKind, SourceRecord};
use copal_manifest::tree::{TreeBuilder, TreeReader};

use crate::context::{Context, Progress};
use crate::create::creation::{Creation, Taken};
use crate::create::left_out::LeftOut;
use crate::error::{Error, Result};
use crate::storing::stream::{Ingest, with_ingest};

/// Read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// What a stream may hold is nobody else's.
const MODE: u32 = 0o600;

/// A stream as a source.
pub struct Stream<'r> {
    /// Its label, by which it is shown, and its name in a target.
    pub label: String,
    /// What it is called in messages.
    pub called: String,
    /// Its bytes.
    pub bytes: &'r mut (dyn Read + Send),
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stream").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Creation {
    /// Stores a stream. After [`Error::Interrupted`] what was stored is found again by the next run.
    pub(super) fn take_stream(&self, context: &Context, stream: Stream<'_>) -> Result<Taken> {
        let taken = self.store_stream(context, stream);
        if matches!(taken, Err(Error::Interrupted)) {
            self.checkpoint()?;
        }
        taken
    }

    fn store_stream(&self, context: &Context, stream: Stream<'_>) -> Result<Taken> {
        context.monitor.phase("storing");
        let before = self.parent_record(&stream.label, b"");
        let before = before.map(|record| TreeReader::new(self.session(), record.tree).get(&EntryPath::root()));
        let before = before.transpose()?.flatten();
        let content_before = before.as_ref().and_then(|entry| match &entry.node {
            Node::File(content) => Some(content.clone()),
            _ => None,
        });
        let boundary = *self.session().repository().keys().tree_boundary_key();
        let label = stream.label.clone();
        with_ingest(self.session(), self.cutter(), context.worker_threads(), |ingest| {
            let mut file = ingest.file(content_before.clone());
            read_all(context, stream, ingest, |bytes, ingest| file.data(bytes, ingest))?;
            let content = file.finish(ingest)?;
            let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let fresh = Metadata { mode: MODE, uid: me.0, gid: me.1, modified: self.created(), ..Metadata::default() };
            // A stream has no time of its own: the same bytes are the same file.
            let metadata = before.filter(|_| content_before.as_ref() == Some(&content)).map(|entry| entry.metadata);
            let bytes = content.bytes;
            let entry =
                Entry { path: EntryPath::root(), metadata: metadata.unwrap_or(fresh), node: Node::File(content) };
            let mut builder = TreeBuilder::new(&boundary);
            builder.push(&entry, ingest.sink())?;
            let record = SourceRecord {
                label,
                kind: SourceKind::File,
                path: Vec::new(),
                tree: builder.finish(ingest.sink())?,
                files: 1,
                entries: 1,
                bytes,
                device: 0,
                trusted_before: Timestamp { seconds: i64::MIN, nanoseconds: 0 },
            };
            let (warnings, contents, left_out) = (Vec::new(), Vec::new(), LeftOut::default());
            Ok(Taken { record, bytes_read: bytes, warnings, unread_files: 0, torn_files: 0, contents, left_out })
        })
    }
}

fn read_all<'s>(
    context: &Context,
    stream: Stream<'_>,
    ingest: &mut Ingest<'s>,
    mut take: impl FnMut(&[u8], &mut Ingest<'s>) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        context.check_interrupt()?;
        let read = match stream.bytes.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(|error| unreadable(&stream.called, error))?,
        };
        if read == 0 {
            return Ok(());
        }
        take(&buffer[..read], ingest)?;
        context.monitor.progress(Progress { bytes_done: ingest.bytes_taken(), ..Progress::default() });
    }
}

fn unreadable(called: &str, source: io::Error) -> Error {
    copal_source::Error::Io { action: "reading", path: called.into(), source }.into()
}
