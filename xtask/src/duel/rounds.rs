//! The rounds of one workload: every phase, and within it every tool, so that all meet the same machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::compare::{Difference, compare};
use super::measure::{Measure, measure};
use super::results::{COLLECT, INITIAL, LIST, RESTORE, ROLL_BACK, ToolResults, UNCHANGED, WorkloadResults};
use super::tools::{self, Tool, repository_bytes};
use super::workloads::Workload;
use super::{Found, machine};

/// Measures a workload so many times.
pub(super) fn run(
    workload: &dyn Workload,
    found: &[Found],
    work: &Path,
    rounds: u32,
    scale: f64,
) -> Result<WorkloadResults> {
    let mut results = WorkloadResults {
        describe: workload.describe().to_owned(),
        machine: machine::describe(),
        begun: machine::now(),
        load: [machine::load(), 0.0],
        scale,
        changes: workload.steps().iter().map(|step| step.label.to_owned()).collect(),
        tools: found.iter().map(Found::results).collect(),
        ..WorkloadResults::default()
    };
    for round in 0..rounds {
        println!("== {}, round {} of {rounds}", workload.name(), round + 1);
        Round::begin(workload, found, work, round as usize)?.run(&mut results)?;
    }
    results.load[1] = machine::load();
    Ok(results)
}

struct Round<'w> {
    workload: &'w dyn Workload,
    source: PathBuf,
    work: PathBuf,
    tools: Vec<Box<dyn Tool>>,
    /// A tool that failed is left out for the rest of the round.
    failed: Vec<bool>,
    /// Who begins changes from round to round.
    first: usize,
}

impl<'w> Round<'w> {
    fn begin(workload: &'w dyn Workload, found: &[Found], work: &Path, round: usize) -> Result<Self> {
        if work.exists() {
            fs::remove_dir_all(work).with_context(|| format!("emptying {}", work.display()))?;
        }
        let source = work.join("source");
        fs::create_dir_all(&source).with_context(|| format!("making {}", source.display()))?;
        let begin = Instant::now();
        workload.generate(&source)?;
        println!("   generated in {:.1} s", begin.elapsed().as_secs_f64());
        let mut tools = Vec::new();
        for found in found {
            let folder = work.join(found.name);
            fs::create_dir_all(&folder)?;
            let tool = tools::open(found.name, found.program.clone(), folder, source.clone())?;
            measure(tool.init()?, &work.join("log")).with_context(|| format!("{}: init", found.name))?;
            tools.push(tool);
        }
        let failed = vec![false; tools.len()];
        Ok(Self { workload, source, work: work.to_owned(), first: round % tools.len().max(1), tools, failed })
    }

    fn run(mut self, results: &mut WorkloadResults) -> Result<()> {
        (results.files, results.bytes) = volume(&self.source)?;
        self.create(INITIAL, "initial", results);
        for number in 0..self.tools.len() {
            if !self.failed[number] {
                results.tools[number].repository_bytes.push(repository_bytes(&*self.tools[number])?);
            }
        }
        self.create(UNCHANGED, "unchanged", results);
        let mut last = "unchanged".to_owned();
        let mut names = vec!["initial".to_owned(), last.clone()];
        for (number, step) in self.workload.steps().into_iter().enumerate() {
            let before = self.sizes()?;
            for time in 0..step.times {
                self.workload.change(&self.source, number, time)?;
                last = format!("changed-{number}-{time}");
                self.create(step.label, &last, results);
                names.push(last.clone());
            }
            for ((tool, before), after) in results.tools.iter_mut().zip(before).zip(self.sizes()?) {
                if let (Some(before), Some(after)) = (before, after) {
                    tool.growth_bytes.entry(step.label.to_owned()).or_default().push(after.saturating_sub(before));
                }
            }
        }
        self.phase(LIST, results, |tool, _| tool.list());
        self.phase(RESTORE, results, |tool, target| tool.restore(&last, target));
        self.check(RESTORE, results);
        for number in 0..self.tools.len() {
            let target = self.target(number);
            if !self.failed[number] {
                self.workload.drift(&target)?;
            }
        }
        self.phase(ROLL_BACK, results, |tool, target| tool.roll_back(&last, target));
        self.check(ROLL_BACK, results);
        results.plain_copy_seconds.push(self.plain_copy()?);
        // The older half goes, as by a rule of retention.
        names.truncate(names.len() / 2);
        self.phase(COLLECT, results, |tool, _| tool.remove(&names));
        Ok(())
    }

    /// A phase that a change of the source may repeat: times add up, the memory is the largest.
    fn create(&mut self, phase: &str, name: &str, results: &mut WorkloadResults) {
        let repeated = name.starts_with("changed-") && !name.ends_with("-0");
        for number in self.order() {
            let outcome =
                self.tools[number].create(name).and_then(|commands| measure(commands, &self.work.join("log")));
            self.record(number, phase, outcome, repeated, results);
        }
    }

    fn phase(
        &mut self,
        phase: &str,
        results: &mut WorkloadResults,
        commands: impl Fn(&dyn Tool, &Path) -> Result<Vec<Command>>,
    ) {
        for number in self.order() {
            let target = self.target(number);
            let outcome =
                commands(&*self.tools[number], &target).and_then(|commands| measure(commands, &self.work.join("log")));
            self.record(number, phase, outcome, false, results);
        }
    }

    fn record(
        &mut self,
        number: usize,
        phase: &str,
        outcome: Result<Measure>,
        repeated: bool,
        results: &mut WorkloadResults,
    ) {
        let tool = &mut results.tools[number];
        match outcome {
            Ok(measure) => {
                println!(
                    "   {phase:24} {:9} {:8.2} s  {:6.1} MiB",
                    tool.name,
                    measure.seconds,
                    measure.peak_bytes as f64 / 1_048_576.0
                );
                let measures = tool.phases.entry(phase.to_owned()).or_default();
                match measures.last_mut() {
                    Some(sum) if repeated => {
                        sum.seconds += measure.seconds;
                        sum.processor_seconds += measure.processor_seconds;
                        sum.peak_bytes = sum.peak_bytes.max(measure.peak_bytes);
                    }
                    _ => measures.push(measure),
                }
            }
            Err(error) => self.fail(number, format!("{phase}: {error:#}"), tool),
        }
    }

    fn fail(&mut self, number: usize, finding: String, tool: &mut ToolResults) {
        println!("   {} FAILED: {finding}", tool.name);
        self.failed[number] = true;
        tool.findings.push(finding);
    }

    /// Compares what every tool restored with the source.
    fn check(&mut self, phase: &str, results: &mut WorkloadResults) {
        for number in self.order() {
            let tool = &mut results.tools[number];
            match compare(&self.source, &self.target(number)) {
                Ok(Difference { metadata: 0, .. }) => {}
                Ok(Difference { metadata, example }) => {
                    let example = example.unwrap_or_default().replace(&*self.work.to_string_lossy(), "…");
                    let finding = format!("{phase}: {metadata} entries with another mode or time, as {example}");
                    println!("   {}: {finding}", tool.name);
                    tool.findings.push(finding);
                }
                Err(error) => self.fail(number, format!("{phase}: {error:#}"), tool),
            }
        }
    }

    /// What the machine needs for a copy without any backup program.
    fn plain_copy(&self) -> Result<f64> {
        let copy = self.work.join("copy");
        let mut command = Command::new("cp");
        command.arg("-a").arg(&self.source).arg(&copy);
        let seconds = measure(vec![command], &self.work.join("log"))?.seconds;
        fs::remove_dir_all(&copy)?;
        println!("   {:24} {:9} {seconds:8.2} s", "cp -a", "");
        Ok(seconds)
    }

    fn sizes(&self) -> Result<Vec<Option<u64>>> {
        let live = self.tools.iter().zip(&self.failed);
        live.map(|(tool, failed)| if *failed { Ok(None) } else { repository_bytes(&**tool).map(Some) }).collect()
    }

    fn target(&self, number: usize) -> PathBuf {
        self.work.join(self.tools[number].name()).join("restored")
    }

    fn order(&self) -> Vec<usize> {
        let count = self.tools.len();
        (0..count).map(|number| (number + self.first) % count).filter(|&number| !self.failed[number]).collect()
    }
}

/// Files and their bytes.
fn volume(folder: &Path) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in folder.read_dir().with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let inner = volume(&entry.path())?;
            (files, bytes) = (files + inner.0, bytes + inner.1);
        } else {
            (files, bytes) = (files + 1, bytes + entry.metadata()?.len());
        }
    }
    Ok((files, bytes))
}
