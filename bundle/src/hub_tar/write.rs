//! Exports a snapshot as a hub-tar.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use copal_engine::catalogue::Catalogue;
use copal_engine::content_reader::ContentReader;
use copal_engine::context::{Context, Progress};
use copal_engine::secret::unwrapped;
use copal_manifest::acl;
use copal_manifest::content::FileContent;
use copal_manifest::entry::{Entry, EntryPath, Metadata, Node};
use copal_manifest::snapshot::{Snapshot, SourceKind, SourceRecord};
use copal_manifest::tree::TreeReader;
use copal_store::keys::StretchCost;
use copal_store::session::Session;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hub_tar::left_out::BucketRules;
use crate::hub_tar::manifest::{HubManifest, seal_key};
use crate::hub_tar::{BUCKET, DATABASE, KEY, MANIFEST, SQLITE_HEADER_BYTES, SQLITE_MAGIC, user_version};

/// What to export.
#[derive(Clone, Debug)]
pub struct HubExportRequest {
    /// The snapshot.
    pub reference: String,
    /// Encrypts the instance's key; without it the key stays here.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// Cost of stretching it.
    pub stretch: StretchCost,
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubExportReport {
    /// Name of the snapshot.
    pub name: String,
    /// Whether another instance can use it: its key is in it, or it needs none.
    pub portable: bool,
    /// Files of the bucket.
    pub files: u64,
    /// Bytes of database and bucket.
    pub bytes: u64,
    /// Milliseconds.
    pub duration_ms: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// Exports, streaming.
pub fn export(context: &Context, request: &HubExportRequest, out: &mut dyn Write) -> Result<HubExportReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let listed = catalogue.find(&request.reference)?;
    session.prefer(listed.signer);
    let snapshot = &listed.snapshot;
    let parts = Parts::find(&session, snapshot)?;
    let mut warnings = Vec::new();
    let key = match (&parts.key, &request.password) {
        (None, _) => None,
        (Some(key), Some(password)) => Some(seal_key(&**context.repository.entropy(), password, request.stretch, key)?),
        (Some(_), None) => {
            warnings.push(
                "no password was given, so the instance's key is left out: only the same instance can read what it encrypted"
                    .to_owned(),
            );
            None
        }
    };
    let portable = parts.key.is_none() || key.is_some();
    warnings.extend(parts.what_stands_beside(&session)?);
    let manifest = HubManifest {
        name: snapshot.name.clone(),
        key,
        created: jiff::Timestamp::new(snapshot.created.seconds, snapshot.created.nanoseconds as i32)
            .ok()
            .map(|time| time.to_string()),
        db_version: parts.db_version(&session, snapshot)?,
        paths: parts.paths.clone(),
        left_out: parts.left_out.rules.clone(),
        portable: Some(portable),
    };
    context.monitor.phase("writing");
    let encoder = GzEncoder::new(out, Compression::new(6));
    let mut writer = Writer { context, session: &session, archive: tar::Builder::new(encoder), files: 0, bytes: 0 };
    let text = manifest.encode()?;
    let plain = Metadata { mode: 0o644, modified: snapshot.created, ..Metadata::default() };
    writer.member(MANIFEST.as_bytes(), &plain, Some((text.len() as u64, &mut text.as_bytes())))?;
    writer.file(DATABASE.as_bytes(), &parts.database.metadata, &parts.database_content)?;
    writer.bucket(&parts)?;
    let (files, bytes) = (writer.files, writer.bytes);
    let mut encoder = writer.archive.into_inner().map_err(failed)?;
    encoder.try_finish().map_err(failed)?;
    encoder.get_mut().flush().map_err(failed)?;
    let name = snapshot.name.clone();
    drop(encoder);
    session.end()?;
    let duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    Ok(HubExportReport { name, portable, files, bytes, duration_ms, warnings })
}

/// What of a snapshot is the database, the bucket and the key.
struct Parts {
    database: Entry,
    database_content: FileContent,
    /// The tree that holds the bucket, and where in it.
    bucket: Option<(SourceRecord, EntryPath)>,
    key: Option<Zeroizing<Vec<u8>>>,
    /// Where database and bucket stood.
    paths: BTreeMap<String, String>,
    /// What the capture of the bucket left out.
    left_out: BucketRules,
}

impl Parts {
    /// By labels and kinds; or by names, when one folder holds both.
    fn find(session: &Session, snapshot: &Snapshot) -> Result<Self> {
        let sources = &snapshot.sources;
        let one = |found: Vec<&SourceRecord>| if let [only] = found.as_slice() { Some((*only).clone()) } else { None };
        let labelled = |label: &str| sources.iter().find(|source| source.label == label).cloned();
        let of_kind = |kind| one(sources.iter().filter(|source| source.kind == kind).collect());
        let database = labelled(DATABASE).or_else(|| of_kind(SourceKind::Sqlite));
        let bucket = labelled(BUCKET);
        let key = labelled(KEY).or_else(|| of_kind(SourceKind::Secret));
        let whole = one(sources.iter().filter(|source| source.kind == SourceKind::Tree).collect());
        let (database, bucket) = match (database, whole) {
            (Some(database), _) => ((database, EntryPath::root()), bucket.map(|bucket| (bucket, EntryPath::root()))),
            (None, Some(tree)) => {
                let at = |name: &str| EntryPath::from_slashes(name.as_bytes()).unwrap_or_default();
                ((tree.clone(), at(DATABASE)), Some((tree, at(BUCKET))))
            }
            (None, None) => return Err(no_database()),
        };
        let stood = |label: &str, place: &(SourceRecord, EntryPath)| {
            let mut path = PathBuf::from(OsStr::from_bytes(&place.0.path));
            path.extend(place.1.names().map(OsStr::from_bytes));
            path.is_absolute().then_some(path).and_then(|path| Some((label.to_owned(), path.to_str()?.to_owned())))
        };
        let bucket_stood = bucket.as_ref().and_then(|bucket| stood(BUCKET, bucket));
        let paths = stood(DATABASE, &database).into_iter().chain(bucket_stood).collect();
        let entry = TreeReader::new(session, database.0.tree).get(&database.1)?.ok_or_else(no_database)?;
        let Node::File(content) = entry.node.clone() else { return Err(no_database()) };
        let key = match key {
            None => None,
            Some(source) => Some(secret_of(session, &source)?),
        };
        let left_out = match &bucket {
            Some((source, at)) => {
                let is_there = TreeReader::new(session, source.tree).get(at)?.is_some();
                BucketRules::of(snapshot, &source.label, at, is_there)?
            }
            None => BucketRules::default(),
        };
        Ok(Self { database: entry, database_content: content, bucket, key, paths, left_out })
    }

    /// What a folder that holds database and bucket has beside them, or may have, does not travel.
    fn what_stands_beside(&self, session: &Session) -> Result<Option<String>> {
        let Some((source, at)) = self.bucket.as_ref().filter(|(_, at)| !at.is_root()) else { return Ok(None) };
        let database = EntryPath::from_slashes(DATABASE.as_bytes()).unwrap_or_default();
        // The least key that a name behind the bucket's own entries can have.
        let behind = EntryPath::from_key([at.key(), &[1]].concat()).unwrap_or_default();
        let mut entries = TreeReader::new(session, source.tree).entries();
        let mut other = None;
        while let (None, Some(entry)) = (&other, entries.next().transpose()?) {
            if entry.path.is_within(at) {
                entries.seek(&behind)?;
            } else if !entry.path.is_root() && entry.path != database {
                other = Some(entry.path);
            }
        }
        let what = match other {
            Some(path) => format!("hub.db and bucket alone are in the bundle, not {path} nor what else stands there"),
            None if self.left_out.others => "hub.db and bucket alone are in the bundle, not what stands there".into(),
            None => return Ok(None),
        };
        Ok(Some(format!(
            "{what} beside them: a deploy of it over the whole folder would remove that; deploy each with --path"
        )))
    }

    /// As the application counts, or `user_version`.
    fn db_version(&self, session: &Session, snapshot: &Snapshot) -> Result<Option<String>> {
        let recorded = snapshot
            .live
            .iter()
            .flat_map(|live| &live.components)
            .find_map(|component| component.schema_version.clone().filter(|_| component.label == DATABASE));
        if recorded.is_some() {
            return Ok(recorded);
        }
        let mut header = vec![0; SQLITE_HEADER_BYTES];
        let mut reader = ContentReader::new(session, &self.database_content);
        match reader.read_exact(&mut header) {
            Ok(()) if header.starts_with(SQLITE_MAGIC) => Ok(user_version(&header)),
            Ok(()) => Err(Error::usage("hub.db of this snapshot is no SQLite database")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(no_database()),
            Err(error) => Err(failed(error)),
        }
    }
}

fn no_database() -> Error {
    Error::usage(
        "a hub-tar needs a database: a source labelled hub.db, or a folder with the file hub.db and the folder bucket",
    )
}

fn secret_of(session: &Session, source: &SourceRecord) -> Result<Zeroizing<Vec<u8>>> {
    let entry = TreeReader::new(session, source.tree).get(&EntryPath::root())?;
    let Some(Entry { node: Node::File(content), .. }) = entry else {
        return Err(Error::usage(format!("the source {} is no file that could be a key", source.label)));
    };
    if let Some(secret) = unwrapped(session, &content)? {
        return Ok(Zeroizing::new(secret));
    }
    let mut plain = Zeroizing::new(Vec::new());
    let mut reader = ContentReader::new(session, &content).take(copal_store::secret::SECRET_BYTES_MAX as u64 + 1);
    reader.read_to_end(&mut plain).map_err(failed)?;
    Ok(plain)
}

struct Writer<'w, 'o> {
    context: &'w Context,
    session: &'w Session,
    archive: tar::Builder<GzEncoder<&'o mut dyn Write>>,
    files: u64,
    bytes: u64,
}

impl Writer<'_, '_> {
    fn bucket(&mut self, parts: &Parts) -> Result<()> {
        let folder = Metadata { mode: 0o755, ..Metadata::default() };
        let Some((source, at)) = &parts.bucket else { return self.member(b"bucket/", &folder, None) };
        let reader = TreeReader::new(self.session, source.tree);
        let mut any = false;
        for entry in reader.entries_from(at) {
            self.context.check_interrupt()?;
            let entry = entry?;
            if !entry.path.is_within(at) {
                break;
            }
            any = true;
            let slashes = entry.path.to_slashes();
            let inner = slashes.get(at.to_slashes().len()..).unwrap_or_default();
            let inner = inner.strip_prefix(b"/").unwrap_or(inner);
            let mut name = BUCKET.as_bytes().to_vec();
            if !inner.is_empty() {
                name.push(b'/');
                name.extend_from_slice(inner);
            }
            match &entry.node {
                Node::Directory => {
                    name.push(b'/');
                    self.member(&name, &entry.metadata, None)?;
                }
                Node::File(content) => self.bucket_file(&name, &entry.metadata, content)?,
                Node::HardLink(target) => match reader.get(target)? {
                    Some(Entry { node: Node::File(content), .. }) => {
                        self.bucket_file(&name, &entry.metadata, &content)?;
                    }
                    _ => return Err(other_kind(&name, "a link to nothing")),
                },
                Node::Symlink(_) => return Err(other_kind(&name, "a symbolic link")),
                _ => return Err(other_kind(&name, "neither a file nor a folder")),
            }
        }
        if any { Ok(()) } else { self.member(b"bucket/", &folder, None) }
    }

    fn bucket_file(&mut self, name: &[u8], metadata: &Metadata, content: &FileContent) -> Result<()> {
        self.files += 1;
        self.file(name, metadata, content)
    }

    fn file(&mut self, name: &[u8], metadata: &Metadata, content: &FileContent) -> Result<()> {
        let mut reader = ContentReader::new(self.session, content);
        self.member(name, metadata, Some((content.bytes, &mut reader)))?;
        self.bytes = self.bytes.saturating_add(content.bytes);
        self.context.monitor.progress(Progress { bytes_done: self.bytes, ..Progress::default() });
        Ok(())
    }

    fn member(&mut self, name: &[u8], metadata: &Metadata, content: Option<(u64, &mut dyn Read)>) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(if content.is_some() { EntryType::Regular } else { EntryType::Directory });
        header.set_mode(mode(metadata));
        header.set_mtime(u64::try_from(metadata.modified.seconds).unwrap_or(0));
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.as_ref().map_or(0, |(bytes, _)| *bytes));
        let path = Path::new(OsStr::from_bytes(name));
        match content {
            Some((_, reader)) => self.archive.append_data(&mut header, path, reader).map_err(failed),
            None => self.archive.append_data(&mut header, path, io::empty()).map_err(failed),
        }
    }
}

/// Permission bits alone. An ACL does not travel: without it the group must not get what its mask allows to
/// others.
fn mode(metadata: &Metadata) -> u32 {
    let acl = metadata.xattrs.iter().find(|attribute| &*attribute.name == acl::ACCESS);
    match acl.and_then(|attribute| acl::owning_group(&attribute.value)) {
        Some(group) => metadata.mode & 0o707 | group << 3,
        None => metadata.mode & 0o777,
    }
}

fn other_kind(name: &[u8], what: &str) -> Error {
    let name = String::from_utf8_lossy(name).into_owned();
    Error::usage(format!("{name} is {what}, and a hub-tar holds files and folders only: export it as native"))
}

/// An error of the engine that came through a reader is itself again; any other is the output's.
fn failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => copal_source::Error::Io { action: "writing", path: "the bundle".into(), source }.into(),
    }
}
