//! Which snapshot a word means where flags choose among several, and whether `latest` may be another one than
//! was thought of.

use std::path::Path;

use copal_engine::catalogue::{Catalogue, Filter, Listed, is_by_age, other_home};
use copal_engine::{Context, Monitor};
use copal_manifest::snapshot::Snapshot;

use crate::commands::filter::absolute;
use crate::commands::snapshot::{full_name, host, paths};
use crate::exit_code::ProgramError;
use crate::invocation::Invocation;
use crate::shown::{escaped, time, uuid};

/// What a word means.
#[derive(Debug)]
pub(crate) struct Meant {
    /// What the engine is asked for: of `latest` the id, so that what was asked about is what is done.
    pub(crate) reference: String,
    /// What people are told.
    pub(crate) said: String,
    /// Why somebody should look again.
    doubt: Option<String>,
}

impl Meant {
    fn as_written(reference: &str) -> Self {
        Self { reference: reference.to_owned(), said: reference.to_owned(), doubt: None }
    }

    fn by_age(listed: &Listed, reference: &str) -> Self {
        let said = format!("{} ({reference})", escaped(full_name(&listed.snapshot).as_bytes()));
        Self { reference: uuid(listed.snapshot.id), said, doubt: None }
    }

    /// Asks a person who may have meant another one. Without a terminal `--yes` has to be given; a dry run
    /// only says it.
    pub(crate) fn ask(&self, yes: bool, dry_run: bool, invocation: &Invocation) -> Result<(), ProgramError> {
        match &self.doubt {
            Some(doubt) if yes || dry_run => {
                invocation.monitor.notice(doubt);
                Ok(())
            }
            Some(doubt) => invocation.confirm(&format!("{doubt}. Go on with {}?", self.said)),
            None => Ok(()),
        }
    }
}

/// For commands that only read.
pub(crate) fn meant(context: &Context, reference: &str, filter: &Filter) -> anyhow::Result<String> {
    if filter.is_empty() {
        return Ok(reference.to_owned());
    }
    let catalogue = Catalogue::load(context)?;
    Ok(uuid(catalogue.find_among(reference, filter)?.snapshot.id))
}

/// For what is about to be written to a target. Only a bare `latest` can be in doubt: whoever names a
/// snapshot, a source, a host or a tag has said what is meant.
pub(crate) fn for_target(
    context: &Context,
    reference: &str,
    filter: &Filter,
    target: &Path,
    part: Option<&[u8]>,
) -> anyhow::Result<Meant> {
    if filter.is_empty() && !is_by_age(reference) {
        return Ok(Meant::as_written(reference));
    }
    let catalogue = Catalogue::load(context)?;
    let chosen = catalogue.find_among(reference, filter)?;
    let mut meant = Meant::by_age(chosen, reference);
    if filter.is_empty() && reference == "latest" {
        let target = absolute(target)?;
        let other = other_home(&catalogue, &chosen.snapshot, &target, part, &context.host);
        meant.doubt = other.map(|other| doubt(&chosen.snapshot, &other.snapshot, &target.to_string_lossy()));
    }
    Ok(meant)
}

/// For what is about to be put back into an application.
pub(crate) fn for_application(context: &Context, reference: &str, filter: &Filter, app: &str) -> anyhow::Result<Meant> {
    if filter.is_empty() && reference != "latest" {
        return Ok(Meant::as_written(reference));
    }
    let catalogue = Catalogue::load(context)?;
    let filter_of_app = Filter { apps: vec![app.to_owned()], ..filter.clone() };
    let chosen = catalogue.find_among(reference, &filter_of_app)?;
    let mut meant = Meant::by_age(chosen, reference);
    if filter.is_empty() && chosen.snapshot.host != context.host {
        let own = Filter { hosts: vec![context.host.clone()], ..filter_of_app };
        let own = catalogue.find_among(reference, &own).ok();
        meant.doubt = own.map(|own| doubt(&chosen.snapshot, &own.snapshot, app));
    }
    Ok(meant)
}

fn doubt(chosen: &Snapshot, other: &Snapshot, place: &str) -> String {
    let taken = |snapshot: &Snapshot| {
        let name = escaped(full_name(snapshot).as_bytes());
        format!("{name}, taken {} UTC of {} on {}", time(snapshot.created), paths(snapshot), host(snapshot))
    };
    let place = escaped(place.as_bytes());
    format!("the latest snapshot is {}; the newest of {place} is {}", taken(chosen), taken(other))
}
