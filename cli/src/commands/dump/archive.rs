//! A pax archive (POSIX.1-2001) of entries: what a plain header cannot say stands in records before it.

use std::collections::HashSet;
use std::io::{self, Read, Write};

use copal_engine::inspect::MemberSink;
use copal_engine::{Error, Monitor, Result};
use copal_manifest::acl;
use copal_manifest::entry::{Entry, EntryPath, Node, Timestamp, Xattr};
use tar::{Builder, EntryType, Header};

use crate::exit_code::ProgramError;
use crate::output::engine_error;

/// Longest link target of a plain header.
const LINK_BYTES_MAX: usize = 100;
/// Largest owner of a plain header: seven octal digits.
const OWNER_MAX: u32 = 0o777_7777;

/// Writes members as they come.
pub(super) struct Archive<'a, W: Write> {
    builder: Builder<W>,
    monitor: &'a dyn Monitor,
    /// Shown paths of sockets: their other names are left out with them.
    sockets: HashSet<Vec<u8>>,
}

impl<'a, W: Write> Archive<'a, W> {
    pub(super) fn new(out: W, monitor: &'a dyn Monitor) -> Self {
        Self { builder: Builder::new(out), monitor, sockets: HashSet::new() }
    }

    /// The end of the archive.
    pub(super) fn finish(mut self) -> Result<()> {
        self.builder.finish().map_err(failed)
    }
}

impl<W: Write> MemberSink for Archive<'_, W> {
    fn member(&mut self, display_path: &[u8], entry: &Entry, content: Option<&mut dyn Read>) -> Result<()> {
        let is_socket = match &entry.node {
            Node::Socket => self.sockets.insert(display_path.to_vec()),
            Node::HardLink(to) => self.sockets.contains(&beside(display_path, &entry.path, to)),
            _ => false,
        };
        if is_socket {
            let shown = String::from_utf8_lossy(display_path);
            self.monitor.notice(&format!("the socket {shown} is left out: an archive cannot hold one"));
            return Ok(());
        }
        let (header, records) = described(display_path, entry).map_err(failed)?;
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records).map_err(failed)?;
        match content {
            Some(content) => self.builder.append(&header, content).map_err(failed),
            None => self.builder.append(&header, io::empty()).map_err(failed),
        }
    }
}

type Records = Vec<(String, Vec<u8>)>;

/// The header of an entry, and the records for what it cannot say.
fn described(display_path: &[u8], entry: &Entry) -> io::Result<(Header, Records)> {
    let mut header = Header::new_ustar();
    let mut records = Records::new();
    let metadata = &entry.metadata;
    header.set_mode(metadata.mode);
    owner(metadata.uid, "uid", &mut records, |uid| header.set_uid(uid));
    owner(metadata.gid, "gid", &mut records, |gid| header.set_gid(gid));
    header.set_size(0);
    header.set_mtime(u64::try_from(metadata.modified.seconds).unwrap_or(0));
    if metadata.modified.nanoseconds != 0 || metadata.modified.seconds < 0 {
        records.push(("mtime".into(), decimal(metadata.modified).into_bytes()));
    }
    match &entry.node {
        Node::Directory => header.set_entry_type(EntryType::Directory),
        Node::File(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.bytes);
        }
        Node::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            link(target, &mut header, &mut records)?;
        }
        Node::HardLink(to) => {
            header.set_entry_type(EntryType::Link);
            link(&beside(display_path, &entry.path, to), &mut header, &mut records)?;
        }
        Node::Fifo => header.set_entry_type(EntryType::Fifo),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            let is_char = matches!(entry.node, Node::CharDevice { .. });
            header.set_entry_type(if is_char { EntryType::Char } else { EntryType::Block });
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
        }
        Node::Socket => header.set_entry_type(EntryType::Regular),
    }
    name(display_path, entry.node == Node::Directory, &mut header, &mut records);
    for attribute in &metadata.xattrs {
        // A record's key is text up to its first equals sign; an attribute of another name cannot be one.
        if let Ok(key) = std::str::from_utf8(&attribute.name)
            && !key.contains(['=', '\n'])
        {
            records.push((format!("SCHILY.xattr.{key}"), attribute.value.to_vec()));
        }
        records.extend(own_record(attribute));
    }
    header.set_cksum();
    Ok((header, records))
}

/// Attributes that archives have a record of their own for: `tar --acls` and `--selinux` read these, and not
/// the attribute.
fn own_record(attribute: &Xattr) -> Option<(String, Vec<u8>)> {
    let (key, value) = match &*attribute.name {
        acl::ACCESS => ("SCHILY.acl.access", acl::text(&attribute.value)?.into_bytes()),
        acl::DEFAULT => ("SCHILY.acl.default", acl::text(&attribute.value)?.into_bytes()),
        b"security.selinux" => {
            let context = attribute.value.strip_suffix(b"\0").unwrap_or(&attribute.value);
            ("RHT.security.selinux", context.to_vec())
        }
        _ => return None,
    };
    Some((key.to_owned(), value))
}

fn owner(id: u32, key: &str, records: &mut Records, set: impl FnOnce(u64)) {
    if id > OWNER_MAX {
        records.push((key.into(), id.to_string().into_bytes()));
        set(0);
    } else {
        set(u64::from(id));
    }
}

/// The member's name; the top of a source without a label is `./`.
fn name(display_path: &[u8], is_folder: bool, header: &mut Header, records: &mut Records) {
    let mut name = if display_path.is_empty() { b".".to_vec() } else { display_path.to_vec() };
    if is_folder {
        name.push(b'/');
    }
    let field = &mut header.as_old_mut().name;
    let plain = name.len().min(field.len());
    field[..plain].copy_from_slice(&name[..plain]);
    if name.len() > field.len() {
        records.push(("path".into(), name));
    }
}

fn link(target: &[u8], header: &mut Header, records: &mut Records) -> io::Result<()> {
    let plain = target.len().min(LINK_BYTES_MAX);
    header.set_link_name_literal(&target[..plain])?;
    if target.len() > LINK_BYTES_MAX {
        records.push(("linkpath".into(), target.to_vec()));
    }
    Ok(())
}

/// Another path of the same source, as this one is shown: what stands before a source's own path is the same
/// for all.
fn beside(display_path: &[u8], path: &EntryPath, other: &EntryPath) -> Vec<u8> {
    let before = display_path.len().saturating_sub(path.to_slashes().len());
    [&display_path[..before], &other.to_slashes()].concat()
}

/// Seconds as a decimal fraction, also before 1970.
fn decimal(at: Timestamp) -> String {
    let nanoseconds = at.nanoseconds;
    match (at.seconds, nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., _) => format!("{seconds}.{nanoseconds:09}"),
        (seconds, _) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
    }
}

/// An error of the engine that came through a reader is itself again; any other is the output's.
fn failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => engine_error(ProgramError::Output(error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: archives say what entries say. Method: entries written, and read by the archive's own reader.

    use copal_engine::context::SilentMonitor;
    use copal_manifest::content::{Cutting, FileContent, Pieces};
    use copal_manifest::entry::Metadata;

    use super::*;

    fn entry(path: &[u8], node: Node) -> Entry {
        let modified = Timestamp { seconds: 1_000_000_000, nanoseconds: 5 };
        let xattrs = vec![Xattr { name: b"user.colour".as_slice().into(), value: b"am=\xffber".as_slice().into() }];
        let metadata = Metadata { mode: 0o4755, uid: 3_000_000_000, gid: 7, modified, xattrs, ..Metadata::default() };
        Entry { path: EntryPath::from_slashes(path).unwrap(), metadata, node }
    }

    #[test]
    fn every_kind_of_entry_is_read_back() {
        let long = vec![b'n'; 200];
        let long_path = [b"folder/", long.as_slice()].concat();
        let content = FileContent { bytes: 5, cutting: Cutting::Small, pieces: Pieces::Inline(Vec::new()) };
        let members: Vec<(Vec<u8>, Node)> = vec![
            (b"folder".to_vec(), Node::Directory),
            (b"folder/a".to_vec(), Node::File(content)),
            (b"folder/b".to_vec(), Node::HardLink(EntryPath::from_slashes(b"folder/a").unwrap())),
            (long_path.clone(), Node::Symlink(long.clone().into())),
            (b"folder/l".to_vec(), Node::Symlink(b"..//./x".as_slice().into())),
            (b"folder/null".to_vec(), Node::CharDevice { major: 1, minor: 3 }),
            (b"folder/pipe".to_vec(), Node::Fifo),
            (b"folder/s".to_vec(), Node::Socket),
            (b"folder/\xff".to_vec(), Node::Fifo),
        ];
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes, &SilentMonitor);
        for (path, node) in members {
            let is_file = matches!(node, Node::File(_));
            let shown = [b"label/", path.as_slice()].concat();
            let mut content: &[u8] = b"words";
            let content: Option<&mut dyn Read> = if is_file { Some(&mut content) } else { None };
            archive.member(&shown, &entry(&path, node), content).unwrap();
        }
        archive.finish().unwrap();

        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = Vec::new();
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let records: Vec<(String, Vec<u8>)> = member
                .pax_extensions()
                .unwrap()
                .unwrap()
                .map(|record| record.unwrap())
                .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                .collect();
            for expected in [
                ("mtime".to_owned(), b"1000000000.000000005".to_vec()),
                ("uid".to_owned(), b"3000000000".to_vec()),
                ("SCHILY.xattr.user.colour".to_owned(), b"am=\xffber".to_vec()),
            ] {
                assert!(records.contains(&expected), "{records:?}");
            }
            assert_eq!((member.header().mode().unwrap(), member.header().gid().unwrap()), (0o4755, 7));
            let mut text = String::new();
            member.read_to_string(&mut text).unwrap();
            let link = member.link_name_bytes().map(|name| name.to_vec());
            found.push((member.path_bytes().to_vec(), member.header().entry_type(), link, text));
        }
        let simple = |path: &str, kind| (path.as_bytes().to_vec(), kind, None, String::new());
        let linked = |path: &[u8], kind, link: &[u8]| (path.to_vec(), kind, Some(link.to_vec()), String::new());
        let expected = vec![
            simple("label/folder/", EntryType::Directory),
            (b"label/folder/a".to_vec(), EntryType::Regular, None, "words".to_owned()),
            linked(b"label/folder/b", EntryType::Link, b"label/folder/a"),
            linked(&[b"label/", long_path.as_slice()].concat(), EntryType::Symlink, &long),
            linked(b"label/folder/l", EntryType::Symlink, b"..//./x"),
            simple("label/folder/null", EntryType::Char),
            simple("label/folder/pipe", EntryType::Fifo),
            (b"label/folder/\xff".to_vec(), EntryType::Fifo, None, String::new()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn times_before_1970_are_fractions_too() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (1, 1, "1.000000001"),
            (-3, 500_000_000, "-2.500000000"),
            (-1, 1, "-0.999999999"),
            (-2, 0, "-2"),
        ] {
            assert_eq!(decimal(Timestamp { seconds, nanoseconds }), text);
        }
    }
}
