//! Goal: what the program says is for people: what is accepted, said plainly; one sentence for many files.
//! Method: the built program; every option that takes a number, a size or a time, with what is none.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use support::{COPAL, World, finish};

/// Options with a quantity, and how what is accepted begins.
const QUANTITIES: &[(&[&str], &str)] = &[
    (&["init", "--pack-size"], "write a size"),
    (&["init", "--compression-level"], "write a whole number from 1 to 19"),
    (&["init", "--parity"], "write a whole number from 0 to"),
    (&["list", "--threads"], "write a whole number"),
    (&["forget", "--keep-last"], "write a whole number"),
    (&["forget", "--keep-hourly"], "write a whole number"),
    (&["forget", "--keep-daily"], "write a whole number"),
    (&["forget", "--keep-weekly"], "write a whole number"),
    (&["forget", "--keep-monthly"], "write a whole number"),
    (&["forget", "--keep-yearly"], "write a whole number"),
    (&["forget", "--keep-within"], "write a duration"),
    (&["unlock", "--for"], "write a duration"),
    (&["serve", "--rate"], "write a whole number"),
    (&["serve", "--transfers"], "write a whole number"),
    (&["serve", "--upload-max"], "write a size"),
    (&["serve", "--staged"], "write a whole number"),
    (&["serve", "--staged-max"], "write a size"),
    (&["serve", "--at-once"], "write a whole number"),
    (&["serve", "--connections"], "write a whole number"),
    (&["serve", "--deadline"], "write a number of seconds"),
    (&["serve", "--grace"], "write a number of seconds"),
    (&["serve", "--listen"], "write an address and a port"),
];

#[test]
fn words_of_quantities_say_what_is_accepted() {
    let world = World::bare();
    for (words, wanted) in QUANTITIES {
        for given in ["zz", "1x1", "-"] {
            let (command, option) = (words[0], words[1]);
            let run = world.run(&[command, &format!("{option}={given}")]);
            assert_eq!(run.code, 2, "{words:?}: {run:#?}");
            assert!(run.stderr.contains(wanted) && run.stderr.contains(option), "{words:?} {given}: {run:#?}");
            for word in ["Some(", "Err(", "invalid digit", "unit of", "ParseInt", "socket address syntax"] {
                assert!(!run.stderr.contains(word), "{words:?} {given}: {run:#?}");
            }
        }
    }
    // Every option that takes such a thing is in the table.
    let help = world.ok(&["help", "serve"]) + &world.ok(&["help", "forget"]) + &world.ok(&["help", "init"]);
    for line in help.lines().filter(|line| ["<N>", "<BYTES>", "<SECONDS>", "<SIZE>"].iter().any(|of| line.contains(of)))
    {
        let option = line.split_whitespace().find(|word| word.starts_with("--")).unwrap();
        assert!(QUANTITIES.iter().any(|(words, _)| words[1] == option), "{option} is in no table");
    }
}

/// Gives all of the world to a plain user, who gets a program to run.
fn give_away(world: &World) {
    fs::copy(COPAL, world.path("copal")).unwrap();
    fs::set_permissions(world.path("copal"), fs::Permissions::from_mode(0o755)).unwrap();
    let owns = std::process::Command::new("chown").args(["-hR", "65534:65534"]).arg(world.path("")).status();
    assert!(owns.unwrap().success());
}

/// The warnings of a run as that user.
#[track_caller]
fn warnings_of_nobody(world: &World, words: &[&str]) -> Vec<String> {
    let mut command = world.command_of(&world.path("copal"), &[words, &["--json"]].concat());
    let run = finish(command.uid(65534).gid(65534).output().unwrap());
    assert_eq!(run.code, 0, "{words:?}: {run:#?}");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    report["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// Each warning is of a path of the target, whatever name of Copal's own it was made under.
#[track_caller]
fn check_named(world: &World, words: &[&str], target: &str, names: &[&str]) {
    let warnings = warnings_of_nobody(world, words);
    for name in names {
        let path = world.text(target) + name;
        assert!(warnings.iter().any(|warning| warning.contains(&path)), "{words:?}: {path}: {warnings:#?}");
    }
    assert!(warnings.iter().all(|warning| !warning.contains(".copal-")), "{words:?}: {warnings:#?}");
}

#[test]
fn d20_what_could_not_be_set_is_named_as_it_is_in_the_target() {
    if !rustix::process::geteuid().is_root() {
        return; // Whoever runs it may set everything that it may read.
    }
    let world = World::new();
    fs::create_dir_all(world.path("s/d")).unwrap();
    for name in ["s/f", "s/d/g", "one file"] {
        fs::write(world.path(name), "of root").unwrap();
    }
    std::os::unix::fs::symlink("f", world.path("s/link")).unwrap();
    world.create("one", "s");
    world.create("file", "one file");
    let config = "[app.a]\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"s\"\npath = \"s\"\n\
                  [[app.a.source]]\nkind = \"config\"\nlabel = \"c\"\npath = \"one file\"\n";
    fs::write(world.path("copal.toml"), config).unwrap();
    world.ok(&["create", "app", "--app", "a"]);
    give_away(&world);
    let all = ["/f", "/d/g", "/link", "/d"];
    check_named(&world, &["deploy", "one", "new"], "new", &all);
    for mode in ["swap", "in-place", "auto"] {
        let target = format!("t {mode}");
        fs::create_dir_all(world.path(&target).join("other")).unwrap();
        let owns = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(world.path(&target)).status();
        assert!(owns.unwrap().success());
        check_named(&world, &["deploy", "one", &target, "--yes", "--mode", mode], &target, &all);
        let file = format!("f {mode}");
        fs::write(world.path(&file), "other").unwrap();
        check_named(&world, &["deploy", "file", &file, "--yes", "--mode", mode], &file, &[""]);
    }
    check_named(&world, &["restore", "one", "r"], "r", &all);
    check_named(&world, &["deploy", "a/app", "--app", "a", "--yes"], "", &["s/f", "s/d/g", "s/link", "one file"]);
}

/// So is what went wrong.
#[test]
fn d20_an_error_names_what_it_is_in_the_target() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can mount a small disk.
    }
    let mounted = copal_sim::mounts::Mounted::new(copal_sim::mounts::Filesystem::Tmpfs, 4).unwrap();
    let world = World::new();
    fs::create_dir_all(world.path("s/d")).unwrap();
    // Bytes are few, blocks are many: no look at the free bytes foresees it.
    for number in 0..2000 {
        fs::write(world.path(&format!("s/d/{number}")), [number as u8; 400]).unwrap();
    }
    world.create("one", "s");
    for mode in ["swap", "in-place", "auto"] {
        let target = mounted.path().join(format!("t {mode}"));
        fs::create_dir_all(target.join("old")).unwrap();
        let run = world.run(&["deploy", "one", target.to_str().unwrap(), "--yes", "--mode", mode]);
        assert_eq!(run.code, 79, "{mode}: {run:#?}");
        assert!(run.stderr.contains(&format!("{}/d/", target.display())), "{mode}: {run:#?}");
        assert!(!run.stderr.contains(".copal-"), "{mode}: {run:#?}");
    }
}

#[test]
fn words_of_many_files_are_one_sentence() {
    if !rustix::process::geteuid().is_root() {
        return; // Whoever runs it may set everything that it may read.
    }
    let world = World::new();
    fs::create_dir(world.path("source")).unwrap();
    for number in 0..99 {
        fs::write(world.path(&format!("source/{number:02}")), "of root").unwrap();
    }
    world.create("one", "source");
    give_away(&world);
    let warnings = warnings_of_nobody(&world, &["deploy", "one", "target"]);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    for (warning, what) in warnings.iter().zip(["the group stays 65534, not 0", "the owner stays 65534, not 0"]) {
        assert!(warning.starts_with(&format!("of 100 paths, {what}: ")), "{warning}");
        assert!(warning.contains("/00, ") && warning.ends_with("and 95 more"), "{warning}");
    }
}
