//! Goal: the JSON of every command is what `docs/guide/reference.md` promises. Method: one repository, every
//! command, exact sets of fields.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{World, fields, flip, noise, number, plant};

/// The fields that the page promises of an answer: the second cell of the row whose first cell is `of`.
fn promised(of: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/reference.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("\n## JSON\n").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let cells = section.lines().find_map(|line| line.strip_prefix(&format!("| {of} | "))).map(str::to_owned);
    let cells = cells.unwrap_or_else(|| panic!("docs/guide/reference.md has no row {of:?} under JSON"));
    let mut fields: Vec<String> = cells.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    fields.sort();
    fields
}

/// The document has the fields that the page promises, and no others.
#[track_caller]
fn check(document: &Value, of: &str) {
    assert_eq!(fields(document), promised(of), "{of}: {document:#}");
}

#[track_caller]
fn check_each(documents: &Value, of: &str) {
    let documents = documents.as_array().unwrap();
    assert!(!documents.is_empty(), "{of}");
    documents.iter().for_each(|document| check(document, of));
}

const LINE: &str = "list, and each snapshot in other answers";

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
    check(&init, "init");

    plant(&world.path("source"));
    check(&world.json(&["create", "one", "source", "--dry-run"]), "create --dry-run");
    let create = world.create("one", "source");
    check(&create, "create");
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
    check(&show, "show");
    check_each(&show["sources"], "show: sources[]");
    assert_eq!(show["digest"], create["digest"]);
    assert_eq!(world.json(&["show", "two"])["parent"], create["id"]);

    let ls = world.json(&["ls", "one", "--recursive"]);
    for entry in ls.as_array().unwrap() {
        let entry = &mut entry.clone();
        let path = entry["path"].as_str().unwrap().to_owned();
        let is_link = ["symlink", "hardlink"].contains(&entry["kind"].as_str().unwrap());
        if path.starts_with("no ") {
            let hex = entry.as_object_mut().unwrap().remove("path_hex");
            assert_eq!(hex, Some(json!(hex::encode(b"no \xff utf-8 \n"))));
        }
        assert_eq!(entry.get("target").is_some(), is_link, "{entry}");
        if !is_link {
            entry["target"] = Value::Null;
        }
        check(entry, "ls: each entry");
        is_time(&entry["modified"]);
    }

    let diff = world.json(&["diff", "one", "two"]);
    check(&diff, "diff");
    check_each(&diff["added"], "diff: each path");
    assert_eq!(diff["added"], json!([{ "path": "new", "size_old": null, "size_new": 3 }]));
    assert_eq!(diff["removed"], json!([{ "path": "empty", "size_old": 0, "size_new": null }]));

    let deploy = world.json(&["deploy", "one", "target"]);
    check(&deploy, "deploy, restore");
    assert_eq!((&deploy["stays"], &deploy["changes"]), (&json!([]), &Value::Null));
    let rehearsal = world.json(&["deploy", "two", "target", "--dry-run"]);
    check(&rehearsal["changes"], "deploy: changes, of a dry run");
    assert_eq!(rehearsal["changes"]["added"], json!([{ "path": "new" }]));
    let restore = world.json(&["restore", "one", "target"]);
    assert_eq!(fields(&restore), fields(&deploy));
    assert_eq!((&deploy["id"], &deploy["bytes_total"]), (&create["id"], &create["bytes"]));

    let verify = world.json(&["verify"]);
    check(&verify, "verify");
    assert_eq!((&verify["ok"], &verify["snapshots"], &verify["damaged"]), (&json!(true), &json!(2), &json!([])));
    assert!(number(&verify, "packs") > 0 && number(&verify, "chunks") > 0 && number(&verify, "bytes") > 0);

    let find = world.json(&["find", "small.txt"]);
    check_each(&find, "find: each place");
    let versions: Vec<u64> = find.as_array().unwrap().iter().map(|found| number(found, "version")).collect();
    assert_eq!(versions, [1, 2]);

    check(&world.json(&["tag", "one", "k=v"]), LINE);
    check(&world.json(&["pin", "one"]), LINE);
    check(&world.json(&["pin", "one", "--remove"]), LINE);
    let unpinned = world.json(&["unpin", "two"]);
    check(&unpinned, LINE);
    assert_eq!(unpinned["pinned"], json!(false));

    let stats = world.json(&["stats"]);
    check(&stats, "stats");
    check_each(&stats["snapshots"], "stats: snapshots[]");

    let keys = world.json(&["key", "list"]);
    check_each(&keys, "key list: each slot");
    is_time(&keys[0]["created"]);

    let forget = world.json(&["forget", "--keep-last", "1", "--dry-run"]);
    check(&forget, "forget");
    check_each(&forget["groups"], "forget: groups[]");
    check_each(&forget["removed"], LINE);
    check_each(&forget["kept"], "forget: kept[]");
    assert_eq!(world.json(&["list"]).as_array().unwrap().len(), 2, "a dry run removes nothing");

    let delete = world.json(&["delete", "one", "--yes"]);
    check(&delete, "delete");
    check_each(&delete["removed"], LINE);

    let gc = world.json(&["gc"]);
    check(&gc, "gc");
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
        check(&line["progress"], "a line of `--progress json`");
    }
    let silent = world.run(&["verify"]);
    assert_eq!(silent.stderr, "", "no progress in a pipe");
}

#[test]
fn what_travels_has_its_shape() {
    let world = World::new();
    plant(&world.path("source"));
    world.create("one", "source");
    fs::write(world.path("words"), "a horse of amber").unwrap();
    let password = ["--bundle-password-file", "words"];
    check(&world.json(&[&["export", "one", "one.copal"][..], &password].concat()), "export");
    check(&world.json(&[&["verify", "one.copal"][..], &password].concat()), "verify of a bundle");
    let place = world.text("other");
    world.ok(&["init", "--repo", &place]);
    let import = world.json(&[&["import", "one.copal", "--repo", &place][..], &password].concat());
    check(&import, "import, copy");
    let copy = world.json(&["copy", "--to", &place, "--to-key-file", "key"]);
    check(&copy, "import, copy");
    assert_eq!((&import["snapshots"][0]["was_here"], &copy["snapshots"][0]["was_here"]), (&json!(false), &json!(true)));

    fs::write(world.path("key of anna"), noise(7, 32)).unwrap();
    check(&world.json(&["key", "add", "--label", "anna", "--new-key-file", "key of anna"]), "key add");
    check(&world.json(&["key", "remove", "anna"]), "key remove");
    check(&world.json(&["key", "change", "--new-key-file", "key of anna"]), "key change");
    let key = ["--key-file", "key of anna"];
    flip(&world.objects_in("packs")[0], 100, 0);
    let run = world.run(&[&["verify", "--json"][..], &key].concat());
    assert_eq!(run.code, 69, "{run:?}");
    let verify: Value = serde_json::from_slice(&run.stdout).unwrap();
    check(&verify, "verify");
    check_each(&verify["damaged"], "verify: damaged[], not_verified[]");
}

#[test]
fn answers_about_applications_have_their_shapes() {
    let world = World::new();
    plant(&world.path("source"));
    let source = world.text("source");
    fs::write(world.path("conf"), "short").unwrap();
    let configuration = format!(
        "[app.shop]\n[[app.shop.source]]\nkind = \"tree\"\nlabel = \"files\"\npath = {source:?}\n\
         [[app.shop.source]]\nkind = \"config\"\nlabel = \"conf\"\npath = \"conf\"\n"
    );
    fs::write(world.path("copal.toml"), configuration).unwrap();
    check(&world.json(&["create", "one", "--app", "shop", "--detach"]), "create --app --detach");
    let begun = std::time::Instant::now();
    while world.json(&["list"])[0]["phase"] != "completed" {
        // One that has just ended is listed no more.
        world.json(&["status"]).as_array().unwrap().iter().for_each(|line| check(line, "status: each capture"));
        assert!(begun.elapsed().as_secs() < 60, "it was never uploaded");
    }
    world.ok(&["create", "two", "--app", "shop"]);
    let rehearsal = world.json(&["deploy", "shop/one", "--app", "shop", "--dry-run"]);
    check(&rehearsal, "deploy --app");
    check(&rehearsal["components"][0]["changes"], "deploy: changes, of a dry run");
    // Too long to be captured as what it is.
    fs::write(world.path("conf"), noise(1, 60_000)).unwrap();
    let deploy = world.json(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    check(&deploy, "deploy --app");
    check_each(&deploy["components"], "deploy --app: components[]");
    check_each(&deploy["kept"], "deploy --app: kept[]");
}

#[test]
fn every_answer_of_the_reference_is_asked_for_here() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/reference.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("\n## JSON\n").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let rows: Vec<&str> = rows.filter(|row| *row != "answer of").collect();
    assert!(rows.len() > 25, "{rows:?}");
    for row in rows {
        assert!(include_str!("json_shapes.rs").contains(&format!("{row:?}")), "nothing here looks at {row:?}");
    }
}
