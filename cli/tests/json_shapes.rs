//! Goal: the JSON of every command is what `cli.md` promises. Method: one repository, every command, exact
//! sets of fields.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{World, fields, number, plant};

#[track_caller]
fn check(document: &Value, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(fields(document), expected, "{document:#}");
}

#[track_caller]
fn check_each(documents: &Value, expected: &[&str]) {
    let documents = documents.as_array().unwrap();
    assert!(!documents.is_empty());
    documents.iter().for_each(|document| check(document, expected));
}

const LINE: &[&str] = &[
    "id",
    "name",
    "app",
    "created",
    "phase",
    "files",
    "bytes",
    "bytes_new",
    "stored_new",
    "origin",
    "tags",
    "pinned",
    "host",
    "user",
    "paths",
    "safety",
];

/// A UUID of version 7.
#[track_caller]
fn is_id(value: &Value) {
    let text = value.as_str().unwrap();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
    assert_eq!(&text[14..15], "7", "{text}");
}

/// RFC 3339 in UTC.
#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap();
    text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(text.ends_with('Z'), "{text}");
}

#[test]
fn every_command_has_its_shape() {
    let world = World::bare();
    let init = world.json(&["init"]);
    check(&init, &["repository", "place", "suite", "cut", "compression_level", "pack_bytes_max"]);

    plant(&world.path("source"));
    let create = world.create("one", "source");
    check(
        &create,
        &[
            "id",
            "name",
            "app",
            "phase",
            "created",
            "files",
            "bytes",
            "bytes_read",
            "bytes_new",
            "stored_new",
            "chunks_new",
            "duration_ms",
            "digest",
            "unread_files",
            "left_out",
            "unmatched",
            "warnings",
        ],
    );
    is_id(&create["id"]);
    is_time(&create["created"]);
    assert_eq!((&create["name"], &create["phase"], &create["app"]), (&json!("one"), &json!("completed"), &json!("")));
    assert_eq!(create["digest"].as_str().unwrap().len(), 64);
    assert_eq!(create["warnings"], json!([]));

    fs::write(world.path("source/small.txt"), b"other words\n").unwrap();
    fs::write(world.path("source/new"), b"new").unwrap();
    fs::remove_file(world.path("source/empty")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(30));
    world.json(&["create", "two", "source", "--tag", "a=b", "--pin"]);

    let list = world.json(&["list"]);
    check_each(&list, LINE);
    assert_eq!(list[0]["id"], create["id"]);
    assert_eq!(list[1]["tags"], json!({ "a": "b" }));
    assert_eq!((&list[0]["pinned"], &list[1]["pinned"]), (&json!(false), &json!(true)));
    assert_eq!((&list[0]["origin"], &list[0]["files"]), (&json!("created"), &create["files"]));

    let show = world.json(&["show", "one"]);
    check(
        &show,
        &[
            "id",
            "key",
            "name",
            "app",
            "phase",
            "created",
            "completed",
            "origin",
            "host",
            "user",
            "program",
            "parent",
            "files",
            "bytes",
            "bytes_read",
            "bytes_new",
            "stored_new",
            "chunks_new",
            "digest",
            "tags",
            "pinned",
            "sources",
            "warnings",
        ],
    );
    check_each(&show["sources"], &["label", "kind", "path", "files", "entries", "bytes"]);
    assert_eq!(show["digest"], create["digest"]);
    assert_eq!(world.json(&["show", "two"])["parent"], create["id"]);

    let ls = world.json(&["ls", "one", "--recursive"]);
    for entry in ls.as_array().unwrap() {
        let mut expected = vec!["path", "kind", "mode", "uid", "gid", "size", "modified"];
        if ["symlink", "hardlink"].contains(&entry["kind"].as_str().unwrap()) {
            expected.push("target");
        }
        if entry["path"].as_str().unwrap().starts_with("no ") {
            expected.push("path_hex");
            assert_eq!(entry["path_hex"], hex::encode(b"no \xff utf-8 \n"));
        }
        check(entry, &expected);
        is_time(&entry["modified"]);
    }

    let diff = world.json(&["diff", "one", "two"]);
    check(&diff, &["added", "removed", "changed"]);
    check_each(&diff["added"], &["path", "size_old", "size_new"]);
    assert_eq!(diff["added"], json!([{ "path": "new", "size_old": null, "size_new": 3 }]));
    assert_eq!(diff["removed"], json!([{ "path": "empty", "size_old": 0, "size_new": null }]));

    let deploy = world.json(&["deploy", "one", "target"]);
    check(
        &deploy,
        &[
            "id",
            "target",
            "mode",
            "files_total",
            "files_changed",
            "bytes_total",
            "bytes_written",
            "bytes_kept",
            "duration_ms",
            "dry_run",
            "stays",
            "changes",
            "skipped",
            "warnings",
        ],
    );
    assert_eq!((&deploy["stays"], &deploy["changes"]), (&json!([]), &Value::Null));
    let rehearsal = world.json(&["deploy", "two", "target", "--dry-run"]);
    check(&rehearsal["changes"], &["removed", "replaced", "added", "metadata"]);
    assert_eq!(rehearsal["changes"]["added"], json!([{ "path": "new" }]));
    let restore = world.json(&["restore", "one", "target"]);
    assert_eq!(fields(&restore), fields(&deploy));
    assert_eq!((&deploy["id"], &deploy["bytes_total"]), (&create["id"], &create["bytes"]));

    let verify = world.json(&["verify"]);
    check(&verify, &["ok", "snapshots", "packs", "chunks", "bytes", "damaged", "not_verified", "gone", "repaired"]);
    assert_eq!((&verify["ok"], &verify["snapshots"], &verify["damaged"]), (&json!(true), &json!(2), &json!([])));
    assert!(number(&verify, "packs") > 0 && number(&verify, "chunks") > 0 && number(&verify, "bytes") > 0);

    let find = world.json(&["find", "small.txt"]);
    check_each(&find, &["path", "snapshot", "id", "app", "created", "version", "kind", "size", "modified"]);
    let versions: Vec<u64> = find.as_array().unwrap().iter().map(|found| number(found, "version")).collect();
    assert_eq!(versions, [1, 2]);

    check(&world.json(&["tag", "one", "k=v"]), LINE);
    check(&world.json(&["pin", "one"]), LINE);
    check(&world.json(&["pin", "one", "--remove"]), LINE);

    let stats = world.json(&["stats"]);
    check(
        &stats,
        &[
            "logical",
            "distinct",
            "stored",
            "saved_by_deduplication",
            "saved_by_deltas",
            "saved_by_compression",
            "chunks",
            "deltas",
            "packs",
            "snapshots",
        ],
    );
    check_each(&stats["snapshots"], &["id", "name", "app", "bytes", "unique_stored"]);

    let keys = world.json(&["key", "list"]);
    check_each(&keys, &["id", "key", "label", "kind", "role", "created", "current"]);
    is_time(&keys[0]["created"]);

    let forget = world.json(&["forget", "--keep-last", "1", "--dry-run"]);
    check(&forget, &["removed", "kept", "groups", "dry_run"]);
    check_each(&forget["groups"], &["app", "safety", "host", "paths", "tags", "removed", "kept"]);
    check_each(&forget["removed"], LINE);
    check_each(&forget["kept"], &["snapshot", "rules"]);
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 2, "a dry run removes nothing");

    let delete = world.json(&["delete", "one", "--yes"]);
    check(&delete, &["removed"]);
    check_each(&delete["removed"], LINE);

    let gc = world.json(&["gc"]);
    check(
        &gc,
        &[
            "packs_removed",
            "packs_rewritten",
            "bytes_freed",
            "duration_ms",
            "packs_waiting",
            "fragments_merged",
            "dry_run",
        ],
    );
}

#[test]
fn empty_results_are_empty_arrays() {
    let world = World::new();
    assert_eq!(world.json(&["list"]), json!([]));
    assert_eq!(world.json(&["find", "x"]), json!([]));
    assert_eq!(world.json(&["stats"])["snapshots"], json!([]));
    let verify = world.json(&["verify"]);
    assert_eq!((&verify["ok"], &verify["snapshots"]), (&json!(true), &json!(0)));
}

#[test]
fn progress_is_json_lines_on_stderr() {
    let world = World::new();
    plant(&world.path("source"));
    let run = world.run(&["--progress", "json", "--json", "create", "one", "source"]);
    assert_eq!(run.code, 0, "{run:?}");
    let lines: Vec<Value> = run.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["phase"].is_string()), "{lines:?}");
    for line in lines.iter().filter(|line| line.get("progress").is_some()) {
        check(&line["progress"], &["phase", "files_done", "files_total", "bytes_done", "bytes_total", "total_known"]);
    }
    let silent = world.run(&["verify"]);
    assert_eq!(silent.stderr, "", "no progress in a pipe");
}
