//! Copal itself, with a password.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{PASSWORD, Room, Tool};

pub(super) struct Copal(pub(super) Room);

impl Copal {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command.env("COPAL_REPO", self.0.repository()).env("COPAL_PASSWORD", PASSWORD);
        command
    }
}

impl Tool for Copal {
    fn name(&self) -> &'static str {
        "copal"
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn init(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["init"])])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        let mut command = self.command(&["create", name]);
        command.arg(&self.0.source);
        Ok(vec![command])
    }

    fn list(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["list"])])
    }

    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["deploy", name]);
        command.arg(target);
        Ok(vec![command])
    }

    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["deploy", "--yes", name]);
        command.arg(target);
        Ok(vec![command])
    }

    fn remove(&self, names: &[String]) -> Result<Vec<Command>> {
        let mut delete = self.command(&["delete", "--yes"]);
        delete.args(names);
        Ok(vec![delete, self.command(&["gc"])])
    }

    fn remark(&self) -> &'static str {
        "password; syncs what it restores"
    }
}
