//! Promises: results that come back in order, whoever makes them.

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::error::{Error, Result};

/// Where a result arrives.
pub(crate) struct Promise<T> {
    receiver: Receiver<Result<T>>,
    kept: Option<Result<T>>,
}

/// Where a result is sent; a worker that dies breaks the promise.
pub(crate) struct Keeper<T>(Sender<Result<T>>);

pub(crate) fn promise<T>() -> (Keeper<T>, Promise<T>) {
    let (sender, receiver) = bounded(1);
    (Keeper(sender), Promise { receiver, kept: None })
}

impl<T> Keeper<T> {
    pub(crate) fn keep(self, result: Result<T>) {
        // Nobody waits any more when the capture was given up.
        let _ = self.0.send(result);
    }
}

impl<T> Promise<T> {
    /// Whether waiting would not wait.
    pub(crate) fn is_kept(&mut self) -> bool {
        if self.kept.is_none() {
            self.kept = match self.receiver.try_recv() {
                Ok(result) => Some(result),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => Some(Err(broken())),
            };
        }
        self.kept.is_some()
    }

    pub(crate) fn wait(mut self) -> Result<T> {
        self.kept.take().unwrap_or_else(|| self.receiver.recv().unwrap_or_else(|_| Err(broken())))
    }
}

/// That of a promise whose keeper is gone.
pub(crate) fn broken() -> Error {
    Error::Internal("a worker ended before its job was done".into())
}
