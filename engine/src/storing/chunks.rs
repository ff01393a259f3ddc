//! Stores single chunks: as deltas, in frames, or whole.

use copal_store::location::RecordKind;
use copal_store::session::{ChunkWriter, DeltaBase, Reservation, Session};
use copal_store::{ChunkId, Result};

use crate::storing::bases::{Bases, Likeness, Payoff};

/// Names a chunk and reserves it; whether the repository lacks it and it is the caller's to store.
pub(crate) fn reserve(session: &Session, plain: &[u8]) -> Result<(ChunkId, bool)> {
    let id = session.repository().keys().chunk_id(plain);
    Ok((id, session.reserve(&id)? == Reservation::Mine))
}

/// Small chunks that will be stored together.
#[derive(Default)]
pub(crate) struct Frame {
    members: Vec<(ChunkId, u32)>,
    plain: Vec<u8>,
}

impl Frame {
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a chunk of so many bytes must wait for the next frame.
    pub(crate) fn is_full(&self, session: &Session, more: usize) -> bool {
        self.plain.len() + more > session.repository().config().parameters.frame_bytes as usize
    }

    /// Takes in a chunk that is reserved.
    pub(crate) fn push(&mut self, id: ChunkId, plain: &[u8]) {
        self.members.push((id, plain.len() as u32));
        self.plain.extend_from_slice(plain);
    }
}

/// Stores chunks for one thread; its buffers are used again and again.
pub(crate) struct ChunkStore<'s> {
    session: &'s Session,
    writer: ChunkWriter<'s>,
    /// The base of the delta that is tried.
    base: Vec<u8>,
}

impl<'s> ChunkStore<'s> {
    pub(crate) fn new(session: &'s Session) -> Result<Self> {
        Ok(Self { session, writer: session.writer()?, base: Vec::new() })
    }

    /// Where nodes go.
    pub(crate) fn sink(&mut self) -> &mut ChunkWriter<'s> {
        &mut self.writer
    }

    /// Stores a chunk that the repository lacks, as a delta where the parent has a like one.
    pub(crate) fn chunk(&mut self, offset: u64, plain: &[u8], bases: &mut Bases) -> Result<ChunkId> {
        let (id, is_new) = reserve(self.session, plain)?;
        let likeness = bases.of(offset, &id);
        if is_new {
            match likeness {
                Likeness::Like(like) => self.store_like(&id, plain, &like, Some(bases.payoff()))?,
                Likeness::Same | Likeness::None => self.writer.store(RecordKind::Data, &id, plain, None)?,
            }
        }
        Ok(id)
    }

    /// Stores a reserved chunk whole.
    pub(crate) fn store(&mut self, id: &ChunkId, plain: &[u8]) -> Result<()> {
        self.writer.store(RecordKind::Data, id, plain, None)
    }

    /// Stores a reserved chunk as a delta of one that is like it, as long as such deltas pay. A base that
    /// cannot be had is none: the chunk is stored whole.
    pub(crate) fn store_like(
        &mut self,
        id: &ChunkId,
        plain: &[u8],
        like: &ChunkId,
        payoff: Option<&Payoff>,
    ) -> Result<()> {
        let base = if payoff.is_none_or(Payoff::is_worth_trying) { self.read_base(like) } else { None };
        let base = base.map(|id| DeltaBase { id, plain: &self.base });
        let before = base.is_some().then(|| self.writer.deltas_stored());
        self.writer.store(RecordKind::Data, id, plain, base)?;
        if let (Some(before), Some(payoff)) = (before, payoff) {
            payoff.tried(self.writer.deltas_stored() > before);
        }
        Ok(())
    }

    fn read_base(&mut self, like: &ChunkId) -> Option<ChunkId> {
        let base = self.session.delta_base(like).ok()??;
        self.session.read_delta_base(&base, &mut self.base).ok()?;
        Some(base)
    }

    /// Stores what is in a frame, and empties it.
    pub(crate) fn store_frame(&mut self, frame: &mut Frame) -> Result<()> {
        let Frame { members, plain } = frame;
        match members.as_slice() {
            [] => {}
            [(id, _)] => self.writer.store(RecordKind::Data, id, plain, None)?,
            several => self.writer.store_frame(several, plain)?,
        }
        members.clear();
        plain.clear();
        Ok(())
    }
}
