//! `copal serve`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use copal_application::Tools;
use copal_engine::Context;
use copal_engine::context::SilentMonitor;
use copal_engine::own::OwnPlace;
use copal_service::access::Limits;
use copal_service::platform::Applications;
use copal_service::{Authentication, LogFormat, ServeOptions, TlsFiles, log_to_stderr};
use copal_store::entropy::OsEntropy;

use crate::configuration;
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::progress::say;
use crate::quantities;

/// Serves the repository: a REST interface and a web page on which one press deploys
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal serve                                      on http://127.0.0.1:7070, with tokens
  copal serve --no-auth                            for everybody on this machine
  copal serve --listen 0.0.0.0:7443 --tls-cert cert.pem --tls-key key.pem
  copal token add alice --role deploy              make a token for a person

The first start makes a token of an administrator and says once in which file it is: first-token in
the folder of --state, which only the daemon's user can read, and which is removed when the token is
used. Applications are those of copal.toml (--config).")]
pub(crate) struct Arguments {
    /// Address and port; anything but loopback needs TLS
    #[arg(long, value_name = "ADDR:PORT", value_parser = quantities::address, default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// Let everybody on this machine do everything (loopback only)
    #[arg(long)]
    no_auth: bool,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Folder of operations, tokens, uploads and the audit log [default: in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Requests per second from one client; 0: no limit
    #[arg(long, value_name = "N", value_parser = quantities::any::<u32>,
          default_value_t = Limits::default().requests_per_second)]
    rate: u32,
    /// Uploads and downloads at the same time
    #[arg(long, value_name = "N", value_parser = quantities::any::<usize>,
          default_value_t = Limits::default().transfers)]
    transfers: usize,
    /// Largest upload in bytes
    #[arg(long, value_name = "BYTES", value_parser = quantities::bytes,
          default_value_t = Limits::default().upload_bytes_max)]
    upload_max: u64,
    /// Most uploaded bundles that wait to be imported
    #[arg(long, value_name = "N", value_parser = quantities::any::<usize>,
          default_value_t = Limits::default().bundles_staged)]
    staged: usize,
    /// Most bytes of these bundles together
    #[arg(long, value_name = "BYTES", value_parser = quantities::bytes,
          default_value_t = Limits::default().staged_bytes_max)]
    staged_max: u64,
    /// Most operations of different applications at the same time
    #[arg(long, value_name = "N", value_parser = quantities::some::<usize>,
          default_value_t = Limits::default().operations_at_once)]
    at_once: usize,
    /// Most open connections; a quarter of them is for clients that have shown no token
    #[arg(long, value_name = "N", value_parser = quantities::any::<usize>,
          default_value_t = Limits::default().connections)]
    connections: usize,
    /// Seconds that an operation may take
    #[arg(long, value_name = "SECONDS", value_parser = quantities::seconds, default_value_t = 4 * 3600)]
    deadline: u64,
    /// Seconds that running operations get when the daemon is told to end
    #[arg(long, value_name = "SECONDS", value_parser = quantities::seconds, default_value_t = 30)]
    grace: u64,
    /// How log lines are written
    #[arg(long, value_enum, value_name = "HOW", default_value = "json")]
    log: Log,
    /// Which log lines are written: error, warn, info, debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_filter: String,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Log {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let log = match arguments.log {
        Log::Json => LogFormat::Json,
        Log::Text => LogFormat::Text,
    };
    log_to_stderr(log, &arguments.log_filter).map_err(service_error)?;
    let configuration = configuration::load(invocation.global.config.as_deref(), &invocation.environment)?;
    let context = invocation.open()?;
    let options = options(arguments, invocation, &context)?;
    let mut own_places = context.own_places.clone();
    own_places.push(OwnPlace::new("the daemon's state folder", &options.state_folder));
    // Signals end the daemon, not the reading of a list.
    let context = Context {
        monitor: Arc::new(SilentMonitor),
        interrupt: Arc::new(AtomicBool::new(false)),
        own_places,
        ..context
    };
    let program = std::env::current_exe()
        .map_err(|error| ProgramError::file("looking for", std::path::Path::new("the program itself"), error))?;
    let tools = Tools { watchdog: Some(vec![program.into(), "watchdog".into()]) };
    let applications = Applications::new(configuration, tools);
    let output = &mut invocation.output;
    let served = copal_service::run(context, applications, Arc::new(OsEntropy), options, |url| {
        let announced = if output.is_json() {
            output.document(&serde_json::json!({ "url": url }))
        } else {
            output.line(format!("serving at {url}"))
        };
        if let Err(error) = announced.and_then(|()| output.finish()) {
            // It serves, whoever could not be told.
            say(&format!("copal: serving at {url}; only that could not be written: {error}"));
        }
    });
    served.map_err(service_error)?;
    Ok(ExitCode::Done)
}

fn options(arguments: &Arguments, invocation: &Invocation, context: &Context) -> Result<ServeOptions, ProgramError> {
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    let authentication = if arguments.no_auth { Authentication::None } else { Authentication::Tokens };
    Ok(ServeOptions {
        listen: arguments.listen,
        authentication,
        tls,
        state_folder: state_folder(arguments.state.as_ref(), invocation, context)?,
        limits: Limits {
            requests_per_second: arguments.rate,
            transfers: arguments.transfers,
            upload_bytes_max: arguments.upload_max,
            bundles_staged: arguments.staged,
            staged_bytes_max: arguments.staged_max,
            operations_at_once: arguments.at_once,
            connections: arguments.connections,
            ..Limits::default()
        },
        deadline: Duration::from_secs(arguments.deadline),
        grace: Duration::from_secs(arguments.grace),
    })
}

/// Each repository has a folder of its own.
pub(crate) fn state_folder(
    named: Option<&PathBuf>,
    invocation: &Invocation,
    context: &Context,
) -> Result<PathBuf, ProgramError> {
    if let Some(named) = named {
        return Ok(named.clone());
    }
    let repository = context.repository.config().repository.to_string();
    let folder = invocation.environment.state_folder.as_ref().map(|folder| folder.join("serve").join(repository));
    folder.ok_or_else(|| ProgramError::usage("there is no home folder for the daemon's state", "name one with --state"))
}

/// The service's problems have the words and exit codes of the program.
pub(crate) fn service_error(problem: copal_service::problem::Problem) -> ProgramError {
    ProgramError::Service(problem)
}
