//! bupstash, which has no passwords: a key file.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Room, Tool};

pub(super) struct Bupstash(pub(super) Room);

impl Bupstash {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command
            .env("BUPSTASH_REPOSITORY", self.0.repository())
            .env("BUPSTASH_KEY", self.0.at("key"))
            .env("BUPSTASH_SEND_LOG", self.0.at("send-log"))
            .env("BUPSTASH_QUERY_CACHE", self.0.at("query-cache"));
        // It starts itself again for the side of the repository.
        if let Some(folder) = self.0.program.parent() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
            if let Ok(path) = std::env::join_paths(folders) {
                command.env("PATH", path);
            }
        }
        command
    }
}

impl Tool for Bupstash {
    fn name(&self) -> &'static str {
        "bupstash"
    }

    fn version(&self) -> Command {
        self.0.command(["version"])
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn init(&self) -> Result<Vec<Command>> {
        let mut key = self.command(&["new-key", "-o"]);
        key.arg(self.0.at("key"));
        Ok(vec![key, self.command(&["init"])])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        let mut command = self.command(&["put", "-q", &format!("snapshot={name}")]);
        command.arg(&self.0.source);
        Ok(vec![command])
    }

    fn list(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["list", "-q"])])
    }

    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        std::fs::create_dir_all(target)?;
        let mut command = self.command(&["restore", "-q", "--into"]);
        command.arg(target).arg(format!("snapshot={name}"));
        Ok(vec![command])
    }

    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        self.restore(name, target)
    }

    fn remove(&self, names: &[String]) -> Result<Vec<Command>> {
        let mut remove = self.command(&["rm", "-q", "--allow-many"]);
        for (number, name) in names.iter().enumerate() {
            if number > 0 {
                remove.arg("or");
            }
            remove.arg(format!("snapshot={name}"));
        }
        Ok(vec![remove, self.command(&["gc", "-q"])])
    }

    fn remark(&self) -> &'static str {
        "key file: it has no passwords, so no time goes into stretching one"
    }
}
