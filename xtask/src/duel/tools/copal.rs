//! Copal itself, with a password, and beside the peer that has none with a key file.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{PASSWORD, Room, Tool};

pub(super) struct Copal {
    pub(super) room: Room,
    pub(super) unlock: Unlock,
}

/// What opens the repository.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlock {
    Password,
    KeyFile,
}

impl Copal {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.room.command(arguments);
        command.env("COPAL_REPO", self.room.repository());
        match self.unlock {
            Unlock::Password => command.env("COPAL_PASSWORD", PASSWORD),
            Unlock::KeyFile => command.env("COPAL_KEY_FILE", self.room.at("key")),
        };
        command
    }
}

impl Tool for Copal {
    fn name(&self) -> &'static str {
        match self.unlock {
            Unlock::Password => "copal",
            Unlock::KeyFile => super::COPAL_KEY_FILE,
        }
    }

    fn room(&self) -> &Room {
        &self.room
    }

    fn init(&self) -> Result<Vec<Command>> {
        if self.unlock == Unlock::KeyFile {
            // Only the measured machine's disk ever sees what it opens.
            std::fs::write(self.room.at("key"), b"thirty-two bytes of no secrecy !")?;
        }
        Ok(vec![self.command(&["init"])])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        let mut command = self.command(&["create", name]);
        command.arg(&self.room.source);
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
        match self.unlock {
            Unlock::Password => "password; syncs what it restores",
            Unlock::KeyFile => "the same program with a key file, beside bupstash",
        }
    }
}
