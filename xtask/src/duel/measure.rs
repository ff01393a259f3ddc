//! Runs a command and says how long it took and how much memory it held at its height.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use wait4::Wait4;

/// One phase of one tool in one round.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Measure {
    /// By the wall clock.
    pub(super) seconds: f64,
    /// Of user and system, with all children that were waited for.
    pub(super) processor_seconds: f64,
    /// The largest resident set of one process.
    pub(super) peak_bytes: u64,
}

/// Runs the commands one after the other; their output goes into a log. Everything that others wrote is on
/// disk before the first begins, so that nobody pays for the writing of another.
pub(super) fn measure(commands: Vec<Command>, log: &Path) -> Result<Measure> {
    rustix::fs::sync();
    let mut total = Measure::default();
    for mut command in commands {
        let output = File::create(log).with_context(|| format!("making {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let used = child.wait4().with_context(|| format!("waiting for {command:?}"))?;
        total.seconds += begin.elapsed().as_secs_f64();
        total.processor_seconds += (used.rusage.utime + used.rusage.stime).as_secs_f64();
        total.peak_bytes = total.peak_bytes.max(used.rusage.maxrss);
        if !used.status.success() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let end = text.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            bail!("{} ended with {}:\n{end}", command.get_program().display(), used.status);
        }
    }
    Ok(total)
}
