//! Flags that choose snapshots: by host, path, tag and application.

use std::path::{Path, PathBuf};

use clap::Args;
use copal_engine::catalogue::Filter;
use copal_engine::create::recorded_path;

use crate::completion::applications;
use crate::exit_code::ProgramError;

/// What every command that chooses among snapshots chooses by.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HostAndTag {
    /// Only those of this host; may be given again
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Only those with this tag; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::tag::parse)]
    tag: Vec<(String, String)>,
}

/// What `list`, `forget`, `stats`, and `latest` of commands that only read choose by.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FilterArguments {
    #[command(flatten)]
    taken: HostAndTag,
    /// Only those with this path among their sources; may be given again
    #[arg(id = "source", long = "path", alias = "source", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only those of this application; '' means those of none
    #[arg(long, value_name = "APP", add = applications())]
    app: Vec<String>,
}

impl FilterArguments {
    /// With absolute paths.
    pub(crate) fn filter(&self) -> Result<Filter, ProgramError> {
        Ok(Filter { apps: self.app.clone(), ..self.taken.with(&self.paths)? })
    }
}

impl HostAndTag {
    /// With these paths, absolute.
    pub(crate) fn with(&self, paths: &[PathBuf]) -> Result<Filter, ProgramError> {
        let paths = paths.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
        Ok(Filter { hosts: self.host.clone(), paths, tags: self.tag.clone(), apps: Vec::new() })
    }
}

/// As sources are recorded.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, ProgramError> {
    recorded_path(path).map_err(|error| ProgramError::usage(error.to_string(), "name another path"))
}
