//! `cargo xtask duel`: Copal and its peers on the same workloads, on the same machine, in the same run.
//!
//! Every round makes the workload anew from its seed, gives each tool an empty repository, and goes phase by
//! phase; within a phase tool by tool, beginning with another one each round. Whatever is restored is
//! compared with the source byte by byte.

mod compare;
mod goals;
mod install;
mod machine;
mod measure;
mod plot;
mod publish;
mod random;
mod results;
mod rounds;
mod table;
mod tools;
mod workloads;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Parser;

use results::{Results, ToolResults};

/// Measures Copal beside its peers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask duel")]
struct Arguments {
    /// Fetch the peers that package registries have, where they are missing
    #[arg(long)]
    install: bool,
    /// How often everything is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Which workloads: db, tree, bucket, history, million
    #[arg(long, value_delimiter = ',', default_value = "db,tree,bucket")]
    workload: Vec<String>,
    /// Share of each workload's size
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Which tools; all that are found without it
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// Where results, table and plot go [default: target/duel]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where repositories and sources stand meanwhile [default: target/duel/work]
    #[arg(long)]
    work: Option<PathBuf>,
    /// Where peers are installed [default: target/duel/peers]
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Leave source and repositories of the last round where they are
    #[arg(long)]
    keep: bool,
    /// The program to measure, instead of a release build of this workspace
    #[arg(long)]
    copal: Option<PathBuf>,
    /// Put the results into docs/assurance/benchmarks.md and the README; with --rounds 0 those of the last
    /// run
    #[arg(long)]
    publish: bool,
}

/// A tool that takes part.
struct Found {
    name: &'static str,
    program: PathBuf,
    version: String,
    remark: &'static str,
}

impl Found {
    fn results(&self) -> ToolResults {
        ToolResults {
            name: self.name.to_owned(),
            version: self.version.clone(),
            remark: self.remark.to_owned(),
            ..ToolResults::default()
        }
    }
}

/// Runs with the arguments after `duel`.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments = Arguments::parse_from(std::iter::once(OsString::from("duel")).chain(arguments));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the folder of the workspace")?;
    let target = root.join("target/duel");
    let out = std::path::absolute(arguments.out.clone().unwrap_or_else(|| target.clone()))?;
    let work = std::path::absolute(arguments.work.clone().unwrap_or_else(|| target.join("work")))?;
    let peers = std::path::absolute(arguments.peers.clone().unwrap_or_else(|| target.join("peers")))?;
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    if arguments.install {
        install::install(&peers)?;
    }
    let file = out.join("results.json");
    let mut results = Results::load(&file)?;
    if arguments.rounds > 0 {
        let found = find(&arguments, root, &peers, &work)?;
        for name in &arguments.workload {
            let Some(workload) = workloads::by_name(name, arguments.scale) else {
                bail!("no workload is called {name}; there are {}", workloads::NAMES.join(", "));
            };
            let measured = rounds::run(&*workload, &found, &work.join(name), arguments.rounds, arguments.scale)?;
            if !arguments.keep {
                let folder = work.join(name);
                fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
            }
            results.workloads.insert(name.clone(), measured);
            results.save(&file)?;
        }
    }
    let table = table::full(&results);
    println!("{table}");
    fs::write(out.join("results.md"), table).context("writing the table")?;
    fs::write(out.join("results.svg"), plot::svg(&results)).context("writing the plot")?;
    if arguments.publish {
        publish::publish(root, results)?;
    }
    Ok(())
}

/// The tools that were asked for and are there; the product is built where no program is given.
fn find(arguments: &Arguments, root: &Path, peers: &Path, work: &Path) -> Result<Vec<Found>> {
    if let Some(unknown) = arguments.tools.iter().find(|name| !tools::NAMES.contains(&name.as_str())) {
        bail!("no tool is called {unknown}; there are {}", tools::NAMES.join(", "));
    }
    let mut found = Vec::new();
    for name in tools::NAMES {
        if !arguments.tools.is_empty() && !arguments.tools.iter().any(|wanted| wanted == name) {
            continue;
        }
        let program = match (name, &arguments.copal) {
            ("copal" | tools::COPAL_KEY_FILE, Some(program)) => Some(std::path::absolute(program)?),
            ("copal" | tools::COPAL_KEY_FILE, None) => Some(build(root)?),
            _ => tools::find(name, peers),
        };
        let Some(program) = program else {
            println!("== {name} is not here");
            continue;
        };
        let tool = tools::open(name, program.clone(), work.join(name), work.to_owned())?;
        let output =
            tool.version().output().with_context(|| format!("asking {} for its version", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Some print their name before the number, some a "v".
        let digits = |word: &str| word.find(|letter: char| letter.is_ascii_digit());
        let word = text.split_whitespace().find(|word| word.contains('.') && digits(word).is_some()).unwrap_or("?");
        let number = &word[digits(word).unwrap_or(0)..];
        let shown = if name == tools::COPAL_KEY_FILE { "copal, key file," } else { name };
        found.push(Found { name, program, version: format!("{shown} {number}"), remark: tool.remark() });
    }
    Ok(found)
}

fn build(root: &Path) -> Result<PathBuf> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--locked", "--release", "--package", "copal"])
        .current_dir(root)
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("copal does not build");
    }
    Ok(root.join("target/release/copal"))
}
