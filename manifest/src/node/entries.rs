//! Leaves of a tree of entries.

use std::collections::{BTreeSet, HashMap};

use super::columns::{Column, Decoded, Malformed, Reader};
use super::inner::{decode_paths, shared_prefix};
use super::{header, open, pieces};
use crate::content::{Cutting, FILE_BYTES_MAX, FileContent, INLINE_PIECES_MAX, Pieces};
use crate::entry::{Entry, EntryPath, Metadata, Node, PATH_BYTES_MAX, Timestamp, Xattr};
use crate::tree::{HEIGHT_MAX, NodeShape, TreeRoot};

/// Longest name of an attribute in bytes (`XATTR_NAME_MAX` is 255).
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest value of an attribute in bytes (`XATTR_SIZE_MAX`).
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// Most attributes of an entry: their names fill `XATTR_LIST_MAX`.
const XATTRS_MAX: u64 = 32 << 10;
const NANOSECONDS: u32 = 1_000_000_000;
const MODE_MAX: u64 = 0o7777;

/// A leaf under construction, column by column.
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    count: usize,
    last: EntryPath,
    last_modified: i64,
    last_inode: u64,
    shared_lengths: Column,
    suffix_lengths: Column,
    suffixes: Column,
    kinds: Column,
    modes: Column,
    owners: Column,
    groups: Column,
    modified: Column,
    changed: Column,
    inodes: Column,
    xattr_sets: Column,
    xattr_indexes: Column,
    seen_xattrs: HashMap<Vec<Xattr>, u64>,
    contents: Column,
    ids: Column,
}

impl Leaf {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn last(&self) -> &EntryPath {
        &self.last
    }

    /// About how many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        let large = [&self.suffixes, &self.xattr_sets, &self.contents, &self.ids];
        large.iter().map(|column| column.bytes().len()).sum::<usize>() + self.count * 24
    }

    /// Appends an entry, whose path is known to follow.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let key = entry.path.key();
        let shared = shared_prefix(if self.count == 0 { &[] } else { self.last.key() }, key);
        self.shared_lengths.number(shared as u64);
        self.suffix_lengths.number((key.len() - shared) as u64);
        self.suffixes.raw(&key[shared..]);
        self.push_metadata(&entry.metadata);
        self.push_node(&entry.node);
        self.last = entry.path.clone();
        self.count += 1;
    }

    fn push_metadata(&mut self, metadata: &Metadata) {
        let Metadata { mode, uid, gid, modified, changed, inode, xattrs } = metadata;
        self.modes.number((*mode).into());
        self.owners.number((*uid).into());
        self.groups.number((*gid).into());
        self.modified.signed(modified.seconds.wrapping_sub(self.last_modified));
        self.modified.number(modified.nanoseconds.into());
        self.changed.signed(changed.seconds.wrapping_sub(modified.seconds));
        self.changed.number(changed.nanoseconds.into());
        self.inodes.signed(inode.wrapping_sub(self.last_inode) as i64);
        self.last_modified = modified.seconds;
        self.last_inode = *inode;
        let index = if xattrs.is_empty() { 0 } else { self.xattr_index(xattrs) };
        self.xattr_indexes.number(index);
    }

    /// The number of a set of attributes, from 1, in the order of first use.
    fn xattr_index(&mut self, xattrs: &[Xattr]) -> u64 {
        if let Some(index) = self.seen_xattrs.get(xattrs) {
            return *index;
        }
        self.xattr_sets.number(xattrs.len() as u64);
        for xattr in xattrs {
            self.xattr_sets.counted(&xattr.name);
            self.xattr_sets.counted(&xattr.value);
        }
        let index = self.seen_xattrs.len() as u64 + 1;
        self.seen_xattrs.insert(xattrs.to_vec(), index);
        index
    }

    fn push_node(&mut self, node: &Node) {
        self.kinds.byte(kind_byte(node));
        match node {
            Node::Directory | Node::Fifo | Node::Socket => {}
            Node::File(content) => self.push_content(content),
            Node::Symlink(target) => self.contents.counted(target),
            Node::HardLink(path) => self.contents.counted(path.key()),
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                self.contents.number((*major).into());
                self.contents.number((*minor).into());
            }
        }
    }

    fn push_content(&mut self, content: &FileContent) {
        self.contents.number(match content.cutting {
            Cutting::Small => 0,
            Cutting::Content => 1,
            Cutting::Fixed(bytes) => u64::from(bytes) + 1,
        });
        match &content.pieces {
            Pieces::Tree(tree) => {
                self.contents.number(0);
                self.contents.byte(tree.height);
                self.contents.number(content.bytes);
                self.ids.raw(tree.id.as_bytes());
            }
            Pieces::Inline(list) => {
                self.contents.number(list.len() as u64 + 1);
                list.iter().for_each(|piece| pieces::put(piece, &mut self.contents, &mut self.ids));
            }
        }
    }

    /// The node's bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut node = header(NodeShape::Entries(0), self.count);
        for column in [&self.shared_lengths, &self.suffix_lengths, &self.suffixes, &self.kinds, &self.modes] {
            node.raw(column.bytes());
        }
        for column in [&self.owners, &self.groups, &self.modified, &self.changed, &self.inodes] {
            node.raw(column.bytes());
        }
        node.number(self.seen_xattrs.len() as u64);
        for column in [&self.xattr_sets, &self.xattr_indexes, &self.contents, &self.ids] {
            node.raw(column.bytes());
        }
        node.into_bytes()
    }
}

fn kind_byte(node: &Node) -> u8 {
    match node {
        Node::Directory => b'd',
        Node::File(_) => b'f',
        Node::Symlink(_) => b'l',
        Node::HardLink(_) => b'h',
        Node::Fifo => b'p',
        Node::Socket => b's',
        Node::CharDevice { .. } => b'c',
        Node::BlockDevice { .. } => b'b',
    }
}

/// Decodes a leaf.
pub(crate) fn decode(bytes: &[u8]) -> Decoded<Vec<Entry>> {
    let (mut reader, count) = open(bytes, NodeShape::Entries(0))?;
    let paths = decode_paths(&mut reader, count)?;
    let kinds = reader.raw(count)?;
    let metadata = decode_metadata(&mut reader, count)?;
    let mut entries = Vec::with_capacity(count);
    for ((path, metadata), kind) in paths.into_iter().zip(metadata).zip(kinds) {
        let node = decode_node(&mut reader, *kind, &path)?;
        entries.push(Entry { path, metadata, node });
    }
    for entry in &mut entries {
        if let Node::File(content) = &mut entry.node {
            match &mut content.pieces {
                Pieces::Tree(tree) => tree.id = reader.id()?,
                Pieces::Inline(list) => list.iter_mut().try_for_each(|piece| pieces::take_id(piece, &mut reader))?,
            }
        }
    }
    reader.end()?;
    Ok(entries)
}

fn decode_metadata(reader: &mut Reader<'_>, count: usize) -> Decoded<Vec<Metadata>> {
    let mut all = vec![Metadata::default(); count];
    for metadata in &mut all {
        metadata.mode = reader.number_to(MODE_MAX)? as u32;
    }
    for metadata in &mut all {
        metadata.uid = reader.small()?;
    }
    for metadata in &mut all {
        metadata.gid = reader.small()?;
    }
    let mut seconds = 0i64;
    for metadata in &mut all {
        seconds = seconds.wrapping_add(reader.signed()?);
        metadata.modified = Timestamp { seconds, nanoseconds: decode_nanoseconds(reader)? };
    }
    for metadata in &mut all {
        let seconds = metadata.modified.seconds.wrapping_add(reader.signed()?);
        metadata.changed = Timestamp { seconds, nanoseconds: decode_nanoseconds(reader)? };
    }
    let mut inode = 0u64;
    for metadata in &mut all {
        inode = inode.wrapping_add(reader.signed()? as u64);
        metadata.inode = inode;
    }
    decode_xattrs(reader, &mut all)?;
    Ok(all)
}

fn decode_nanoseconds(reader: &mut Reader<'_>) -> Decoded<u32> {
    Ok(reader.number_to(u64::from(NANOSECONDS) - 1)? as u32)
}

fn decode_xattrs(reader: &mut Reader<'_>, all: &mut [Metadata]) -> Decoded<()> {
    let sets = reader.number_to(all.len() as u64)?;
    let sets = (0..sets).map(|_| decode_xattr_set(reader)).collect::<Decoded<Vec<_>>>()?;
    if sets.iter().collect::<BTreeSet<_>>().len() != sets.len() {
        return Err(Malformed("a set of attributes stands in it twice"));
    }
    let mut used = 0;
    for metadata in all {
        let index = reader.number_to(sets.len() as u64)? as usize;
        if index > used + 1 {
            return Err(Malformed("its sets of attributes are not in the order of use"));
        }
        used = used.max(index);
        if let Some(set) = index.checked_sub(1).and_then(|at| sets.get(at)) {
            metadata.xattrs.clone_from(set);
        }
    }
    if used == sets.len() { Ok(()) } else { Err(Malformed("it has a set of attributes without use")) }
}

fn decode_xattr_set(reader: &mut Reader<'_>) -> Decoded<Vec<Xattr>> {
    let count = reader.number_to(XATTRS_MAX)?;
    let mut set: Vec<Xattr> = Vec::new();
    for _ in 0..count {
        let name = reader.counted(XATTR_NAME_BYTES_MAX)?;
        let value = reader.counted(XATTR_VALUE_BYTES_MAX)?;
        if name.is_empty() || name.contains(&0) || set.last().is_some_and(|last| *last.name >= *name) {
            return Err(Malformed("its attributes are not in order"));
        }
        set.push(Xattr { name: name.into(), value: value.into() });
    }
    if set.is_empty() { Err(Malformed("it has an empty set of attributes")) } else { Ok(set) }
}

fn decode_node(reader: &mut Reader<'_>, kind: u8, path: &EntryPath) -> Decoded<Node> {
    Ok(match kind {
        b'd' => Node::Directory,
        b'f' => Node::File(decode_content(reader)?),
        b'l' => {
            let target = reader.counted(PATH_BYTES_MAX)?;
            if target.is_empty() || target.contains(&0) {
                return Err(Malformed("a symbolic link has no target"));
            }
            Node::Symlink(target.into())
        }
        b'h' => {
            let first = EntryPath::from_key(reader.counted(PATH_BYTES_MAX)?.to_vec());
            let first = first.filter(|first| first < path && !first.is_root());
            Node::HardLink(first.ok_or(Malformed("a hard link leads nowhere"))?)
        }
        b'p' => Node::Fifo,
        b's' => Node::Socket,
        b'c' => Node::CharDevice { major: reader.small()?, minor: reader.small()? },
        b'b' => Node::BlockDevice { major: reader.small()?, minor: reader.small()? },
        _ => return Err(Malformed("an entry is of an unknown kind")),
    })
}

fn decode_content(reader: &mut Reader<'_>) -> Decoded<FileContent> {
    let cutting = match reader.number_to(u64::from(u32::MAX) + 1)? {
        0 => Cutting::Small,
        1 => Cutting::Content,
        bytes => Cutting::Fixed((bytes - 1) as u32),
    };
    let form = reader.number_to(INLINE_PIECES_MAX as u64 + 1)?;
    let Some(count) = form.checked_sub(1) else {
        let height = reader.byte()?;
        let bytes = reader.number_to(FILE_BYTES_MAX)?;
        if height > HEIGHT_MAX || bytes == 0 {
            return Err(Malformed("a tree of pieces is too high or empty"));
        }
        let tree = TreeRoot { id: copal_store::ChunkId([0; 32]), height };
        return Ok(FileContent { bytes, cutting, pieces: Pieces::Tree(tree) });
    };
    let list = (0..count).map(|_| pieces::take_length(reader)).collect::<Decoded<Vec<_>>>()?;
    Ok(FileContent { bytes: pieces::total_bytes(&list)?, cutting, pieces: Pieces::Inline(list) })
}

/// What cannot be written, because no reader takes it.
pub(crate) fn why_unwritable(entry: &Entry) -> Option<&'static str> {
    let Metadata { mode, modified, changed, xattrs, .. } = &entry.metadata;
    let orderly = xattrs.windows(2).all(|pair| pair[0].name < pair[1].name);
    let bounded = |xattr: &Xattr| {
        (1..=XATTR_NAME_BYTES_MAX).contains(&xattr.name.len())
            && !xattr.name.contains(&0)
            && xattr.value.len() <= XATTR_VALUE_BYTES_MAX
    };
    if u64::from(*mode) > MODE_MAX {
        return Some("its mode has unknown bits");
    }
    if modified.nanoseconds >= NANOSECONDS || changed.nanoseconds >= NANOSECONDS {
        return Some("a time has too many nanoseconds");
    }
    if !orderly || !xattrs.iter().all(bounded) || xattrs.len() as u64 > XATTRS_MAX {
        return Some("its attributes are not in order or too long");
    }
    match &entry.node {
        Node::Symlink(target) if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0) => {
            Some("its target is none")
        }
        Node::HardLink(first) if *first >= entry.path || first.is_root() => {
            Some("its first name does not stand before it")
        }
        Node::File(content) => match &content.pieces {
            Pieces::Inline(list) if list.len() > INLINE_PIECES_MAX => Some("it has too many pieces"),
            Pieces::Inline(list) if pieces::total_bytes(list) != Ok(content.bytes) => Some("its pieces do not add up"),
            _ => None,
        },
        _ => None,
    }
}
