//! BorgBackup 1, with a password.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{PASSWORD, Room, Tool, emptying};

pub(super) struct Borg(pub(super) Room);

impl Borg {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command
            .env("BORG_REPO", self.0.repository())
            .env("BORG_PASSPHRASE", PASSWORD)
            .env("BORG_BASE_DIR", self.0.at("base"))
            .current_dir(&self.0.source);
        command
    }
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn init(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["init", "--encryption", "repokey-blake2"])])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["create", &format!("::{name}"), "."])])
    }

    fn list(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["list"])])
    }

    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        std::fs::create_dir_all(target)?;
        let mut command = self.command(&["extract", &format!("::{name}")]);
        command.current_dir(target);
        Ok(vec![command])
    }

    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        Ok([vec![emptying(target)], self.restore(name, target)?].into_iter().flatten().collect())
    }

    fn remove(&self, names: &[String]) -> Result<Vec<Command>> {
        let mut delete = self.command(&["delete", "::"]);
        delete.args(names);
        Ok(vec![delete, self.command(&["compact"])])
    }

    fn remark(&self) -> &'static str {
        "password (repokey-blake2); has no way back in place: the target is emptied and extracted again"
    }
}
