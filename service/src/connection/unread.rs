//! What a client is still sending when it has been refused: some of it is read, because who is cut off while
//! sending does not hear why.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use futures_util::stream::{Fuse, unfold};
use hyper::body::Body as _;
use tokio::sync::Mutex;

/// How much is read, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Courtesy {
    pub(crate) bytes_max: u64,
    pub(crate) patience: Duration,
}

impl Courtesy {
    /// Towards somebody who has shown a token.
    pub(crate) const KNOWN: Self = Self { bytes_max: 8 << 20, patience: Duration::from_secs(5) };
    /// Towards anybody.
    pub(crate) const ANYBODY: Self = Self { bytes_max: 64 << 10, patience: Duration::from_secs(1) };
}

/// The rest of a body.
pub(crate) struct Unread(Option<Arc<Mutex<Fuse<BodyDataStream>>>>);

impl Unread {
    /// The body for a handler, and its rest.
    pub(crate) fn share(body: Body) -> (Body, Self) {
        if body.is_end_stream() {
            return (body, Self(None));
        }
        let shared = Arc::new(Mutex::new(body.into_data_stream().fuse()));
        let pieces = unfold(Arc::clone(&shared), |shared| async move {
            let piece = shared.lock().await.next().await?;
            Some((piece, shared))
        });
        (Body::from_stream(pieces.fuse()), Self(Some(shared)))
    }

    /// Reads on for a while. One that sends more, or slowly, is cut off.
    pub(crate) async fn discard(self, courtesy: Courtesy) {
        let Some(shared) = self.0 else { return };
        let rest = async {
            let (mut body, mut read) = (shared.lock().await, 0);
            while let Some(Ok(piece)) = body.next().await {
                read += piece.len() as u64;
                if read > courtesy.bytes_max {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(courtesy.patience, rest).await;
    }
}
