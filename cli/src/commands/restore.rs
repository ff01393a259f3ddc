//! `copal restore`: puts back what is missing or differs, and removes nothing unasked.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::Args;
use copal_engine::catalogue::Filter;
use copal_engine::deploy::{DeployMode, DeployReport, DeployRequest, Selection, target_is_occupied};

use crate::commands::deployed::{self, Question};
use crate::commands::excluding::all_patterns;
use crate::commands::filter::HostAndTag;
use crate::commands::latest;
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::{Invocation, Run};
use crate::place;

/// Puts files of a snapshot back into TARGET; what the snapshot lacks stays
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal restore monday /srv/data                        what is missing or differs is written
  copal restore monday /tmp/old --include /docs/        only this folder; globs may match anything
  copal restore latest /srv/data --path photos/2024 --exclude '*.tmp'
  copal restore monday /srv/data --delete --yes         what the snapshot lacks is removed, too

With one unlabelled source TARGET is that source; with labels each source is TARGET/LABEL. Patterns
are read as in .gitignore, from the root of the source. At a terminal you are asked before anything
that stands there is replaced. `copal deploy` makes a target exactly equal to a snapshot.")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
    /// Where to
    target: PathBuf,
    #[command(flatten)]
    taken: HostAndTag,
    /// For `latest`: only those with this path among their sources; may be given again
    #[arg(long, value_name = "PATH")]
    source: Vec<PathBuf>,
    /// For `latest`: only those of this application; '' means those of none
    #[arg(long, value_name = "APP")]
    app: Vec<String>,
    /// Only this path of the snapshot; TARGET becomes it
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,
    /// Only what matches this glob, and what is below it; may be given again
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// Not what matches this glob, nor what is below it; may be given again
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// The same with the globs in this file, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Remove what the snapshot lacks, as far as the globs reach
    #[arg(long)]
    delete: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Compare every byte of the target, whatever is remembered of it
    #[arg(long)]
    force_read: bool,
    /// Leave out devices that this user may not make, name them, and exit with 3
    #[arg(long)]
    skip_devices: bool,
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    place::path_here(arguments.target.as_os_str())?;
    let exclude = all_patterns(&arguments.exclude, &arguments.exclude_file)?;
    let question = format!("Restore {} to {}?", arguments.name, arguments.target.display());
    let may_ask = !arguments.yes && !arguments.dry_run && target_is_occupied(&arguments.target)?;
    if may_ask && arguments.delete {
        invocation.refuse_without_terminal(&question)?;
    }
    let context = invocation.open_for(Run::of(arguments.dry_run))?;
    let part = arguments.path.clone().map(OsString::into_vec);
    let filter = Filter { apps: arguments.app.clone(), ..arguments.taken.with(&arguments.source)? };
    let meant = latest::for_target(&context, &arguments.name, &filter, &arguments.target, part.as_deref())?;
    meant.ask(arguments.yes, arguments.dry_run, invocation)?;
    let question = format!("Restore {} to {}?", meant.said, arguments.target.display());
    let request = DeployRequest {
        reference: meant.reference,
        target: arguments.target.clone(),
        path: part,
        mode: DeployMode::Auto,
        replace: true,
        selection: Selection { include: arguments.include.clone(), exclude },
        keep_others: !arguments.delete,
        dry_run: arguments.dry_run,
        force_read: arguments.force_read,
        skip_devices: arguments.skip_devices,
        ..DeployRequest::default()
    };
    let asks = may_ask && invocation.has_terminal();
    let question = asks.then_some(Question { text: &question, is_due: &replaces });
    let done = if arguments.dry_run { "would restore" } else { "restored" };
    deployed::carry_out(&context, &request, question, &format!("{done} {}", meant.said), invocation)
}

/// Whether something that stands there would be lost.
fn replaces(rehearsal: &DeployReport) -> bool {
    rehearsal.outline.as_ref().is_none_or(|outline| !(outline.removed.is_empty() && outline.replaced.is_empty()))
}
