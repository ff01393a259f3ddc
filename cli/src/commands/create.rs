//! `copal create`: takes a snapshot.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use copal_application::config::{SourceSpec, TreeSpec};
use copal_application::{CaptureRecord, CaptureRequest};
use copal_engine::Monitor;
use copal_engine::create::{CreateReport, CreateRequest, SourceRequest, Stream, create_with, made_name, recorded_path};
use copal_manifest::shown::first_of;
use serde::Serialize;

use crate::commands::application;
use crate::commands::excluding::Excluding;
use crate::commands::listing::{Listing, stream_name};
use crate::commands::naming::{self, Words};
use crate::commands::rehearsed;
use crate::commands::snapshot::{full_name, phase};
use crate::completion::{applications, snapshots};
use crate::exit_code::{ExitCode, ProgramError};
use crate::invocation::Invocation;
use crate::shown::{count, duration, rate, rfc3339, share, size, uuid};
use crate::stdin::HeedfulStdin;

/// Patterns that one notice names.
const PATTERNS_NAMED_MAX: usize = 5;

/// Takes a snapshot of folders, files, databases, or of an application
#[derive(Debug, Args)]
#[command(
    override_usage = "copal create [OPTIONS] [NAME] SOURCE...\n       copal create [OPTIONS] [NAME] --app APP",
    after_help = "\
Examples:
  copal create /srv/data                              a folder's contents; a name is made
  copal create monday /srv/data                       the same under this name
  copal create monday db=/srv/hub.db files=/srv/bucket
  copal create monday /home --exclude '*.tmp' --exclude /cache/ --one-file-system
  copal create monday /srv/data --files-from list       what is named there, from the source
  copal create monday --stdin --stdin-filename all.sql < all.sql
  copal create monday /home --exclude-caches --exclude-larger-than 2GiB --skip-if-unchanged
  copal create release-7 /srv/data --tag ticket=4711 --pin
  copal create monday db=sqlite:/srv/hub.db files=/srv/bucket
  copal create monday --app hub --detach              an application of copal.toml

The first of several words is the NAME, unless it has a slash or an equals sign, or is KIND:WHAT; a
word alone is a SOURCE. Where something of that name is here it could be both: ./WORD takes it, and
--name WORD names the snapshot. Without a name one is made of host, source and time, and printed.

A SOURCE is a folder, whose contents are taken, or one file, or KIND:WHAT: sqlite:PATH,
postgres:DSN, image:PATH, command:ARGV, config:PATH, secret:PATH. LABEL=SOURCE names it. A path
that has an equals sign is written with a slash before it: ./a=b. Patterns are lines of .gitignore,
from the source's root; one that begins with the source's own path counts from there as well."
)]
pub(crate) struct Arguments {
    /// Name of the snapshot, unique in the repository, and what to take: PATH, KIND:WHAT, or LABEL= and
    /// either
    #[arg(required_unless_present_any = ["app", "stdin"], value_name = "[NAME] SOURCE", value_hint = ValueHint::AnyPath)]
    words: Vec<OsString>,
    /// Name of the snapshot: then all words are sources
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take this application of the configuration, all its sources at one instant
    #[arg(long, value_name = "APP", add = applications(),
        conflicts_with_all = ["Excluding", "Listing", "parent", "stdin", "dry_run"])]
    app: Option<String>,
    /// Return once the application goes on; the upload is shown by `copal status`
    #[arg(long, requires = "app")]
    detach: bool,
    /// The detached half of --detach
    #[arg(long, hide = true, requires = "app")]
    detached: bool,
    /// Snapshot class of the configuration
    #[arg(long, value_name = "NAME", requires = "app")]
    class: Option<String>,
    #[command(flatten)]
    excluding: Excluding,
    #[command(flatten)]
    listing: Listing,
    /// Take what comes on standard input, too, as one file
    #[arg(long)]
    stdin: bool,
    /// What that file is called
    #[arg(long, value_name = "NAME", requires = "stdin", default_value = "stdin", value_parser = stream_name)]
    stdin_filename: String,
    /// Say what would be taken and read, and write nothing at all
    #[arg(short = 'n', long, conflicts_with = "stdin")]
    dry_run: bool,
    /// A tag; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::tag::parse)]
    tag: Vec<(String, String)>,
    /// Protect the snapshot from every automatic removal
    #[arg(long)]
    pin: bool,
    /// Read every file, even if nothing says that it changed
    #[arg(long)]
    force_read: bool,
    /// Snapshot to compare with; without it the newest of the same sources
    #[arg(long, value_name = "NAME", add = snapshots())]
    parent: Option<String>,
    /// Take no snapshot when nothing has changed since the one that it is compared with
    #[arg(long, conflicts_with = "detach")]
    skip_if_unchanged: bool,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    id: String,
    name: &'a str,
    app: &'a str,
    phase: &'static str,
    created: String,
    files: u64,
    bytes: u64,
    bytes_read: u64,
    bytes_new: u64,
    stored_new: u64,
    chunks_new: u64,
    duration_ms: u64,
    digest: &'a str,
    unread_files: u64,
    skipped: bool,
    left_out: Vec<String>,
    unmatched: &'a [String],
    warnings: &'a [String],
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    if let Some(app) = &arguments.app {
        return of_application(app, arguments, invocation);
    }
    let is_here = |path: &Path| path.symlink_metadata().is_ok();
    let named = arguments.name.as_deref();
    let Words { name, sources: typed } = match arguments.stdin {
        true => naming::beside_stdin(&arguments.words, named, &is_here)?,
        false => naming::of_sources(&arguments.words, named, &is_here)?,
    };
    let sources = sources(typed, usize::from(arguments.stdin))?;
    let patterns = below_sources(arguments.excluding.patterns()?, typed, &sources);
    let exclusions = arguments.excluding.exclusions(patterns);
    if arguments.stdin && arguments.listing.reads_stdin() {
        let message = "standard input is named both as a list and as what is to be taken";
        return Err(ProgramError::usage(message, "write the list into a file").into());
    }
    let only = arguments.listing.paths()?;
    let plain: Option<Vec<SourceRequest>> = sources.iter().map(Wanted::plain).collect();
    let first = sources.first().map_or_else(|| arguments.stdin_filename.clone(), Wanted::described);
    let described = naming::described(&first, sources.len() + usize::from(arguments.stdin));
    let Some(plain) = plain else {
        refuse_beside_databases(arguments)?;
        let context = invocation.open()?;
        let name = name.map_or_else(|| made_name(&context, "", &described), Ok)?;
        let sources = sources.into_iter().map(|wanted| (wanted.label, wanted.spec)).collect();
        let unnamed = application::unnamed(sources, &exclusions);
        let report = application::create(&context, &unnamed, &capture_request(name, arguments), None)?;
        return finish(&report, invocation);
    };
    let mut request = CreateRequest {
        name: name.clone().unwrap_or_default(),
        app: String::new(),
        sources: plain,
        exclusions,
        only,
        tags: arguments.tag.clone(),
        pinned: arguments.pin,
        force_read: arguments.force_read,
        parent: arguments.parent.clone(),
        skip_if_unchanged: arguments.skip_if_unchanged,
    };
    if arguments.dry_run {
        let described = name.is_none().then_some(described);
        return rehearsed::run(request, described.as_deref(), invocation);
    }
    let context = invocation.open()?;
    if name.is_none() {
        request.name = made_name(&context, "", &described)?;
    }
    let mut input = HeedfulStdin;
    let stream = arguments.stdin.then(|| Stream {
        label: arguments.stdin_filename.clone(),
        called: "standard input".into(),
        bytes: &mut input,
    });
    let report = create_with(&context, &request, stream)?;
    finish(&report, invocation)
}

/// What is read in another way than file by file cannot be chosen from, nor looked at beforehand.
fn refuse_beside_databases(arguments: &Arguments) -> Result<(), ProgramError> {
    let flag = match arguments {
        _ if arguments.listing.is_given() => "--files-from chooses",
        Arguments { stdin: true, .. } => "--stdin goes",
        Arguments { dry_run: true, .. } => "--dry-run looks",
        _ => return Ok(()),
    };
    Err(ProgramError::usage(
        format!("{flag} among or beside files, and a source here is of another kind (KIND:WHAT)"),
        "take that in a snapshot of its own",
    ))
}

fn finish(report: &CreateReport, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    invocation.monitor.finish();
    print(report, invocation)?;
    Ok(if report.unread_files > 0 { ExitCode::SomeUnread } else { ExitCode::Done })
}

fn capture_request(name: String, arguments: &Arguments) -> CaptureRequest {
    CaptureRequest {
        name,
        tags: arguments.tag.clone(),
        pinned: arguments.pin,
        trigger: "manual".into(),
        force_read: arguments.force_read,
        skip_if_unchanged: arguments.skip_if_unchanged,
    }
}

fn of_application(app: &str, arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let Words { name, .. } = naming::of_application(&arguments.words, arguments.name.as_deref())?;
    let application = application::configured(app, arguments.class.as_deref(), invocation)?;
    if arguments.detach {
        return application::detach(invocation);
    }
    let context = invocation.open()?;
    let name = match name {
        Some(name) => name,
        None => {
            application::tell_unfinished(&context, app)?;
            made_name(&context, app, "")?
        }
    };
    let request = capture_request(name, arguments);
    if arguments.detached {
        let json = invocation.output.is_json();
        let tell = |record: &CaptureRecord| application::tell_captured(record, json);
        let report = application::create(&context, &application, &request, Some(&tell))?;
        // Nobody listens any more.
        return Ok(if report.unread_files > 0 { ExitCode::SomeUnread } else { ExitCode::Done });
    }
    let report = application::create(&context, &application, &request, None)?;
    finish(&report, invocation)
}

/// A pattern that begins as a source was typed means what is below that source: it gets the source's whole
/// path. Where the source holds a folder of that name itself, the pattern stays what it is.
fn below_sources(patterns: Vec<String>, typed: &[OsString], sources: &[Wanted]) -> Vec<String> {
    let named = typed.iter().zip(sources).filter_map(|(word, wanted)| {
        let SourceSpec::Tree(tree) = &wanted.spec else { return None };
        let whole = recorded_path(&tree.path).ok()?;
        let word = labelled(word).1.to_str()?.trim_end_matches('/');
        let word = if word == "." { String::from("./") } else { format!("{word}/") };
        let ambiguous = tree.path.join(&word).exists() && word != "./";
        (!word.starts_with('/') && !ambiguous).then_some((word, whole.to_str()?.trim_end_matches('/').to_owned()))
    });
    let named: Vec<(String, String)> = named.collect();
    let counted = |pattern: String| {
        let (takes_back, path) = pattern.strip_prefix('!').map_or(("", pattern.as_str()), |path| ("!", path));
        let below = |(word, whole): &(String, String)| {
            let rest = path.strip_prefix(word.as_str()).filter(|rest| !rest.is_empty())?;
            Some(format!("{takes_back}{whole}/{rest}"))
        };
        named.iter().find_map(below).unwrap_or(pattern)
    };
    patterns.into_iter().map(counted).collect()
}

/// A source of the command line.
#[derive(Debug)]
struct Wanted {
    label: String,
    spec: SourceSpec,
}

impl Wanted {
    /// In a made name: the last part of its path, else its label, else its kind.
    fn described(&self) -> String {
        let path = self.spec.path().map(|path| path.file_name().unwrap_or(OsStr::new("root")));
        match path {
            Some(name) => name.to_string_lossy().into_owned(),
            None if self.label.is_empty() => self.spec.kind().name().to_owned(),
            None => self.label.clone(),
        }
    }

    /// A folder or a file.
    fn plain(&self) -> Option<SourceRequest> {
        match &self.spec {
            SourceSpec::Tree(tree) => Some(SourceRequest { label: self.label.clone(), path: tree.path.clone() }),
            _ => None,
        }
    }
}

/// One source needs no label; several without are named by their last names.
fn sources(words: &[OsString], others: usize) -> Result<Vec<Wanted>, ProgramError> {
    let mut sources: Vec<Wanted> = Vec::new();
    for word in words {
        let (label, text) = labelled(word);
        if text.is_empty() {
            return Err(ProgramError::usage("a source has no path", "write it as PATH or LABEL=PATH"));
        }
        let spec = match application::spec_of(text)? {
            Some(spec) => spec,
            None => {
                let path =
                    std::path::absolute(text).map_err(|error| ProgramError::file("finding", Path::new(text), error))?;
                SourceSpec::Tree(TreeSpec { path, ..TreeSpec::default() })
            }
        };
        let label = match label {
            Some(label) => label.to_owned(),
            None if words.len() == 1 && others == 0 => String::new(),
            None => match spec.path() {
                Some(path) => last_name(path)?,
                None => spec.kind().name().to_owned(),
            },
        };
        if sources.iter().any(|other| other.label == label) {
            return Err(ProgramError::usage(
                format!("two sources have the label {label:?}"),
                "name each of them: LABEL=PATH",
            ));
        }
        sources.push(Wanted { label, spec });
    }
    Ok(sources)
}

/// `LABEL=PATH`: the label has no slash and no colon, so every path and every KIND:WHAT can be written
/// without one.
fn labelled(word: &OsStr) -> (Option<&str>, &OsStr) {
    let bytes = word.as_bytes();
    let Some(at) = bytes.iter().position(|&b| b == b'=') else { return (None, word) };
    match std::str::from_utf8(&bytes[..at]) {
        Ok(label) if !label.is_empty() && !label.contains(['/', ':']) => {
            (Some(label), OsStr::from_bytes(&bytes[at + 1..]))
        }
        _ => (None, word),
    }
}

fn last_name(path: &Path) -> Result<String, ProgramError> {
    let name = path.file_name().and_then(OsStr::to_str).map(str::to_owned);
    name.ok_or_else(|| {
        ProgramError::usage(
            format!("the source {} has no name of its own to serve as its label", path.display()),
            "name it: LABEL=PATH",
        )
    })
}

fn print(report: &CreateReport, invocation: &mut Invocation) -> Result<(), ProgramError> {
    let snapshot = &report.snapshot;
    let output = &mut invocation.output;
    if output.is_json() {
        return output.document(&Document {
            id: uuid(snapshot.id),
            name: &snapshot.name,
            app: &snapshot.app,
            phase: phase(snapshot.phase),
            created: rfc3339(snapshot.created),
            files: report.files,
            bytes: report.bytes,
            bytes_read: report.bytes_read,
            bytes_new: report.bytes_new,
            stored_new: report.stored_new,
            chunks_new: report.chunks_new,
            duration_ms: report.duration_ms,
            digest: &report.digest,
            unread_files: report.unread_files,
            skipped: report.skipped,
            left_out: report.left_out.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            unmatched: &report.unmatched,
            warnings: &report.warnings,
        });
    }
    let name = full_name(snapshot);
    match report.unread_files {
        0 if report.skipped => output.line(format!("nothing has changed since the snapshot {name}: none was taken"))?,
        unread if report.skipped => {
            let unread = count(unread, "source file", "source files");
            output.line(format!(
                "nothing has changed since the snapshot {name}, but {unread} could not be read whole: none was taken"
            ))?;
        }
        0 => output.line(format!("took the snapshot {name}"))?,
        unread => {
            let unread = count(unread, "source file", "source files");
            output.line(format!("took the snapshot {name}, but {unread} could not be read whole"))?;
        }
    }
    output.figures(&[
        ("id", uuid(snapshot.id)),
        ("files", report.files.to_string()),
        ("size", size(report.bytes)),
        ("read", size(report.bytes_read)),
        (
            "new",
            format!(
                "{} ({} of the size) in {}, stored in {}",
                size(report.bytes_new),
                share(report.bytes_new, report.bytes),
                count(report.chunks_new, "chunk", "chunks"),
                size(report.stored_new)
            ),
        ),
        ("time", format!("{}, {}", duration(report.duration_ms), rate(report.bytes, report.duration_ms))),
        ("digest", report.digest.clone()),
    ])?;
    tell_left_out(&report.left_out, &report.unmatched, invocation);
    for warning in &report.warnings {
        invocation.monitor.notice(warning);
    }
    Ok(())
}

/// What was left out on its own account, and what was not left out although somebody meant to.
pub(super) fn tell_left_out(own: &[PathBuf], unmatched: &[String], invocation: &Invocation) {
    for path in own {
        invocation.monitor.notice(&format!("left out what copal itself lives by: {}", path.display()));
    }
    if !unmatched.is_empty() {
        invocation.monitor.notice(&unmatched_sentence(unmatched));
    }
}

/// One sentence, however many patterns.
fn unmatched_sentence(patterns: &[String]) -> String {
    format!("nothing was left out by {}", first_of(patterns, PATTERNS_NAMED_MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: sources are read as `docs/guide/reference.md` says. Method: examples.

    use super::*;

    #[track_caller]
    fn check(words: &[&str], expected: &[(&str, &str)]) {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let found = sources(&words, 0).unwrap();
        let shown = |wanted: &Wanted| {
            let path = wanted.spec.path().map_or("", |path| path.to_str().unwrap());
            (wanted.label.clone(), format!("{}:{path}", wanted.spec.kind().name()))
        };
        let found: Vec<_> = found.iter().map(shown).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(label, text)| {
                let kind = if text.contains(':') { "" } else { "tree:" };
                ((*label).to_owned(), format!("{kind}{text}"))
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn labels_stand_before_an_equals_sign() {
        check(&["/srv/data"], &[("", "/srv/data")]);
        check(&["db=/srv/hub.db", "files=/srv/bucket"], &[("db", "/srv/hub.db"), ("files", "/srv/bucket")]);
        check(&["/srv/a=b"], &[("", "/srv/a=b")]);
        check(&["x=/srv/a=b"], &[("x", "/srv/a=b")]);
        check(&["/etc/", "/home/x"], &[("etc", "/etc/"), ("x", "/home/x")]);
        check(&["sqlite:/srv/hub.db"], &[("", "sqlite:/srv/hub.db")]);
        check(
            &["sqlite:/srv/hub.db", "all=postgres:host=/run", "command:date +%s", "/srv/b", "i=image:/d"],
            &[
                ("hub.db", "sqlite:/srv/hub.db"),
                ("all", "postgres:"),
                ("command", "command:"),
                ("b", "/srv/b"),
                ("i", "image:/d"),
            ],
        );
    }

    #[test]
    fn what_cannot_be_a_source_is_refused() {
        for words in [&["x="][..], &["search:http://x"], &["a=command: "], &["/a/x", "/b/x"], &["/", "/x"]] {
            let words: Vec<OsString> = words.iter().map(Into::into).collect();
            assert!(matches!(sources(&words, 0), Err(ProgramError::Usage { .. })), "{words:?}");
        }
    }
}
