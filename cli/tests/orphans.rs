//! Goal: every completed snapshot can be deployed, whatever befalls a folder while it is captured (row D9).
//! Method: calls of the program on folders are made to fail by strace, once or always; nothing stands in a
//! snapshot without the folder that holds it.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::guarded::write;
use support::{COPAL, World, assert_same, finish, look};

/// A create of which some reading of attributes fails.
fn create_with(world: &World, name: &str, fault: &str) -> i32 {
    let inject = format!("inject=llistxattr:error={fault}");
    let plain = world.command(&["create", name, "s", "--force-read"]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-o", "/dev/null", "-e", &inject, COPAL]).args(plain.get_args()).env_clear();
    for (name, value) in plain.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    let run = finish(traced.current_dir(plain.get_current_dir().unwrap()).output().unwrap());
    let is_told = run.code == 0 || run.stderr.contains("left out") || run.stderr.contains("could not be read");
    assert!(is_told, "{fault}: {run:#?}");
    run.code
}

#[test]
fn d09_a_folder_that_is_away_for_an_instant_leaves_no_child_without_it() {
    let (mut completed, mut partial) = (0, 0);
    for error in ["ENOENT", "EIO", "EACCES"] {
        for when in ["1", "2", "3", "1+", "2+", "3+"] {
            // A snapshot of before would tell of folders that did not change.
            let world = World::new();
            write(&world, &[("s/d/f", "1"), ("s/d/e/g", "2"), ("s/h", "3")]);
            let whole = look(&world.path("s"));
            let name = format!("{error}-{when}");
            match create_with(&world, &name, &format!("{error}:when={when}")) {
                86 => continue,
                code => {
                    world.ok(&["verify", &name]);
                    let target = format!("t {name}");
                    world.ok(&["deploy", &name, &target]);
                    let found = look(&world.path(&target));
                    if code == 0 {
                        completed += 1;
                        assert_same(&whole, &found);
                    } else {
                        assert_eq!(code, 3, "{name}");
                        partial += 1;
                        assert!(found.len() < whole.len(), "{name}");
                    }
                }
            }
        }
    }
    assert!(completed > 2 && partial > 2, "{completed} whole, {partial} in part");
}
