//! Goal: no secret stands in the arguments or the environment of a process that Copal starts, nor in what it
//! prints, keeps or logs. Method: a canary for each secret; all processes below the program are watched in
//! `/proc` while it runs, and its helpers, hooks and sources record what they were given; afterwards every
//! file and every output is searched.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use support::postgres::Server;
use support::{World, files_below};

const REPOSITORY: &str = "canary-repository-5c1";
const NEW: &str = "canary-new-77e";
/// Of a second repository.
const TO: &str = "canary-to-0d9";
const BUNDLE: &str = "canary-bundle-3aa";
/// With a letter that password files and URIs write otherwise.
const SERVER: &str = "canary:server-91f";
const CANARIES: [&str; 5] = [REPOSITORY, NEW, TO, BUNDLE, SERVER];
/// Beginnings of variables; of each there are four.
const SECRETS_OF: [&str; 4] = ["COPAL_", "COPAL_NEW_", "COPAL_TO_", "COPAL_BUNDLE_"];

fn canaries_in(bytes: &[u8]) -> Vec<&'static str> {
    let is_in = |canary: &&str| bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
    CANARIES.into_iter().filter(is_in).collect()
}

/// What was seen of a process: arguments and environment.
type Seen = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

fn proc(pid: u32, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = fs::File::open(format!("/proc/{pid}/{name}")).and_then(|mut file| file.read_to_end(&mut bytes));
    bytes
}

/// Notes every process below one, again and again, until told to stop.
fn watch(parent: u32, ended: &AtomicBool) -> Seen {
    let mut seen = Seen::new();
    while !ended.load(Ordering::Relaxed) {
        let mut below = vec![parent];
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut all: Vec<u32> = pids.collect();
        all.sort_unstable();
        for pid in all {
            let stat = String::from_utf8_lossy(&proc(pid, "stat")).into_owned();
            let its_parent =
                stat.rsplit(')').next().unwrap().split_whitespace().nth(1).and_then(|text| text.parse().ok());
            if its_parent.is_some_and(|its| below.contains(&its)) {
                below.push(pid);
                let (arguments, environment) = (proc(pid, "cmdline"), proc(pid, "environ"));
                // In the instant before it becomes another program it is a copy of its parent.
                let is_copy = its_parent.is_some_and(|its| proc(its, "cmdline") == arguments);
                if !is_copy && arguments == proc(pid, "cmdline") {
                    seen.insert((pid, arguments), environment);
                }
            }
        }
    }
    seen
}

/// Runs the program with all secrets that it may need, and watches it; what it printed.
#[track_caller]
fn run(world: &World, arguments: &[&str], exit: i32) -> String {
    let mut command = world.command(arguments);
    command.env_remove("COPAL_KEY_FILE").env("COPAL_PASSWORD", REPOSITORY);
    let given: [(&str, &str); 3] = [("COPAL_NEW_", NEW), ("COPAL_TO_", TO), ("COPAL_BUNDLE_", BUNDLE)];
    for (of, canary) in given {
        command.env(format!("{of}PASSWORD"), canary);
    }
    if arguments[0] == "create" {
        for (of, canary) in given {
            for name in ["PASSWORD_FILE", "PASSWORD_COMMAND", "KEY_FILE"] {
                command.env(format!("{of}{name}"), canary);
            }
        }
    }
    let child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (pid, ended) = (child.id(), AtomicBool::new(false));
    let (output, seen) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(pid, &ended));
        let output = child.wait_with_output().unwrap();
        ended.store(true, Ordering::Relaxed);
        (output, watcher.join().unwrap())
    });
    for ((pid, arguments), environment) in seen {
        let name = String::from_utf8_lossy(&arguments).into_owned();
        assert_eq!(canaries_in(&arguments), [""; 0], "arguments of {pid}: {name}");
        assert_eq!(canaries_in(&environment), [""; 0], "environment of {pid}: {name}");
    }
    let said = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {text}");
    assert_eq!(canaries_in(&said), [""; 0], "{text}");
    text
}

/// Programs of the server that note what they are given before they do their work.
fn wrap(world: &World, server: &Server) {
    fs::create_dir(world.path("bin")).unwrap();
    for name in ["psql", "pg_dump", "pg_dumpall", "pg_restore"] {
        let script = format!(
            "#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> {}\nexec {} \"$@\"\n",
            world.text(&format!("noted-{name}")),
            server.bin().join(name).display()
        );
        fs::write(world.path("bin").join(name), script).unwrap();
        fs::set_permissions(world.path("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn configure(world: &World, dsn: &str) {
    let note = |name: &str| format!("[\"/bin/sh\", \"-c\", \"cat /proc/$$/environ >> {}\"]", world.text(name));
    let hooks: String = ["pre", "post", "stop", "start"]
        .map(|when| format!("[[app.shop.hook]]\nwhen = \"{when}\"\nargv = {}\n", note(&format!("noted-{when}"))))
        .concat();
    let config = format!(
        "[app.shop]\n[[app.shop.source]]\nkind = \"postgres\"\nlabel = \"pg\"\ndsn = {dsn:?}\ndatabases = [\"shop\"]\n\
         bin = {:?}\nglobals = true\n[[app.shop.source]]\nkind = \"command\"\nlabel = \"made\"\nargv = {}\n{hooks}",
        world.text("bin"),
        note("noted-command")
    );
    fs::write(world.path("copal.toml"), config).unwrap();
}

#[test]
fn t11_no_secret_is_given_away() {
    let (world, mut server) = (World::bare(), Server::start());
    server.ask("postgres", "CREATE DATABASE shop");
    server.ask("shop", "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n");
    server.require(SERVER);
    wrap(&world, &server);
    let keywords = format!("host={} user=postgres dbname=shop password={SERVER}", server.socket());
    let uri = format!(
        "postgresql://postgres:{}@/shop?host={}",
        SERVER.replace(':', "%3A"),
        server.socket().replace('/', "%2F")
    );
    run(&world, &["init"], 0);
    for (number, dsn) in [&keywords, &uri].into_iter().enumerate() {
        configure(&world, dsn);
        let name = format!("shop/{number}");
        run(&world, &["create", &name[5..], "--app", "shop"], 0);
        server.ask("shop", "DELETE FROM t");
        run(&world, &["deploy", &name, "--app", "shop", "--yes", "--no-safety"], 0);
        assert_eq!(server.ask("shop", "SELECT count(*) FROM t"), "1000");
    }
    // What fails says nothing either.
    server.require("another");
    let refused = run(&world, &["create", "refused", "--app", "shop"], 86);
    assert!(refused.contains("password authentication failed"), "{refused}");
    configure(&world, &format!("host=/nowhere password={SERVER}"));
    run(&world, &["create", "unreachable", "--app", "shop", "--json"], 86);
    configure(&world, &format!("host=/nowhere password='{SERVER}"));
    run(&world, &["create", "unreadable", "--app", "shop"], 86);
    // The other secrets.
    run(&world, &["key", "add", "--label", "second"], 0);
    run(&world, &["export", "shop/0", &world.text("bundle")], 0);
    run(&world, &["import", &world.text("bundle"), "again"], 0);
    let mut other = world.command(&["init"]);
    other.env_remove("COPAL_KEY_FILE").env("COPAL_REPO", world.path("other")).env("COPAL_PASSWORD", TO);
    assert_eq!(support::finish(other.output().unwrap()).code, 0);
    run(&world, &["copy", "--to", &world.text("other")], 0);
    run(&world, &["verify"], 0);
    for noted in ["psql", "pg_dump", "pg_dumpall", "pg_restore", "pre", "post", "stop", "start", "command"] {
        let bytes = fs::read(world.path(&format!("noted-{noted}"))).unwrap();
        let has = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        for of in SECRETS_OF {
            let left = ["PASSWORD", "KEY_FILE"].map(|name| format!("{of}{name}")).into_iter().find(|name| has(name));
            assert_eq!(left, None, "{noted}");
        }
    }
    search(&world.path(""));
}

/// Every file but the configuration, which is the user's.
fn search(folder: &Path) {
    let mut searched = 0;
    for file in files_below(folder).into_iter().filter(|file| !file.ends_with("copal.toml")) {
        assert_eq!(canaries_in(&fs::read(&file).unwrap()), [""; 0], "{}", file.display());
        searched += 1;
    }
    assert!(searched > 20, "{searched}");
}
