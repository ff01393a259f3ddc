//! The results as Markdown.

use std::fmt::Write;

use super::goals::{Goal, Verdict, judge};
use super::results::{Results, ToolResults, WorkloadResults};

/// Everything, for `docs/assurance/benchmarks.md`.
pub(super) fn full(results: &Results) -> String {
    let mut text = String::new();
    for (name, workload) in ordered(results) {
        let _ = writeln!(text, "### `{name}`: {}\n", workload.describe);
        text.push_str(&conditions(workload));
        text.push_str(&seconds(workload));
        text.push_str(&processor_seconds(workload));
        text.push_str(&verdicts(name, workload));
        text.push_str(&findings(workload));
    }
    text
}

/// One line for each workload, for the README.
pub(super) fn short(results: &Results) -> String {
    let mut text = String::from(
        "| | initial | nothing changed | after a change | growth | restore | roll back in place | peak memory |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (name, workload) in ordered(results) {
        let Some(copal) = workload.tools.iter().find(|tool| tool.name == "copal") else { continue };
        let Some(change) = workload.changes.first() else { continue };
        let cell = |of: &dyn Fn(&ToolResults) -> Option<f64>, show: fn(f64) -> String| {
            let Some(ours) = of(copal) else { return "–".to_owned() };
            match workload.best_peer(of) {
                Some(best) => format!("{} ({})", show(ours), show(best)),
                None => show(ours),
            }
        };
        let time = |phase: &str| cell(&|tool: &ToolResults| tool.seconds(phase), duration);
        let _ = writeln!(
            text,
            "| `{name}`, {} files, {} MiB | {} | {} | {} | {} | {} | {} | {} |",
            workload.files,
            mebibytes(workload.bytes as f64),
            time("initial"),
            time("nothing changed"),
            time(change),
            cell(&|tool| tool.growth(change), mebibytes_named),
            time("restore"),
            time("roll back"),
            cell(&|tool| tool.peak().map(|(bytes, _)| bytes), mebibytes_named),
        );
    }
    text.push_str("\nIn brackets: the best of the peers with a password, possibly a different tool per cell. ");
    text.push_str(
        "Method, hardware, background load and the goals that are not met: \
         [benchmarks](docs/assurance/benchmarks.md).\n",
    );
    text
}

/// The order of the command line, not of the alphabet.
pub(super) fn ordered(results: &Results) -> impl Iterator<Item = (&str, &WorkloadResults)> {
    super::workloads::NAMES.into_iter().filter_map(|name| Some((name, results.workloads.get(name)?)))
}

fn conditions(workload: &WorkloadResults) -> String {
    let rounds = workload.tools.iter().flat_map(|tool| tool.phases.values().map(Vec::len)).max().unwrap_or(0);
    let scale = if workload.scale == 1.0 { String::new() } else { format!(", at {} of its size", workload.scale) };
    let copies = &workload.plain_copy_seconds;
    let copy = copies.iter().copied().fold(f64::INFINITY, f64::min);
    format!(
        "{} files, {} MiB{scale}; medians of {rounds} rounds, begun {}, load average {:.1} before and {:.1} after; {}. `cp -a` of it took {}.\n\n",
        workload.files,
        mebibytes(workload.bytes as f64),
        workload.begun,
        workload.load[0],
        workload.load[1],
        workload.machine,
        if copies.is_empty() { "no time that was taken".to_owned() } else { duration(copy) },
    )
}

fn seconds(workload: &WorkloadResults) -> String {
    let phases = workload.phases();
    let mut text = String::from("| seconds; MiB |");
    for phase in &phases {
        let _ = write!(text, " {phase} |");
    }
    text.push_str(" repository |");
    for change in &workload.changes {
        let _ = write!(text, " growth, {change} |");
    }
    text.push_str(" peak memory |\n|---|");
    text.push_str(&"---|".repeat(phases.len() + workload.changes.len() + 2));
    text.push('\n');
    for tool in &workload.tools {
        let _ = write!(text, "| {} |", tool.version);
        for phase in &phases {
            let _ = write!(text, " {} |", tool.seconds(phase).map_or("–".to_owned(), figure));
        }
        let _ = write!(text, " {} |", tool.repository().map_or("–".to_owned(), mebibytes));
        for change in &workload.changes {
            let _ = write!(text, " {} |", tool.growth(change).map_or("–".to_owned(), mebibytes));
        }
        let _ = writeln!(text, " {} |", tool.peak().map_or("–".to_owned(), |(bytes, _)| mebibytes(bytes)));
    }
    text.push('\n');
    text
}

/// The work itself: beside other programs the wall clock also tells how many there were.
fn processor_seconds(workload: &WorkloadResults) -> String {
    let phases = workload.phases();
    let mut text = format!("| processor seconds | {} |\n|---|", phases.join(" | "));
    text.push_str(&"---|".repeat(phases.len()));
    text.push('\n');
    for tool in &workload.tools {
        let _ = write!(text, "| {} |", tool.version);
        for phase in &phases {
            let _ = write!(text, " {} |", tool.processor_seconds(phase).map_or("–".to_owned(), figure));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn verdicts(name: &str, workload: &WorkloadResults) -> String {
    let verdicts = judge(name, workload);
    if verdicts.is_empty() || workload.tools.len() < 2 {
        return String::new();
    }
    let mut text = String::from(
        "| Copal against the best peer with a password | goal | reached | | with key files: Copal, bupstash |\n|---|---|---|---|---|\n",
    );
    for verdict in &verdicts {
        let goal = match verdict.goal {
            Goal::Faster(times) if verdict.value.starts_with("growth") => format!("1/{times:.0}"),
            Goal::Faster(times) => format!("{times}× faster"),
            Goal::AsTheBest => "as the best".to_owned(),
            Goal::Bytes(bytes) => format!("{} MiB", mebibytes(bytes)),
        };
        let met = if verdict.met { "met" } else { "**not met**" };
        let is_time = !["growth", "repository", "peak"].iter().any(|bytes| verdict.value.starts_with(bytes));
        let key_file = verdict.with_key_file.map_or("–".to_owned(), |(ours, peer)| match is_time {
            true => format!("{}, {}", duration(ours), duration(peer)),
            false => format!("{}, {}", mebibytes_named(ours), mebibytes_named(peer)),
        });
        let _ = writeln!(text, "| {} | {goal} | {} | {met} | {key_file} |", verdict.value, reached(verdict));
    }
    text.push('\n');
    text
}

fn reached(verdict: &Verdict) -> String {
    match verdict.best {
        None => format!("{} MiB", mebibytes(verdict.ours)),
        Some(best) if verdict.value.starts_with("growth") => format!("1/{:.1}", best / verdict.ours.max(1.0)),
        Some(best) if verdict.value.starts_with("repository") => {
            format!("{:+.1}%", (verdict.ours / best - 1.0) * 100.0)
        }
        Some(best) if verdict.ours <= best => format!("{:.1}× faster", best / verdict.ours),
        Some(best) => format!("{:.1}× slower", verdict.ours / best),
    }
}

fn findings(workload: &WorkloadResults) -> String {
    let mut text = String::new();
    for tool in &workload.tools {
        let peak = tool.peak().map(|(bytes, phase)| format!("; most memory in “{phase}” ({} MiB)", mebibytes(bytes)));
        let _ = writeln!(text, "- {}: {}{}.", tool.name, tool.remark, peak.unwrap_or_default());
        let mut seen: Vec<(&str, u32)> = Vec::new();
        for finding in &tool.findings {
            match seen.iter_mut().find(|(text, _)| *text == finding) {
                Some((_, count)) => *count += 1,
                None => seen.push((finding, 1)),
            }
        }
        for (finding, _) in seen {
            let _ = writeln!(text, "  - {}", finding.replace('\n', " "));
        }
    }
    text.push('\n');
    text
}

/// Three digits that count.
pub(super) fn figure(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub(super) fn duration(seconds: f64) -> String {
    format!("{} s", figure(seconds))
}

fn mebibytes(bytes: f64) -> String {
    figure(bytes / 1_048_576.0)
}

fn mebibytes_named(bytes: f64) -> String {
    format!("{} MiB", mebibytes(bytes))
}
