//! What a shell offers after TAB: commands and options, and the names of snapshots and applications.
//!
//! It runs while somebody types, so it asks nothing, prints nothing, waits for nobody, and ends nothing that
//! was interrupted. Names of snapshots are offered only where the repository opens without a question: by a
//! password or key file, a variable, or the kernel's keyring. A password command may ask, so it is not run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompleteEnv, Shell};
use copal_engine::Context;
use copal_engine::catalogue::Catalogue;
use copal_engine::context::SilentMonitor;

use crate::arguments::{Arguments, GlobalArguments};
use crate::commands::snapshot::full_name;
use crate::configuration;
use crate::invocation::Invocation;

/// Set by what `copal completions` prints, to the name of the shell.
const VARIABLE: &str = "COPAL_COMPLETE";

/// Answers a shell that asks, and ends the process; otherwise nothing.
pub(crate) fn answer() {
    CompleteEnv::with_factory(Arguments::command).var(VARIABLE).bin("copal").complete();
}

/// What makes a shell ask.
pub(crate) fn script(shell: Shell) -> std::io::Result<Vec<u8>> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let known = shells.completer(&name).ok_or_else(|| std::io::Error::other(format!("no completions for {name}")))?;
    let mut script = Vec::new();
    known.write_registration(VARIABLE, "copal", "copal", "copal", &mut script)?;
    Ok(script)
}

/// Of an argument that names a snapshot.
pub(crate) fn snapshots() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| beginning(names_of_snapshots().unwrap_or_default(), typed))
}

/// Of one that names a snapshot or a path.
pub(crate) fn snapshots_and_paths() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut all = beginning(names_of_snapshots().unwrap_or_default(), typed);
        all.extend(PathCompleter::any().complete(typed));
        all
    })
}

/// Of one that names an application.
pub(crate) fn applications() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| beginning(names_of_applications().unwrap_or_default(), typed))
}

fn beginning(names: Vec<String>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    names.into_iter().filter(|name| name.starts_with(typed)).map(CompletionCandidate::new).collect()
}

/// What a shell takes as one word, whatever it does with it: it puts names on the command line as they are,
/// and others may have chosen them.
fn is_plain(name: &str) -> bool {
    !name.starts_with('-') && name.chars().all(|c| c.is_alphanumeric() || "._/@+,-".contains(c))
}

fn names_of_snapshots() -> Option<Vec<String>> {
    let context = open()?;
    let catalogue = Catalogue::load(&context).ok()?;
    let mut names: Vec<String> =
        catalogue.snapshots.iter().map(|listed| full_name(&listed.snapshot)).filter(|name| is_plain(name)).collect();
    if !names.is_empty() {
        names.push("latest".to_owned());
    }
    Some(names)
}

fn names_of_applications() -> Option<Vec<String>> {
    let invocation = Invocation::new(typed()?);
    let configuration = configuration::load(invocation.global.config.as_deref(), &invocation.environment).ok()?;
    Some(configuration.applications.into_keys().filter(|name| is_plain(name)).collect())
}

/// The repository, where nothing has to be asked for it.
fn open() -> Option<Context> {
    let global = typed()?;
    let context = Invocation::new(global).open_silently().ok()??;
    Some(Context { monitor: Arc::new(SilentMonitor), ..context })
}

/// The options of every command among the words typed so far.
fn typed() -> Option<GlobalArguments> {
    // The shell's words stand behind the dashes.
    let words: Vec<OsString> = env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let matches: ArgMatches = Arguments::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    GlobalArguments::from_arg_matches(&matches).ok()
}
