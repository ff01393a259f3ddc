//! Goal: each key of `copal.toml` has the effect that the reference promises, and what is no key is an error
//! that names the line and the nearest one (row D14). Method: the list of keys is the program's own; for each
//! a test is named here that drives the built program with it.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use copal_application::config::keys::TableKind;
use copal_sim::mounts::{Filesystem, Mounted};
use daemon::Daemon;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::{World, finish, noise};

use TableKind::{Application, Class, File, Hook, Retention, Service, Source, VersionOrder};

/// Keys of a table, and the test that shows what they do: its file and its name.
const TESTED: &[(TableKind, &[&str], &str, &str)] = &[
    (File, &["gc_schedule"], "retention.rs", "u21_the_daemon_collects_by_its_schedule"),
    (File, &["app", "class"], "configuration.rs", "d14_a_snapshot_keeps_what_was_said_of_it"),
    (
        Application,
        &["config_version", "class", "source"],
        "configuration.rs",
        "d14_a_snapshot_keeps_what_was_said_of_it",
    ),
    (Application, &["default", "namespace"], "configuration.rs", "d14_the_daemon_shows_what_was_said_of_applications"),
    (Application, &["consistency", "partial"], "configuration.rs", "d14_a_policy_says_what_may_be_missing"),
    (
        Application,
        &["freeze_max"],
        "applications.rs",
        "v8_a_capture_past_its_deadline_is_failed_and_the_application_goes_on",
    ),
    (
        Application,
        &["max_snapshots"],
        "applications.rs",
        "e9_e10_the_oldest_goes_after_the_new_one_is_there_and_pinned_ones_stay",
    ),
    (Application, &["retention"], "retention.rs", "u21_rules_hold_after_each_create_of_the_application"),
    (Application, &["schedule", "verify_schedule"], "serve.rs", "schedules_take_snapshots_by_themselves"),
    (Application, &["hook"], "configuration.rs", "d14_hooks_run_as_they_are_written"),
    (Application, &["service"], "configuration.rs", "d14_services_are_started_and_stopped_in_their_order"),
    (Retention, &["keep_last", "keep_tags"], "retention.rs", "u21_rules_hold_after_each_create_of_the_application"),
    (
        Retention,
        &["keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within"],
        "retention.rs",
        "u21_each_rule_of_time_keeps_what_forget_would",
    ),
    (Retention, &["safety_keep"], "retention.rs", "u21_safety_snapshots_have_a_count_of_their_own_and_stand_apart"),
    (Retention, &["safety_within"], "retention.rs", "u21_safety_snapshots_have_an_age_of_their_own"),
    (
        Service,
        &["depends_on", "source", "hook"],
        "configuration.rs",
        "d14_services_are_started_and_stopped_in_their_order",
    ),
    (Source, &["kind", "label", "path"], "configuration.rs", "d14_a_snapshot_keeps_what_was_said_of_it"),
    (
        Source,
        &["exclude_caches", "exclude_if_present", "exclude_larger_than"],
        "excludes.rs",
        "u05_an_application_leaves_out_what_its_configuration_says",
    ),
    (Source, &["exclude", "include", "one_file_system"], "configuration.rs", "d14_a_tree_leaves_out_what_is_said"),
    (
        Source,
        &["version_query", "schema_version", "check"],
        "configuration.rs",
        "d14_a_database_is_checked_and_its_version_is_compared",
    ),
    (Source, &["version_order"], "versions.rs", "d18_versions_that_are_no_numbers_have_the_order_that_is_given"),
    (VersionOrder, &["command"], "versions.rs", "d18_versions_that_are_no_numbers_have_the_order_that_is_given"),
    (Source, &["dsn", "databases", "bin"], "postgres.rs", "a6_databases_are_dumped_and_put_back_as_one"),
    (Source, &["globals"], "postgres.rs", "a6_a_missing_role_is_a_failure_and_leaves_what_stood_there"),
    (Source, &["argv", "restore", "timeout"], "configuration.rs", "d14_a_command_is_run_and_given_what_it_wrote"),
    (
        Hook,
        &["when", "argv", "signal", "pid_file", "timeout", "on_error"],
        "configuration.rs",
        "d14_hooks_run_as_they_are_written",
    ),
    (Hook, &["freeze"], "freeze.rs", "v8_h12_a_frozen_filesystem_is_captured_and_thawed_whatever_happens"),
    (Class, &["pinning"], "configuration.rs", "d14_a_class_says_whether_a_state_is_spooled"),
    (Class, &["capabilities"], "configuration.rs", "d14_the_daemon_shows_what_was_said_of_applications"),
];

fn read(place: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(place)).unwrap()
}

#[test]
fn d14_every_key_has_a_test_that_uses_it() {
    let mut tested = BTreeSet::new();
    for (kind, keys, file, test) in TESTED {
        let source = read(&format!("tests/{file}"));
        let shared = read("tests/support/shop.rs");
        assert!(source.contains(&format!("fn {test}()")), "{file} has no test {test}");
        for key in *keys {
            assert!(source.contains(key) || shared.contains(key), "{file} has no {key}");
            assert!(tested.insert((kind.written(), *key)), "{key} of {kind:?} stands twice");
        }
    }
    let all = TableKind::ALL.into_iter().flat_map(|kind| kind.keys().iter().map(move |key| (kind.written(), key.name)));
    let all: BTreeSet<_> = all.collect();
    assert_eq!(tested, all);
}

/// What the pages show as a configuration, without the remarks that are no TOML.
fn examples() -> Vec<(String, String)> {
    let mut examples = Vec::new();
    for page in ["docs/guide/applications.md", "docs/guide/service.md", "docs/guide/schedules.md", "README.md"] {
        let text = read(&format!("../{page}"));
        let fenced = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
        examples.extend(fenced.map(|block| (page.to_owned(), block)));
        // Indented blocks that begin with a table.
        let mut block = String::new();
        for line in text.lines().chain([""]) {
            match line.strip_prefix("    ") {
                Some(line) => block += &format!("{line}\n"),
                None if line.is_empty() && !block.is_empty() => block += "\n",
                None => {
                    if block.trim_start().starts_with('[') {
                        examples.push((page.to_owned(), std::mem::take(&mut block)));
                    }
                    block.clear();
                }
            }
        }
        if block.trim_start().starts_with('[') {
            examples.push((page.to_owned(), block));
        }
    }
    examples
}

#[test]
fn d14_what_the_pages_show_is_accepted() {
    let examples = examples();
    assert!(examples.len() >= 3, "{examples:?}");
    for (page, example) in examples {
        let world = World::new();
        // Part of an application: it needs a source.
        let source = "[[app.NAME.source]]\nkind = \"tree\"\npath = \"x\"\n";
        let name = example.split("[app.").nth(1).and_then(|rest| rest.split(['.', ']']).next());
        let name = name.unwrap_or_else(|| panic!("{page}: {example}"));
        let text = if example.contains(".source]]") {
            example.clone()
        } else {
            format!("{example}{}", source.replace("NAME", name))
        };
        fs::write(world.path("copal.toml"), &text).unwrap();
        let run = world.run(&["create", "one", "--app", "nobody"]);
        assert!(run.stderr.contains("no application is named \"nobody\""), "{page}: {text}\n{run:?}");
    }
}

#[test]
fn d14_what_is_no_key_is_an_error_that_names_the_nearest_and_the_line() {
    let world = World::new();
    let check = |text: &str, line: usize, words: &str| {
        fs::write(world.path("copal.toml"), text).unwrap();
        for command in [&["create", "one", "--app", "a"][..], &["deploy", "one", "--app", "a", "--yes"]] {
            let error = world.fails(command, 2, "usage");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("copal.toml:{line}: ")), "{message}");
            assert!(message.contains(words), "{message}");
        }
        let refused = world.run(&["serve", "--no-auth", "--listen", "127.0.0.1:0"]);
        assert!(refused.code == 2 && refused.stderr.contains(words), "{refused:?}");
    };
    check("[app.a]\nmax_snapshot = 3\n", 2, "did you mean \"max_snapshots\"?");
    check("[app.a]\nsource = []\n\nshedule = \"\"\n", 4, "did you mean \"schedule\"?");
    check("[app.a.retention]\nkeep-last = 3\n", 2, "did you mean \"keep_last\"?");
    check("[app.a]\nkeep_last = 3\n", 2, "it stands in [app.NAME.retention]");
    check("[app.a]\ngc_schedule = \"0 3 * * *\"\n", 2, "it stands at the top of the file");
    check("[[app.a.source]]\nkind = \"tree\"\npth = \"x\"\n", 3, "did you mean \"path\"?");
    check("[app.a.service.web]\ndepend_on = []\n", 2, "did you mean \"depends_on\"?");
    check("[[app.a.service.web.hook]]\nwhen = \"pre\"\ncommand = []\n", 3, "it stands in version_order");
    check("[[app.a.source]]\nkind = \"sqlite\"\npath = \"x\"\nversion_order = { comand = [] }\n", 4, "\"command\"");
    check("[class.c]\npining = \"spool\"\n", 2, "did you mean \"pinning\"?");
    check("[apps.a]\n", 1, "did you mean \"app\"?");
    check("[daemon]\n", 1, "its keys are gc_schedule, app, class");
    // In one line, too, and with an odd name.
    check("app.a = { \"max\\nsnapshots\" = 3 }\n", 1, "did you mean \"max_snapshots\"?");
    // What may have any names, may.
    fs::create_dir(world.path("x")).unwrap();
    let free = "[class.c]\ncapabilities = { anything = \"goes\" }\n[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n";
    fs::write(world.path("copal.toml"), free).unwrap();
    world.ok(&["create", "one", "--app", "a"]);
}

#[test]
fn d14_rules_that_keep_nothing_are_errors() {
    let world = World::new();
    let check = |rules: &str, line: usize, words: &str| {
        let text = format!("[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n[app.a.retention]\n{rules}\n");
        fs::write(world.path("copal.toml"), text).unwrap();
        let error = world.fails(&["create", "one", "--app", "a"], 2, "usage");
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("copal.toml:{line}: ")) && message.contains(words), "{message}");
    };
    check("keep_last = 0", 5, "at least 1");
    check("keep_last = 3\nsafety_keep = 0", 6, "at least 1");
    check("keep_within = \"soon\"", 5, "duration");
    check("safety_within = \"14\"", 5, "duration");
    check("keep_last = 3\nkeep_tags = [\"a=b\", \"c\"]", 6, "KEY=VALUE");
    check("keep_tags = [\"a=b\"]", 4, "no rule says what to keep");
    check("", 4, "no rule says what to keep");
    check("keep_last = -1", 5, "");
    check("keep_last = \"3\"", 5, "");
}

#[track_caller]
fn configure(world: &World, text: &str) {
    fs::write(world.path("copal.toml"), text).unwrap();
}

/// A world with a folder `tree` that has a file `a`.
fn planted() -> World {
    let world = World::new();
    fs::create_dir(world.path("tree")).unwrap();
    fs::write(world.path("tree/a"), "a").unwrap();
    world
}

const TREE: &str = "[[app.a.source]]\nkind = \"tree\"\npath = \"tree\"\n";

#[test]
fn d14_a_snapshot_keeps_what_was_said_of_it() {
    let world = planted();
    configure(
        &world,
        &format!(
            "[class.quick]\npinning = \"direct\"\n[app.a]\nconfig_version = \"7b\"\nclass = \"quick\"\n{TREE}\
         [[app.a.source]]\nkind = \"config\"\nlabel = \"said\"\npath = \"tree/a\"\n"
        ),
    );
    world.ok(&["create", "one", "--app", "a"]);
    let shown = world.json(&["show", "a/one"]);
    assert_eq!((&shown["live"]["config_version"], &shown["live"]["class"]), (&json!("7b"), &json!("quick")));
    let sources: Vec<[&Value; 3]> =
        shown["sources"].as_array().unwrap().iter().map(|one| [&one["label"], &one["kind"], &one["path"]]).collect();
    let (tree, said) = (json!(world.text("tree")), json!(world.text("tree/a")));
    assert_eq!(sources, [[&json!("said"), &json!("config"), &said], [&json!("tree"), &json!("tree"), &tree]]);
    configure(&world, &format!("[app.a]\nclass = \"slow\"\n{TREE}"));
    world.fails(&["create", "two", "--app", "a"], 2, "usage");
}

#[test]
fn d14_the_daemon_shows_what_was_said_of_applications() {
    let world = planted();
    configure(
        &world,
        &format!(
            "[class.c]\ncapabilities = {{ tier = \"gold\" }}\n[app.a]\nnamespace = \"trade\"\nclass = \"c\"\n{TREE}\
         [app.b]\ndefault = true\n{}",
            TREE.replace("app.a", "app.b")
        ),
    );
    let daemon = Daemon::start(&world, &[]);
    let apps = daemon.json("/apps");
    assert_eq!((&apps[0]["namespace"], &apps[1]["namespace"]), (&json!("trade"), &json!("")));
    assert_eq!((&apps[0]["class"], &apps[0]["capabilities"]), (&json!("c"), &json!({ "tier": "gold" })));
    assert_eq!((&apps[0]["default"], &apps[1]["default"]), (&json!(false), &json!(true)));
    assert_eq!(daemon.done("/snapshots/one")["app"], "b");
}

#[test]
fn d14_a_policy_says_what_may_be_missing() {
    let world = planted();
    let gone = "[[app.a.source]]\nkind = \"tree\"\nlabel = \"gone\"\npath = \"gone\"\n";
    let fails = "[[app.a.hook]]\nwhen = \"pre\"\nargv = [\"/bin/false\"]\n";
    configure(&world, &format!("{TREE}{gone}"));
    assert_ne!(world.run(&["create", "one", "--app", "a"]).code, 3);
    assert!(world.json(&["list"]).as_array().unwrap().iter().all(|line| line["phase"] == "failed"));
    configure(&world, &format!("[app.a]\npartial = true\n{TREE}{gone}"));
    let partial = world.run(&["create", "one", "--app", "a", "--json"]);
    assert_eq!(partial.code, 3, "{partial:?}");
    assert!(
        partial.stderr.contains("gone") || String::from_utf8_lossy(&partial.stdout).contains("gone"),
        "{partial:?}"
    );
    configure(&world, &format!("[app.a]\nconsistency = \"application\"\n{TREE}{fails}"));
    world.fails(&["create", "two", "--app", "a"], 86, "hook");
    configure(&world, &format!("[app.a]\nconsistency = \"crash\"\n{TREE}{fails}"));
    world.ok(&["create", "two", "--app", "a"]);
    assert_eq!(world.json(&["show", "a/two"])["live"]["consistency"], "crash");
    configure(&world, &format!("[app.a]\nconsistency = \"some\"\n{TREE}"));
    world.fails(&["create", "three", "--app", "a"], 2, "usage");
}

/// A hook of a service that writes its moment down.
fn noted(of: &str, when: &str, log: &str) -> String {
    format!(
        "[[app.a{of}.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sh\", \"-c\", \"echo $COPAL_HOOK \
         $COPAL_SERVICE >> {log}\"]\n"
    )
}

#[test]
fn d14_services_are_started_and_stopped_in_their_order() {
    let world = planted();
    let log = world.text("log");
    let mut text = String::from("[app.a.service.web]\ndepends_on = [\"db\"]\n");
    for service in ["web", "db"] {
        text +=
            &format!("[[app.a.service.{service}.source]]\nkind = \"tree\"\nlabel = \"{service}\"\npath = \"tree\"\n");
    }
    text = text.replace("label = \"db\"\npath = \"tree\"", "label = \"db\"\npath = \"more\"");
    fs::create_dir(world.path("more")).unwrap();
    for when in ["pre", "post", "stop", "start"] {
        for service in ["web", "db"] {
            text += &noted(&format!(".service.{service}"), when, &log);
        }
    }
    configure(&world, &text);
    world.ok(&["create", "one", "--app", "a"]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "pre web\npre db\npost db\npost web\n");
    fs::remove_file(&log).unwrap();
    world.ok(&["deploy", "one", "--app", "a", "--yes"]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "stop web\nstop db\nstart db\nstart web\n");
    let services: Vec<Value> = world.json(&["show", "a/one"])["live"]["components"].as_array().unwrap().clone();
    assert_eq!((&services[0]["service"], &services[1]["service"]), (&json!("db"), &json!("web")));
}

#[test]
fn d14_hooks_run_as_they_are_written() {
    let world = planted();
    let log = world.text("log");
    let all = ["pre", "post", "stop", "rewrite", "start", "health"];
    let hooks: String = all.iter().map(|when| noted("", when, &log)).collect();
    configure(&world, &format!("{TREE}{hooks}"));
    world.ok(&["create", "one", "--app", "a"]);
    world.ok(&["deploy", "one", "--app", "a", "--yes"]);
    let wanted: String = all.iter().map(|when| format!("{when} a\n")).collect();
    assert_eq!(fs::read_to_string(&log).unwrap(), wanted);
    // A signal to whoever a file names.
    let (got, pid) = (world.text("got"), world.text("pid"));
    let script = format!("trap 'echo got > {got}' USR1; echo $$ > {pid}; while [ ! -s {got} ]; do sleep 0.05; done");
    let mut told = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
        std::thread::yield_now();
    }
    configure(&world, &format!("{TREE}[[app.a.hook]]\nwhen = \"pre\"\nsignal = \"USR1\"\npid_file = {pid:?}\n"));
    world.ok(&["create", "two", "--app", "a"]);
    assert!(told.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&got).unwrap(), "got\n");
    // A deadline, and a failure that does not count.
    let slow = "[[app.a.hook]]\nwhen = \"pre\"\nargv = [\"/bin/sleep\", \"600\"]\ntimeout = \"200ms\"\n";
    configure(&world, &format!("{TREE}{slow}"));
    let error = world.fails(&["create", "three", "--app", "a"], 86, "hook");
    assert!(error["message"].as_str().unwrap().contains("deadline"), "{error}");
    configure(&world, &format!("{TREE}{slow}on_error = \"continue\"\n"));
    world.ok(&["create", "three", "--app", "a"]);
    assert_eq!(world.json(&["show", "a/three"])["live"]["hooks"][0]["outcome"], "timed_out");
    configure(&world, &format!("{TREE}{slow}on_error = \"ignore\"\n"));
    world.fails(&["create", "four", "--app", "a"], 2, "usage");
}

#[test]
fn d14_a_tree_leaves_out_what_is_said() {
    let world = planted();
    for name in ["b.log", "c.log"] {
        fs::write(world.path("tree").join(name), name).unwrap();
    }
    fs::create_dir(world.path("tree/mnt")).unwrap();
    let mounted = Mounted::over(Filesystem::Tmpfs, 1, &world.path("tree/mnt")).unwrap();
    fs::write(world.path("tree/mnt/inside"), "x").unwrap();
    let taken = |more: &str, name: &str| -> Vec<String> {
        configure(&world, &format!("{TREE}{more}"));
        world.ok(&["create", name, "--app", "a"]);
        let entries = world.json(&["ls", &format!("a/{name}"), "tree", "--recursive"]);
        entries.as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
    };
    let all = ["tree/a", "tree/b.log", "tree/c.log", "tree/mnt", "tree/mnt/inside"];
    assert_eq!(taken("", "all"), all);
    assert_eq!(taken("exclude = [\"*.log\"]\n", "fewer"), ["tree/a", "tree/mnt", "tree/mnt/inside"]);
    let some = "exclude = [\"*.log\"]\ninclude = [\"c.log\"]\n";
    assert_eq!(taken(some, "some"), ["tree/a", "tree/c.log", "tree/mnt", "tree/mnt/inside"]);
    assert_eq!(taken("one_file_system = true\n", "one"), all[..4]);
    assert_eq!(taken("one_file_system = false\n", "both"), all);
    drop(mounted);
}

#[test]
fn d14_a_database_is_checked_and_its_version_is_compared() {
    let world = planted();
    let path = world.path("a.db");
    let database = Connection::open(&path).unwrap();
    database
        .execute_batch(
            "CREATE TABLE t (v INTEGER); CREATE INDEX i ON t (v); INSERT INTO t VALUES (1), \
             (2), (3); CREATE TABLE s AS SELECT 5 AS n;",
        )
        .unwrap();
    drop(database);
    let source = "[[app.a.source]]\nkind = \"sqlite\"\npath = \"a.db\"\nversion_query = \"SELECT n FROM s\"\n";
    let log = noted("", "migrate", &world.text("log"));
    configure(&world, &format!("{source}{log}"));
    world.ok(&["create", "one", "--app", "a"]);
    assert_eq!(world.json(&["show", "a/one"])["live"]["components"][0]["schema_version"], "5");
    let deploy = ["deploy", "one", "--app", "a", "--yes"];
    configure(&world, &format!("{source}schema_version = 4\n{log}"));
    world.fails(&deploy, 79, "schema-newer");
    configure(&world, &format!("{source}schema_version = \"5.1\"\n{log}"));
    assert_eq!(world.json(&deploy)["migrated"], true);
    assert_eq!(fs::read_to_string(world.path("log")).unwrap(), "migrate a\n");
    configure(&world, &format!("{source}schema_version = 5\n{log}"));
    assert_eq!(world.json(&deploy)["migrated"], false);
    // A value that the index does not have: the quick check passes over it, the full one does not.
    let database = Connection::open(&path).unwrap();
    database.execute_batch("PRAGMA writable_schema = 1; DELETE FROM sqlite_schema WHERE name = 'i';").unwrap();
    drop(database);
    let database = Connection::open(&path).unwrap();
    database.execute_batch("UPDATE t SET v = 9 WHERE v = 3").unwrap();
    let pages =
        "PRAGMA writable_schema = 1; INSERT INTO sqlite_schema SELECT 'index', 'i', 't', 3, 'CREATE INDEX i ON t (v)';";
    database.execute_batch(pages).unwrap();
    drop(database);
    for (check, exit) in [("none", 0), ("quick", 0), ("full", 1)] {
        configure(&world, &format!("{source}check = \"{check}\"\n"));
        let run = world.run(&["create", check, "--app", "a"]);
        assert_eq!(i32::from(run.code != 0), exit, "{check}: {run:?}");
    }
    configure(&world, &format!("{source}check = \"some\"\n"));
    world.fails(&["create", "some", "--app", "a"], 2, "usage");
}

#[test]
fn d14_a_command_is_run_and_given_what_it_wrote() {
    let world = planted();
    let fed = world.text("fed");
    let source = format!(
        "[[app.a.source]]\nkind = \"command\"\nargv = [\"/bin/echo\", \"hello\"]\nrestore = \
         [\"/usr/bin/tee\", {fed:?}]\n"
    );
    configure(&world, &source);
    world.ok(&["create", "one", "--app", "a"]);
    world.ok(&["deploy", "one", "--app", "a", "--yes"]);
    assert_eq!(fs::read_to_string(&fed).unwrap(), "hello\n");
    configure(&world, "[[app.a.source]]\nkind = \"command\"\nargv = [\"/bin/sleep\", \"600\"]\ntimeout = \"200ms\"\n");
    let error = world.fails(&["create", "two", "--app", "a"], 86, "program");
    assert!(error["message"].as_str().unwrap().contains("deadline"), "{error}");
}

#[test]
fn d14_a_class_says_whether_a_state_is_spooled() {
    let world = planted();
    // The spool is in the state folder, and there is no room for it.
    let state = Mounted::new(Filesystem::Tmpfs, 4).unwrap();
    let database = Connection::open(world.path("a.db")).unwrap();
    database.execute_batch("CREATE TABLE t (v BLOB)").unwrap();
    for row in 0..80 {
        database.execute("INSERT INTO t VALUES (?1)", [noise(row, 100_000)]).unwrap();
    }
    drop(database);
    for (pinning, done) in [("spool", false), ("direct", true)] {
        let source = "[[app.a.source]]\nkind = \"sqlite\"\npath = \"a.db\"\n";
        configure(&world, &format!("[class.c]\npinning = \"{pinning}\"\n[app.a]\nclass = \"c\"\n{source}"));
        let mut command = world.command(&["create", pinning, "--app", "a"]);
        let run = finish(command.env("XDG_STATE_HOME", state.path()).output().unwrap());
        assert_eq!(run.code == 0, done, "{pinning}: {run:?}");
    }
    configure(&world, &format!("[class.c]\npinning = \"both\"\n{TREE}"));
    world.fails(&["create", "one", "--app", "a"], 2, "usage");
}
