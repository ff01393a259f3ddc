//! What stands at the targets of a deploy, captured before it goes: each source as what it is, or else byte
//! for byte, so that a damaged database is in the snapshot, too. What is not all there is named, for whoever
//! replaces it to keep it elsewhere.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use copal_engine::context::Context;
use copal_engine::create::{CreateReport, Exclusions, Input, InputContent, Taken};
use copal_source::kept::is_block_device;
use copal_source::sqlite::{SIDECARS, sidecars};

use crate::Captured;
use crate::capture::of_one_source;
use crate::capture::paths::recorded_path;
use crate::config::{Source, SourceSpec};
use crate::error::Result;
use crate::hooks::shortened;

/// A capture of what stands there.
#[derive(Debug)]
pub(crate) struct Stood {
    /// Of the snapshot; none: there was nothing that could be read.
    pub(crate) report: Option<CreateReport>,
    /// The sources that are not in it whole, or not as what they are.
    pub(crate) others: Vec<Other>,
}

/// A source that could not be captured as what it is.
#[derive(Debug)]
pub(crate) struct Other {
    pub(crate) label: String,
    pub(crate) why: String,
    /// The labels under which the snapshot has its files, byte for byte; none: not all of it is there.
    pub(crate) files: Vec<String>,
}

impl Captured {
    /// The second stage of what stands there.
    pub(crate) fn upload_standing(mut self, context: &Context) -> Result<Stood> {
        let (taken, others) = match self.store_standing(context) {
            Ok(stored) => stored,
            Err(error) => return Err(self.fail(context, error)),
        };
        if taken.is_empty() {
            self.place.remove_kept(&self.record)?;
            self.place.remove()?;
            return Ok(Stood { report: None, others });
        }
        let failed = self.components.iter().filter(|component| component.held.is_err()).count();
        let mut report = self.commit(context, taken)?;
        // The last ones are of sources that failed as a whole: those are told of apart.
        report.warnings.truncate(report.warnings.len().saturating_sub(failed));
        Ok(Stood { report: Some(report), others })
    }

    fn store_standing(&mut self, context: &Context) -> Result<(Vec<Taken>, Vec<Other>)> {
        let mut taken = self.store_all(context)?;
        let mut others = Vec::new();
        let mut partly = Vec::new();
        let mut labels: Vec<String> = self.components.iter().map(|one| one.source.label.clone()).collect();
        for component in &self.components {
            let label = component.source.label.clone();
            let why = match &component.held {
                Err(why) => why.clone(),
                Ok(_) => {
                    if let Some(one) = taken.iter().find(|one| one.record.label == label && !is_whole(one)) {
                        let why = shortened(one.warnings.first().cloned().unwrap_or_default());
                        partly.push((label.clone(), why.clone()));
                        others.push(Other { label, why, files: Vec::new() });
                    }
                    continue;
                }
            };
            let files = self.take_files(context, &component.source, &mut labels)?;
            let names = files.iter().map(|one| one.record.label.clone()).collect();
            taken.extend(files);
            others.push(Other { label, why, files: names });
        }
        // Who deploys this snapshot is told which sources are whole.
        for (label, why) in partly {
            self.record.note_failure(&label, &why);
        }
        Ok((taken, others))
    }

    /// The files that a source consists of, as bytes; nothing where not all of them can be had. A secret is
    /// not put anywhere without its seal.
    fn take_files(&self, context: &Context, source: &Source, labels: &mut Vec<String>) -> Result<Vec<Taken>> {
        let is_plain = |path: &&std::path::Path| !is_block_device(path).is_ok_and(|is| is);
        let Some(path) = source.spec.path().filter(is_plain) else { return Ok(Vec::new()) };
        if matches!(source.spec, SourceSpec::Secret { .. }) {
            return Ok(Vec::new());
        }
        let mut inputs = vec![plain_input(source, source.label.clone(), recorded_path(source)?)];
        if matches!(source.spec, SourceSpec::Sqlite(_)) {
            for beside in sidecars(path) {
                let bytes = beside.as_os_str().as_bytes();
                let suffix = SIDECARS.into_iter().find(|suffix| bytes.ends_with(suffix.as_bytes())).unwrap_or_default();
                let label = free_label(&format!("{}{suffix}", source.label), labels);
                inputs.push(plain_input(
                    source,
                    label,
                    std::path::absolute(&beside).map_or(bytes.to_vec(), |path| path.as_os_str().as_bytes().to_vec()),
                ));
            }
        }
        let mut taken = Vec::new();
        for input in inputs {
            match self.creation.take(context, &input) {
                Ok(one) if is_whole(&one) => taken.push(one),
                Ok(_) => return Ok(Vec::new()),
                Err(error) => {
                    of_one_source(&self.application, error.into())?;
                    return Ok(Vec::new());
                }
            }
        }
        Ok(taken)
    }
}

fn is_whole(taken: &Taken) -> bool {
    taken.unread_files + taken.torn_files == 0
}

/// As it stands, whatever is in it.
fn plain_input(source: &Source, label: String, path: Vec<u8>) -> Input {
    let exclusions = match &source.spec {
        SourceSpec::Tree(tree) => tree.exclusions.clone(),
        _ => Exclusions::default(),
    };
    let content = InputContent::Path(PathBuf::from(std::ffi::OsStr::from_bytes(&path)));
    Input {
        label,
        kind: None,
        path,
        content,
        exclusions,
        only: None,
        page_structured: false,
        before: None,
        through_sqlite: false,
        clones: None,
    }
}

/// A label that no source has yet.
fn free_label(wanted: &str, labels: &mut Vec<String>) -> String {
    let mut label = wanted.to_owned();
    let mut number = 2;
    while labels.contains(&label) {
        label = format!("{wanted}.{number}");
        number += 1;
    }
    labels.push(label.clone());
    label
}
