//! kopia, with a password.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{PASSWORD, Room, Tool, output_of};

pub(super) struct Kopia(pub(super) Room);

impl Kopia {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command
            .env("KOPIA_PASSWORD", PASSWORD)
            .env("KOPIA_CONFIG_PATH", self.0.at("kopia.config"))
            .env("KOPIA_CACHE_DIRECTORY", self.0.at("cache"))
            .env("KOPIA_LOG_DIR", self.0.at("logs"))
            .env("KOPIA_CHECK_FOR_UPDATES", "false");
        command
    }

    /// The id of the snapshot that was tagged with this name.
    fn id(&self, name: &str) -> Result<String> {
        let listed: Vec<Value> = serde_json::from_slice(&output_of(self.command(&["snapshot", "list", "--json"]))?)?;
        let ours = listed.iter().find(|snapshot| snapshot["tags"]["tag:duel"] == name);
        let id = ours.and_then(|snapshot| snapshot["id"].as_str());
        Ok(id.with_context(|| format!("kopia lists no snapshot {name}"))?.to_owned())
    }
}

impl Tool for Kopia {
    fn name(&self) -> &'static str {
        "kopia"
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn init(&self) -> Result<Vec<Command>> {
        std::fs::create_dir_all(self.0.repository())?;
        let mut command = self.command(&["repository", "create", "filesystem", "--path"]);
        command.arg(self.0.repository());
        Ok(vec![command])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        let mut command = self.command(&["snapshot", "create", "--no-progress", "--tags", &format!("duel:{name}")]);
        command.arg(&self.0.source);
        Ok(vec![command])
    }

    fn list(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["snapshot", "list"])])
    }

    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["snapshot", "restore", "--no-progress", &self.id(name)?]);
        command.arg(target);
        Ok(vec![command])
    }

    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["snapshot", "restore", "--no-progress", "--delete-extra", &self.id(name)?]);
        command.arg(target);
        Ok(vec![command])
    }

    fn remove(&self, names: &[String]) -> Result<Vec<Command>> {
        let mut delete = self.command(&["snapshot", "delete", "--delete"]);
        for name in names {
            delete.arg(self.id(name)?);
        }
        Ok(vec![delete, self.command(&["maintenance", "run", "--full", "--safety=none"])])
    }

    fn remark(&self) -> &'static str {
        "password; full maintenance with `--safety=none`"
    }
}
