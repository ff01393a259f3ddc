//! Entries and contents of one snapshot: `ls`, `dump`, and the walk that an archive writer follows.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use copal_manifest::content::FileContent;
use copal_manifest::entry::{Entry, EntryPath, Node};
use copal_manifest::snapshot::SourceKind;
use copal_manifest::tree::TreeReader;
use copal_store::session::{ChunkSource, Session};

use crate::catalogue::Catalogue;
use crate::content_reader::ContentReader;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::inspect::place::{Place, display, resolve};
use crate::secret::unwrapped;

/// Calls `visit` for the entry at a display path (`[label/]path`) and, for a folder, what is in it
/// (`recursive`: all below it), in path order, each with its display path.
pub fn ls(
    context: &Context,
    reference: &str,
    path: &[u8],
    recursive: bool,
    visit: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    in_snapshot(context, reference, path, |session, place| {
        let reader = TreeReader::new(session, place.source.tree);
        let depth = place.path.names().count();
        let mut entries = reader.entries_from(&place.path);
        let mut found = false;
        let mut skip_to: Option<EntryPath> = None;
        loop {
            if let Some(after) = skip_to.take() {
                entries.seek(&after)?;
            }
            let Some(entry) = entries.next().transpose()? else { break };
            if !entry.path.is_within(&place.path) {
                break;
            }
            found = true;
            context.check_interrupt()?;
            let below = entry.path.names().count() - depth;
            if !recursive && below > 1 {
                continue;
            }
            visit(&display(place.source, &entry.path), &entry)?;
            if !recursive && below == 1 && matches!(entry.node, Node::Directory) {
                skip_to = after_subtree(&entry.path);
            }
        }
        if found { Ok(()) } else { Err(missing(reference, path)) }
    })
}

/// Writes one file's content; returns its length in bytes.
pub fn dump(context: &Context, reference: &str, path: &[u8], out: &mut dyn Write) -> Result<u64> {
    let mut written = None;
    in_snapshot(context, reference, path, |session, place| {
        let reader = TreeReader::new(session, place.source.tree);
        let entry = reader.get(&place.path)?.ok_or_else(|| missing(reference, path))?;
        let content = match regular_content(&reader, &entry)? {
            Some(content) => content,
            None => {
                let shown = String::from_utf8_lossy(path).into_owned();
                return Err(Error::Usage(format!("{shown:?} is not a regular file; use --tar for a folder")));
            }
        };
        let secret = match place.source.kind {
            SourceKind::Secret => unwrapped(session, &content)?,
            _ => None,
        };
        written = Some(match secret {
            // As the application knows it: it is stored wrapped.
            Some(secret) => write_secret(&secret, out)?,
            None => write_content(session, &content, out)?,
        });
        Ok(())
    })?;
    written.ok_or_else(|| missing(reference, path))
}

fn write_secret(secret: &[u8], out: &mut dyn Write) -> Result<u64> {
    out.write_all(secret).map_err(|error| sink_error(&error))?;
    Ok(secret.len() as u64)
}

/// Receives the members of a folder, for an archive writer of the program.
pub trait MemberSink {
    /// One member; `content` is given for regular files and has exactly the entry's bytes. A hard link to a
    /// file that is not among the members comes as that file.
    fn member(&mut self, display_path: &[u8], entry: &Entry, content: Option<&mut dyn Read>) -> Result<()>;
}

/// Sends a path and all below it to a sink, in path order.
pub fn walk(context: &Context, reference: &str, path: &[u8], sink: &mut dyn MemberSink) -> Result<()> {
    in_snapshot(context, reference, path, |session, place| {
        let mut found = false;
        let reader = TreeReader::new(session, place.source.tree);
        // Names of what stands outside the part: the first name inside is the thing itself, the others are
        // names of that.
        let mut promoted: HashMap<EntryPath, EntryPath> = HashMap::new();
        for entry in reader.entries_from(&place.path) {
            let mut entry = entry?;
            if !entry.path.is_within(&place.path) {
                break;
            }
            found = true;
            if let Node::HardLink(first) = &entry.node
                && !first.is_within(&place.path)
            {
                entry.node = match promoted.get(first) {
                    Some(holder) => Node::HardLink(holder.clone()),
                    None => {
                        promoted.insert(first.clone(), entry.path.clone());
                        named_by(&reader, &entry)?
                    }
                };
            }
            context.check_interrupt()?;
            let shown = display(place.source, &entry.path);
            match &entry.node {
                Node::File(content) => {
                    sink.member(&shown, &entry, Some(&mut ContentReader::new(session, content)))?;
                }
                _ => sink.member(&shown, &entry, None)?,
            }
        }
        if found { Ok(()) } else { Err(missing(reference, path)) }
    })
}

/// The content of a regular file or of what a hard link names.
pub(super) fn regular_content(reader: &TreeReader<'_>, entry: &Entry) -> Result<Option<FileContent>> {
    match named_by(reader, entry)? {
        Node::File(content) => Ok(Some(content)),
        _ => Ok(None),
    }
}

/// What an entry is, or of another name: what it is a name of.
pub(super) fn named_by(reader: &TreeReader<'_>, entry: &Entry) -> Result<Node> {
    let Node::HardLink(to) = &entry.node else { return Ok(entry.node.clone()) };
    match reader.get(to)?.map(|first| first.node) {
        None | Some(Node::HardLink(_) | Node::Directory) => {
            Err(copal_store::Error::damaged(&entry.path, "what this hard link names is not there").into())
        }
        Some(node) => Ok(node),
    }
}

fn in_snapshot(
    context: &Context,
    reference: &str,
    path: &[u8],
    mut act: impl FnMut(&Session, &Place<'_>) -> Result<()>,
) -> Result<()> {
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let listed = catalogue.find(reference)?;
    session.prefer(listed.signer);
    for place in resolve(&listed.snapshot, path)? {
        act(&session, &place)?;
    }
    Ok(session.end()?)
}

fn missing(reference: &str, path: &[u8]) -> Error {
    Error::NoSuchPath { snapshot: reference.to_owned(), path: String::from_utf8_lossy(path).into_owned() }
}

/// The least path after all that is below `folder`.
fn after_subtree(folder: &EntryPath) -> Option<EntryPath> {
    // Below `folder` keys go on with 0x00; 0x01 is the least byte that a sibling's longer name can have
    // there.
    let mut key = folder.key().to_vec();
    key.push(1);
    EntryPath::from_key(key)
}

fn write_content(source: &dyn ChunkSource, content: &FileContent, out: &mut dyn Write) -> Result<u64> {
    let mut reader = ContentReader::new(source, content);
    let mut written = 0;
    while reader.fill()? {
        let run = reader.available();
        out.write_all(run).map_err(|error| sink_error(&error))?;
        let taken = run.len();
        reader.consume(taken);
        written += taken as u64;
    }
    Ok(written)
}

/// A failure of the sink is neither the store's nor the source's; its kind is kept (a broken pipe is no
/// error).
fn sink_error(error: &io::Error) -> Error {
    Error::Source(copal_source::Error::Io {
        action: "writing",
        path: "the output".into(),
        source: io::Error::new(error.kind(), error.to_string()),
    })
}
