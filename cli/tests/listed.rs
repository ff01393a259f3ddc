//! Goal: what is taken is what was named (row U5): by lists, from standard input, and told beforehand
//! without a trace; one place is one source, however it is written (row C1). Method: the built program on
//! real trees.
#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::guarded::{MODES, configure_tree, read, write};
use support::{Run, World, files_below, finish, noise};

/// The program, given something on standard input.
fn fed(mut command: Command, input: &[u8]) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Whoever refuses its arguments reads none of it.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child.wait_with_output().unwrap())
}

#[track_caller]
fn fed_json(world: &World, arguments: &[&str], input: &[u8], exit: i32) -> Value {
    let run = fed(world.command(&[arguments, &["--json"]].concat()), input);
    assert_eq!(run.code, exit, "{arguments:?}: {run:#?}");
    serde_json::from_slice(&run.stdout).unwrap()
}

/// The paths of a snapshot, folders with a slash.
fn paths(world: &World, name: &str) -> Vec<String> {
    let listed = world.json(&["ls", name, "-R"]);
    let path = |entry: &Value| {
        let slash = if entry["kind"] == "folder" { "/" } else { "" };
        format!("{}{slash}", entry["path"].as_str().unwrap())
    };
    listed.as_array().unwrap().iter().map(path).filter(|path| path != "/").collect()
}

fn plant(world: &World) {
    let files = [
        ("s/a/b/one", "1"),
        ("s/a/b/two", "2"),
        ("s/a/x.tmp", "3"),
        ("s/whole/c/three", "4"),
        ("s/whole/x.tmp", "5"),
        ("s/top", "6"),
        ("s/a-b", "7"),
    ];
    write(world, &files);
}

#[test]
fn u05_a_list_says_what_is_taken() {
    let world = World::new();
    plant(&world);
    let odd = world.path("s").join(OsStr::from_bytes(b"odd \xff\n name"));
    fs::write(&odd, "8").unwrap();
    let mut zeros = b"a/b/one\0./whole//\0odd \xff\n name\0a/b/one\0\0".to_vec();
    zeros.extend_from_slice(world.text("s/a-b").as_bytes());
    fed_json(&world, &["create", "zeros", "s", "--files-from0", "-"], &zeros, 0);
    let taken = paths(&world, "zeros");
    let expected = ["a-b", "a/", "a/b/", "a/b/one", "whole/", "whole/c/", "whole/c/three", "whole/x.tmp"];
    let mut named: Vec<&str> = taken.iter().map(String::as_str).filter(|path| !path.starts_with("odd")).collect();
    named.sort_unstable();
    assert_eq!((named, taken.len()), (expected.to_vec(), expected.len() + 1));
    // Excludes go before; a log is taken with what it lists.
    fs::write(world.path("list"), "top\r\nwhole\n\na/x.tmp\n").unwrap();
    fs::write(world.path("more"), "a/b\n").unwrap();
    let lists = ["--files-from", "list", "--files-from", "more"];
    let created = world.json(&[&["create", "lines", "s", "--exclude", "*.tmp"][..], &lists].concat());
    assert_eq!((&created["unread_files"], &created["warnings"]), (&json!(0), &json!([])));
    let expected = ["a/", "a/b/", "a/b/one", "a/b/two", "top", "whole/", "whole/c/", "whole/c/three"];
    assert_eq!(paths(&world, "lines"), expected);
    // Through a link to the source, and with labels; the source itself means all of it.
    symlink(world.path("s"), world.path("link")).unwrap();
    let list = format!("{}\nb/top\n{}\n", world.text("s/top"), world.text("other/f"));
    write(&world, &[("other/f", ""), ("other/g", "")]);
    fed_json(&world, &["create", "labels", "b=link", "o=other", "--files-from", "-"], list.as_bytes(), 0);
    assert_eq!(paths(&world, "labels"), ["b/", "b/top", "o/", "o/f"]);
    fed_json(&world, &["create", "all", "s/whole", "--files-from", "-"], b"c\n.\n", 0);
    assert_eq!(paths(&world, "all"), ["c/", "c/three", "x.tmp"]);
}

#[test]
fn u05_what_a_list_names_and_is_not_there_is_told() {
    let world = World::new();
    plant(&world);
    symlink("whole", world.path("s/link")).unwrap();
    let list = b"top\nnowhere/x\ntop/below\nlink/c/three\nwhole/missing\nwhole\n";
    let created = fed_json(&world, &["create", "mon", "s", "--files-from", "-"], list, 3);
    let warnings: Vec<&str> = created["warnings"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for path in ["s/nowhere/x", "s/top/below", "s/link/c/three", "s/whole/missing"] {
        assert_eq!(warnings.iter().filter(|one| one.contains(path)).count(), 1, "{path}: {warnings:?}");
    }
    assert_eq!((warnings.len(), &created["phase"]), (4, &json!("partially_failed")));
    // What no source holds is a mistake in the list.
    for list in ["/etc/passwd\n", "../s/top\n", "\n", ""] {
        let run = fed(world.command(&["create", "bad", "s", "--files-from", "-"]), list.as_bytes());
        assert_eq!(run.code, 2, "{list:?}: {run:?}");
    }
    assert_eq!(world.run(&["create", "bad", "s", "--files-from", "no such list"]).code, 86);
    assert_eq!(world.run(&["create", "bad", "--app", "hub", "--files-from", "-"]).code, 2);
    assert_eq!(world.run(&["create", "bad", "sqlite:s/top", "--files-from", "-"]).code, 2);
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 1);
}

#[test]
fn u05_a_deploy_leaves_what_no_list_named() {
    for mode in MODES {
        let world = World::new();
        plant(&world);
        fed_json(&world, &["create", "mon", "s", "--files-from", "-"], b"a/b/one\nwhole\ntop\n", 0);
        write(&world, &[("s/top", "new"), ("s/whole/more", "goes"), ("s/new/deep/f", "stays"), ("s/a/b/new", "stays")]);
        let deployed = world.json(&["deploy", "mon", "s", "--yes", "--mode", mode]);
        let stays: Vec<&str> =
            deployed["stays"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!(stays, ["a/b/new", "a/b/two", "a/x.tmp", "a-b", "new"], "{mode}");
        assert_eq!((read(&world, "s/top"), read(&world, "s/a/b/two")), ("6".into(), "2".into()));
        assert!(!world.path("s/whole/more").exists() && world.path("s/new/deep/f").exists());
        world.ok(&["deploy", "mon", "s", "--yes", "--mode", mode, "--delete-excluded"]);
        assert!(!world.path("s/new").exists() && !world.path("s/a-b").exists());
    }
}

#[test]
fn u05_standard_input_is_a_source() {
    let world = World::new();
    let first = noise(1, 5 << 20);
    let named = ["--stdin", "--stdin-filename", "dump.sql"];
    let create = |name: &str, input: &[u8], more: &[&str]| {
        fed_json(&world, &[&["create", name][..], &named, more].concat(), input, 0)
    };
    let created = create("mon", &first, &[]);
    assert_eq!(
        (&created["files"], &created["bytes"], &created["bytes_read"]),
        (&json!(1), &json!(5 << 20), &json!(5 << 20))
    );
    assert_eq!(world.run(&["dump", "mon", "dump.sql"]).stdout, first);
    world.ok(&["deploy", "mon", "target"]);
    assert_eq!(fs::read(world.path("target/dump.sql")).unwrap(), first);
    // The next one meets what is there, and the same is no change.
    let mut second = first.clone();
    second.splice(1 << 20..1 << 20, *b"a few bytes more");
    let created = create("tue", &second, &[]);
    assert!(created["bytes_new"].as_u64().unwrap() < 512 << 10, "{created}");
    assert_eq!(create("wed", &second, &["--skip-if-unchanged"])["skipped"], true);
    assert_eq!(create("wed", &first, &["--skip-if-unchanged"])["skipped"], false);
    // Beside others, small, and empty; named as it is without a name.
    write(&world, &[("s/f", "x")]);
    fed_json(&world, &["create", "two", "s", "--stdin"], b"few", 0);
    assert_eq!(paths(&world, "two"), ["s/", "s/f", "stdin"]);
    assert_eq!(world.ok(&["dump", "two", "stdin"]), "few");
    fed_json(&world, &["create", "none", "--stdin"], b"", 0);
    assert_eq!(world.ok(&["dump", "none", "stdin"]), "");
    assert_eq!(world.json(&["verify"])["ok"], true);
    for bad in ["", "a/b", "..", "/"] {
        assert_eq!(world.run(&["create", "bad", "--stdin", "--stdin-filename", bad]).code, 2, "{bad:?}");
    }
    for bad in [&["--stdin", "--app", "hub"][..], &["sqlite:s/f", "--stdin"], &["s", "--stdin", "--files-from", "-"]] {
        let run = fed(world.command(&[&["create", "bad"][..], bad].concat()), b"f\n");
        assert_eq!(run.code, 2, "{bad:?}: {run:?}");
    }
}

#[test]
fn u05_a_signal_is_heeded_while_nothing_comes() {
    let world = World::new();
    let mut command = world.command(&["create", "mon", "--stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds: when it is written, somebody reads.
    input.write_all(&noise(1, 8 << 20)).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let run = finish(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{run:?}");
    drop(input);
    // What was stored is found again.
    let created = fed_json(&world, &["create", "mon", "--stdin"], &noise(1, 8 << 20), 0);
    assert!(created["bytes_new"].as_u64().unwrap() < 2 << 20, "{created}");
}

/// All files of a world, with their bytes.
fn everything(world: &World) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files_below(&world.path("")).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn u05_a_rehearsal_says_what_would_be_read_and_writes_nothing() {
    let world = World::new();
    plant(&world);
    fs::hard_link(world.path("s/top"), world.path("s/linked")).unwrap();
    let before = everything(&world);
    let rehearsed = world.json(&["create", "mon", "s", "--dry-run", "--exclude", "*.tmp", "--exclude", "*.obj"]);
    let fields = |document: &Value, wanted: &[(&str, Value)]| {
        for (field, value) in wanted {
            assert_eq!(&document[*field], value, "{field}: {document}");
        }
    };
    fields(
        &rehearsed,
        &[("dry_run", json!(true)), ("name", json!("mon")), ("parent", json!(null)), ("files", json!(6))],
    );
    fields(&rehearsed, &[("files_new", json!(6)), ("bytes", json!(5)), ("bytes_to_read", json!(5))]);
    fields(&rehearsed, &[("unmatched", json!(["*.obj"])), ("unread_files", json!(0))]);
    assert!(everything(&world) == before);
    std::thread::sleep(Duration::from_millis(30));
    world.ok(&["create", "mon", "s", "--exclude", "*.tmp"]);
    write(&world, &[("s/top", "changed"), ("s/new", "new")]);
    fs::remove_file(world.path("s/a/b/one")).unwrap();
    let before = everything(&world);
    let rehearsed = world.json(&["create", "tue", "s", "-n", "--exclude", "*.tmp"]);
    fields(&rehearsed, &[("parent", json!("mon")), ("files_new", json!(1)), ("files_gone", json!(1))]);
    fields(&rehearsed, &[("files_changed", json!(1)), ("files_unchanged", json!(4)), ("bytes_to_read", json!(10))]);
    let text = world.ok(&["create", "tue", "s", "-n", "--exclude", "*.tmp"]);
    assert!(text.starts_with("would take the snapshot tue; nothing is written"), "{text}");
    // It fails where the create would.
    world.fails(&["create", "mon", "s", "--dry-run"], 86, "name-taken");
    let missing = fed_json(&world, &["create", "tue", "s", "--dry-run", "--files-from", "-"], b"top\ngone\n", 3);
    fields(&missing, &[("files", json!(1)), ("unread_files", json!(1))]);
    assert!(everything(&world) == before);
    // And then it is so.
    let created = world.json(&["create", "tue", "s", "--exclude", "*.tmp"]);
    fields(&created, &[("files", rehearsed["files"].clone()), ("bytes_read", json!(10))]);
    configure_tree(&world, "s");
    for bad in [&["--app", "hub"][..], &["sqlite:s/top"], &["--stdin"]] {
        assert_eq!(world.run(&[&["create", "bad", "--dry-run"][..], bad].concat()).code, 2, "{bad:?}");
    }
}

#[test]
fn c01_one_place_is_one_source_however_it_is_written() {
    let world = World::new();
    fs::create_dir_all(world.path("s/folder")).unwrap();
    fs::create_dir(world.path("beside")).unwrap();
    fs::write(world.path("s/large"), noise(1, 3 << 20)).unwrap();
    write(&world, &[("s/folder/small", "a few words")]);
    std::thread::sleep(Duration::from_millis(30));
    world.ok(&["create", "first", "s"]);
    let whole = world.text("s");
    let ways = ["s/", "./s", ".//s/.", "beside/../s", &whole, &format!("{whole}/"), &format!("{whole}//folder/..")];
    for (number, way) in ways.iter().enumerate() {
        let created = world.json(&["create", &format!("n{number}"), way]);
        assert_eq!((&created["bytes_read"], &created["files"]), (&json!(0), &json!(2)), "{way}");
    }
    let mut within = world.command(&["create", "within", ".", "--json"]);
    let run = finish(within.current_dir(world.path("s")).output().unwrap());
    assert_eq!(serde_json::from_slice::<Value>(&run.stdout).unwrap()["bytes_read"], 0, "{run:?}");
    let paths: Vec<Value> = world.json(&["list"]).as_array().unwrap().iter().map(|one| one["paths"].clone()).collect();
    assert!(paths.iter().all(|one| *one == json!([whole])), "{paths:?}");
    // They are one group, and a deploy to the place itself reads nothing.
    let kept = world.json(&["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(kept["kept"].as_array().unwrap().len(), 1, "{kept}");
    // A pattern with the source's path counts from it, with dots in it as well.
    world.ok(&["create", "pattern", "beside/../s", "--exclude", "beside/../s/folder"]);
    assert_eq!(
        world.json(&["ls", "pattern", "-R"]).as_array().unwrap().iter().filter(|one| one["kind"] == "file").count(),
        1
    );
}
