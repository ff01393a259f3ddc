//! A snapshot's root: the versioned description that is sealed as one object.

use copal_store::{Error, Result, SnapshotId, codec};
use serde::{Deserialize, Serialize};

use crate::entry::{PATH_BYTES_MAX, Timestamp};
use crate::tags::{TAGS_MAX, tags_are_sound};
use crate::total::total;
use crate::tree::{HEIGHT_MAX, TreeRoot};

/// Highest version of a snapshot's payload.
pub const SNAPSHOT_VERSION: u16 = USER_SNAPSHOT_VERSION;
/// Version of a payload that says which user took the snapshot, and has the rules from [`Rule::Beside`] on.
pub const USER_SNAPSHOT_VERSION: u16 = 5;
/// Version of a payload with rules that only this version has; in one with [`Rule::Exclude`] of before,
/// braces stood for alternatives.
pub const GIT_RULES_SNAPSHOT_VERSION: u16 = 4;
/// Version of a payload with the first rules.
pub const RULED_SNAPSHOT_VERSION: u16 = 3;
/// Version of a payload with a [`LiveRecord`], or with sources that are no files, and without rules.
pub const LIVE_SNAPSHOT_VERSION: u16 = 2;
/// Version of a payload that only has trees and files: every program reads it.
pub const PLAIN_SNAPSHOT_VERSION: u16 = 1;
/// Version of a label's payload.
const LABEL_VERSION: u16 = 1;
/// Longest name of a snapshot, an application, a source, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most sources.
pub const SOURCES_MAX: usize = 1024;
/// Most warnings that are kept; the rest is counted in the last one.
pub const WARNINGS_MAX: usize = 1000;
/// Longest warning that is kept in bytes; of a longer one the begin is.
pub const WARNING_BYTES_MAX: usize = 8 << 10;
/// Longest name of a host, and of a version of the program, in bytes.
pub const HOST_BYTES_MAX: usize = 1024;
/// Longest payload in bytes: who lists snapshots holds all of them.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 20;
/// Most results of hooks.
pub const HOOKS_MAX: usize = 4096;
/// Most rules of one source.
pub const RULES_MAX: usize = 65_536;
/// Most bytes of all rules of a snapshot.
pub const RULES_BYTES_MAX: usize = 4 << 20;
/// Longest pattern of a rule in bytes.
pub const RULE_BYTES_MAX: usize = 4096;
/// Longest name of a user in bytes.
pub const USER_BYTES_MAX: usize = 255;
/// Longest text in a [`LiveRecord`] in bytes.
pub const LIVE_TEXT_BYTES_MAX: usize = 4096;

/// Where a snapshot stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Whole.
    Completed,
    /// Some source files could not be read; `warnings` names them.
    PartiallyFailed,
}

/// How a snapshot came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// Taken here.
    Created,
    /// Brought by a bundle or a copy.
    Imported,
}

/// What kind a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceKind {
    /// A file tree.
    Tree,
    /// One file: the tree has one entry, the root, that is a file.
    File,
    /// A SQLite database, its pages as a read transaction saw them: one file.
    Sqlite,
    /// Databases of a PostgreSQL server: a folder of dumps and what is needed to load them.
    Postgres,
    /// A disk image or a block device: one file.
    Image,
    /// What a command wrote: one file.
    Command,
    /// A small value that is no secret: one file.
    Config,
    /// A small value in an envelope of its own: one file, sealed.
    Secret,
}

impl SourceKind {
    /// All.
    pub const ALL: [Self; 8] =
        [Self::Tree, Self::File, Self::Sqlite, Self::Postgres, Self::Image, Self::Command, Self::Config, Self::Secret];

    /// Whether the tree has one entry, the root, that is a file.
    #[must_use]
    pub fn is_one_file(self) -> bool {
        !matches!(self, Self::Tree | Self::Postgres)
    }

    /// The word for it in configurations and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::File => "file",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::Image => "image",
            Self::Command => "command",
            Self::Config => "config",
            Self::Secret => "secret",
        }
    }

    /// Whether it is captured by reading files as they stand.
    #[must_use]
    pub fn is_plain(self) -> bool {
        matches!(self, Self::Tree | Self::File)
    }
}

/// How far the sources of a snapshot agree with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Consistency {
    /// All were captured while the application held still.
    Application,
    /// Each is whole in itself; the application may have written between one and the next.
    Crash,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HookOutcome {
    /// As it should.
    Done,
    /// With a failure.
    Failed,
    /// It was ended at its deadline.
    TimedOut,
}

/// The result of one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// The service it belongs to.
    pub service: String,
    /// `pre`, `post`, `stop`, `migrate`, `start` or `health`.
    pub when: String,
    /// What was run, without its arguments.
    pub what: String,
    /// How it ended.
    pub outcome: HookOutcome,
    /// Exit code, signal, and the last of what it said; empty when it said nothing.
    pub detail: String,
    /// How long it took.
    pub microseconds: u64,
}

/// What is known of one source beyond its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRecord {
    /// The source's label.
    pub label: String,
    /// The service it belongs to.
    pub service: String,
    /// Version of its schema, as the application counts.
    pub schema_version: Option<String>,
    /// How it was captured: "transaction", "exported snapshot", "clone", "frozen read", "read".
    pub method: String,
    /// Why it is not in the snapshot, where the policy allows that.
    pub error: Option<String>,
}

/// What only captures of databases and running applications have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRecord {
    /// The application's version of its configuration; empty for none.
    pub config_version: String,
    /// Snapshot class; empty for none.
    pub class: String,
    /// What caused it: `manual`, `safety`, or what a program says.
    pub trigger: String,
    /// How far the sources agree.
    pub consistency: Consistency,
    /// When the application was resumed.
    pub captured: Timestamp,
    /// For how long it held still, from the end of the last pre hook to the begin of the first post hook.
    pub frozen_microseconds: u64,
    /// Taken before a deploy: exempt from every count.
    pub safety: bool,
    /// One for each source, sorted by label; also for those that are missing.
    pub components: Vec<ComponentRecord>,
    /// Results of hooks, in order.
    pub hooks: Vec<HookRecord>,
}

/// What a capture of a tree left out on purpose: a deploy leaves that where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// A pattern, read as a line of `.gitignore`. Of several the last one that matches decides; `!` takes
    /// back.
    Exclude(String),
    /// Other filesystems were not entered.
    OneFileSystem,
    /// This path from the source's root, and what is below it, whatever the patterns say: Copal's own
    /// folders.
    Path(Vec<u8>),
    /// What is below this folder, which is an entry itself: another filesystem was mounted there.
    MountPoint(Vec<u8>),
    /// What stands in a folder beside a mark: beside anything of this name, or where `begins` is not empty a
    /// file that begins so. The mark itself was taken. Needs version 5, as all that follow.
    Beside {
        /// Name of the mark.
        name: Vec<u8>,
        /// What its content begins with.
        begins: Vec<u8>,
    },
    /// Files of more bytes.
    LargerThan(u64),
    /// All that was not named: the tree has what was named, with the folders that lead to it.
    Unnamed,
    /// Of a tree with [`Rule::Unnamed`]: this folder was named, and taken with all that is in it.
    Named(Vec<u8>),
}

/// The rules of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRules {
    /// The source's label.
    pub label: String,
    /// In the order in which they were given.
    pub rules: Vec<Rule>,
}

/// One captured source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its label; empty for a single unlabelled source.
    pub label: String,
    /// Its kind.
    pub kind: SourceKind,
    /// The absolute path it was taken from, raw bytes.
    pub path: Vec<u8>,
    /// Its entries.
    pub tree: TreeRoot,
    /// Number of entries that are no folders.
    pub files: u64,
    /// Number of all entries.
    pub entries: u64,
    /// Logical bytes of all regular files (hard links once).
    pub bytes: u64,
    /// Device number at capture: evidence for "unchanged".
    pub device: u64,
    /// Files whose change time is at or after this may have changed in the same instant: they are read again.
    pub trusted_before: Timestamp,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`SNAPSHOT_VERSION`] of the writer.
    pub version: u16,
    /// Identity.
    pub id: SnapshotId,
    /// Unique in its application.
    pub name: String,
    /// Application; empty for none.
    pub app: String,
    /// Begin of the capture.
    pub created: Timestamp,
    /// End of the capture.
    pub completed: Timestamp,
    /// Phase.
    pub phase: Phase,
    /// Origin.
    pub origin: Origin,
    /// Host it was taken on.
    pub host: String,
    /// Version of the program.
    pub program: String,
    /// Snapshot it was compared with.
    pub parent: Option<SnapshotId>,
    /// Sources, sorted by label.
    pub sources: Vec<SourceRecord>,
    /// Tags given at creation, sorted; labels written later override them.
    pub tags: Vec<(String, String)>,
    /// Pinned at creation.
    pub pinned: bool,
    /// Plaintext bytes read from the sources.
    pub bytes_read: u64,
    /// Plaintext bytes of new chunks.
    pub bytes_new: u64,
    /// Bytes by which the repository grew, before the root.
    pub stored_new: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// What could not be read, or changed while it was read.
    pub warnings: Vec<String>,
    /// Of databases and running applications; needs version 2.
    #[serde(skip)]
    pub live: Option<LiveRecord>,
    /// Of the sources that have any, sorted by label; needs version 3 or 4.
    #[serde(skip)]
    pub rules: Vec<SourceRules>,
    /// Who took it; empty for unknown. Needs version 5.
    #[serde(skip)]
    pub user: String,
}

/// The payload of version 2: that of version 1, and the record after it.
#[derive(Serialize)]
struct ExtendedRef<'s>(&'s Snapshot, &'s Option<LiveRecord>);
#[derive(Serialize, Deserialize)]
struct Extended(Snapshot, Option<LiveRecord>);

/// The payload of version 3: that of version 2, and the rules after it.
#[derive(Serialize)]
struct RuledRef<'s>(&'s Snapshot, &'s Option<LiveRecord>, &'s [SourceRules]);
#[derive(Serialize, Deserialize)]
struct Ruled(Snapshot, Option<LiveRecord>, Vec<SourceRules>);

/// The payload of version 5: that of version 4, and the user after it.
#[derive(Serialize)]
struct WithUserRef<'s>(&'s Snapshot, &'s Option<LiveRecord>, &'s [SourceRules], &'s str);
#[derive(Serialize, Deserialize)]
struct WithUser(Snapshot, Option<LiveRecord>, Vec<SourceRules>, String);

impl Snapshot {
    /// The lowest version whose payload can hold all of it.
    #[must_use]
    pub fn version_needed(&self) -> u16 {
        let plain = self.live.is_none() && self.sources.iter().all(|source| source.kind.is_plain());
        let has_new_rules = self.rules.iter().flat_map(|of| &of.rules).any(Rule::is_of_version_5);
        match (self.user.is_empty() && !has_new_rules, self.rules.is_empty(), plain) {
            (false, ..) => USER_SNAPSHOT_VERSION,
            (true, false, _) => RULED_SNAPSHOT_VERSION,
            (true, true, false) => LIVE_SNAPSHOT_VERSION,
            (true, true, true) => PLAIN_SNAPSHOT_VERSION,
        }
    }

    /// The version that it is written with when it is new: its patterns are git's.
    #[must_use]
    pub fn version_to_write(&self) -> u16 {
        let has_patterns = self.rules.iter().any(|of| of.rules.iter().any(|rule| matches!(rule, Rule::Exclude(_))));
        let needed = self.version_needed();
        if has_patterns { needed.max(GIT_RULES_SNAPSHOT_VERSION) } else { needed }
    }

    /// What the capture of a source left out; none where nothing is known.
    #[must_use]
    pub fn rules_of(&self, label: &str) -> &[Rule] {
        self.rules.iter().find(|of| of.label == label).map_or(&[], |of| &of.rules)
    }

    /// The canonical payload. What no reader would take is an [`Error::Limit`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        if let Some(what) = self.out_of_bounds() {
            return Err(Error::Limit { what: what.into(), limit: 0 });
        }
        let payload = self.encoded()?;
        if payload.len() > SNAPSHOT_BYTES_MAX {
            return Err(Error::Limit {
                what: "the description of a snapshot".into(),
                limit: SNAPSHOT_BYTES_MAX as u64,
            });
        }
        Ok(payload)
    }

    fn encoded(&self) -> Result<Vec<u8>> {
        match self.version {
            PLAIN_SNAPSHOT_VERSION => codec::encode(self),
            LIVE_SNAPSHOT_VERSION => codec::encode(&ExtendedRef(self, &self.live)),
            RULED_SNAPSHOT_VERSION | GIT_RULES_SNAPSHOT_VERSION => {
                codec::encode(&RuledRef(self, &self.live, &self.rules))
            }
            _ => codec::encode(&WithUserRef(self, &self.live, &self.rules, &self.user)),
        }
    }

    /// Decodes and checks a payload; a higher version is `Unsupported`, never damage.
    pub fn decode(object: &str, payload: &[u8]) -> Result<Self> {
        let version = check_version(object, payload, SNAPSHOT_VERSION)?;
        if payload.len() > SNAPSHOT_BYTES_MAX {
            return Err(Error::damaged(
                object,
                format!("it is longer than the {SNAPSHOT_BYTES_MAX} bytes of any snapshot"),
            ));
        }
        let snapshot = match version {
            PLAIN_SNAPSHOT_VERSION => codec::decode::<Self>(object, payload)?,
            LIVE_SNAPSHOT_VERSION => {
                let Extended(snapshot, live) = codec::decode(object, payload)?;
                Self { live, ..snapshot }
            }
            RULED_SNAPSHOT_VERSION | GIT_RULES_SNAPSHOT_VERSION => {
                let Ruled(snapshot, live, rules) = codec::decode(object, payload)?;
                Self { live, rules, ..snapshot }
            }
            _ => {
                let WithUser(snapshot, live, rules, user) = codec::decode(object, payload)?;
                Self { live, rules, user, ..snapshot }
            }
        };
        match snapshot.out_of_bounds() {
            Some(what) => Err(Error::damaged(object, format!("{what} is out of bounds"))),
            None => Ok(snapshot),
        }
    }

    fn out_of_bounds(&self) -> Option<&'static str> {
        let labels_sorted = self.sources.windows(2).all(|pair| pair[0].label < pair[1].label);
        let sound_source = |source: &SourceRecord| {
            source.tree.height <= HEIGHT_MAX
                && source.path.len() <= PATH_BYTES_MAX
                && source.label.len() <= NAME_BYTES_MAX
        };
        match self {
            _ if !is_name(&self.name) => Some("the snapshot's name"),
            _ if !self.app.is_empty() && !is_name(&self.app) => Some("the application's name"),
            _ if self.sources.len() > SOURCES_MAX || !labels_sorted => Some("the list of sources"),
            _ if !self.sources.iter().all(sound_source) => Some("a source"),
            _ if !tags_are_sound(&self.tags) => Some("the list of tags"),
            _ if self.warnings.len() > WARNINGS_MAX => Some("the list of warnings"),
            _ if self.host.len() > HOST_BYTES_MAX => Some("the host"),
            _ if self.program.len() > HOST_BYTES_MAX => Some("the version of the program"),
            _ if self.version < self.version_needed() => Some("the version"),
            _ if self.user.len() > USER_BYTES_MAX || self.user.chars().any(char::is_control) => Some("the user"),
            _ if !self.rules_are_sound() => Some("the list of rules"),
            _ if !self.live.as_ref().is_none_or(LiveRecord::is_sound) => Some("the record of the capture"),
            _ => None,
        }
    }

    /// Sorted by label, each of a source, none empty, bounded.
    fn rules_are_sound(&self) -> bool {
        let is_sound = |of: &SourceRules| {
            (1..=RULES_MAX).contains(&of.rules.len())
                && of.rules.iter().all(Rule::is_sound)
                && self.sources.iter().any(|source| source.label == of.label)
        };
        let bytes: usize = self.rules.iter().flat_map(|of| &of.rules).map(Rule::bytes).sum();
        bytes <= RULES_BYTES_MAX
            && self.rules.windows(2).all(|pair| pair[0].label < pair[1].label)
            && self.rules.iter().all(is_sound)
    }

    /// Entries of all sources that are no folders. Numbers in a root are what its writer says.
    #[must_use]
    pub fn files(&self) -> u64 {
        total(self.sources.iter().map(|source| source.files))
    }

    /// Logical bytes of all sources.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        total(self.sources.iter().map(|source| source.bytes))
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let of_source = |source: &SourceRecord| 192 + source.label.len() + source.path.len();
        let of_hook =
            |hook: &HookRecord| 128 + hook.service.len() + hook.when.len() + hook.what.len() + hook.detail.len();
        let of_component = |component: &ComponentRecord| {
            let (version, error) = (component.schema_version.as_ref(), component.error.as_ref());
            160 + component.label.len()
                + component.service.len()
                + component.method.len()
                + version.map_or(0, String::len)
                + error.map_or(0, String::len)
        };
        let of_live = |live: &LiveRecord| {
            live.hooks.iter().map(of_hook).chain(live.components.iter().map(of_component)).sum::<usize>()
        };
        let texts = [&self.host, &self.program, &self.user].map(String::len).iter().sum::<usize>();
        let bytes = 512
            + texts
            + self.sources.iter().map(of_source).sum::<usize>()
            + self.warnings.iter().map(|warning| 24 + warning.len()).sum::<usize>()
            + self.tags.iter().map(|(key, value)| 48 + key.len() + value.len()).sum::<usize>()
            + self.rules.iter().flat_map(|of| &of.rules).map(|rule| 24 + rule.bytes()).sum::<usize>()
            + self.live.as_ref().map_or(0, of_live);
        bytes as u64
    }

    /// Whether it was taken before a deploy, by itself.
    #[must_use]
    pub fn is_safety(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.safety)
    }

    /// `APP/NAME`, or `NAME` without an application: what the name tag is computed over.
    #[must_use]
    pub fn full_name(app: &str, name: &str) -> String {
        if app.is_empty() { name.to_owned() } else { format!("{app}/{name}") }
    }
}

impl LiveRecord {
    fn is_sound(&self) -> bool {
        let short = |text: &str| text.len() <= LIVE_TEXT_BYTES_MAX;
        let sound_component = |component: &ComponentRecord| {
            component.label.len() <= NAME_BYTES_MAX
                && component.schema_version.as_deref().is_none_or(short)
                && component.error.as_deref().is_none_or(short)
                && short(&component.service)
                && short(&component.method)
        };
        let sound_hook = |hook: &HookRecord| {
            [&hook.service, &hook.when, &hook.what, &hook.detail].into_iter().all(|text| short(text))
        };
        [&self.config_version, &self.class, &self.trigger].into_iter().all(|text| short(text))
            && self.components.len() <= SOURCES_MAX
            && self.components.windows(2).all(|pair| pair[0].label < pair[1].label)
            && self.components.iter().all(sound_component)
            && self.hooks.len() <= HOOKS_MAX
            && self.hooks.iter().all(sound_hook)
    }
}

/// What may be changed after the commit: a label object's payload.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Label {
    /// Version of the payload, 1.
    pub version: u16,
    /// All tags, sorted.
    pub tags: Vec<(String, String)>,
    /// Protected from automatic removal.
    pub pinned: bool,
}

impl Label {
    /// The payload. What no reader would take is an [`Error::Limit`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        if !tags_are_sound(&self.tags) {
            return Err(Error::Limit { what: "the list of tags".into(), limit: TAGS_MAX as u64 });
        }
        codec::encode(self)
    }

    /// Decodes and checks a payload; a higher version is `Unsupported`.
    pub fn decode(object: &str, payload: &[u8]) -> Result<Self> {
        check_version(object, payload, LABEL_VERSION)?;
        let label: Self = codec::decode(object, payload)?;
        if tags_are_sound(&label.tags) { Ok(label) } else { Err(Error::damaged(object, "its tags are out of bounds")) }
    }
}

/// Payloads begin with their version: one byte, as long as it is below 251.
fn check_version(object: &str, payload: &[u8], supported: u16) -> Result<u16> {
    match payload.first().copied().map(u16::from) {
        Some(found) if found > supported => {
            Err(Error::Unsupported { what: object.into(), found: found.into(), supported: supported.into() })
        }
        Some(0) | None => Err(Error::damaged(object, "it has no version")),
        Some(found) => Ok(found),
    }
}

/// Whether a text can be the name of a snapshot or an application: 1 to [`NAME_BYTES_MAX`] bytes without
/// slash and control characters, no space at its ends, and neither `latest` nor `latest:…`, which name
/// snapshots by their age.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let length_fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    let means_an_age = text == "latest" || text.starts_with("latest:");
    length_fits && !text.contains('/') && !text.chars().any(char::is_control) && text.trim() == text && !means_an_age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_among_all() {
        // A new kind does not compile here before it has a number, and fails before it is listed.
        let number = |kind: &SourceKind| match kind {
            SourceKind::Tree => 0,
            SourceKind::File => 1,
            SourceKind::Sqlite => 2,
            SourceKind::Postgres => 3,
            SourceKind::Image => 4,
            SourceKind::Command => 5,
            SourceKind::Config => 6,
            SourceKind::Secret => 7,
        };
        assert!(SourceKind::ALL.iter().map(number).eq(0..8));
    }
}
