//! Operations: long work with an identity, a place in a queue, progress, and an end that is kept.
//!
//! One operation at a time for an application, in the order of arrival; different applications run beside
//! each other. An operation is on disk before a client hears of it, and its end is on disk before the client
//! hears of that.

mod journal;
mod queue;
mod task;
mod work;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use journal::Journal;
pub use queue::{Operations, Order, Performer, Watch, wait};
pub use task::Task;
pub use work::{Secret, Work};

use crate::problem::ProblemDetails;

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for others of its application.
    Queued,
    /// Goes on.
    Running,
    /// Done.
    Succeeded,
    /// Not done; `error` says why.
    Failed,
    /// Stopped on request.
    Canceled,
}

impl State {
    /// Whether it will not change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProgressView {
    /// The phase it is in: `quiescing`, `scanning`, `storing` …
    pub phase: String,
    /// Files done.
    pub files_done: u64,
    /// Files known so far.
    pub files_total: u64,
    /// Bytes done.
    pub bytes_done: u64,
    /// Bytes known so far.
    pub bytes_total: u64,
    /// Whether the totals are final.
    pub total_known: bool,
}

/// Long work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// UUID.
    pub id: String,
    /// `create`, `deploy`, `delete`, `export`, `import`, `verify`, `collect`.
    pub verb: String,
    /// Application; empty for the repository as a whole.
    pub app: String,
    /// The snapshot it is about.
    pub subject: String,
    /// Where it stands.
    pub state: State,
    /// How many are before it: 0 while it runs.
    pub position: u64,
    /// How far it is.
    pub progress: ProgressView,
    /// Who asked for it.
    pub actor: String,
    /// When it was asked for, RFC 3339.
    pub created: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// When it is stopped at the latest.
    pub deadline: String,
    /// How often a daemon began it: more than 1 after a restart in the middle.
    pub attempts: u32,
    /// What a person should know and that ended nothing.
    pub notices: Vec<String>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ProblemDetails>,
}
