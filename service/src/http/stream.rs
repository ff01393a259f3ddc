//! Bytes from a thread that blocks to a client, through a short queue: memory stays flat however much flows,
//! and a slow client slows the thread down instead of filling the memory.

use std::io::{self, Write};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::problem::{Problem, Result};

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces on their way.
const PIECES: usize = 4;

/// The end where a thread writes.
pub(crate) struct BodyWriter {
    sender: mpsc::Sender<Result<Bytes>>,
    piece: BytesMut,
}

/// The end where the client reads.
pub(crate) struct BodyReader(mpsc::Receiver<Result<Bytes>>);

pub(crate) fn body() -> (BodyWriter, BodyReader) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (BodyWriter { sender, piece: BytesMut::with_capacity(PIECE_BYTES) }, BodyReader(receiver))
}

impl BodyWriter {
    /// The end, or why there is none: then the connection is cut, so that no client takes a part for the
    /// whole.
    pub(crate) fn finish<T>(mut self, outcome: Result<T>) -> Result<T> {
        let outcome = match outcome {
            Ok(value) => self.flush().map(|()| value).map_err(Problem::from),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = &outcome {
            // A client who has gone does not hear it.
            let _ = self.sender.blocking_send(Err(problem.clone()));
        }
        outcome
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}

impl BodyReader {
    /// The body of an answer, once its first piece is there: what fails before it is answered as a problem.
    /// The permit is held as long as the body flows.
    pub(crate) async fn into_body(mut self, permit: OwnedSemaphorePermit) -> Result<Body> {
        let first = self.0.recv().await.transpose()?;
        let pieces = unfold((first, self.0, permit), |(first, mut receiver, permit)| async move {
            let piece = match first {
                Some(piece) => Ok(piece),
                None => receiver.recv().await?.map_err(|problem| io::Error::other(problem.detail.clone())),
            };
            Some((piece, (None, receiver, permit)))
        });
        Ok(Body::from_stream(pieces))
    }
}
