//! `copal deploy`: makes a target equal to a snapshot.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use copal_application as application;
use copal_engine::deploy::{DeployMode, DeployRequest, abandon, target_is_occupied};
use serde::Serialize;

use crate::commands::deployed::{self, Question};
use crate::commands::filter::HostAndTag;
use crate::commands::{database, latest};
use crate::completion::{applications, snapshots};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::{Invocation, Run};
use crate::place;
use crate::shown::escaped;

/// Makes TARGET equal to a snapshot; what the snapshot lacks is removed from it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal deploy monday /srv/data --yes            replace what stands there
  copal deploy monday /srv/data --dry-run        say what would be done
  copal deploy latest /tmp/photos --path photos/2024
  copal deploy monday /srv/data --mode in-place --yes
  copal deploy hub/monday --app hub --yes        an application of copal.toml, as one unit
  copal deploy latest /srv/data --source /srv/data --yes
  copal deploy --abandon /srv/data --yes         give up a deploy that cannot be finished any more

With one unlabelled source TARGET is that source; with labels each source is TARGET/LABEL. A target
is at every moment wholly old or wholly new: after a crash the next command finishes or takes back
what was begun. What the snapshot's excludes and -x left out of it stays where it is, and so does
what is mounted in TARGET. `copal restore` removes nothing at all. Where `latest` is of another
place or host, and TARGET has snapshots of its own, it is asked about, or needs --yes.

A database that was captured as postgres:DSN goes to a TARGET postgres:DSN, under the name that this
one has (postgres:dbname=shop_copy). Any other word with a colon that is no path is refused; write
./WORD for a path that looks so.")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots(), required_unless_present = "abandon",
        default_value = "", hide_default_value = true)]
    name: String,
    /// Where to; with --app each source goes where the configuration has it
    #[arg(required_unless_present_any = ["app", "abandon"])]
    target: Option<PathBuf>,
    /// Put this application of the configuration back, all its sources or none
    #[arg(long, value_name = "APP", add = applications(),
        conflicts_with_all = ["target", "path", "mode", "force_read", "skip_devices"])]
    app: Option<String>,
    /// Do not capture what stands there first
    #[arg(long, requires = "app")]
    no_safety: bool,
    /// Only this source of the application; may be given again
    #[arg(long, value_name = "LABEL", requires = "app")]
    only: Vec<String>,
    /// The digest that the snapshot must have
    #[arg(long, value_name = "DIGEST", requires = "app")]
    sha256: Option<String>,
    /// Deploy although it is not known which schema is newer, the snapshot's or the one here; it is migrated
    #[arg(long, requires = "app")]
    any_schema: bool,
    #[command(flatten)]
    taken: HostAndTag,
    /// For `latest`: only those with this path among their sources; may be given again
    #[arg(long, value_name = "PATH")]
    source: Vec<PathBuf>,
    /// Only this path of the snapshot; TARGET becomes it
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,
    /// Replace a target that is not empty, without asking
    #[arg(short, long)]
    yes: bool,
    /// Let a file take the place of a folder, or a folder that of a file
    #[arg(long, conflicts_with = "app")]
    replace: bool,
    /// Remove also what the snapshot's excludes and -x left out; without it that stays where it is
    #[arg(long, conflicts_with = "app")]
    delete_excluded: bool,
    /// How the target is changed
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: Mode,
    /// Give up a deploy to TARGET that was interrupted and can be neither finished nor taken back
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["name", "target", "app", "path", "mode", "dry_run", "force_read", "skip_devices"])]
    abandon: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The fastest that fits
    #[default]
    Auto,
    /// Share the extents of a kept copy (reflink)
    Clone,
    /// Build beside and exchange
    Swap,
    /// Change what differs, under a journal
    InPlace,
}

impl From<Mode> for DeployMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Clone => Self::Clone,
            Mode::Swap => Self::Swap,
            Mode::InPlace => Self::InPlace,
        }
    }
}

#[derive(Debug, Serialize)]
struct Abandoned<'a> {
    target: String,
    abandoned: &'a [String],
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if let Some(target) = &arguments.abandon {
        return give_up(target, arguments, invocation);
    }
    let Some(target) = &arguments.target else { return of_application(arguments, invocation) };
    if let Some(dsn) = database::dsn_of(target.as_os_str()) {
        return to_database(&dsn, arguments, invocation);
    }
    place::path_here(target.as_os_str())?;
    let question = format!("{} is not empty. Make it equal to {}?", target.display(), arguments.name);
    let must_ask = !arguments.yes && !arguments.dry_run && target_is_occupied(target)?;
    if must_ask {
        invocation.refuse_without_terminal(&question)?;
    }
    let context = invocation.open_for(Run::of(arguments.dry_run))?;
    let part = arguments.path.clone().map(OsString::into_vec);
    let filter = arguments.taken.with(&arguments.source)?;
    let meant = latest::for_target(&context, &arguments.name, &filter, target, part.as_deref())?;
    meant.ask(arguments.yes, arguments.dry_run, invocation)?;
    let request = DeployRequest {
        reference: meant.reference,
        target: target.clone(),
        path: part,
        mode: arguments.mode.into(),
        replace: arguments.yes || arguments.dry_run || must_ask,
        replace_kind: arguments.replace,
        delete_excluded: arguments.delete_excluded,
        dry_run: arguments.dry_run,
        force_read: arguments.force_read,
        skip_devices: arguments.skip_devices,
        ..DeployRequest::default()
    };
    let question = format!("{} is not empty. Make it equal to {}?", target.display(), meant.said);
    let question = must_ask.then_some(Question { text: &question, is_due: &|_| true });
    let done = if arguments.dry_run { "would deploy" } else { "deployed" };
    deployed::carry_out(&context, &request, question, &format!("{done} {}", meant.said), invocation)
}

/// Ends by hand what cannot be ended otherwise. Needs no repository.
fn give_up(target: &Path, arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if !arguments.yes {
        let shown = target.display();
        invocation.confirm(&format!("Give up an interrupted deploy to {shown}? It may be half written then."))?;
    }
    let state = invocation.environment.state_folder.as_deref();
    let state = state.ok_or_else(|| ProgramError::usage("there is no state folder", "set HOME or XDG_STATE_HOME"))?;
    let sentences = abandon(state, target)?;
    let output = &mut invocation.output;
    if output.is_json() {
        output.document(&Abandoned { target: target.to_string_lossy().into_owned(), abandoned: &sentences })?;
    } else if sentences.is_empty() {
        let target = output.name(target.as_os_str().as_bytes());
        output.line([b"no interrupted deploy is known to ".as_slice(), &target].concat())?;
    } else {
        for sentence in &sentences {
            output.line(escaped(sentence.as_bytes()))?;
        }
    }
    Ok(ExitCode::Done)
}

/// A database of a server, loaded from the one that the snapshot holds.
fn to_database(dsn: &str, arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let flags = arguments.replace || arguments.delete_excluded || arguments.force_read || arguments.skip_devices;
    if flags || arguments.mode != Mode::Auto {
        let hint = "it takes --path LABEL, --yes and --dry-run";
        return Err(ProgramError::usage("a deploy to a database does not have these options", hint).into());
    }
    let wanted = database::Wanted {
        name: &arguments.name,
        filter: arguments.taken.with(&arguments.source)?,
        label: arguments.path.as_deref().and_then(std::ffi::OsStr::to_str),
        dsn,
        yes: arguments.yes,
        dry_run: arguments.dry_run,
    };
    database::deploy(&wanted, invocation)
}

fn of_application(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let app = arguments.app.as_deref().unwrap_or_default();
    let must_ask = !arguments.yes && !arguments.dry_run;
    let question = |name: &str| format!("Replace what the application {app} has by {name}?");
    if must_ask {
        invocation.refuse_without_terminal(&question(&arguments.name))?;
    }
    let application = super::application::configured(app, None, invocation)?;
    let context = invocation.open_for(Run::of(arguments.dry_run))?;
    let filter = arguments.taken.with(&arguments.source)?;
    let meant = latest::for_application(&context, &arguments.name, &filter, app)?;
    meant.ask(arguments.yes, arguments.dry_run, invocation)?;
    let asked = must_ask.then(|| question(&meant.said));
    let request = application::RestoreRequest {
        reference: meant.reference,
        digest: arguments.sha256.clone(),
        labels: arguments.only.clone(),
        safety: !arguments.no_safety,
        dry_run: arguments.dry_run,
        any_schema: arguments.any_schema,
        ..application::RestoreRequest::default()
    };
    super::unit::deploy(&context, &application, &request, asked.as_deref(), invocation)
}
