//! Installs the tools that tests drive: makers of filesystems, ACL and attribute tools, SQLite's shell, a
//! browser and its driver.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A program that a test needs, and the Debian package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("setfacl", "acl"),
    ("setfattr", "attr"),
    ("sqlite3", "sqlite3"),
    ("setpriv", "util-linux"),
    ("script", "bsdutils"),
    ("man", "man-db"),
    ("jq", "jq"),
    ("zstd", "zstd"),
    ("fsfreeze", "util-linux"),
    ("pg_ctl", "postgresql"),
    ("psql", "postgresql-client"),
    ("cc", "gcc"),
    ("make", "make"),
    ("bindfs", "bindfs"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

pub(crate) fn setup() -> Result<()> {
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(program, _)| !is_on_path(program)).map(|&(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("== installing {}", missing.join(" "));
    let updated = apt(&["update", "--quiet"])?;
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend(&missing);
    if !updated || !apt(&arguments)? {
        bail!("these Debian packages could not be installed: {}; install them and run this again", missing.join(" "));
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<bool> {
    let root = Command::new("id").arg("-u").output().context("asking for the user")?.stdout == b"0\n";
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.arg("apt-get");
    }
    let status =
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status().context("starting apt-get")?;
    Ok(status.success())
}

/// `mkfs.*` live in `/sbin`, which is not on every user's PATH.
fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps the programs of a PostgreSQL server in a folder for each version.
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let servers: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    env::split_paths(&path)
        .chain(servers)
        .chain(["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).to_owned()))
        .any(|folder| folder.join(program).is_file())
}
