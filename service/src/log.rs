//! The daemon's own log: one line for each request and each operation, on stderr, as JSON for machines or text for people.

use tracing_subscriber::EnvFilter;

use crate::problem::{Problem, Result};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// From now on the log goes to stderr. `filter` is a level, or directives as of `tracing-subscriber`.
pub fn log_to_stderr(format: LogFormat, filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Problem::bad_request(format!("{filter:?} is no filter of log lines: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
    begun.map_err(|error| Problem::internal(error.to_string()))
}
