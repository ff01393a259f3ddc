//! Looks the dependencies up in a copy of RustSec's database of advisories that it is given. It fetches
//! nothing: without a copy it says so and checks nothing. Advisories that were looked at and accepted stand
//! in one table, each with its reason; a line of the table that no dependency needs is an error too.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use cargo_metadata::semver::{Version, VersionReq};
use serde::Deserialize;

/// Names the folder of the copy.
const VARIABLE: &str = "COPAL_ADVISORIES";
const ACCEPTED: &str = "docs/decisions/advisories.md";

/// The beginning of a file `crates/NAME/RUSTSEC-….md`.
#[derive(Debug, Deserialize)]
struct FrontMatter {
    advisory: Advisory,
    versions: Versions,
}

#[derive(Debug, Deserialize)]
struct Advisory {
    id: String,
    package: String,
    withdrawn: Option<toml::Value>,
    informational: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Versions {
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

/// The versions of each dependency.
type Dependencies = BTreeMap<String, BTreeSet<Version>>;

pub(crate) fn check() -> Result<()> {
    let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) else {
        println!(
            "== advisories: NOT CHECKED, because {VARIABLE} names no copy of https://github.com/rustsec/advisory-db"
        );
        return Ok(());
    };
    let folder = PathBuf::from(folder);
    let dependencies = dependencies()?;
    let found = found(&folder, &dependencies)?;
    let page = fs::read_to_string(ACCEPTED).with_context(|| format!("reading {ACCEPTED}"))?;
    let wrong = judge(&found, &accepted(&page));
    let crates = dependencies.len();
    println!("== advisories: {crates} crates, {} advisories, {} not accounted for", found.len(), wrong.len());
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

fn dependencies() -> Result<Dependencies> {
    let metadata = MetadataCommand::new().other_options(vec!["--locked".into()]).exec()?;
    let mut dependencies = Dependencies::new();
    for package in metadata.packages.into_iter().filter(|package| package.source.is_some()) {
        dependencies.entry(package.name.to_string()).or_default().insert(package.version);
    }
    Ok(dependencies)
}

/// Advisories that concern a dependency: id, and what it says of which.
fn found(database: &Path, dependencies: &Dependencies) -> Result<BTreeMap<String, String>> {
    let crates = database.join("crates");
    fs::read_dir(&crates).with_context(|| format!("{VARIABLE}: reading {}", crates.display()))?;
    let mut found = BTreeMap::new();
    for (name, versions) in dependencies {
        let Ok(entries) = fs::read_dir(crates.join(name)) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("reading the advisories of {name}"))?.path();
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let concerns = concerning(&text, versions).with_context(|| format!("reading {}", path.display()))?;
            found.extend(concerns);
        }
    }
    Ok(found)
}

fn concerning(text: &str, versions: &BTreeSet<Version>) -> Result<Option<(String, String)>> {
    let matter = text.strip_prefix("```toml\n").and_then(|text| text.split_once("\n```"));
    let (matter, prose) = matter.context("it does not begin with a block of TOML")?;
    let FrontMatter { advisory, versions: ranges } = toml::from_str(matter)?;
    let is_sound =
        |version: &Version| ranges.patched.iter().chain(&ranges.unaffected).any(|range| range.matches(version));
    let affected: Vec<String> = versions.iter().filter(|version| !is_sound(version)).map(Version::to_string).collect();
    if affected.is_empty() || advisory.withdrawn.is_some() {
        return Ok(None);
    }
    let title = prose.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or("no title");
    let kind = advisory.informational.as_deref().unwrap_or("vulnerability");
    let what = format!("{} {}: {kind}: {title}", advisory.package, affected.join(", "));
    Ok(Some((advisory.id, what)))
}

/// The ids in the first column of the table, if a reason stands beside them.
fn accepted(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [id, _, reason] = cells[..] else { return None };
        (id.starts_with("RUSTSEC-") && !reason.is_empty()).then(|| id.to_owned())
    });
    rows.collect()
}

/// What is wrong: advisories that nobody accepted, and acceptances of nothing.
fn judge(found: &BTreeMap<String, String>, accepted: &BTreeSet<String>) -> Vec<String> {
    let new = found.iter().filter(|(id, _)| !accepted.contains(*id));
    let new = new.map(|(id, what)| format!("{id}: {what}: update it, or say in {ACCEPTED} why it may stay"));
    let gone = accepted.iter().filter(|id| !found.contains_key(*id));
    let gone = gone.map(|id| format!("{id}: it concerns no dependency any more: take it from {ACCEPTED}"));
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: an advisory that concerns a version in use is found, and no other. Method: one `check` over
    //! advisories as RustSec writes them.

    use super::*;

    fn text(versions: &str) -> String {
        format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2025-0001\"\npackage = \"one\"\n{versions}\n```\n\n# Title\n\nProse.\n"
        )
    }

    #[track_caller]
    fn check(advisory: &str, version: &str, expected: Option<&str>) {
        let versions = BTreeSet::from([version.parse().unwrap()]);
        let found = concerning(&text(advisory), &versions).unwrap();
        assert_eq!(found.map(|(_, what)| what).as_deref(), expected, "{advisory}");
    }

    #[test]
    fn versions_that_are_neither_patched_nor_unaffected_are_concerned() {
        let ranges = "[versions]\npatched = [\">= 1.2.3\"]\nunaffected = [\"< 1.0.0\"]";
        check(ranges, "1.2.2", Some("one 1.2.2: vulnerability: Title"));
        check(ranges, "1.2.3", None);
        check(ranges, "0.9.0", None);
        let unmaintained = "informational = \"unmaintained\"\n[versions]\npatched = []";
        check(unmaintained, "9.0.0", Some("one 9.0.0: unmaintained: Title"));
        check("withdrawn = \"2025-01-01\"\n[versions]\npatched = []", "1.0.0", None);
        assert!(concerning("# No TOML", &BTreeSet::new()).is_err());
        assert!(concerning(&text("[versions]\npatched = [\"what\"]"), &BTreeSet::new()).is_err());
    }

    #[test]
    fn what_is_accepted_has_a_reason_and_is_needed() {
        let page = "| advisory | crate | why |\n|---|---|---|\n| RUSTSEC-2025-0001 | one | because |\n| RUSTSEC-2025-0002 | two |  |\n";
        let accepted = accepted(page);
        assert_eq!(accepted, BTreeSet::from(["RUSTSEC-2025-0001".to_owned()]));
        let one = BTreeMap::from([("RUSTSEC-2025-0001".to_owned(), "one".to_owned())]);
        let two = BTreeMap::from([("RUSTSEC-2025-0002".to_owned(), "two".to_owned())]);
        assert!(judge(&one, &accepted).is_empty());
        assert_eq!(judge(&two, &accepted).len(), 2, "one is new, one is gone");
    }

    #[test]
    fn the_table_of_accepted_advisories_can_be_read() {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(ACCEPTED)).unwrap();
        let rows = page.lines().filter(|line| line.starts_with("| RUSTSEC-")).count();
        assert_eq!(accepted(&page).len(), rows);
    }
}
