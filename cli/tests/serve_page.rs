//! Goal: a person brings an application back with one press, in a real browser, by mouse or by keyboard, in
//! the light and in the dark. Method: the built program, Debian's Chromium, a SQLite database whose first
//! megabyte becomes zeros.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use daemon::browser::Browser;
use daemon::{Daemon, sql};
use support::World;

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// An application with a database and a bucket.
fn application() -> World {
    let world = World::new();
    fs::create_dir_all(world.path("hub/bucket/reports")).unwrap();
    let database = world.path("hub/hub.db");
    sql(&database, "create table credentials(id integer primary key, name text, secret blob);");
    let rows = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) \
                insert into credentials select i, 'credential ' || i, randomblob(60) from n;";
    sql(&database, rows);
    for number in 0..40 {
        fs::write(world.path(&format!("hub/bucket/reports/{number}.txt")), format!("report {number}\n")).unwrap();
    }
    let configuration = "\
        [app.hub]\ndefault = true\n\
        [[app.hub.source]]\nkind = \"sqlite\"\nlabel = \"hub.db\"\npath = \"hub/hub.db\"\n\
        [[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"hub/bucket\"\n";
    fs::write(world.path("copal.toml"), configuration).unwrap();
    world
}

/// Zeros over its first megabyte: the application is dead.
fn break_it(world: &World) {
    let file = OpenOptions::new().write(true).open(world.path("hub/hub.db")).unwrap();
    file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
    fs::remove_file(world.path("hub/bucket/reports/7.txt")).unwrap();
    fs::write(world.path("hub/bucket/stray.txt"), "stray").unwrap();
}

fn is_whole(world: &World) {
    let database = world.path("hub/hub.db");
    assert_eq!(sql(&database, "pragma integrity_check"), "ok");
    assert_eq!(sql(&database, "select count(*), sum(length(secret)) from credentials"), "20000|1200000");
    assert_eq!(fs::read_to_string(world.path("hub/bucket/reports/7.txt")).unwrap(), "report 7\n");
    assert!(!world.path("hub/bucket/stray.txt").exists());
}

#[test]
fn h13_h17_one_press_in_a_browser_brings_a_dead_application_back() {
    let world = application();
    let daemon = Daemon::start(&world, &[]);
    let browser = Browser::start();
    browser.go(&daemon.url);
    browser.wait_for_text("No snapshot is here yet.");
    browser.fill("#create-name", "before-update");
    browser.press_text("Take a snapshot");
    browser.wait_for_text("Done");
    browser.press_text("Back to the snapshots");
    browser.wait_for_text("before-update");
    for number in 1..6 {
        sql(
            &world.path("hub/hub.db"),
            &format!("update credentials set secret = randomblob(60) where id % 100 = {number}"),
        );
        fs::write(world.path(&format!("hub/bucket/new{number}.txt")), "new").unwrap();
        daemon.done(&format!("/snapshots/night-{number}"));
    }
    break_it(&world);
    fs::write(world.path("hub/bucket/reports/8.txt"), "longer than it was before").unwrap();
    // The costs are counted in the background.
    daemon.json("/stats");
    browser.go(&daemon.url);
    browser.wait_for_text("6 snapshots");
    browser.picture("list.png");

    browser.press_text("Deploy before-update");
    browser.wait_for_text("Deploy before-update?");
    let text = browser.text();
    for part in
        ["bucket/reports/7.txt", "bucket/stray.txt", "bucket/reports/8.txt", "brought back", "removed", "replaced"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    browser.picture("confirm.png");
    browser.press_text("Deploy now");
    browser.wait_for_text("Done");
    assert!(browser.url().contains("/ui/operations/"));
    browser.wait_for_text("the way back");
    browser.picture("operation.png");
    is_whole(&world);
    assert_eq!(fs::read_to_string(world.path("hub/bucket/reports/8.txt")).unwrap(), "report 8\n");
    assert_eq!(
        browser.complaints(),
        Vec::<String>::new(),
        "no script fails and the policy forbids nothing that the page does"
    );

    // As on a phone: nothing stands outside of the window.
    browser.window(390, 844);
    for (path, name) in [
        ("/", "phone.png"),
        ("/ui/apps/hub/snapshots/before-update", "phone-snapshot.png"),
        ("/ui/apps/hub/snapshots/before-update/deploy", "phone-deploy.png"),
        ("/ui/apps/hub/snapshots/before-update/browse?path=bucket", "phone-browse.png"),
        ("/ui/operations", "phone-operations.png"),
    ] {
        browser.go(&format!("{}{path}", daemon.url));
        let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        browser.picture(name);
        assert_eq!(wide, 0, "{path} is wider than a phone");
    }
    browser.window(1200, 1000);
    browser.go(&format!("{}/ui/apps/hub/snapshots/before-update", daemon.url));
    browser.picture("snapshot.png");

    // In the dark, with a comparison.
    browser.scheme("dark");
    browser.go(&format!("{}/ui/compare?app=hub&a=before-update&b=night-2", daemon.url));
    browser.wait_for_text("2 added");
    let dark = browser.run("return getComputedStyle(document.body).backgroundColor");
    assert_eq!(dark, "rgb(23, 21, 18)");
    browser.go(&daemon.url);
    browser.picture("dark.png");
    browser.scheme("light");
    browser.go(&daemon.url);
    assert_ne!(browser.run("return getComputedStyle(document.body).backgroundColor"), dark);
}

#[test]
fn h17_the_keyboard_suffices() {
    let world = application();
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/kept");
    break_it(&world);
    let browser = Browser::start();
    browser.go(&daemon.url);
    let mut passed = Vec::new();
    while browser.focus() != "Deploy kept" {
        browser.keys(TAB);
        passed.push(browser.focus());
        assert!(passed.len() < 30, "Deploy is not reached by Tab: {passed:?}");
    }
    assert_eq!(passed[0], "Skip to the content");
    assert!(passed.iter().all(|name| !name.is_empty()), "something without a name takes the focus: {passed:?}");
    browser.keys(ENTER);
    browser.wait_for_text("Deploy kept?");
    assert_eq!(browser.focus(), "Deploy now");
    browser.keys(ENTER);
    browser.wait_for_text("Done");
    is_whole(&world);
}

#[test]
fn a_screen_reader_hears_what_is_there() {
    let world = application();
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/first");
    daemon.done("/snapshots/second");
    let browser = Browser::start();
    for path in [
        "/",
        "/ui/apps/hub/snapshots/first",
        "/ui/apps/hub/snapshots/first/deploy",
        "/ui/apps/hub/snapshots/first/browse?path=bucket",
        "/ui/operations",
    ] {
        browser.go(&format!("{}{path}", daemon.url));
        let spoken = browser.spoken();
        let has = |role: &str| spoken.iter().any(|(found, _)| found == role);
        assert!(has("main") && has("navigation") && has("banner") && has("heading"), "{path}: {spoken:?}");
        for (role, name) in &spoken {
            let must_have_a_name =
                matches!(role.as_str(), "button" | "link" | "textbox" | "searchbox" | "combobox" | "image" | "table");
            assert!(!must_have_a_name || !name.is_empty(), "{path}: a {role} has no name");
        }
        let headings = browser.run("return document.querySelectorAll('h1').length");
        assert_eq!(headings, 1, "{path}");
        assert_eq!(browser.run("return document.documentElement.lang"), "en");
    }
    browser.go(&daemon.url);
    let spoken = browser.spoken();
    for (role, name) in [
        ("link", "Deploy first"),
        ("link", "Deploy second"),
        ("textbox", "Name of a new snapshot"),
        ("image", "Size of each snapshot, by what was stored and what was saved"),
        ("columnheader", "Costs"),
    ] {
        let heard = spoken.iter().any(|(found, said)| found == role && said.starts_with(name));
        assert!(heard, "no {role} {name:?} in {spoken:?}");
    }
}

#[test]
fn everything_else_can_be_done_on_the_page_too() {
    let world = application();
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/first");
    let browser = Browser::start();
    browser.go(&format!("{}/ui/apps/hub/snapshots/first", daemon.url));
    browser.press_text("Pin");
    browser.wait_for_text("Unpin");
    assert_eq!(daemon.json("/snapshots/first")["pinned"], true);
    browser.press_text("Unpin");
    browser.wait_for_text("Delete");
    browser.press_text("Verify");
    browser.wait_for_text("Done");
    browser.go(&format!("{}/ui/apps/hub/snapshots/first/browse", daemon.url));
    browser.press_text("bucket/");
    browser.wait_for_text("reports/");
    browser.press_text("reports/");
    browser.wait_for_text("39.txt");
    let link = browser
        .run("return [...document.querySelectorAll('a')].find(a => a.innerText === '39.txt').getAttribute('href')");
    let content = daemon.get(link.as_str().unwrap());
    assert_eq!(content.text().unwrap(), "report 39\n");
    browser.go(&format!("{}/ui/apps/hub/snapshots/first", daemon.url));
    browser.press_text("Delete");
    browser.wait_for_text("gone for good");
    browser.press_text("Delete it");
    browser.wait_for_text("Done");
    assert_eq!(daemon.get("/snapshots/first").status(), 404);
    browser.go(&format!("{}/ui/apps/hub/snapshots/first", daemon.url));
    browser.wait_for_text("no snapshot matches");
}
