//! Exports snapshots as a native bundle.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use copal_engine::Error as EngineError;
use copal_engine::catalogue::{Catalogue, Listed};
use copal_engine::context::{Context, Progress};
use copal_store::encoding::{Decoder, Encoder};
use copal_store::keys::StretchCost;
use copal_store::location::{CHUNK_BYTES_MAX, Encoding, Location};
use copal_store::session::{ChunkSource, Session};
use copal_store::stream::{SEGMENT_PLAIN_BYTES, STREAM_HEADER_BYTES, StreamKeys, StreamOpener};
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::native::format::{
    BUNDLE_VERSION, BaseSnapshot, BlockKind, BundledSnapshot, Contents, KnownSnapshot, Member, RecordHeader,
};
use crate::native::write::{Begun, BundleFile, BundleWriter, is_another, written};
use crate::walk::{Travelling, walk};
use crate::{are_related, cuts_of, name_of};

/// Records that are read and encoded side by side.
const RECORDS_PER_BATCH: usize = 64;

/// What to export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Snapshots.
    pub references: Vec<String>,
    /// Leaves out what this snapshot has: the receiver must have it.
    pub since: Option<String>,
    /// Protects the bundle, and nothing else.
    pub password: Zeroizing<Vec<u8>>,
    /// Cost of stretching it.
    pub stretch: StretchCost,
}

/// Where the bundle goes.
pub enum ExportTarget<'o> {
    /// A file, which appears when it is whole. An interrupted export leaves `FILE.part`, with which the next
    /// one goes on.
    File(PathBuf),
    /// A stream.
    Stream(&'o mut dyn Write),
}

impl std::fmt::Debug for ExportTarget<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Stream(_) => f.write_str("Stream(…)"),
        }
    }
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// `APP/NAME` of each snapshot, oldest first.
    pub snapshots: Vec<String>,
    /// Chunks in the bundle.
    pub chunks: u64,
    /// Their plaintext in bytes.
    pub bytes: u64,
    /// Length of the bundle in bytes.
    pub bundle_bytes: u64,
    /// Bytes that an interrupted run had written and that were kept.
    pub bytes_resumed: u64,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// Exports. Every chunk is verified on the way: what is damaged here is not spread.
pub fn export(context: &Context, request: &ExportRequest, target: ExportTarget<'_>) -> Result<ExportReport> {
    let begun = context.clock.monotonic_nanoseconds();
    if request.password.is_empty() {
        return Err(Error::usage("a bundle needs a password of its own"));
    }
    let session = context.reading_session()?;
    let catalogue = Catalogue::load_in(context, &session)?;
    let mut chosen: Vec<&Listed> = Vec::new();
    for reference in &request.references {
        let listed = catalogue.find(reference)?;
        if !chosen.iter().any(|other| other.root == listed.root) {
            chosen.push(listed);
        }
    }
    if chosen.is_empty() {
        return Err(Error::usage("there is nothing to export: name at least one snapshot"));
    }
    chosen.sort_by_key(|listed| (listed.snapshot.created, listed.snapshot.id));
    session.prefer(chosen[0].signer);
    let since = request.since.as_deref().map(|since| catalogue.find(since)).transpose()?;
    let export = Export { context, session: &session, chosen, since };
    let mut report = match target {
        ExportTarget::Stream(out) => {
            let keys = export.new_keys(request)?;
            export.write(&keys, out, None)?
        }
        ExportTarget::File(path) => export.to_file(request, &path)?,
    };
    session.end()?;
    report.duration_ms = context.clock.monotonic_nanoseconds().saturating_sub(begun) / 1_000_000;
    Ok(report)
}

struct Export<'e> {
    context: &'e Context,
    session: &'e Session,
    chosen: Vec<&'e Listed>,
    since: Option<&'e Listed>,
}

impl Export<'_> {
    fn new_keys(&self, request: &ExportRequest) -> Result<StreamKeys> {
        let repository = &self.context.repository;
        let suite = repository.config().suite;
        Ok(StreamKeys::generate(&**repository.entropy(), suite, &request.password, request.stretch)?)
    }

    fn to_file(&self, request: &ExportRequest, path: &Path) -> Result<ExportReport> {
        let part = part_of(path);
        let io = |action, source| copal_source::Error::Io { action, path: part.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&part).map_err(|error| io("opening", error))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| copal_store::Error::Busy { what: part.display().to_string() })?;
        let report = match self.resume(request, &mut file) {
            Ok(Some(report)) => report,
            Ok(None) => self.anew(request, &mut file)?,
            Err(error) if is_another(&error) => {
                self.context.monitor.notice("the interrupted export was of something else: this one begins anew");
                self.anew(request, &mut file)?
            }
            Err(error) => return Err(error),
        };
        file.sync_all().map_err(|error| io("syncing", error))?;
        fs::rename(&part, path).map_err(|error| io("renaming", error))?;
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| io("syncing the folder of", error))?;
        }
        Ok(report)
    }

    fn anew(&self, request: &ExportRequest, file: &mut File) -> Result<ExportReport> {
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(written)?;
        let keys = self.new_keys(request)?;
        self.write(&keys, &mut BufWriter::with_capacity(1 << 20, file), None)
    }

    /// Goes on with what stands in the file; `None` when nothing there can be used.
    fn resume(&self, request: &ExportRequest, file: &mut File) -> Result<Option<ExportReport>> {
        let bytes = file.metadata().map_err(written)?.len();
        let mut header = [0; STREAM_HEADER_BYTES];
        file.seek(SeekFrom::Start(0)).map_err(written)?;
        if file.read_exact(&mut header).is_err() {
            return Ok(None);
        }
        let keys = match StreamKeys::open(&header, &request.password) {
            Ok(keys) => keys,
            Err(copal_store::Error::WrongKey | copal_store::Error::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !keys.can_go_on() {
            return Ok(None);
        }
        let copy = file.try_clone().map_err(written)?;
        let opener = StreamOpener::of_unfinished(&keys, BundleFile(copy), bytes);
        let segments = opener.plain_bytes() / SEGMENT_PLAIN_BYTES as u64;
        if segments == 0 {
            return Ok(None);
        }
        // The last of them may have been written only in part.
        let mut last = Vec::new();
        if opener.segment(segments - 1, &mut last).is_err() {
            return Ok(None);
        }
        let end = STREAM_HEADER_BYTES as u64 + segments * keys.segment_bytes();
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(written)?;
        let begun = Begun::new(opener);
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut report = self.write(&keys, &mut out, Some(begun))?;
        report.bytes_resumed = end;
        Ok(Some(report))
    }

    fn write(&self, keys: &StreamKeys, out: &mut dyn Write, begun: Option<Begun<'_>>) -> Result<ExportReport> {
        let mut writer = match begun {
            None => BundleWriter::new(keys, out)?,
            Some(begun) => BundleWriter::resume(keys, begun, out)?,
        };
        self.context.monitor.phase("reading the manifests");
        let mut snapshots = Vec::new();
        let mut bases: Vec<Option<&Listed>> = Vec::new();
        for (number, listed) in self.chosen.iter().enumerate() {
            let (base, kind) = self.base_of(number);
            bases.push(base);
            let payload = listed.snapshot.encode()?;
            snapshots.push(BundledSnapshot { payload, digest: listed.digest.clone(), base: kind });
        }
        let since = self.since.map(|listed| KnownSnapshot { id: listed.snapshot.id, name: name_of(&listed.snapshot) });
        let cuts = keys.check(&cuts_of(self.session));
        let program = self.context.program.clone();
        writer.document(BlockKind::Contents, &Contents { version: BUNDLE_VERSION, program, cuts, since, snapshots })?;
        let mut travelling = Travelling::default();
        for (listed, base) in self.chosen.iter().zip(&bases) {
            let base = base.map(|base| &*base.snapshot);
            walk(self.context, self.session, &listed.snapshot, base, &mut travelling, &mut |item, _| {
                writer.item(item)
            })?;
        }
        writer.end_index()?;
        self.context.monitor.phase("writing");
        let bytes = self.records(&travelling, keys, &mut writer)?;
        Ok(ExportReport {
            snapshots: self.chosen.iter().map(|listed| name_of(&listed.snapshot)).collect(),
            chunks: travelling.order().len() as u64,
            bytes,
            bundle_bytes: writer.finish()?,
            bytes_resumed: 0,
            duration_ms: 0,
        })
    }

    /// The nearest snapshot before that shares a source: of the bundle, or the one that the receiver has.
    fn base_of(&self, number: usize) -> (Option<&Listed>, BaseSnapshot) {
        let snapshot = &self.chosen[number].snapshot;
        let bundled = (0..number).rev().find(|before| are_related(snapshot, &self.chosen[*before].snapshot));
        match (bundled, self.since) {
            (Some(before), _) => (Some(self.chosen[before]), BaseSnapshot::Bundled(before as u32)),
            (None, Some(since)) if are_related(snapshot, &since.snapshot) => (Some(since), BaseSnapshot::Since),
            _ => (None, BaseSnapshot::None),
        }
    }

    /// Writes every chunk; returns their plaintext in bytes.
    fn records(&self, travelling: &Travelling, keys: &StreamKeys, writer: &mut BundleWriter<'_, '_>) -> Result<u64> {
        let order = travelling.order();
        let total: u64 = order.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        let mut written = Written { done: vec![false; order.len()], bytes: 0 };
        while let Some(header) = writer.skip_record()? {
            for member in &header.members {
                written.mark(member.ordinal, order)?;
            }
        }
        let mut next = 0usize;
        while next < order.len() {
            self.context.check_interrupt()?;
            let mut batch: Vec<Group> = Vec::new();
            while next < order.len() && batch.len() < RECORDS_PER_BATCH {
                if !written.done[next] {
                    self.group(next as u32, travelling, &mut written, &mut batch)?;
                }
                next += 1;
            }
            let encoded: Vec<Result<(RecordHeader, Vec<u8>)>> =
                batch.par_iter().map(|group| self.encode(group, order, keys)).collect();
            for record in encoded {
                let (header, payload) = record?;
                writer.record(&header, &payload)?;
            }
            let progress =
                Progress { bytes_done: written.bytes, bytes_total: total, total_known: true, ..Progress::default() };
            self.context.monitor.progress(progress);
        }
        Ok(total)
    }

    /// Finds which chunks go with one into a record; the base of a delta goes before it.
    fn group(&self, first: u32, travelling: &Travelling, written: &mut Written, batch: &mut Vec<Group>) -> Result<()> {
        let order = travelling.order();
        let (id, _) = order[first as usize];
        let location = self.locate(&id)?;
        if location.bytes == location.record_plain_bytes {
            let base = location.base.and_then(|base| travelling.ordinal_of(&base));
            if let Some(base) = base
                && !written.done[base as usize]
            {
                self.group(base, travelling, written, batch)?;
            }
            // A base that is itself stored as a delta here travels as one: then this chunk travels whole.
            let base = match base {
                Some(base) if self.locate(&order[base as usize].0)?.base.is_none() => Some(base),
                _ => None,
            };
            written.mark(first, order)?;
            batch.push(Group { location, members: vec![first], base });
            return Ok(());
        }
        let mut members = Vec::new();
        for (ordinal, (id, _)) in order.iter().enumerate().skip(first as usize) {
            if written.done[ordinal] {
                continue;
            }
            let other = self.locate(id)?;
            if (other.pack, other.record_offset) != (location.pack, location.record_offset) {
                break;
            }
            members.push((other.inner_offset, ordinal as u32));
        }
        members.sort_unstable();
        for (_, ordinal) in &members {
            written.mark(*ordinal, order)?;
        }
        batch.push(Group { location, members: members.into_iter().map(|(_, ordinal)| ordinal).collect(), base: None });
        Ok(())
    }

    fn locate(&self, id: &copal_store::ChunkId) -> Result<Location> {
        let missing = || copal_store::Error::Missing { object: format!("chunk {id}") };
        Ok(self.session.locate(id)?.ok_or_else(missing)?)
    }

    /// The record of a group. Where its place does not hold what was promised, it is read elsewhere.
    fn encode(
        &self,
        group: &Group,
        order: &[(copal_store::ChunkId, u32)],
        keys: &StreamKeys,
    ) -> Result<(RecordHeader, Vec<u8>)> {
        match self.encode_there(group, order, keys) {
            Err(Error::Engine(EngineError::Store(error))) if error.is_integrity() => {
                self.encode_from_elsewhere(group, order, keys)
            }
            encoded => encoded,
        }
    }

    fn encode_from_elsewhere(
        &self,
        group: &Group,
        order: &[(copal_store::ChunkId, u32)],
        keys: &StreamKeys,
    ) -> Result<(RecordHeader, Vec<u8>)> {
        let (mut kept, mut members) = (Vec::new(), Vec::with_capacity(group.members.len()));
        for ordinal in &group.members {
            let (id, bytes) = order[*ordinal as usize];
            let chunk = self.session.read_chunk(&id)?;
            members.push(Member { ordinal: *ordinal, bytes, check: keys.check(&chunk) });
            kept.extend_from_slice(&chunk);
        }
        let mut payload = Vec::new();
        let level = self.session.repository().config().parameters.compression_level;
        let encoding = Encoder::new(level)?.encode(&kept, None, &mut payload)?;
        Ok((RecordHeader { encoding: encoding as u8, base: None, members }, payload))
    }

    /// Its payload as it is stored, where all of it travels, and else encoded again.
    fn encode_there(
        &self,
        group: &Group,
        order: &[(copal_store::ChunkId, u32)],
        keys: &StreamKeys,
    ) -> Result<(RecordHeader, Vec<u8>)> {
        let Group { location, members, base } = group;
        let bytes_of = |ordinal: &u32| order[*ordinal as usize].1;
        let (first, _) = order[members[0] as usize];
        let mut plain = Vec::new();
        let whole = members.iter().map(|ordinal| u64::from(bytes_of(ordinal))).sum::<u64>()
            == u64::from(location.record_plain_bytes);
        let mut payload = Vec::new();
        let copied = whole && (location.base.is_none() || base.is_some());
        if copied {
            self.session.read_payload(&first, location, &mut payload)?;
            let base = match location.base {
                Some(base) => Some(self.session.read_chunk(&base)?),
                None => None,
            };
            Decoder::new()?.decode(
                location.encoding,
                &payload,
                base.as_deref(),
                location.record_plain_bytes,
                &mut plain,
            )?;
        } else {
            self.session.read_record(&first, location, &mut plain)?;
        }
        let mut kept = Vec::new();
        let mut listed = Vec::with_capacity(members.len());
        for ordinal in members {
            let (id, bytes) = order[*ordinal as usize];
            let place = if members.len() == 1 && location.bytes == location.record_plain_bytes {
                location.inner_offset
            } else {
                self.locate(&id)?.inner_offset
            };
            let chunk = plain.get(place as usize..(place + bytes) as usize);
            let damaged = || copal_store::Error::damaged(format!("chunk {id}"), "its bytes have another hash");
            let chunk =
                chunk.filter(|chunk| self.session.repository().keys().chunk_id(chunk) == id).ok_or_else(damaged)?;
            listed.push(Member { ordinal: *ordinal, bytes, check: keys.check(chunk) });
            if !copied {
                kept.extend_from_slice(chunk);
            }
        }
        let mut encoding = location.encoding;
        if !copied {
            debug_assert!(kept.len() <= CHUNK_BYTES_MAX as usize);
            let level = self.session.repository().config().parameters.compression_level;
            encoding = Encoder::new(level)?.encode(&kept, None, &mut payload)?;
        }
        let base = base.filter(|_| encoding == Encoding::Delta);
        Ok((RecordHeader { encoding: encoding as u8, base, members: listed }, payload))
    }
}

/// Chunks that go into one record.
struct Group {
    /// Of the first.
    location: Location,
    members: Vec<u32>,
    base: Option<u32>,
}

struct Written {
    done: Vec<bool>,
    bytes: u64,
}

impl Written {
    fn mark(&mut self, ordinal: u32, order: &[(copal_store::ChunkId, u32)]) -> Result<()> {
        let done = self.done.get_mut(ordinal as usize).filter(|done| !**done);
        let done = done.ok_or_else(|| Error::internal("a chunk that is exported twice"))?;
        *done = true;
        self.bytes += u64::from(order[ordinal as usize].1);
        Ok(())
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
