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
    fs::copy(COPAL, world.path("copal")).unwrap();
    fs::set_permissions(world.path("copal"), fs::Permissions::from_mode(0o755)).unwrap();
    let owns = std::process::Command::new("chown").args(["-R", "65534:65534"]).arg(world.path("")).status();
    assert!(owns.unwrap().success());
    let mut command = world.command_of(&world.path("copal"), &["deploy", "one", "target", "--json"]);
    let run = finish(command.uid(65534).gid(65534).output().unwrap());
    assert_eq!(run.code, 0, "{run:#?}");
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let warnings: Vec<&str> = report["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    for (warning, what) in warnings.iter().zip(["the group stays 65534, not 0", "the owner stays 65534, not 0"]) {
        assert!(warning.starts_with(&format!("of 100 paths, {what}: ")), "{warning}");
        assert!(warning.contains("/00, ") && warning.ends_with("and 95 more"), "{warning}");
    }
}
