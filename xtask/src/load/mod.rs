//! `cargo xtask load`: the daemon under load. Builds the release program, makes a repository with many
//! snapshots, and measures requests with one client and with 64, alone and while creates and deploys run; at
//! last the daemon is killed in the middle and what it promised is looked for. All of it on loopback, bounded
//! in time; prints a table for `docs/assurance/benchmarks.md`.

mod client;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use client::Client;

/// Applications: creates of different ones run beside each other.
const APPS: usize = 8;
/// Clients of the crowd.
const CROWD: usize = 64;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask load", about = "Measures the daemon under load, on loopback")]
struct Options {
    /// Snapshots in the repository
    #[arg(long, default_value_t = 10_000)]
    snapshots: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Another program than the release build of this tree
    #[arg(long)]
    copal: Option<PathBuf>,
    /// Folder for the repository, made when it is not there and used again when it is
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<()> {
    let options = Options::parse_from(std::iter::once("cargo xtask load".into()).chain(words));
    let copal = match options.copal {
        Some(copal) => copal,
        None => {
            crate::cargo(&["build", "--locked", "--release", "--package", "copal"], &[])?;
            PathBuf::from("target/release/copal").canonicalize()?
        }
    };
    let world = World::new(copal, options.folder)?;
    let daemon = world.start()?;
    fill(&daemon, options.snapshots)?;
    let each = Duration::from_secs(options.seconds);
    println!("| requests | clients | beside | per second | median | 99% |\n|---|---|---|---|---|---|");
    let routes = [
        ("all snapshots, one JSON document", "/snapshots"),
        ("the newest 100", "/snapshots?limit=100"),
        ("one snapshot by name", "/apps/a0/snapshots/latest"),
        ("the page", "/"),
        ("health", "/healthz"),
    ];
    for (what, path) in routes {
        for clients in [1, CROWD] {
            print_line(what, clients, "nothing", &measure(&daemon, path, clients, each)?);
        }
    }
    let done = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        for app in 0..APPS {
            let (daemon, done, over) = (&daemon, &done, &over);
            scope.spawn(move || churn(daemon, app, done, over));
        }
        for (what, path) in [routes[0], routes[1]] {
            print_line(what, CROWD, "creates and deploys", &measure(&daemon, path, CROWD, each)?);
        }
        over.store(true, Ordering::SeqCst);
        Ok(())
    })?;
    println!(
        "\n{} creates and deploys ended meanwhile; the daemon's peak of memory is {} MiB.",
        done.load(Ordering::SeqCst),
        daemon.memory_peak()? >> 20
    );
    kill_under_load(&world, daemon)
}

/// A repository, applications, and the program.
struct World {
    copal: PathBuf,
    folder: PathBuf,
    made_here: bool,
}

impl World {
    fn new(copal: PathBuf, folder: Option<PathBuf>) -> Result<Self> {
        let made_here = folder.is_none();
        let folder = folder.unwrap_or_else(|| std::env::temp_dir().join(format!("copal-load-{}", std::process::id())));
        fs::create_dir_all(&folder)?;
        let world = Self { copal, folder: folder.canonicalize()?, made_here };
        let mut configuration = String::new();
        for app in 0..APPS {
            let data = world.folder.join(format!("data/a{app}"));
            fs::create_dir_all(&data)?;
            for file in 0..4 {
                fs::write(data.join(format!("{file}.txt")), format!("application {app}, file {file}\n").repeat(500))?;
            }
            configuration.push_str(&format!(
                "[app.a{app}]\n[[app.a{app}.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data/a{app}\"\n"
            ));
        }
        fs::write(world.folder.join("copal.toml"), configuration)?;
        fs::write(world.folder.join("key"), [7; 32])?;
        if !world.folder.join("repository").exists() {
            ensure!(world.command(&["init"]).stdout(Stdio::null()).status()?.success(), "copal init failed");
        }
        Ok(world)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.copal);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("COPAL_REPO", self.folder.join("repository"))
            .env("COPAL_KEY_FILE", self.folder.join("key"))
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env("XDG_CACHE_HOME", self.folder.join("cache"));
        command
    }

    fn start(&self) -> Result<Daemon> {
        let arguments = ["serve", "--no-auth", "--rate", "0", "--listen", "127.0.0.1:0", "--log-filter", "error"];
        let mut child = self.command(&arguments).stdout(Stdio::piped()).spawn().context("starting the daemon")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it has an output")?).read_line(&mut line)?;
        let address = line.trim().rsplit_once("//").map(|(_, address)| address.to_owned());
        Ok(Daemon { child, address: address.with_context(|| format!("the daemon said {line:?}"))? })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.made_here {
            // What stays behind is a folder for temporary things.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    fn client(&self) -> Result<Client> {
        Client::connect(&self.address)
    }

    fn memory_peak(&self) -> Result<u64> {
        let status = fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"))?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("the kernel tells the peak")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? << 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes snapshots until there are enough, each application beside the others.
fn fill(daemon: &Daemon, snapshots: usize) -> Result<()> {
    let here = daemon.client()?.get("/snapshots")?.body.matches_of("\"digest\"");
    let missing = snapshots.saturating_sub(here);
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..APPS)
            .map(|app| {
                scope.spawn(move || -> Result<()> {
                    let mut client = daemon.client()?;
                    for number in (app..missing).step_by(APPS) {
                        let answer = client.post(&format!("/apps/a{app}/snapshots/s{}?wait=true", here + number))?;
                        ensure!(answer.status == 201, "a create was answered with {}", answer.status);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker died")))
    })?;
    if missing > 0 {
        let rate = missing as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{missing} snapshots taken over the interface, {rate:.0} a second, {APPS} applications beside each other\n"
        );
    }
    Ok(())
}

/// Times of requests, sorted, and how long all of them took.
struct Measured {
    times: Vec<Duration>,
    took: Duration,
    bytes: usize,
}

fn measure(daemon: &Daemon, path: &str, clients: usize, lasts: Duration) -> Result<Measured> {
    daemon.client()?.get(path)?;
    let begun = Instant::now();
    let collected = std::thread::scope(|scope| -> Result<Vec<(Vec<Duration>, usize)>> {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(move || -> Result<(Vec<Duration>, usize)> {
                    let (mut client, mut times, mut bytes) = (daemon.client()?, Vec::new(), 0);
                    while begun.elapsed() < lasts {
                        let asked = Instant::now();
                        let answer = client.get(path)?;
                        ensure!(answer.status == 200, "{path} was answered with {}", answer.status);
                        times.push(asked.elapsed());
                        bytes = answer.body.len();
                    }
                    Ok((times, bytes))
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| bail!("a client died"))).collect()
    })?;
    let took = begun.elapsed();
    let bytes = collected.first().map_or(0, |(_, bytes)| *bytes);
    let mut times: Vec<Duration> = collected.into_iter().flat_map(|(times, _)| times).collect();
    times.sort_unstable();
    Ok(Measured { times, took, bytes })
}

fn print_line(what: &str, clients: usize, beside: &str, measured: &Measured) {
    let Measured { times, took, bytes } = measured;
    let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let shown =
        |time: Option<&Duration>| time.map_or("–".into(), |time| format!("{:.2} ms", time.as_secs_f64() * 1000.0));
    let rate = times.len() as f64 / took.as_secs_f64();
    let size = *bytes as f64 / 1024.0;
    println!(
        "| {what} ({size:.0} KiB) | {clients} | {beside} | {rate:.0} | {} | {} |",
        shown(at(0.5)),
        shown(at(0.99))
    );
}

/// One application that is snapshotted and deployed in turn.
fn churn(daemon: &Daemon, app: usize, done: &AtomicU64, over: &AtomicBool) {
    let Ok(mut client) = daemon.client() else { return };
    for turn in 0.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("churn-{}-{turn}", std::process::id());
        let path = if turn % 2 == 0 {
            format!("/apps/a{app}/snapshots/{name}?wait=true")
        } else {
            format!("/apps/a{app}/snapshots/latest/deploy?wait=true")
        };
        if client.post(&path).is_ok_and(|answer| matches!(answer.status, 200 | 201)) {
            done.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// SIGKILL while 64 clients create and deploy; every snapshot that was acknowledged is there afterwards and
/// verifies.
fn kill_under_load(world: &World, daemon: Daemon) -> Result<()> {
    let promised: Mutex<BTreeSet<String>> = Mutex::default();
    let mut daemon = daemon;
    std::thread::scope(|scope| -> Result<()> {
        for number in 0..CROWD {
            let (promised, mut client) = (&promised, daemon.client()?);
            scope.spawn(move || {
                for turn in 0.. {
                    let name = format!("kill-{}-{number}-{turn}", std::process::id());
                    let app = number % APPS;
                    let path = match number % 4 {
                        0 => format!("/apps/a{app}/snapshots/latest/deploy?wait=true"),
                        _ => format!("/apps/a{app}/snapshots/{name}?wait=true"),
                    };
                    match client.post(&path) {
                        Ok(answer) if answer.status == 201 => {
                            promised.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name);
                        }
                        Ok(_) => {}
                        // It was killed.
                        Err(_) => return,
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(5));
        daemon.child.kill()?;
        daemon.child.wait()?;
        Ok(())
    })?;
    let promised = promised.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let begun = Instant::now();
    let daemon = world.start()?;
    let list = daemon.client()?.get("/snapshots")?.body;
    let back = begun.elapsed();
    let text = String::from_utf8(list.0)?;
    let lost = promised.iter().filter(|name| !text.contains(&format!("\"{name}\""))).count();
    let verified = daemon.client()?.post("/repository/verify?wait=true")?;
    ensure!(lost == 0, "{lost} acknowledged snapshots are lost");
    ensure!(verified.status == 200, "the repository does not verify");
    println!(
        "Killed under {CROWD} clients: {} snapshots had been acknowledged, none is lost, everything verifies; the next daemon \
         listed them {:.1} s after its start.",
        promised.len(),
        back.as_secs_f64()
    );
    Ok(())
}
