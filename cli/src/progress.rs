//! Progress and notices on stderr: a bar on a terminal, JSON lines for programs, nothing in a pipe.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use copal_engine::{Monitor, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::arguments::ProgressKind;
use crate::output::wants_colour;
use crate::shown::{count, json as shown_json, sentence};

/// Redrawing more often than this tells nobody anything.
const DRAWS_A_SECOND: u8 = 10;

/// What hears the engine.
pub(crate) struct ProgressMonitor {
    shown: Shown,
    /// Notices are JSON lines too, so that all of stderr can be read by a program.
    notices_as_json: bool,
    phase: Mutex<&'static str>,
}

enum Shown {
    Bar(ProgressBar),
    JsonLines,
    Nothing,
}

impl ProgressMonitor {
    pub(crate) fn new(kind: ProgressKind, json: bool) -> Self {
        let shown = match kind {
            ProgressKind::Json => Shown::JsonLines,
            ProgressKind::None => Shown::Nothing,
            ProgressKind::Auto if !io::stderr().is_terminal() => Shown::Nothing,
            ProgressKind::Auto | ProgressKind::Bar => Shown::Bar(bar()),
        };
        Self { notices_as_json: json || kind == ProgressKind::Json, shown, phase: Mutex::new("") }
    }

    /// Takes the bar away: what follows is text.
    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn phase(&self) -> &'static str {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for ProgressMonitor {
    fn phase(&self, name: &'static str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = name;
        match &self.shown {
            Shown::Bar(bar) => {
                bar.reset();
                bar.set_style(without_total());
                bar.set_message(name);
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            Shown::JsonLines => say(&json!({ "phase": name }).to_string()),
            Shown::Nothing => {}
        }
    }

    fn progress(&self, progress: Progress) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_message(message(self.phase(), &progress));
                if progress.total_known && progress.bytes_total > 0 {
                    if bar.length() != Some(progress.bytes_total) {
                        bar.set_length(progress.bytes_total);
                        bar.set_style(with_total());
                    }
                } else if bar.length().is_some() {
                    bar.unset_length();
                    bar.set_style(without_total());
                }
                bar.set_position(progress.bytes_done);
            }
            Shown::JsonLines => say(&json!({ "progress": {
                "phase": self.phase(),
                "files_done": progress.files_done,
                "files_total": progress.files_total,
                "bytes_done": progress.bytes_done,
                "bytes_total": progress.bytes_total,
                "total_known": progress.total_known,
            }})
            .to_string()),
            Shown::Nothing => {}
        }
    }

    fn notice(&self, message: &str) {
        let line = if self.notices_as_json {
            shown_json(&json!({ "notice": message }).to_string()).into_owned()
        } else {
            format!("copal: {}", sentence(message))
        };
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| say(&line)),
            Shown::JsonLines | Shown::Nothing => say(&line),
        }
    }
}

/// A line on stderr. When nobody reads it, nobody misses it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn bar() -> ProgressBar {
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAWS_A_SECOND)).with_style(without_total())
}

fn message(phase: &str, progress: &Progress) -> String {
    match (progress.files_done, progress.files_total) {
        (_, 0) => phase.to_owned(),
        (done, total) if progress.total_known => format!("{phase}, {done}/{total} files"),
        (done, _) => format!("{phase}, {}", count(done, "file", "files")),
    }
}

/// With NO_COLOR the bar has none.
fn coloured(template: &str) -> String {
    let colour = if wants_colour() { ".cyan" } else { "" };
    template.replace(".COLOUR", colour)
}

fn with_total() -> ProgressStyle {
    style("{msg} [{bar:28.COLOUR}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
}

fn without_total() -> ProgressStyle {
    style("{spinner.COLOUR} {msg}, {bytes}, {bytes_per_sec}, {elapsed}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(&coloured(template))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound_with_and_without_colour() {
        for template in ["{msg} [{bar:28.cyan}] {bytes}/{total_bytes}", "{spinner.cyan} {msg}", "{spinner} {msg}"] {
            ProgressStyle::with_template(template).unwrap();
        }
        ProgressStyle::with_template(&coloured("{msg} [{bar:28.COLOUR}] {bytes_per_sec}, {eta} left")).unwrap();
    }

    #[test]
    fn files_are_counted_when_they_are_known() {
        let progress = Progress { files_done: 1, files_total: 3, ..Progress::default() };
        assert_eq!(message("storing", &progress), "storing, 1 file");
        assert_eq!(message("storing", &Progress { total_known: true, ..progress }), "storing, 1/3 files");
        assert_eq!(message("verifying", &Progress::default()), "verifying");
    }
}
