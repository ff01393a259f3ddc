//! `copal.toml` as it is written: every field optional, every value with its place.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) gc_schedule: Option<String>,
    #[serde(default)]
    pub(super) app: BTreeMap<Spanned<String>, App>,
    #[serde(default)]
    pub(super) class: BTreeMap<Spanned<String>, Class>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) pinning: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) capabilities: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct App {
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) default: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) config_version: Option<Spanned<Scalar>>,
    pub(super) max_snapshots: Option<Spanned<u32>>,
    pub(super) schedule: Option<String>,
    pub(super) verify_schedule: Option<String>,
    pub(super) class: Option<Spanned<String>>,
    pub(super) consistency: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) partial: bool,
    pub(super) freeze_max: Option<Spanned<String>>,
    pub(super) retention: Option<Spanned<Retention>>,
    #[serde(default)]
    pub(super) source: Vec<Spanned<Source>>,
    #[serde(default)]
    pub(super) hook: Vec<Spanned<Hook>>,
    #[serde(default)]
    pub(super) service: BTreeMap<Spanned<String>, Service>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) keep_last: Option<Spanned<u32>>,
    pub(super) keep_hourly: Option<Spanned<u32>>,
    pub(super) keep_daily: Option<Spanned<u32>>,
    pub(super) keep_weekly: Option<Spanned<u32>>,
    pub(super) keep_monthly: Option<Spanned<u32>>,
    pub(super) keep_yearly: Option<Spanned<u32>>,
    pub(super) keep_within: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) keep_tags: Vec<Spanned<String>>,
    pub(super) safety_keep: Option<Spanned<u32>>,
    pub(super) safety_within: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    #[serde(default)]
    pub(super) depends_on: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) source: Vec<Spanned<Source>>,
    #[serde(default)]
    pub(super) hook: Vec<Spanned<Hook>>,
}

/// A version is written as a number or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Number(i64),
    Text(String),
}

impl Scalar {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// Bytes as a number, or as text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum ByteSize {
    Number(u64),
    Text(String),
}

/// All versions, the oldest first, or who says them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum VersionOrder {
    List(Vec<Scalar>),
    Asked(OrderCommand),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderCommand {
    pub(super) command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) kind: Spanned<String>,
    pub(super) label: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) include: Option<Spanned<Vec<String>>>,
    pub(super) exclude: Option<Spanned<Vec<String>>>,
    pub(super) exclude_caches: Option<Spanned<bool>>,
    pub(super) exclude_if_present: Option<Spanned<Vec<String>>>,
    pub(super) exclude_larger_than: Option<Spanned<ByteSize>>,
    pub(super) one_file_system: Option<Spanned<bool>>,
    pub(super) version_query: Option<Spanned<String>>,
    pub(super) schema_version: Option<Spanned<Scalar>>,
    pub(super) version_order: Option<Spanned<VersionOrder>>,
    pub(super) check: Option<Spanned<String>>,
    pub(super) dsn: Option<Spanned<String>>,
    pub(super) databases: Option<Spanned<Vec<String>>>,
    pub(super) globals: Option<Spanned<bool>>,
    pub(super) bin: Option<Spanned<String>>,
    pub(super) argv: Option<Spanned<Vec<String>>>,
    pub(super) restore: Option<Spanned<Vec<String>>>,
    pub(super) timeout: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hook {
    pub(super) when: Spanned<String>,
    pub(super) argv: Option<Spanned<Vec<String>>>,
    pub(super) freeze: Option<Spanned<String>>,
    pub(super) signal: Option<Spanned<String>>,
    pub(super) pid_file: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) on_error: Option<Spanned<String>>,
}
