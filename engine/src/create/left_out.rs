//! What a create leaves out of a source on purpose, and what the snapshot keeps of that: rules, by which a deploy leaves the same
//! things where they are.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use copal_manifest::snapshot::{RULES_MAX, Rule};
use copal_source::scan::Excludes;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::own;

/// Folders of other filesystems that are kept by name; of more than that only their mounts protect them.
const MOUNT_POINTS_MAX: usize = 4096;

/// What is left out of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    /// As the snapshot keeps it.
    pub(crate) rules: Vec<Rule>,
    /// Copal's own folders in it that no pattern names, whole, for a sentence.
    pub(crate) own: Vec<PathBuf>,
}

impl LeftOut {
    /// By the patterns and flags of a request, and without what Copal itself lives by.
    pub(crate) fn of(context: &Context, source: &Path, exclude: &[String], one_file_system: bool) -> Result<Self> {
        own::refuse_source(context, source)?;
        let mut rules: Vec<Rule> = exclude.iter().cloned().map(Rule::Exclude).collect();
        if one_file_system {
            rules.push(Rule::OneFileSystem);
        }
        let patterns = Excludes::new(exclude)?;
        let mut own = Vec::new();
        for (place, below) in own::folders_within(context, source) {
            let below = below.into_os_string().into_vec();
            if !patterns.covers(&below, true) {
                if place.path.exists() {
                    own.push(source.join(OsStr::from_bytes(&below)));
                }
                rules.push(Rule::Path(below));
            }
        }
        if rules.len() + MOUNT_POINTS_MAX > RULES_MAX || !rules.iter().all(Rule::is_sound) {
            let most = RULES_MAX - MOUNT_POINTS_MAX;
            return Err(Error::Usage(format!("a snapshot keeps at most {most} patterns of at most 4,096 bytes")));
        }
        Ok(Self { rules, own })
    }

    /// The paths that are left out whatever the patterns say.
    pub(crate) fn paths(&self) -> Vec<Vec<u8>> {
        let path = |rule: &Rule| if let Rule::Path(path) = rule { Some(path.clone()) } else { None };
        self.rules.iter().filter_map(path).collect()
    }

    /// A folder that was not entered.
    pub(crate) fn add_mount_point(&mut self, path: Vec<u8>) {
        let known = self.rules.iter().filter(|rule| matches!(rule, Rule::MountPoint(_))).count();
        let rule = Rule::MountPoint(path);
        if known < MOUNT_POINTS_MAX && rule.is_sound() {
            self.rules.push(rule);
        }
    }
}
