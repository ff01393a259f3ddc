//! What Copal has to reach, as ratios to the best peer of the same run.

use super::results::{COLLECT, INITIAL, RESTORE, ROLL_BACK, ToolResults, UNCHANGED, WorkloadResults};

/// A goal for one value of one workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// At most one part in so many of the best peer's.
    Faster(f64),
    /// No more than the best peer's, give or take what two runs of one program differ by.
    AsTheBest,
    /// At most so many bytes.
    Bytes(f64),
}

/// Two runs of the same program differ by this share.
const NOISE: f64 = 1.05;
const PEAK_BYTES_MAX: f64 = 256.0 * 1_048_576.0;

/// A goal and how it went.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) value: String,
    pub(super) goal: Goal,
    pub(super) ours: f64,
    /// Of the best peer; none where the goal is a number of bytes.
    pub(super) best: Option<f64>,
    pub(super) met: bool,
    /// The same of Copal with a key file, and of the peer that has no passwords.
    pub(super) with_key_file: Option<(f64, f64)>,
}

impl Goal {
    fn is_met(self, ours: f64, best: Option<f64>) -> bool {
        match (self, best) {
            (Self::Faster(times), Some(best)) => ours * times <= best * NOISE,
            (Self::AsTheBest, Some(best)) => ours <= best * NOISE,
            (Self::Bytes(most), _) => ours <= most,
            (_, None) => true,
        }
    }
}

/// Every goal of a workload that was measured against at least one peer.
pub(super) fn judge(name: &str, results: &WorkloadResults) -> Vec<Verdict> {
    let Some(copal) = results.tools.iter().find(|tool| tool.name == "copal") else { return Vec::new() };
    let mut verdicts = Vec::new();
    let mut add = |value: &str, goal: Option<Goal>, of: &dyn Fn(&ToolResults) -> Option<f64>| {
        let (Some(goal), Some(ours)) = (goal, of(copal)) else { return };
        let best = if matches!(goal, Goal::Bytes(_)) { None } else { results.best_peer(of) };
        let with_key_file = results.with_key_file(of);
        let met = goal.is_met(ours, best);
        verdicts.push(Verdict { value: value.to_owned(), goal, ours, best, met, with_key_file });
    };
    let by_workload = |db: Goal, tree: Goal, bucket: Goal| match name {
        "db" => Some(db),
        "tree" => Some(tree),
        "bucket" => Some(bucket),
        _ => None,
    };
    use Goal::{AsTheBest, Bytes, Faster};
    for phase in results.phases() {
        let goal = match phase {
            INITIAL => by_workload(Faster(2.5), Faster(3.0), Faster(2.0)),
            UNCHANGED => by_workload(AsTheBest, Faster(8.0), AsTheBest),
            RESTORE => by_workload(Faster(2.0), Faster(2.0), Faster(2.0)),
            ROLL_BACK => by_workload(Faster(10.0), Faster(5.0), Faster(3.0)),
            COLLECT => by_workload(AsTheBest, AsTheBest, AsTheBest),
            change if results.changes.iter().any(|label| label == change) => {
                by_workload(Faster(10.0), Faster(6.0), Faster(2.0))
            }
            _ => None,
        };
        add(phase, goal, &|tool| tool.seconds(phase));
    }
    for change in &results.changes {
        let goal = by_workload(Faster(100.0), AsTheBest, AsTheBest);
        add(&format!("growth, {change}"), goal, &|tool| tool.growth(change));
    }
    add("repository after the first create", by_workload(AsTheBest, AsTheBest, AsTheBest), &ToolResults::repository);
    add("peak memory", Some(Bytes(PEAK_BYTES_MAX)), &|tool| tool.peak().map(|(bytes, _)| bytes));
    verdicts
}
