//! `copal tag`: labels of a snapshot.

use clap::Args;
use copal_engine::catalogue::{Catalogue, relabel};

use crate::commands::snapshot::{SnapshotLine, full_name, tags};
use crate::completion::snapshots;
use crate::exit_code::ExitCode;
use crate::invocation::Invocation;
use crate::shown::escaped;

/// Sets and removes tags of a snapshot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  copal tag monday ticket=4711 by=anna
  copal tag monday --remove ticket
  copal tag monday                       shows them")]
pub(crate) struct Arguments {
    /// Name, APP/NAME, id or its prefix, latest, or latest:APP
    #[arg(value_name = "SNAPSHOT", add = snapshots())]
    name: String,
    /// Tags to set
    #[arg(value_name = "KEY=VALUE", value_parser = parse)]
    set: Vec<(String, String)>,
    /// Tag to remove; may be given again
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
}

/// `KEY=VALUE`.
pub(super) fn parse(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

pub(crate) fn run(arguments: &Arguments, invocation: &mut Invocation) -> anyhow::Result<ExitCode> {
    let context = invocation.open()?;
    let only_shown = arguments.set.is_empty() && arguments.remove.is_empty();
    let listed = if only_shown {
        Catalogue::load(&context)?.find(&arguments.name)?.clone()
    } else {
        relabel(&context, &arguments.name, &arguments.set, &arguments.remove, None)?
    };
    let output = &mut invocation.output;
    if output.is_json() {
        output.document(&SnapshotLine::new(&listed))?;
        return Ok(ExitCode::Done);
    }
    let name = escaped(full_name(&listed.snapshot).as_bytes());
    let tags = escaped(tags(&listed.snapshot).as_bytes());
    output.line(if tags.is_empty() { format!("{name} has no tags") } else { format!("{name} has the tags {tags}") })?;
    Ok(ExitCode::Done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_key_and_a_value() {
        assert_eq!(parse("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(parse("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(parse("a").is_err() && parse("=b").is_err() && parse("").is_err());
    }
}
