//! restic, with a password.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{PASSWORD, Room, Tool};

pub(super) struct Restic(pub(super) Room);

impl Restic {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command
            .env("RESTIC_REPOSITORY", self.0.repository())
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", self.0.at("cache"))
            .current_dir(&self.0.source);
        command
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn version(&self) -> Command {
        self.0.command(["version"])
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn init(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["init"])])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["backup", "--quiet", "--host", "duel", "--tag", name, "."])])
    }

    fn list(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["snapshots"])])
    }

    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["restore", "--quiet", "latest", "--tag", name, "--target"]);
        command.arg(target);
        Ok(vec![command])
    }

    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let flags = ["--delete", "--overwrite", "if-changed"];
        let mut command = self.command(&["restore", "--quiet", "latest", "--tag", name]);
        command.args(flags).arg("--target").arg(target);
        Ok(vec![command])
    }

    fn remove(&self, names: &[String]) -> Result<Vec<Command>> {
        let mut command = self.command(&["forget", "--quiet", "--prune", "--unsafe-allow-remove-all"]);
        names.iter().for_each(|name| {
            command.arg("--tag").arg(name);
        });
        Ok(vec![command])
    }

    fn remark(&self) -> &'static str {
        "password; rolls back with `--overwrite if-changed --delete`"
    }
}
