//! Imports native bundles, and verifies them without importing.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use copal_engine::Error as EngineError;
use copal_engine::catalogue::{self, Catalogue, Listed, name_taken, payload_digest, publish_named};
use copal_engine::context::{Context, Progress};
use copal_engine::create::check_new_name;
use copal_engine::create::creation::{cutter_of, new_snapshot_id, tidy_index};
use copal_engine::storing::stream::with_ingest;
use copal_manifest::entry::Timestamp;
use copal_manifest::snapshot::{Origin, Snapshot, is_name};
use copal_store::session::Session;
use copal_store::stream::{STREAM_HEADER_BYTES, StreamKeys, StreamOpener, is_stream};
use copal_store::trust::Standing;
use copal_store::{ChunkId, SnapshotId};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::native::format::{BaseSnapshot, BundledSnapshot, OBJECT};
use crate::native::read::BundleReader;
use crate::native::write::BundleFile;
use crate::receive::{Built, ChunkContents, Receiver};
use crate::{Watch, cuts_of, name_of};

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// Opens the bundle.
    pub password: Zeroizing<Vec<u8>>,
    /// Another name for the only snapshot of the bundle.
    pub name: Option<String>,
    /// Another application for all of them.
    pub app: Option<String>,
}

/// One snapshot, imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The snapshot as it stands here.
    pub snapshot: Snapshot,
    /// SHA-256 of its root's payload, in hexadecimal.
    pub digest: String,
    /// The digest where it comes from.
    pub digest_there: String,
    /// Whether it was here already.
    pub was_here: bool,
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// The snapshots, oldest first.
    pub snapshots: Vec<Imported>,
    /// Plaintext that came by, in bytes.
    pub bytes: u64,
    /// Plaintext of chunks that were not here.
    pub bytes_new: u64,
    /// What the repository grew by.
    pub stored_new: u64,
    /// Chunks that were not here.
    pub chunks_new: u64,
    /// Milliseconds.
    pub duration_ms: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What is in a bundle that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleSummary {
    /// The snapshots, oldest first, as they stand where they come from.
    pub snapshots: Vec<Snapshot>,
    /// `APP/NAME` of the snapshot that a receiver must have.
    pub since: Option<String>,
    /// Chunks.
    pub chunks: u64,
    /// Records.
    pub records: u64,
    /// Plaintext of the chunks in bytes.
    pub bytes: u64,
    /// Length of the bundle in bytes.
    pub bundle_bytes: u64,
}

/// Whether a file begins as a native bundle does.
pub fn is_native(path: &Path) -> Result<bool> {
    let mut beginning = [0; 8];
    let io = |source| copal_source::Error::Io { action: "reading", path: path.into(), source };
    let mut file = File::open(path).map_err(io)?;
    match file.read_exact(&mut beginning) {
        Ok(()) => Ok(is_stream(&beginning)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(io(error).into()),
    }
}

/// Reads a bundle wholly: every byte, every chunk. Needs no repository.
pub fn verify(watch: Watch<'_>, file: File, password: &[u8]) -> Result<BundleSummary> {
    let (keys, bytes) = open_keys(&file, password)?;
    watch.monitor.phase("verifying");
    let reader = BundleReader::open(watch, StreamOpener::new(&keys, BundleFile(file), bytes)?)?;
    let decode = |snapshot: &BundledSnapshot| Ok(Snapshot::decode(OBJECT, &snapshot.payload)?);
    Ok(BundleSummary {
        snapshots: reader.contents().snapshots.iter().map(decode).collect::<Result<_>>()?,
        since: reader.contents().since.as_ref().map(|since| since.name.clone()),
        chunks: reader.chunks(),
        records: reader.records(),
        bytes: reader.chunk_bytes,
        bundle_bytes: bytes,
    })
}

/// Imports a bundle. It is verified wholly before the first byte is stored. Each snapshot is committed by
/// itself; those that are here already are passed over, so that an interrupted import goes on.
pub fn import(context: &Context, file: File, request: &ImportRequest) -> Result<ImportReport> {
    import_seeing(context, file, request, Sees::Everything)
}

/// The same for somebody who may see one application only, the one that is named: what arrives is built on no
/// snapshot of another one, and no such snapshot is here already. So a bundle that was made up shows nothing
/// of the others, nor that they are there.
pub fn import_within(context: &Context, file: File, request: &ImportRequest) -> Result<ImportReport> {
    import_seeing(context, file, request, Sees::ItsApplication)
}

/// What of the repository may show in what is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    Everything,
    ItsApplication,
}

fn import_seeing(context: &Context, file: File, request: &ImportRequest, sees: Sees) -> Result<ImportReport> {
    let begun = context.clock.monotonic_nanoseconds();
    let (keys, bytes) = open_keys(&file, &request.password)?;
    context.monitor.phase("verifying");
    let reader = BundleReader::open(Watch::of(context), StreamOpener::new(&keys, BundleFile(file), bytes)?)?;
    let session = context.session()?;
    let same_cuts = reader.contents().cuts == keys.check(&cuts_of(&session));
    let (session_of, known, done) = (&session, HashMap::new(), Vec::new());
    let mut import = Import { context, session: session_of, reader: &reader, sees, same_cuts, known, done };
    let mut report = match import.run(request) {
        Err(error) if error.is_interrupted() => {
            session.checkpoint()?;
            return Err(EngineError::Interrupted.into());
        }
        other => other?,
    };
    session.end()?;
    tidy_index(context);
    report.duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    Ok(report)
}

/// The keys of a bundle, and its length.
fn open_keys(file: &File, password: &[u8]) -> Result<(StreamKeys, u64)> {
    let io = |source| copal_source::Error::Io { action: "reading", path: OBJECT.into(), source };
    let bytes = file.metadata().map_err(io)?.len();
    let mut header = vec![0; (bytes.min(STREAM_HEADER_BYTES as u64)) as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut header, 0).map_err(io)?;
    match StreamKeys::open(&header, password) {
        Err(copal_store::Error::WrongKey) => Err(Error::BundlePassword),
        keys => Ok((keys?, bytes)),
    }
}

struct Import<'i> {
    context: &'i Context,
    session: &'i Session,
    reader: &'i BundleReader<'i>,
    sees: Sees,
    same_cuts: bool,
    /// Chunks of the bundle that have an id here.
    known: HashMap<u32, ChunkId>,
    /// The snapshots so far, as they stand here; `None`: nothing is built on it.
    done: Vec<Option<Snapshot>>,
}

impl Import<'_> {
    fn run(&mut self, request: &ImportRequest) -> Result<ImportReport> {
        let contents = self.reader.contents();
        if request.name.is_some() && contents.snapshots.len() != 1 {
            let detail = "the bundle holds several snapshots, which cannot all have the name that was given";
            return Err(Error::usage(detail));
        }
        let mut report = ImportReport::default();
        let catalogue = Catalogue::load_in(self.context, self.session)?;
        let since = match &contents.since {
            None => None,
            Some(since) => {
                let here = catalogue.snapshots.iter().find(|listed| listed.snapshot.id == since.id);
                let here = here.filter(|listed| self.may_be_base(listed) && self.may_show(listed, request));
                let missing = || Error::BundleBase { name: since.name.clone(), id: since.id.to_string() };
                let here = here.ok_or_else(missing)?;
                Some((*here.snapshot).clone())
            }
        };
        let mut there: Vec<Snapshot> =
            contents.snapshots.iter().map(|bundled| self.target(bundled, request)).collect::<Result<_>>()?;
        for snapshot in &mut there {
            let is_hidden = |listed: &Listed| !self.may_show(listed, request);
            if of_id(self.context, &catalogue, snapshot.id).is_some_and(is_hidden) {
                // Labels go by ids: one of its own keeps it apart from what it may not touch.
                snapshot.id = new_snapshot_id(self.context, self.context.clock.now())?;
            }
        }
        // All names are looked at before anything is stored.
        for snapshot in &there {
            if of_id(self.context, &catalogue, snapshot.id).is_none() && has_name(self.session, snapshot)? {
                return Err(name_taken(self.context, name_of(snapshot)).into());
            }
        }
        self.context.monitor.phase("storing");
        for (number, (bundled, snapshot)) in contents.snapshots.iter().zip(there).enumerate() {
            if let Some(here) = of_id(self.context, &catalogue, snapshot.id) {
                let notice = format!("the snapshot {} is here already", name_of(&here.snapshot));
                self.context.monitor.notice(&notice);
                self.done.push(self.may_be_base(here).then(|| (*here.snapshot).clone()));
                report.snapshots.push(Imported {
                    snapshot: (*here.snapshot).clone(),
                    digest: here.digest.clone(),
                    digest_there: bundled.digest.clone(),
                    was_here: true,
                });
                continue;
            }
            let imported = self.one(number, bundled, snapshot, since.as_ref(), &mut report)?;
            self.done.push(Some(imported.snapshot.clone()));
            report.snapshots.push(imported);
        }
        let counters = self.session.counters();
        (report.bytes_new, report.chunks_new, report.stored_new) =
            (counters.bytes_new, counters.chunks_new, counters.bytes_stored);
        Ok(report)
    }

    /// What arrives is built on no snapshot of another key, whatever id that has.
    fn may_be_base(&self, listed: &Listed) -> bool {
        self.context.repository.keys().builds_on(listed.signer)
    }

    /// Whether whoever imports may learn of a snapshot.
    fn may_show(&self, listed: &Listed, request: &ImportRequest) -> bool {
        self.sees == Sees::Everything || Some(&listed.snapshot.app) == request.app.as_ref()
    }

    /// The snapshot as it will stand here, but for its trees.
    fn target(&self, bundled: &BundledSnapshot, request: &ImportRequest) -> Result<Snapshot> {
        let mut snapshot = Snapshot::decode(OBJECT, &bundled.payload)?;
        // Without a name of its own it keeps the one that it has, whatever that is.
        if let Some(name) = &request.name {
            check_new_name(name)?;
        }
        if let Some(name) = request.app.as_ref().filter(|name| !(is_name(name) || name.is_empty())) {
            let detail = "it cannot be that of an application".to_owned();
            return Err(EngineError::BadName { name: name.clone(), detail }.into());
        }
        if let Some(name) = &request.name {
            snapshot.name.clone_from(name);
        }
        if let Some(app) = &request.app {
            snapshot.app.clone_from(app);
        }
        Ok(snapshot)
    }

    fn one(
        &mut self,
        number: usize,
        bundled: &BundledSnapshot,
        there: Snapshot,
        since: Option<&Snapshot>,
        report: &mut ImportReport,
    ) -> Result<Imported> {
        let base = match bundled.base {
            BaseSnapshot::None => None,
            BaseSnapshot::Since => since,
            BaseSnapshot::Bundled(base) => match self.done.get(base as usize) {
                Some(None) => {
                    let decoded = Snapshot::decode(OBJECT, &self.reader.contents().snapshots[base as usize].payload)?;
                    return Err(Error::BundleBase { name: name_of(&decoded), id: decoded.id.to_string() });
                }
                done => done.and_then(Option::as_ref),
            },
        };
        let base = base.cloned();
        let (reader, context) = (self.reader, self.context);
        let total = reader.chunk_bytes;
        let already = report.bytes;
        let feed = |take: &mut dyn FnMut(crate::native::format::Item, u64) -> Result<u64>| -> Result<()> {
            let mut taken = 0;
            reader.items_of(number, &mut |item| {
                context.check_interrupt()?;
                taken = take(item, taken)?;
                context.monitor.progress(Progress {
                    bytes_done: already + taken,
                    bytes_total: total,
                    total_known: true,
                    ..Progress::default()
                });
                Ok(())
            })
        };
        let parts = Parts {
            context,
            session: self.session,
            contents: reader,
            base: base.as_ref(),
            same_cuts: self.same_cuts,
            known: &mut self.known,
        };
        let evidence = Evidence::OfAnotherMachine;
        let (snapshot, digest, bytes) = receive_one(parts, there, evidence, &feed)?;
        report.bytes = report.bytes.saturating_add(bytes);
        Ok(Imported { snapshot, digest, digest_there: bundled.digest.clone(), was_here: false })
    }
}

/// Whether a snapshot of this name was listed when the session began.
pub(super) fn has_name(session: &Session, snapshot: &Snapshot) -> Result<bool> {
    Ok(catalogue::has_name(session.repository(), session.roots(), &name_of(snapshot))?)
}

/// What receiving one snapshot needs.
pub(super) struct Parts<'p, 's> {
    pub(super) context: &'p Context,
    pub(super) session: &'s Session,
    pub(super) contents: &'p dyn ChunkContents,
    pub(super) base: Option<&'p Snapshot>,
    pub(super) same_cuts: bool,
    pub(super) known: &'p mut HashMap<u32, ChunkId>,
}

/// Whether inodes and change times say anything about files here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// They are of our own machines.
    Kept,
    /// They are claims of somebody else: every file is read by the next create.
    OfAnotherMachine,
}

/// Hands on the items of one snapshot: to be called with what takes them and says how many bytes came by.
pub(super) type Feed<'f> = &'f dyn Fn(&mut dyn FnMut(crate::native::format::Item, u64) -> Result<u64>) -> Result<()>;

/// Builds and commits one snapshot; returns it with its digest, and the bytes that came by.
pub(super) fn receive_one(
    parts: Parts<'_, '_>,
    mut snapshot: Snapshot,
    evidence: Evidence,
    feed: Feed<'_>,
) -> Result<(Snapshot, String, u64)> {
    let Parts { context, session, contents, base, same_cuts, known } = parts;
    let before = session.counters();
    let cutter = cutter_of(session)?;
    let (built, bytes) = with_ingest(session, &cutter, context.worker_threads(), |ingest| {
        let mut receiver = Receiver::new(session, contents, base, &snapshot, same_cuts, known);
        feed(&mut |item, _| {
            receiver.take(item, ingest)?;
            Ok(ingest.bytes_taken())
        })?;
        let built = receiver.finish()?;
        Ok::<_, Error>((built, ingest.bytes_taken()))
    })?;
    for (source, Built { tree, files, entries, bytes }) in snapshot.sources.iter_mut().zip(built) {
        (source.tree, source.files, source.entries, source.bytes) = (tree, files, entries, bytes);
        if evidence == Evidence::OfAnotherMachine {
            source.trusted_before = Timestamp { seconds: i64::MIN, nanoseconds: 0 };
        }
    }
    snapshot.origin = Origin::Imported;
    let durable = session.seal_packs()?.sync()?.publish_index()?;
    let counters = session.counters();
    snapshot.bytes_new = counters.bytes_new - before.bytes_new;
    snapshot.stored_new = counters.bytes_stored - before.bytes_stored;
    snapshot.chunks_new = counters.chunks_new - before.chunks_new;
    let payload = snapshot.encode()?;
    publish_named(context, durable, &snapshot, &payload)?;
    Ok((snapshot, payload_digest(&payload), bytes))
}

/// The snapshot of an id that is here, as `copy` and `import` mean it: by the key in use or by an owner, who
/// may have been removed since. What another key's holder has put there under that id is not it.
pub(super) fn of_id<'c>(context: &Context, catalogue: &'c Catalogue, id: SnapshotId) -> Option<&'c Listed> {
    let keys = context.repository.keys();
    let is_of_owners = |listed: &&Listed| {
        let was_owner = Standing::Removed { was_owner: true };
        keys.builds_on(listed.signer) || keys.standing(listed.signer) == was_owner
    };
    catalogue.snapshots.iter().filter(|listed| listed.snapshot.id == id).find(is_of_owners)
}

/// For fuzzing: seals any plaintext as a bundle would, and reads it.
#[doc(hidden)]
pub fn fuzz_native(plain: &[u8]) {
    let cost = copal_store::keys::StretchCost { memory_kib: 8, passes: 1, lanes: 1 };
    let suite = copal_store::config::CipherSuite::ChaCha20Poly1305;
    let entropy = copal_store::entropy::OsEntropy;
    let sealed = || -> Option<(StreamKeys, File)> {
        let keys = StreamKeys::generate(&entropy, suite, b"fuzz", cost).ok()?;
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("bundle", flags).ok()?);
        let mut sealer = copal_store::stream::StreamSealer::new(&keys, &mut file).ok()?;
        sealer.append(plain, &mut file).ok()?;
        sealer.finish(&mut file).ok()?;
        Some((keys, file))
    };
    let Some((keys, file)) = sealed() else { return };
    let Ok(bytes) = file.metadata().map(|found| found.len()) else { return };
    let interrupt = std::sync::atomic::AtomicBool::new(false);
    let watch = Watch { monitor: &copal_engine::context::SilentMonitor, interrupt: &interrupt };
    let opened = StreamOpener::new(&keys, BundleFile(file), bytes).map_err(Error::from);
    if let Ok(reader) = opened.and_then(|opener| BundleReader::open(watch, opener)) {
        for snapshot in &reader.contents().snapshots {
            let _ = Snapshot::decode(OBJECT, &snapshot.payload);
        }
    }
}
