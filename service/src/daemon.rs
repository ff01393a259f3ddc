//! What every handler is given.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Counters;
use crate::access::{Audit, Limits, Sessions, Tokens};
use crate::metrics::Metrics;
use crate::operation::{Operations, Order, Secret, Task, Watch};
use crate::platform::Platform;
use crate::problem::{Problem, Result};
use crate::staging::Staging;

/// How requests are told apart.
#[derive(Debug)]
pub(crate) enum Access {
    /// Everybody on this machine may do everything.
    Open,
    /// By tokens, and sessions of browsers that have shown one.
    Tokens { tokens: Box<Tokens>, sessions: Box<Sessions> },
}

/// The daemon.
pub(crate) struct Daemon {
    pub(crate) platform: Arc<Platform>,
    pub(crate) operations: Operations,
    pub(crate) access: Access,
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    pub(crate) audit: Audit,
    pub(crate) metrics: Arc<Metrics>,
    /// Where uploads wait.
    pub(crate) staging: Arc<Staging>,
    /// How long an operation may take.
    pub(crate) deadline: Duration,
    /// Clients come over TLS.
    pub(crate) is_encrypted: bool,
}

impl Daemon {
    /// Calls the platform on a thread that may block.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Arc<Platform>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let platform = Arc::clone(&self.platform);
        let answered = tokio::task::spawn_blocking(move || question(&platform)).await;
        answered.map_err(|error| Problem::internal(error.to_string()))?
    }

    /// Puts work into the line of its application.
    pub(crate) async fn submit(&self, app: &str, task: Task, secret: Option<Secret>, actor: &str) -> Result<Watch> {
        let (app, actor) = (app.to_owned(), actor.to_owned());
        self.operations.submit(Order { app, task, secret, actor, deadline: self.deadline }).await
    }
}
