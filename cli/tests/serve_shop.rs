//! Goal: the daemon's main job from one end to the other, with an application that is at work all the while,
//! a real browser, and a second daemon that has another key. Method: the shop of `examples/shop` as a process
//! that hooks pause, stop and start; Debian's Chromium presses what a person would press; rows and objects
//! are compared afterwards.
#![allow(clippy::unwrap_used)]

mod daemon;
#[path = "../../examples/shop/server.rs"]
mod server;
mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daemon::browser::Browser;
use daemon::{Daemon, PATIENCE};
use rusqlite::Connection;
use support::shop::{SHOP_FOLDER, assert_agreement};
use support::{World, noise};

/// No test of its own: hooks start this program once more to be the shop.
#[test]
fn the_shop_as_a_process() {
    if let Some(folder) = std::env::var_os(SHOP_FOLDER) {
        server::serve(folder.as_ref()).unwrap();
    }
}

/// A world with a shop at work and a repository with a key of its own.
struct Site {
    world: World,
}

/// Whether the shop's process is there: one that has ended and was not waited for has no program.
const LIVES: &str = "[ -e /proc/$(cat pid 2>/dev/null || echo none)/exe ]";

impl Site {
    fn new(key: u64) -> Self {
        let site = Self { world: World::bare() };
        let world = &site.world;
        fs::create_dir_all(world.path("shop")).unwrap();
        fs::write(world.path("key"), noise(key, 32)).unwrap();
        world.ok(&["init"]);
        let program = std::env::current_exe().unwrap();
        // As `examples/shop/copal.toml` has it, with this program for the shop.
        let pause = format!("{LIVES} || exit 0; touch pause; while [ ! -e paused ]; do sleep 0.01; done");
        let stop = format!("touch stop; while {LIVES}; do sleep 0.01; done; rm -f stop pid pause paused");
        let start = format!(
            "{SHOP_FOLDER}=. setsid {} --exact the_shop_as_a_process --nocapture > log 2>&1 < /dev/null & \
             while ! {LIVES}; do sleep 0.01; done",
            program.display()
        );
        // The rows name their objects by whole paths.
        let rewrite =
            "sqlite3 shop.db \"UPDATE orders SET object = '$COPAL_NEW_BUCKET' || substr(object, length(object) - 8)\"";
        let hooks =
            [("pre", &*pause), ("post", "rm -f pause"), ("stop", &stop), ("start", &start), ("rewrite", rewrite)];
        let folder = world.text("shop");
        let mut configuration = format!(
            "[app.shop]\ndefault = true\nfreeze_max = \"20s\"\n\
             [[app.shop.source]]\nkind = \"sqlite\"\nlabel = \"shop.db\"\npath = \"{folder}/shop.db\"\n\
             [[app.shop.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"{folder}/bucket\"\n"
        );
        for (when, script) in hooks {
            let script = format!("cd {folder}; {script}");
            configuration.push_str(&format!(
                "[[app.shop.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"20s\"\n"
            ));
        }
        fs::write(world.path("copal.toml"), configuration).unwrap();
        site.shell(&start);
        site.wait_for_orders(1);
        site
    }

    fn shell(&self, script: &str) {
        let ran = Command::new("/bin/sh").args(["-c", script]).current_dir(self.world.path("shop")).status().unwrap();
        assert!(ran.success(), "{script}");
    }

    fn last_order(&self) -> i64 {
        let open = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let Ok(database) = Connection::open_with_flags(self.world.path("shop/shop.db"), open) else { return 0 };
        database.query_row("SELECT coalesce(max(id), 0) FROM orders", [], |row| row.get(0)).unwrap_or(0)
    }

    /// Until so many more orders came in: the shop is at work.
    #[track_caller]
    fn wait_for_orders(&self, more: i64) {
        let (begun, from) = (Instant::now(), self.last_order());
        while self.last_order() < from + more {
            assert!(begun.elapsed() < PATIENCE, "the shop takes no orders");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The shop dies, and zeros stand where its database began.
    fn break_it(&self) {
        self.shell("kill -9 $(cat pid); sleep 0.05");
        let database = OpenOptions::new().write(true).open(self.world.path("shop/shop.db")).unwrap();
        database.write_all_at(&vec![0; 64 << 10], 0).unwrap();
        fs::remove_file(first_object(&self.world.path("shop/bucket"))).unwrap();
    }

    /// Stops the shop; then every row has its object, at the very place that it names.
    #[track_caller]
    fn assert_whole(&self) -> usize {
        self.shell(&format!("touch stop; while {LIVES}; do sleep 0.01; done; rm -f stop"));
        let rows = assert_agreement(&self.world.path("shop/shop.db"), &self.world.path("shop/bucket"));
        let database = Connection::open(self.world.path("shop/shop.db")).unwrap();
        let mut places = database.prepare("SELECT object FROM orders").unwrap();
        for place in places.query_map([], |row| row.get::<_, String>(0)).unwrap() {
            let place = self.world.path("shop").join(place.unwrap());
            assert!(place.starts_with(self.world.path("shop")) && place.is_file(), "{}", place.display());
        }
        rows
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended already.
        let _ =
            Command::new("/bin/sh").args(["-c", "kill -9 $(cat pid)"]).current_dir(self.world.path("shop")).output();
    }
}

fn first_object(bucket: &Path) -> std::path::PathBuf {
    fs::read_dir(bucket).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn h04_h08_h13_h15_h17_one_press_brings_the_shop_back_and_another_daemon_takes_its_snapshot_over() {
    let here = Site::new(11);
    let daemon = Daemon::start(&here.world, &[]);
    let browser = Browser::start();
    here.wait_for_orders(60);
    browser.go(&daemon.url);
    browser.fill("#create-name", "good");
    browser.press_text("Take a snapshot");
    browser.wait_for_text("Done");
    // The application was at work before, and is afterwards.
    here.wait_for_orders(20);

    here.break_it();
    browser.go(&daemon.url);
    browser.press_text("Deploy good");
    browser.wait_for_text("Deploy good?");
    browser.press_text("Deploy now");
    browser.wait_for_text("Done");
    here.wait_for_orders(20);

    // Out of this one, by the page, protected by a passphrase …
    let downloads = here.world.path("downloads");
    fs::create_dir_all(&downloads).unwrap();
    browser.downloads_to(&downloads);
    browser.go(&format!("{}/ui/apps/shop/snapshots/good", daemon.url));
    browser.fill("#export-password", "open sesame");
    browser.press_text("Download");
    let bundle = downloads.join("good.copal");
    let begun = Instant::now();
    while !bundle.exists() {
        assert!(
            begun.elapsed() < PATIENCE,
            "the bundle does not come: {:?}",
            fs::read_dir(&downloads).unwrap().count()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    here.assert_whole();
    assert_eq!(daemon.end(), 0);

    // … into another one, which has another key and another shop.
    let there = Site::new(12);
    let daemon = Daemon::start(&there.world, &[]);
    there.wait_for_orders(5);
    browser.go(&daemon.url);
    browser.fill("#import-name", "from-elsewhere");
    browser.fill("#import-password", "wrong");
    browser.fill("#import-file", bundle.to_str().unwrap());
    browser.press_text("Import");
    browser.wait_for_text("wrong-bundle-password");
    assert_eq!(daemon.json("/snapshots"), serde_json::json!([]));
    browser.go(&daemon.url);
    browser.fill("#import-name", "from-elsewhere");
    browser.fill("#import-password", "open sesame");
    browser.fill("#import-file", bundle.to_str().unwrap());
    browser.press_text("Import");
    browser.wait_for_text("Done");
    let digest = daemon.json("/snapshots/from-elsewhere")["digest"].clone();
    browser.go(&daemon.url);
    browser.wait_for_text("imported");
    browser.press_text("Deploy from-elsewhere");
    browser.wait_for_text("Deploy from-elsewhere?");
    browser.press_text("Deploy now");
    browser.wait_for_text("Done");
    there.wait_for_orders(20);
    assert!(there.assert_whole() > 60, "the orders of the other shop are here");
    assert_eq!(daemon.json("/snapshots/from-elsewhere")["digest"], digest, "the snapshot stays as it was");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn h15_v02_rows_and_objects_agree_in_every_snapshot_that_is_taken_while_orders_come_in() {
    let site = Site::new(13);
    let daemon = Daemon::start(&site.world, &[]);
    for round in 0..3 {
        site.wait_for_orders(30);
        let made = daemon.done(&format!("/snapshots/s{round}"));
        assert_eq!((&made["phase"], &made["consistency"]), (&"completed".into(), &"application".into()), "{made}");
    }
    for round in [1, 0, 2] {
        daemon.done(&format!("/snapshots/s{round}/deploy"));
        site.wait_for_orders(5);
        site.assert_whole();
        // The next deploy stops a shop that is there.
        site.shell(&format!(
            "{SHOP_FOLDER}=. setsid {} --exact the_shop_as_a_process --nocapture > log 2>&1 < /dev/null & \
            while ! {LIVES}; do sleep 0.01; done",
            std::env::current_exe().unwrap().display()
        ));
        site.wait_for_orders(1);
    }
}
