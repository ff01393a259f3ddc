//! rustic, with a password.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{PASSWORD, Room, Tool, output_of};

pub(super) struct Rustic(pub(super) Room);

impl Rustic {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.0.command(arguments);
        command
            .env("RUSTIC_REPOSITORY", self.0.repository())
            .env("RUSTIC_PASSWORD", PASSWORD)
            .env("RUSTIC_CACHE_DIR", self.0.at("cache"))
            .env("RUSTIC_NO_PROGRESS", "true")
            .env("RUSTIC_LOG_LEVEL", "warn");
        command
    }

    /// The id of the snapshot with this label.
    fn id(&self, name: &str) -> Result<String> {
        fn search<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
            match value {
                Value::Object(fields) if fields.get("label").and_then(Value::as_str) == Some(name) => {
                    fields.get("id").and_then(Value::as_str)
                }
                Value::Object(fields) => fields.values().find_map(|field| search(field, name)),
                Value::Array(values) => values.iter().find_map(|value| search(value, name)),
                _ => None,
            }
        }
        let listed = output_of(self.command(&["snapshots", "--json"]))?;
        let listed: Value = serde_json::from_slice(&listed)?;
        Ok(search(&listed, name).with_context(|| format!("rustic lists no snapshot {name}"))?.to_owned())
    }

    /// The snapshot's folder that is the source.
    fn tree(&self, name: &str) -> Result<String> {
        Ok(format!("{}:/data", self.id(name)?))
    }
}

impl Tool for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn room(&self) -> &Room {
        &self.0
    }

    fn init(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["init"])])
    }

    fn create(&self, name: &str) -> Result<Vec<Command>> {
        let mut command = self.command(&["backup", "--host", "duel", "--as-path", "/data", "--label", name]);
        command.arg(&self.0.source);
        Ok(vec![command])
    }

    fn list(&self) -> Result<Vec<Command>> {
        Ok(vec![self.command(&["snapshots"])])
    }

    fn restore(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["restore", &self.tree(name)?]);
        command.arg(target);
        Ok(vec![command])
    }

    fn roll_back(&self, name: &str, target: &Path) -> Result<Vec<Command>> {
        let mut command = self.command(&["restore", "--delete", &self.tree(name)?]);
        command.arg(target);
        Ok(vec![command])
    }

    fn remove(&self, names: &[String]) -> Result<Vec<Command>> {
        let mut command = self.command(&["forget", "--prune", "--instant-delete"]);
        for name in names {
            command.arg(self.id(name)?);
        }
        Ok(vec![command])
    }

    fn remark(&self) -> &'static str {
        "password; prunes with `--instant-delete`, else nothing is freed for 23 hours"
    }
}
