//! Starting and stopping: the state folder and its lock, what a daemon before this one has left, listening,
//! the graceful end.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use copal_engine::Context;
use copal_store::entropy::Entropy;
use tokio::sync::watch;

use crate::access::{Audit, Counters, Limits, Sessions, Tokens};
use crate::connection::{Door, load_tls, raise_open_files};
use crate::daemon::{Access, Daemon};
use crate::http;
use crate::metrics::Metrics;
use crate::operation::{Journal, Operations, Performer, Task};
use crate::platform::{Applications, Platform};
use crate::problem::{Problem, Result};
use crate::schedule::{self, Planned};
use crate::staging::{Staging, StagingRoom};

/// A certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with those between it and the root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Those who have a token.
    Tokens,
    /// Everybody on this machine; only on loopback.
    None,
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may come in.
    pub authentication: Authentication,
    /// TLS; needed for every address that is not loopback.
    pub tls: Option<TlsFiles>,
    /// Folder of operations, tokens, uploads, the audit log; one daemon at a time.
    pub state_folder: PathBuf,
    /// Limits.
    pub limits: Limits,
    /// How long an operation may take.
    pub deadline: Duration,
    /// How long running operations may go on when the daemon is told to end.
    pub grace: Duration,
}

/// A daemon that is ready to serve.
pub struct Server {
    daemon: Arc<Daemon>,
    options: ServeOptions,
    door: Door,
    planned: Vec<Planned>,
    /// Held as long as the daemon lives.
    _lock: File,
}

impl Server {
    /// Checks the options, takes the state folder, ends or goes on with what a daemon before this one has
    /// left, and listens. Runs inside the runtime.
    pub async fn start(
        context: Context,
        applications: Applications,
        entropy: Arc<dyn Entropy>,
        options: ServeOptions,
    ) -> Result<Self> {
        check(&options)?;
        let lock = take_folder(&options.state_folder)?;
        let room = StagingRoom {
            bundles: options.limits.bundles_staged,
            bundle_bytes: options.limits.upload_bytes_max,
            bytes: options.limits.staged_bytes_max,
        };
        let staging = Staging::open(options.state_folder.join("uploads"), room)?;
        let access = match options.authentication {
            Authentication::None => Access::Open,
            Authentication::Tokens => Access::Tokens {
                tokens: Box::new(open_tokens(&options.state_folder, Arc::clone(&entropy))?),
                sessions: Box::new(Sessions::new(entropy)),
            },
        };
        let planned = schedule::plan(&applications)?;
        let metrics = Arc::new(Metrics::default());
        let platform = Arc::new(Platform::new(context, applications, Arc::clone(&metrics), Arc::clone(&staging)));
        let recovering = Arc::clone(&platform);
        let sentences = tokio::task::spawn_blocking(move || recovering.recover()).await;
        for sentence in sentences.map_err(|error| Problem::internal(error.to_string()))?? {
            tracing::warn!("{sentence}");
        }
        let performer: Arc<dyn Performer> = Arc::clone(&platform) as Arc<dyn Performer>;
        let journal = Journal::open(&options.state_folder.join("operations"))?;
        let operations = Operations::new(performer, journal, Arc::clone(&metrics), options.limits.operations_at_once);
        let restoring = operations.clone();
        let sentences = tokio::task::spawn_blocking(move || restoring.restore()).await;
        for sentence in sentences.map_err(|error| Problem::internal(error.to_string()))?? {
            tracing::warn!("{sentence}");
        }
        let asking = Arc::clone(&platform);
        let unfinished = tokio::task::spawn_blocking(move || asking.unfinished()).await;
        let unfinished = unfinished.map_err(|error| Problem::internal(error.to_string()))??;
        let daemon = Arc::new(Daemon {
            platform,
            operations,
            access,
            counters: Counters::new(options.limits),
            limits: options.limits,
            audit: Audit::open(&options.state_folder)?,
            metrics,
            staging,
            deadline: options.deadline,
            is_encrypted: options.tls.is_some(),
        });
        go_on(&daemon, unfinished).await;
        let tls = options.tls.as_ref().map(load_tls).transpose()?;
        let door = Door::open(options.listen, tls, options.limits.connections, options.limits.patience)?;
        Ok(Self { daemon, options, door, planned, _lock: lock })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.address()
    }

    /// The address of the page.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.address()?))
    }

    /// Serves until `stop` ends; then no new requests are taken, running operations get their grace, and the
    /// rest goes on with the next daemon.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let Self { daemon, options, door, planned, _lock } = self;
        tokio::spawn(schedule::run(Arc::clone(&daemon), planned));
        let (end, ending) = watch::channel(false);
        let (operations, grace) = (daemon.operations.clone(), options.grace);
        let ended = tokio::spawn(async move {
            stop.await;
            tracing::info!("the daemon ends");
            operations.close(grace).await;
            // Those who watch operations have heard their end.
            end.send_replace(true);
        });
        let tidying = Arc::clone(&daemon);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(60)).await;
                tidying.counters.tidy();
            }
        });
        door.serve(http::router(daemon), ending).await;
        ended.await.map_err(|error| Problem::internal(error.to_string()))
    }
}

/// Uploads that no operation of the journal knows of: captures of the program that were cut off.
async fn go_on(daemon: &Daemon, unfinished: Vec<(String, String)>) {
    for (app, name) in unfinished {
        let task = Task::Create { name: name.clone(), tags: BTreeMap::new(), pinned: false };
        match daemon.submit(&app, task, None, "restart").await {
            Ok(_) => tracing::warn!(app, name, "the upload of a capture goes on"),
            // Its own operation goes on with it.
            Err(problem) if problem.code == "name-taken" => {}
            Err(problem) => tracing::error!(app, name, detail = problem.detail, "an upload could not go on"),
        }
    }
}

fn check(options: &ServeOptions) -> Result<()> {
    let is_loopback = options.listen.ip().is_loopback();
    if !is_loopback && options.authentication == Authentication::None {
        return Err(Problem::bad_request("without tokens the daemon listens on loopback only"));
    }
    if !is_loopback && options.tls.is_none() {
        return Err(Problem::bad_request(
            "an address that is not loopback needs TLS: give a certificate and its key, or put a proxy before the daemon",
        ));
    }
    Ok(())
}

fn take_folder(folder: &Path) -> Result<File> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    check_owner(folder)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock"))?;
    match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let what = format!("another daemon serves this repository ({})", folder.display());
            Err(copal_store::Error::Busy { what }.into())
        }
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Whoever can write there could put a token of their own.
fn check_owner(folder: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(folder)?;
    if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let what =
        format!("the folder {} can be changed by other users: it holds who may use the daemon", folder.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what).into())
}

/// The first start says once where the first token is.
fn open_tokens(folder: &Path, entropy: Arc<dyn Entropy>) -> Result<Tokens> {
    let tokens = Tokens::open(folder, entropy)?;
    if let Some(path) = tokens.begin()? {
        tracing::warn!("the first token, of an administrator, is in {} until it is used", path.display());
    }
    Ok(tokens)
}

/// The daemon's whole life, on a runtime of its own: until SIGTERM or SIGINT. `announce` hears the address of
/// the page once it answers.
pub fn run(
    context: Context,
    applications: Applications,
    entropy: Arc<dyn Entropy>,
    options: ServeOptions,
    announce: impl FnOnce(&str),
) -> Result<()> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("copal").build()?;
    let served = runtime.block_on(async {
        let server = Server::start(context, applications, entropy, options).await?;
        announce(&server.url()?);
        server.serve(told_to_end()).await
    });
    // A hook that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be listened for");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
