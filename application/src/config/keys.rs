//! Every key of the configuration, in one place. What is not here is a mistake, and the nearest key that is
//! here is named; the reference in `docs/guide/reference.md` is compared with this list.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// What stands before the first table.
    File,
    /// An application.
    Application,
    /// What of an application stays.
    Retention,
    /// A snapshot class.
    Class,
    /// A part of an application.
    Service,
    /// A source.
    Source,
    /// Who says the order of versions.
    VersionOrder,
    /// A hook.
    Hook,
}

/// A key, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Its line in the reference.
    pub meaning: &'static str,
    holds: Holds,
}

#[derive(Clone, Copy, Debug)]
enum Holds {
    /// A value; what is in it is read elsewhere.
    Value,
    /// A table of this kind, or a value.
    Table(TableKind),
    /// Tables of this kind by their names.
    Named(TableKind),
    /// A list of tables of this kind.
    List(TableKind),
}

/// The longer two words are alike, the nearer is this to 1; below, one is no slip of the other.
const ALIKE: f64 = 0.75;

const fn value(name: &'static str, meaning: &'static str) -> Key {
    Key { name, meaning, holds: Holds::Value }
}

const fn tables(name: &'static str, holds: Holds, meaning: &'static str) -> Key {
    Key { name, meaning, holds }
}

impl TableKind {
    /// All, in the order of the reference.
    pub const ALL: [Self; 8] = [
        Self::File,
        Self::Application,
        Self::Retention,
        Self::Service,
        Self::Source,
        Self::VersionOrder,
        Self::Hook,
        Self::Class,
    ];

    /// As it is written in a file; nothing for the file itself.
    #[must_use]
    pub fn written(self) -> &'static str {
        match self {
            Self::File => "",
            Self::Application => "[app.NAME]",
            Self::Retention => "[app.NAME.retention]",
            Self::Service => "[app.NAME.service.SERVICE]",
            Self::Source => "[[app.NAME.source]]",
            Self::VersionOrder => "version_order = {…}",
            Self::Hook => "[[app.NAME.hook]]",
            Self::Class => "[class.NAME]",
        }
    }

    /// Its keys.
    #[must_use]
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::File => FILE,
            Self::Application => APPLICATION,
            Self::Retention => RETENTION,
            Self::Service => SERVICE,
            Self::Source => SOURCE,
            Self::VersionOrder => VERSION_ORDER,
            Self::Hook => HOOK,
            Self::Class => CLASS,
        }
    }
}

const FILE: &[Key] = &[
    value(
        "gc_schedule",
        "when the daemon removes what the rules of its applications let go, and collects, as cron writes it",
    ),
    tables("app", Holds::Named(TableKind::Application), "applications by their names: `[app.NAME]`"),
    tables("class", Holds::Named(TableKind::Class), "snapshot classes by their names: `[class.NAME]`"),
];

const APPLICATION: &[Key] = &[
    value("default", "`true`: the application of routes that name none"),
    value("namespace", "a word that groups applications; `GET /apps` shows it"),
    value("config_version", "version of its configuration, a number or text; each snapshot keeps it"),
    value("max_snapshots", "of each host the oldest goes once more are there; pinned ones stay"),
    tables("retention", Holds::Table(TableKind::Retention), "what stays, by rules: `[app.NAME.retention]`"),
    value("schedule", "when the daemon takes a snapshot, as cron writes it, in the machine's time zone"),
    value("verify_schedule", "when the daemon hashes its snapshots again"),
    value("class", "the snapshot class: `default`, `direct`, or one of `[class.NAME]`"),
    value(
        "consistency",
        "`application` (default): a capture that cannot hold it still fails; `crash`: it goes on, and says so",
    ),
    value("partial", "`true`: a source that cannot be captured may be left out (default `false`)"),
    value("freeze_max", "the application is let go on at this deadline, whatever happens (default `60s`)"),
    tables(
        "source",
        Holds::List(TableKind::Source),
        "sources of an application without services: `[[app.NAME.source]]`",
    ),
    tables("hook", Holds::List(TableKind::Hook), "hooks of an application without services: `[[app.NAME.hook]]`"),
    tables("service", Holds::Named(TableKind::Service), "services by their names: `[app.NAME.service.SERVICE]`"),
];

const RETENTION: &[Key] = &[
    value("keep_last", "keep the newest so many"),
    value("keep_hourly", "keep the newest of each of the last so many hours that have one"),
    value("keep_daily", "the same of days"),
    value("keep_weekly", "the same of weeks (ISO)"),
    value("keep_monthly", "the same of months"),
    value("keep_yearly", "the same of years"),
    value("keep_within", "keep all that are at most so much older than the newest: `36h`, `7d`, `2w`, `3mo`, `1y`"),
    value("keep_tags", "a list of `KEY=VALUE`: what has one of these tags always stays"),
    value("safety_keep", "of snapshots taken before deploys keep the newest so many"),
    value(
        "safety_within",
        "of snapshots taken before deploys keep all that are at most so much older than the newest of them",
    ),
];

const SERVICE: &[Key] = &[
    value("depends_on", "services that it needs: they are started before it, and stopped after it"),
    tables("source", Holds::List(TableKind::Source), "its sources: `[[app.NAME.service.SERVICE.source]]`"),
    tables("hook", Holds::List(TableKind::Hook), "its hooks: `[[app.NAME.service.SERVICE.hook]]`"),
];

const SOURCE: &[Key] = &[
    value("kind", "`tree`, `sqlite`, `postgres`, `image`, `command`, `config` or `secret`"),
    value("label", "its name in snapshots; without it the last part of its path, or its kind"),
    value("path", "of all but `postgres` and `command`: where it is"),
    value("exclude", "of a tree: patterns to leave out, each a line of `.gitignore`"),
    value("exclude_caches", "of a tree: `true` leaves out what is in folders marked by a `CACHEDIR.TAG`, but for that"),
    value("exclude_if_present", "of a tree: names, or `NAME:BEGIN`; of a folder with such a file only that is taken"),
    value("exclude_larger_than", "of a tree: files past this size are left out, such as `2GiB`"),
    value("include", "of a tree: patterns to take nevertheless"),
    value("one_file_system", "of a tree: `true` stays on its filesystem"),
    value("version_query", "of a database: SQL whose one value is the version of the schema"),
    value(
        "schema_version",
        "of a database: the version that the application here knows; a newer snapshot is refused, an \
         older one migrated",
    ),
    tables(
        "version_order",
        Holds::Table(TableKind::VersionOrder),
        "of a database: all versions, the oldest first, or a command that writes them",
    ),
    value("check", "of `sqlite`: `quick` (default), `full` or `none`: how it is checked when it is captured"),
    value("dsn", "of `postgres`: the connection string, as `libpq` takes it"),
    value("databases", "of `postgres`: which databases; without it the one of the `dsn`"),
    value("globals", "of `postgres`: `true` takes roles and tablespaces as well"),
    value("bin", "of `postgres`: the folder of `pg_dump` and `psql`"),
    value("argv", "of `command`: program and arguments; what it writes is captured"),
    value("restore", "of `command`: program and arguments that a deploy gives it to"),
    value("timeout", "of `postgres` and `command`: how long a dump, a load or a run may take (default `4h`)"),
];

const VERSION_ORDER: &[Key] =
    &[value("command", "program and arguments; it writes one version a line, the oldest first")];

const HOOK: &[Key] = &[
    value("when", "`pre`, `post`, `stop`, `rewrite`, `migrate`, `start` or `health`"),
    value("argv", "program and arguments, without a shell"),
    value("freeze", "of `pre`, instead of `argv`: a mount point that is frozen"),
    value("signal", "instead of `argv`: `STOP`, `CONT`, `HUP`, `USR1` or `USR2`"),
    value("pid_file", "whom the signal is sent to"),
    value("timeout", "how long it may take (default `30s`)"),
    value("on_error", "`fail` (default) or `continue`"),
];

const CLASS: &[Key] = &[
    value("pinning", "`spool` (default): what dies with the process is copied first; `direct`: it is not"),
    value("capabilities", "words and values of your own; `GET /apps` shows them"),
];

/// Refuses the first key that nothing reads.
pub(super) fn check(text: &str) -> Result<(), Problem> {
    // What is no TOML is said by its reader.
    let Ok(document) = DeTable::parse(text) else { return Ok(()) };
    check_table(TableKind::File, document.get_ref())
}

fn check_table(kind: TableKind, table: &DeTable<'_>) -> Result<(), Problem> {
    for (name, value) in table {
        let Some(key) = kind.keys().iter().find(|key| key.name == &**name.get_ref()) else {
            return Err(Problem { span: name.span(), message: unknown(kind, name.get_ref()) });
        };
        match (key.holds, value.get_ref()) {
            (Holds::Table(inner), DeValue::Table(table)) => check_table(inner, table)?,
            (Holds::Named(inner), DeValue::Table(named)) => {
                named.iter().try_for_each(|(_, value)| check_value(inner, value))?;
            }
            (Holds::List(inner), DeValue::Array(list)) => {
                list.iter().try_for_each(|value| check_value(inner, value))?
            }
            _ => {}
        }
    }
    Ok(())
}

/// What should be a table and is none is said by the reader of it.
fn check_value(kind: TableKind, value: &Spanned<DeValue<'_>>) -> Result<(), Problem> {
    value.get_ref().as_table().map_or(Ok(()), |table| check_table(kind, table))
}

/// Where it was meant, or what was.
fn unknown(kind: TableKind, name: &str) -> String {
    let here = match kind {
        TableKind::File => "at the top of the file".to_owned(),
        kind => format!("in {}", kind.written()),
    };
    let elsewhere = TableKind::ALL.into_iter().find(|other| other.keys().iter().any(|key| key.name == name));
    let nearest = kind.keys().iter().map(|key| (strsim::jaro_winkler(key.name, name), key.name));
    let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match (elsewhere, nearest) {
        (Some(TableKind::File), _) => "it stands at the top of the file, before the first table".to_owned(),
        (Some(other), _) => format!("it stands in {}", other.written()),
        (None, Some((likeness, nearest))) if likeness >= ALIKE => format!("did you mean {nearest:?}?"),
        _ => format!("its keys are {}", kind.keys().iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
    };
    format!("there is no key {name:?} {here}: {hint}")
}

/// The reference as `docs/guide/reference.md` has it: a table of this kind's keys.
#[must_use]
pub fn reference(kind: TableKind) -> String {
    let lines = kind.keys().iter().map(|key| format!("| `{}` | {} |\n", key.name, key.meaning));
    format!("| key | what it does |\n|---|---|\n{}", lines.collect::<String>())
}
