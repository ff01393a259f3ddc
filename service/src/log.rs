//! The daemon's own log: one line for each request and each operation, on stderr, as JSON for machines or
//! text for people. What is hidden in a name comes to light: a line ends where it ends, and shows what it
//! holds.

use std::io::{self, Stderr, Write};

use copal_manifest::shown;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
        .map_err(|error| Problem::bad_request(format!("{filter:?} is not a filter for log lines: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Shown(format));
    let begun = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    };
    begun.map_err(|error| Problem::internal(error.to_string()))
}

/// Makes the writer of each line.
struct Shown(LogFormat);

/// Writes one line, which comes whole.
struct ShownLine(LogFormat, Stderr);

impl<'a> MakeWriter<'a> for Shown {
    type Writer = ShownLine;

    fn make_writer(&'a self) -> ShownLine {
        ShownLine(self.0, io::stderr())
    }
}

impl Write for ShownLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.1.write_all(shown_line(self.0, &text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

fn shown_line(format: LogFormat, text: &str) -> String {
    let (line, end) = match text.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (text, ""),
    };
    let line = match format {
        LogFormat::Json => shown::json(line),
        LogFormat::Text => shown::sentence(line),
    };
    format!("{line}{end}")
}

#[cfg(test)]
mod tests {
    //! Goal: no name forges a line or hides in one. Method: examples.

    use super::*;

    #[test]
    fn t14_a_line_shows_what_it_holds() {
        assert_eq!(shown_line(LogFormat::Text, "a\nfake\u{202e} line\n"), "a\\nfake\\u{202e} line\n");
        assert_eq!(shown_line(LogFormat::Json, "{\"a\":\"\u{202e}\"}\n"), "{\"a\":\"\\u202e\"}\n");
    }
}
