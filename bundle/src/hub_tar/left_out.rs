//! What the capture of the bucket left out on purpose, as `snapshot.yaml` keeps it: a deploy of the import
//! leaves that where it is.
//!
//! Rules count from their source's root. Where one folder held both database and bucket, they are told anew
//! from the bucket's; what they say of other places is dropped, and said.

use copal_manifest::entry::EntryPath;
use copal_manifest::snapshot::{GIT_RULES_SNAPSHOT_VERSION, RULES_MAX, Rule, Snapshot};
use copal_source::scan::{Excludes, Expansion};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Everything below the bucket.
const ALL: &str = "*";

/// A rule as the manifest has it. A path that is no text is in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HubRule {
    Exclude(String),
    Path(String),
    PathHex(String),
    MountPoint(String),
    MountPointHex(String),
    OneFileSystem(bool),
    Beside { name: String, begins: String },
    BesideHex { name: String, begins: String },
    LargerThan(u64),
    Unnamed(bool),
    Named(String),
    NamedHex(String),
}

/// The rules of what is exported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BucketRules {
    pub(super) rules: Vec<HubRule>,
    /// Whether there are rules that have nothing to do with the bucket.
    pub(super) others: bool,
}

impl BucketRules {
    /// Those of the source with this label, told from the folder at `bucket` in it, which is there or not.
    pub(super) fn of(snapshot: &Snapshot, label: &str, bucket: &EntryPath, is_there: bool) -> Result<Self> {
        let given = snapshot.rules_of(label);
        let patterns: Vec<String> = given.iter().filter_map(pattern).cloned().collect();
        let lines = match snapshot.version {
            ..GIT_RULES_SNAPSHOT_VERSION => Excludes::lines_of_older(&patterns, &mut Expansion::default())?,
            _ => patterns,
        };
        let excludes = lines.iter().cloned().map(Rule::Exclude);
        let rules = excludes.chain(given.iter().filter(|rule| pattern(rule).is_none()).cloned());
        let folder = bucket.to_slashes();
        if folder.is_empty() {
            return Ok(Self { rules: rules.map(HubRule::from).collect(), others: false });
        }
        // Whatever kept it out of the snapshot keeps what is in it.
        if !is_there && !given.is_empty() {
            return Ok(Self { rules: vec![HubRule::Exclude(ALL.into())], others: true });
        }
        let is_whole = given.iter().any(|rule| matches!(rule, Rule::Named(path) if is_at_or_below(&folder, path)));
        let mut told = Self::default();
        for rule in rules {
            let found: Vec<HubRule> = match rule {
                Rule::Exclude(line) => told_from(&line, bucket)?.into_iter().map(HubRule::Exclude).collect(),
                Rule::Path(path) if is_at_or_below(&folder, &path) => vec![HubRule::Exclude(ALL.into())],
                Rule::MountPoint(path) if path == folder => vec![HubRule::Exclude(ALL.into())],
                Rule::Path(path) => below(&path, &folder, Rule::Path),
                Rule::MountPoint(path) => below(&path, &folder, Rule::MountPoint),
                Rule::Unnamed | Rule::Named(_) if is_whole => Vec::new(),
                Rule::Named(path) => below(&path, &folder, Rule::Named),
                other @ (Rule::OneFileSystem | Rule::Beside { .. } | Rule::LargerThan(_) | Rule::Unnamed) => {
                    vec![HubRule::from(other)]
                }
            };
            told.others |= found.is_empty();
            told.rules.extend(found);
        }
        Ok(told)
    }
}

fn pattern(rule: &Rule) -> Option<&String> {
    if let Rule::Exclude(pattern) = rule { Some(pattern) } else { None }
}

/// Whether a path is another one or lies below it.
fn is_at_or_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A path's rule told from a folder; none where the path is not below it.
fn below(path: &[u8], folder: &[u8], rule: impl Fn(Vec<u8>) -> Rule) -> Vec<HubRule> {
    let inside = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix(b"/"));
    inside.map(|inside| HubRule::from(rule(inside.to_vec()))).into_iter().collect()
}

/// The lines that say of what is below a folder what this line says from the root; none where it says nothing
/// of it.
fn told_from(line: &str, folder: &EntryPath) -> Result<Vec<String>> {
    let (sign, body) = line.strip_prefix('!').map_or(("", line), |body| ("!", body));
    let is_anchored = body.trim_end_matches('/').contains('/');
    if !is_anchored {
        return Ok(vec![line.to_owned()]);
    }
    let mut left: Vec<Vec<&str>> = vec![body.strip_prefix('/').unwrap_or(body).split('/').collect()];
    for name in folder.names() {
        let mut next = Vec::new();
        for steps in left {
            consume(&steps, name, &mut next)?;
        }
        left = next;
    }
    Ok(left.into_iter().map(|steps| format!("{sign}/{}", steps.join("/"))).collect())
}

/// What is left of a pattern's steps behind one name; `**` stands for any number of names.
fn consume<'p>(steps: &[&'p str], name: &[u8], left: &mut Vec<Vec<&'p str>>) -> Result<()> {
    let [first, rest @ ..] = steps else { return Ok(()) };
    if *first == "**" {
        left.push(steps.to_vec());
        return consume(rest, name, left);
    }
    let matches = !first.is_empty() && Excludes::new(&[format!("/{first}")])?.leaves_out(name, true);
    if matches && rest.iter().any(|step| !step.is_empty()) {
        left.push(rest.to_vec());
    }
    Ok(())
}

impl From<Rule> for HubRule {
    fn from(rule: Rule) -> Self {
        let text = |path: Vec<u8>, plain: fn(String) -> Self, digits: fn(String) -> Self| match String::from_utf8(path)
        {
            Ok(path) => plain(path),
            Err(error) => digits(hex::encode(error.into_bytes())),
        };
        match rule {
            Rule::Exclude(pattern) => Self::Exclude(pattern),
            Rule::OneFileSystem => Self::OneFileSystem(true),
            Rule::Path(path) => text(path, Self::Path, Self::PathHex),
            Rule::MountPoint(path) => text(path, Self::MountPoint, Self::MountPointHex),
            Rule::Named(path) => text(path, Self::Named, Self::NamedHex),
            Rule::LargerThan(bytes) => Self::LargerThan(bytes),
            Rule::Unnamed => Self::Unnamed(true),
            Rule::Beside { name, begins } => match (std::str::from_utf8(&name), std::str::from_utf8(&begins)) {
                (Ok(name), Ok(begins)) => Self::Beside { name: name.to_owned(), begins: begins.to_owned() },
                _ => Self::BesideHex { name: hex::encode(name), begins: hex::encode(begins) },
            },
        }
    }
}

/// The rules as a snapshot keeps them. Whoever made the bundle wrote them: what no snapshot could have kept,
/// and what no deploy could read, is an error.
pub(super) fn judged(rules: &[HubRule]) -> Result<Vec<Rule>> {
    let bad = |detail: &str| Error::BadBundle(format!("snapshot.yaml: left_out: {detail}"));
    if rules.len() > RULES_MAX {
        return Err(bad("it has more rules than a snapshot keeps"));
    }
    let digits = |text: &str| hex::decode(text).map_err(|_| bad("a path is no text in hexadecimal digits"));
    let mut judged = Vec::with_capacity(rules.len());
    for rule in rules {
        judged.push(match rule {
            HubRule::Exclude(pattern) => Rule::Exclude(pattern.clone()),
            HubRule::Path(path) => Rule::Path(path.clone().into_bytes()),
            HubRule::PathHex(path) => Rule::Path(digits(path)?),
            HubRule::MountPoint(path) => Rule::MountPoint(path.clone().into_bytes()),
            HubRule::MountPointHex(path) => Rule::MountPoint(digits(path)?),
            HubRule::OneFileSystem(true) => Rule::OneFileSystem,
            HubRule::Beside { name, begins } => {
                Rule::Beside { name: name.clone().into_bytes(), begins: begins.clone().into_bytes() }
            }
            HubRule::BesideHex { name, begins } => Rule::Beside { name: digits(name)?, begins: digits(begins)? },
            HubRule::LargerThan(bytes) => Rule::LargerThan(*bytes),
            HubRule::Unnamed(true) => Rule::Unnamed,
            HubRule::Named(path) => Rule::Named(path.clone().into_bytes()),
            HubRule::NamedHex(path) => Rule::Named(digits(path)?),
            HubRule::OneFileSystem(false) | HubRule::Unnamed(false) => continue,
        });
    }
    let is_inside = |rule: &Rule| match rule {
        Rule::Path(path) | Rule::MountPoint(path) | Rule::Named(path) => {
            EntryPath::from_slashes(path).is_some_and(|path| path != EntryPath::root())
        }
        _ => true,
    };
    if !judged.iter().all(|rule| rule.is_sound() && is_inside(rule)) {
        return Err(bad("a rule is out of bounds, or its path is none within the bucket"));
    }
    let patterns: Vec<String> = judged.iter().filter_map(pattern).cloned().collect();
    Excludes::new(&patterns).map_err(|error| bad(&error.to_string()))?;
    Ok(judged)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: told from a folder, patterns decide as they did from above it. Method: each of a list of
    //! patterns against each of a list of paths, alone and in pairs.

    use super::*;

    const PATTERNS: &[&str] = &[
        "cache",
        "cache/",
        "/cache",
        "*.tmp",
        "!keep.tmp",
        "bucket/cache/",
        "/bucket/cache",
        "bucket/*.tmp",
        "!/bucket/keep.tmp",
        "b*/a/x",
        "/*/a/",
        "**/a/x",
        "**/bucket/a",
        "bucket/**",
        "bucket/**/x",
        "**/x",
        "/**",
        "/**/bucket/**/x",
        "other/x",
        "/other",
        "[ab]ucket/a",
        "\\bucket/a",
        "bucke[/]t/a",
        "*/**/cache",
    ];
    const PATHS: &[(&str, bool)] = &[
        ("cache", true),
        ("cache", false),
        ("a", true),
        ("a/x", false),
        ("a/cache", true),
        ("keep.tmp", false),
        ("x.tmp", false),
        ("a/x.tmp", false),
        ("x", false),
        ("bucket", true),
        ("bucket/a", true),
        ("other", true),
    ];

    fn check(lines: &[&str]) {
        let whole: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let bucket = EntryPath::from_slashes(b"bucket").unwrap();
        let told: Vec<String> = whole.iter().flat_map(|line| told_from(line, &bucket).unwrap()).collect();
        let (whole, told) = (Excludes::new(&whole).unwrap(), Excludes::new(&told).unwrap());
        for (path, is_folder) in PATHS {
            let from_above = whole.leaves_out(format!("bucket/{path}").as_bytes(), *is_folder);
            assert_eq!(told.leaves_out(path.as_bytes(), *is_folder), from_above, "{lines:?} {path} {told:?}");
        }
    }

    #[test]
    fn a_pattern_says_the_same_from_the_bucket() {
        for first in PATTERNS {
            check(&[first]);
            for second in PATTERNS {
                check(&[first, second]);
            }
        }
    }

    #[test]
    fn what_cannot_be_a_rule_is_refused() {
        let check =
            |rule: HubRule, is_good: bool| assert_eq!(judged(std::slice::from_ref(&rule)).is_ok(), is_good, "{rule:?}");
        check(HubRule::Path("a/b".into()), true);
        check(HubRule::PathHex("ff".into()), true);
        check(HubRule::MountPoint("mnt".into()), true);
        check(HubRule::Named("a".into()), true);
        check(HubRule::Named("../a".into()), false);
        let beside = |name: &str| HubRule::Beside { name: name.into(), begins: "Signature".into() };
        check(beside("CACHEDIR.TAG"), true);
        check(beside("a/b"), false);
        check(beside(".."), false);
        check(HubRule::BesideHex { name: "ff".into(), begins: "0".into() }, false);
        check(HubRule::Exclude("*.tmp".into()), true);
        for path in ["", "/etc", "../x", "a/../b", "a//b"] {
            check(HubRule::Path(path.into()), false);
            check(HubRule::MountPoint(path.into()), false);
        }
        check(HubRule::PathHex("zz".into()), false);
        check(HubRule::PathHex(hex::encode("../x")), false);
        for pattern in ["", "# x", "a\nb"] {
            check(HubRule::Exclude(pattern.into()), false);
        }
        check(HubRule::Exclude("x".repeat(5000)), false);
        assert!(judged(&vec![HubRule::OneFileSystem(true); RULES_MAX + 1]).is_err());
    }
}
