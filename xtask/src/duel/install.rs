//! Fetches the peers that package registries have, into a folder of the harness.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::tools;

/// Debian packages with which the peers are built, or that are peers.
const PACKAGES: &[&str] = &[
    "restic",
    "pkg-config",
    "libsodium-dev",
    "libacl1-dev",
    "liblz4-dev",
    "libxxhash-dev",
    "libzstd-dev",
    "libssl-dev",
    "python3-dev",
    "python3-venv",
];

/// Installs what is missing. What cannot be had is said and left out.
pub(super) fn install(peers: &Path) -> Result<()> {
    fs::create_dir_all(peers).with_context(|| format!("making {}", peers.display()))?;
    let missing = |name: &str| tools::find(name, peers).is_none();
    if ["restic", "borg", "bupstash"].into_iter().any(missing) {
        tell("Debian's packages", Command::new("apt-get").args(["update", "--quiet"]));
        tell(
            "Debian's packages",
            Command::new("apt-get")
                .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                .args(PACKAGES)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        );
    }
    if missing("borg") {
        let venv = peers.join("venv");
        tell("borg", Command::new("python3").args(["-m", "venv"]).arg(&venv));
        tell("borg", Command::new(venv.join("bin/pip")).args(["install", "borgbackup"]));
    }
    for (name, crate_name, flags) in
        [("rustic", "rustic-rs", &["--no-default-features"][..]), ("bupstash", "bupstash", &[])]
    {
        if missing(name) {
            let mut cargo = Command::new("nice");
            cargo.args(["-n", "15", "cargo", "install", "--locked", crate_name]).args(flags);
            cargo.arg("--root").arg(peers).env("CARGO_TARGET_DIR", peers.join("target"));
            tell(name, &mut cargo);
        }
    }
    if missing("kopia") {
        println!("== kopia: no registry here has it; put its program on the PATH, and it takes part");
    }
    Ok(())
}

/// A peer that cannot be installed is no reason to measure nothing.
fn tell(what: &str, command: &mut Command) {
    println!("== {what}: {command:?}");
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => println!("== {what}: {status}"),
        Err(error) => println!("== {what}: {error}"),
    }
}
