//! What was measured, as a document that the tables are made from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::measure::Measure;
use super::tools::WITH_KEY_FILE;

/// The keys of phases that every workload has; changes are keyed by their labels.
pub(super) const INITIAL: &str = "initial";
pub(super) const UNCHANGED: &str = "nothing changed";
pub(super) const LIST: &str = "list";
pub(super) const RESTORE: &str = "restore";
pub(super) const ROLL_BACK: &str = "roll back";
pub(super) const COLLECT: &str = "delete, collect";

/// All workloads that were measured, each when it was last measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Results {
    pub(super) workloads: BTreeMap<String, WorkloadResults>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct WorkloadResults {
    pub(super) describe: String,
    pub(super) machine: String,
    /// When it began, and the load of the machine before and after: others may have been at work.
    pub(super) begun: String,
    pub(super) load: [f64; 2],
    pub(super) scale: f64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Labels of the changes, in order.
    pub(super) changes: Vec<String>,
    /// In the order of the table.
    pub(super) tools: Vec<ToolResults>,
    /// `cp -a` of the source, for comparison: one for each round.
    pub(super) plain_copy_seconds: Vec<f64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ToolResults {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) remark: String,
    /// Phase → one measure for each round.
    pub(super) phases: BTreeMap<String, Vec<Measure>>,
    /// After the first create, for each round.
    pub(super) repository_bytes: Vec<u64>,
    /// Change → growth of the repository, for each round.
    pub(super) growth_bytes: BTreeMap<String, Vec<u64>>,
    /// Entries that came back with another mode or time, and what else went wrong.
    pub(super) findings: Vec<String>,
}

impl Results {
    pub(super) fn load(file: &Path) -> Result<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))
    }

    pub(super) fn save(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }
}

impl WorkloadResults {
    /// All phases in the order of their measurement.
    pub(super) fn phases(&self) -> Vec<&str> {
        let mut phases = vec![INITIAL, UNCHANGED];
        phases.extend(self.changes.iter().map(String::as_str));
        phases.extend([LIST, RESTORE, ROLL_BACK, COLLECT]);
        phases
    }

    /// The smallest of the values of the peers that have passwords: what the product is measured against.
    pub(super) fn best_peer(&self, value: impl Fn(&ToolResults) -> Option<f64>) -> Option<f64> {
        let peers = self.tools.iter().filter(|tool| tool.name != "copal" && !WITH_KEY_FILE.contains(&&*tool.name));
        peers.filter_map(value).min_by(f64::total_cmp)
    }

    /// With key files: ours, and the peer's.
    pub(super) fn with_key_file(&self, value: impl Fn(&ToolResults) -> Option<f64>) -> Option<(f64, f64)> {
        let [ours, peer] = WITH_KEY_FILE.map(|name| self.tools.iter().find(|tool| tool.name == name).and_then(&value));
        Some((ours?, peer?))
    }
}

impl ToolResults {
    /// The median over the rounds.
    pub(super) fn seconds(&self, phase: &str) -> Option<f64> {
        median(self.phases.get(phase)?.iter().map(|measure| measure.seconds))
    }

    /// The median over the rounds, of user and system: the work itself, which other programs on the machine
    /// change little.
    pub(super) fn processor_seconds(&self, phase: &str) -> Option<f64> {
        median(self.phases.get(phase)?.iter().map(|measure| measure.processor_seconds))
    }

    /// The median growth by a change.
    pub(super) fn growth(&self, change: &str) -> Option<f64> {
        median(self.growth_bytes.get(change)?.iter().map(|&bytes| bytes as f64))
    }

    pub(super) fn repository(&self) -> Option<f64> {
        median(self.repository_bytes.iter().map(|&bytes| bytes as f64))
    }

    /// The largest of all phases and rounds, and in which phase.
    pub(super) fn peak(&self) -> Option<(f64, &str)> {
        let peaks =
            self.phases.iter().flat_map(|(phase, measures)| measures.iter().map(move |m| (m.peak_bytes, phase)));
        peaks.max().map(|(bytes, phase)| (bytes as f64, phase.as_str()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[odd / 2]),
        even => Some((values[even / 2 - 1] + values[even / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
