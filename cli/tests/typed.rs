//! Goal: what people type names one place, however it is spelled, and what is said of it fits what was asked
//! for. Method: the built program in folders of its own; spellings of one path, wrong words, failed captures.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use support::{Run, World, finish};

fn in_folder(world: &World, folder: &str, words: &[&str]) -> Run {
    finish(world.command(words).current_dir(world.path(folder)).output().unwrap())
}

#[test]
fn d13_one_place_has_one_path_however_it_is_typed() {
    let world = World::new();
    fs::create_dir_all(world.path("s/deep")).unwrap();
    fs::create_dir(world.path("o")).unwrap();
    fs::write(world.path("s/x"), "content").unwrap();
    symlink("s/deep", world.path("link")).unwrap();
    let path = world.text("s");
    let double = format!("/{}", path.replace("/s", "//s/./"));
    let spellings = [("", "s"), ("o", "../s"), ("o", "../o/.././s/"), ("s", "."), ("s/deep", ".."), ("", &double)];
    for (number, (folder, word)) in spellings.iter().enumerate() {
        let name = format!("n{number}");
        let run = in_folder(&world, folder, &["create", &name, word, "--json"]);
        assert_eq!(run.code, 0, "{word}: {run:?}");
        let shown = world.json(&["show", &name]);
        assert_eq!(shown["sources"][0]["path"], path.as_str(), "{word}");
        assert_eq!(number == 0, shown["parent"].is_null(), "{word}: compared with the one before");
        for (folder, word) in &spellings {
            let run = in_folder(&world, folder, &["show", &format!("latest:{word}"), "--json"]);
            assert_eq!(run.code, 0, "{word}: {run:?}");
            let found: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
            assert_eq!(found["name"], name.as_str(), "latest:{word}");
            let run = in_folder(&world, folder, &["list", "--path", word, "--json"]);
            let listed: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
            assert_eq!(listed.as_array().unwrap().len(), number + 1, "--path {word}");
        }
    }
    // One group, and what is above two dots is what the system says it is.
    let groups = world.json(&["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(groups["removed"].as_array().unwrap().len(), spellings.len() - 1, "{groups}");
    let run = in_folder(&world, "", &["create", "through", "link/..", "--json"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(world.json(&["show", "through"])["sources"][0]["path"], path.as_str());
    // A deploy to the place, however it is typed, has its own latest.
    fs::write(world.path("o/other"), "content").unwrap();
    world.create("other", "o");
    for (folder, word) in spellings {
        let run = in_folder(&world, folder, &["deploy", "latest", word, "--dry-run"]);
        assert_eq!(run.code, 0, "{word}: {run:?}");
        assert!(run.stderr.contains("the latest snapshot is"), "{word}: {run:?}");
    }
}

#[test]
fn d13_a_word_behind_latest_is_an_application_first() {
    let world = World::new();
    fs::create_dir(world.path("shop")).unwrap();
    fs::write(world.path("shop/x"), "content").unwrap();
    world.create("plain", "shop");
    assert_eq!(world.json(&["show", "latest:shop"])["name"], "plain");
    fs::write(
        world.path("copal.toml"),
        "[app.shop]\n[[app.shop.source]]\nkind = \"tree\"\nlabel = \"x\"\npath = \"shop\"\n",
    )
    .unwrap();
    world.ok(&["create", "one", "--app", "shop"]);
    world.create("plainer", "shop");
    assert_eq!(world.json(&["show", "latest:shop"])["name"], "one");
    assert_eq!(world.json(&["show", "latest:./shop"])["name"], "plainer");
    world.fails(&["show", "latest:nothing"], 1, "no-such-snapshot");
}

#[test]
fn d08_what_is_no_source_is_named_with_what_it_is() {
    let world = World::new();
    fs::write(world.path("f"), "content").unwrap();
    symlink("f", world.path("link")).unwrap();
    symlink("nowhere", world.path("dangling")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for (word, what) in
        [("link", "a symbolic link to f"), ("dangling", "a symbolic link to nowhere"), ("pipe", "a named pipe")]
    {
        let run = world.run(&["create", "one", word, "--json"]);
        let message = run.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&world.text(word)) && message.contains(what), "{word}: {message}");
        assert_eq!((run.code, run.error()["code"].as_str()), (2, Some("usage")), "{word}: {run:?}");
    }
}

#[test]
fn d08_a_slash_at_the_end_of_a_target_asks_for_a_folder() {
    let world = World::new();
    fs::write(world.path("f"), "content").unwrap();
    world.create("one", "f");
    for command in ["deploy", "restore"] {
        let folder = format!("{command} out");
        world.ok(&[command, "one", &format!("{folder}/")]);
        assert_eq!(fs::read(world.path(&folder).join("f")).unwrap(), b"content");
        let deeper = format!("{command} a/b/c");
        world.ok(&[command, "one", &format!("{deeper}/")]);
        assert_eq!(fs::read(world.path(&deeper).join("f")).unwrap(), b"content");
        let file = format!("{command} file");
        fs::write(world.path(&file), "other").unwrap();
        let refused = world.run(&[command, "one", &format!("{file}/"), "--yes", "--json"]);
        assert_eq!(refused.error()["code"], "unfit-target", "{refused:?}");
        assert_eq!(fs::read(world.path(&file)).unwrap(), b"other");
        world.ok(&[command, "one", &format!("{command} plain")]);
        assert_eq!(fs::read(world.path(&format!("{command} plain"))).unwrap(), b"content");
    }
}

/// What is wrong is the word, not a server: nobody is sent to look for one.
#[test]
fn d08_a_connection_string_that_is_none_is_wrong_usage() {
    let world = World::new();
    fs::write(world.path("f"), "content").unwrap();
    world.create("one", "f");
    for word in ["postgres:dbname='x", "postgres:", "postgres:host=x"] {
        let error = world.fails(&["deploy", "one", word, "--yes"], 2, "usage");
        assert!(error["message"].as_str().unwrap().contains("connection string"), "{word}: {error}");
        assert!(!error["hint"].as_str().unwrap().contains("server"), "{word}: {error}");
    }
}

#[test]
fn d02_what_stays_is_told_in_whole_sentences() {
    let world = World::new();
    fs::create_dir_all(world.path("s/keep")).unwrap();
    for name in ["s/a", "s/b.tmp", "s/c.tmp"] {
        fs::write(world.path(name), name).unwrap();
    }
    world.ok(&["create", "one", "s", "--exclude", "*.tmp"]);
    let said = world.run(&["deploy", "one", "s", "--yes"]).stderr;
    assert!(said.contains("2 paths stay where they are, left out of the snapshot"), "{said}");
    fs::remove_file(world.path("s/c.tmp")).unwrap();
    let said = world.run(&["deploy", "one", "s", "--yes"]).stderr;
    assert!(said.contains("1 path stays where it is, left out of the snapshot"), "{said}");
    // A way out is one of the command that was given.
    fs::remove_file(world.path("s/a")).unwrap();
    fs::create_dir(world.path("s/a")).unwrap();
    fs::write(world.path("s/a/x.tmp"), "stays").unwrap();
    for (command, its, not_its) in [("deploy", "--delete-excluded", "restore"), ("restore", "restore", "deploy")] {
        let error = world.fails(&[command, "one", "s", "--yes"], 79, "unfit-target");
        let said = format!("{} {}", error["message"], error["hint"]).replace("cannot be deployed to", "");
        assert!(said.contains(its) && !said.contains(not_its), "{command}: {said}");
        assert!(said.contains("run the same command again"), "{command}: {said}");
    }
}

#[test]
fn d15_captures_that_failed_are_counted_apart_and_told_apart() {
    let world = World::new();
    fs::write(world.path("f"), "content").unwrap();
    world.create("one", "f");
    let config = "[app.shop]\n[[app.shop.source]]\nkind = \"command\"\nlabel = \"x\"\nargv = [\"/bin/false\"]\n";
    fs::write(world.path("copal.toml"), config).unwrap();
    for name in ["first", "second"] {
        assert_eq!(world.run(&["create", name, "--app", "shop"]).code, 86);
    }
    let listed = world.ok(&["list"]);
    assert!(listed.starts_with("1 snapshot; 2 captures ended without a snapshot\n"), "{listed}");
    let ids: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains("failed"))
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(ids.len(), 2, "{listed}");
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 13), "{listed}");
    let all = world.json(&["list"]);
    for id in ids {
        let whole = all.as_array().unwrap().iter().map(|line| line["id"].as_str().unwrap());
        assert_eq!(whole.filter(|whole| whole.starts_with(id)).count(), 1, "{id}");
    }
}
