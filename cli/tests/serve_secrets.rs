//! Goal: no secret outlives its use. Method: the built program with a secret of each kind; the state folder,
//! the log, answers, and arguments and environments of every process that the daemon starts are searched for
//! all of them.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::{Daemon, PATIENCE};
use reqwest::Method;
use reqwest::blocking::multipart::{Form, Part};
use serde_json::{Value, json};
use support::{World, files_below};

const REPOSITORY: &str = "canary-of-the-repository";
const OTHERS: &str = "canary-of-another-repository";
const EXPORT: &str = "canary-of-an-export";
const WRONG: &str = "canary-that-is-wrong";

fn serve(world: &World) -> Daemon {
    let state = world.text("serve");
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0", "--state", &state, "--log-filter", "trace"]);
    command.env("COPAL_PASSWORD", REPOSITORY).env_remove("COPAL_KEY_FILE");
    command.env("COPAL_TO_PASSWORD", OTHERS).env("COPAL_NEW_PASSWORD", OTHERS).env("COPAL_BUNDLE_PASSWORD", OTHERS);
    Daemon::with_log(command, &world.path("log"))
}

fn world() -> World {
    let world = World::bare();
    let mut init = world.command(&["init"]);
    init.env("COPAL_PASSWORD", REPOSITORY).env_remove("COPAL_KEY_FILE");
    assert!(init.status().unwrap().success());
    fs::create_dir_all(world.path("data")).unwrap();
    fs::write(world.path("data/file"), "content").unwrap();
    let hook = "argv = [\"/bin/sh\", \"-c\", \"env >> hook-environment; sleep 0.3\"]";
    let configuration = format!(
        "[app.a]\ndefault = true\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data\"\n\
         [[app.a.hook]]\nwhen = \"pre\"\n{hook}\n[[app.a.hook]]\nwhen = \"post\"\n{hook}\n\
         [[app.a.hook]]\nwhen = \"stop\"\n{hook}\n[[app.a.hook]]\nwhen = \"start\"\n{hook}\n"
    );
    fs::write(world.path("copal.toml"), configuration).unwrap();
    world
}

/// What processes show of themselves, but for the environment that the daemon itself was given. A child that
/// does not run its own program yet still shows the daemon's arguments and environment; whoever shows
/// arguments of its own runs it, and never shows the daemon's environment again.
fn look(daemon: u32, seen: &Mutex<BTreeSet<String>>) {
    let arguments = |id: u32| fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let own = arguments(daemon);
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if !descends(id, daemon) {
            continue;
        }
        // Read before the environment: what has begun its own program does not go back.
        let shown = arguments(id);
        seen.lock().unwrap().insert(format!("cmdline {}", String::from_utf8_lossy(&shown)));
        if id != daemon && !shown.is_empty() && shown != own {
            let text = fs::read(process.path().join("environ")).unwrap_or_default();
            seen.lock().unwrap().insert(format!("environ {}", String::from_utf8_lossy(&text)));
        }
    }
}

fn descends(mut id: u32, ancestor: u32) -> bool {
    for _ in 0..20 {
        if id == ancestor {
            return true;
        }
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        match parent.and_then(|parent| parent.trim().parse().ok()) {
            Some(parent) if parent > 1 => id = parent,
            _ => return false,
        }
    }
    false
}

#[test]
fn t11_a_child_that_inherits_a_secret_would_be_found() {
    let mut parent = std::process::Command::new("sh");
    parent.args(["-c", "sleep 60 & wait"]).env("COPAL_PASSWORD", REPOSITORY);
    let mut parent = parent.spawn().unwrap();
    let seen = Mutex::default();
    let begun = std::time::Instant::now();
    let is_found = |seen: &Mutex<BTreeSet<String>>| {
        let seen = seen.lock().unwrap();
        seen.iter().any(|text| text.starts_with("environ") && text.contains(REPOSITORY))
    };
    while !is_found(&seen) && begun.elapsed() < PATIENCE {
        look(parent.id(), &seen);
    }
    let found = is_found(&seen);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.id())).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|id| rustix::process::Pid::from_raw(id.parse().ok()?)) {
        // The parent has not waited for it: the number is still its own.
        let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
    }
    parent.wait().unwrap();
    assert!(found);
}

#[track_caller]
fn assert_holds_none(what: &str, bytes: &[u8], secrets: &[&str]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in secrets {
        assert!(!text.contains(secret), "{what} holds {secret}");
    }
}

#[test]
fn t11_the_first_token_is_said_once_and_gone_when_it_was_used() {
    let world = world();
    let daemon = serve(&world);
    let file = world.path("serve/first-token");
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let told = || fs::read_to_string(world.path("log")).unwrap().matches("first-token").count();
    assert_eq!(told(), 1);
    let ask = |daemon: &Daemon, token: &str| {
        let request = daemon.client.get(format!("{}/snapshots", daemon.url)).bearer_auth(token);
        request.send().unwrap().status().as_u16()
    };
    assert_eq!(ask(&daemon, "copal_wrong"), 401);
    assert!(file.exists(), "nobody has used it");
    assert_eq!(daemon.end(), 0);
    let daemon = serve(&world);
    assert_eq!(told(), 1, "it is said once");
    assert_eq!(ask(&daemon, &token), 200);
    assert!(!file.exists());
    assert_eq!(ask(&daemon, &token), 200, "the token goes on");
    assert_eq!(daemon.end(), 0);
    drop(serve(&world));
    assert!(!file.exists() && told() == 1);
    assert!(!fs::read_to_string(world.path("log")).unwrap().contains(&token));
}

#[test]
fn t11_the_file_of_the_first_token_goes_with_the_token_and_with_a_sign_in() {
    let world = world();
    let state = world.text("serve");
    let file = world.path("serve/first-token");
    let daemon = serve(&world);
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();
    let signed = daemon.request(Method::POST, "/login").form(&[("token", &token)]).send().unwrap();
    assert_eq!(signed.status(), 303);
    assert!(!file.exists());
    drop(daemon);

    let world = self::world();
    drop(serve(&world));
    let state_of_other = world.text("serve");
    assert_ne!(state, state_of_other);
    let mut remove = world.command(&["token", "remove", "first", "--state", &state_of_other]);
    assert!(remove.env("COPAL_PASSWORD", REPOSITORY).env_remove("COPAL_KEY_FILE").status().unwrap().success());
    assert!(!world.path("serve/first-token").exists());
}

#[test]
fn t11_no_secret_is_in_logs_answers_state_or_processes() {
    let world = world();
    let daemon = serve(&world);
    let first = fs::read_to_string(world.path("serve/first-token")).unwrap().trim().to_owned();
    let answers = Mutex::new(Vec::new());
    let ask = |method: Method, path: &str, body: Option<Value>| {
        let request = daemon.request(method, path).bearer_auth(&first);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let response = request.send().unwrap();
        let status = response.status();
        let bytes = response.bytes().unwrap().to_vec();
        answers.lock().unwrap().push((path.to_owned(), bytes.clone()));
        (status.as_u16(), bytes)
    };
    let (over, seen) = (AtomicBool::new(false), Mutex::default());
    let (token, session) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                look(daemon.id(), &seen);
                std::thread::sleep(Duration::from_millis(15));
            }
        });
        let made = daemon.request(Method::POST, "/tokens").bearer_auth(&first);
        let made: Value = made.json(&json!({ "name": "alice", "role": "administer" })).send().unwrap().json().unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        let signed = daemon.request(Method::POST, "/login").form(&[("token", &token)]).send().unwrap();
        let cookie = signed.headers()["set-cookie"].to_str().unwrap().to_owned();
        let session = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
        let page = daemon.request(Method::GET, "/").header("cookie", cookie.split(';').next().unwrap());
        assert_eq!(page.header("accept", "text/html").send().unwrap().status(), 200);

        assert_eq!(ask(Method::POST, "/snapshots/one?wait=true", None).0, 201);
        assert_eq!(ask(Method::POST, "/snapshots/one/deploy?wait=true", None).0, 200);
        let export = json!({ "password": EXPORT, "format": "native" });
        let (status, bundle) = ask(Method::POST, "/snapshots/one/export", Some(export));
        assert_eq!(status, 200);
        answers.lock().unwrap().pop();
        for (password, expected) in [(WRONG, 422), (EXPORT, 201)] {
            let form = Form::new().text("password", password).part("file", Part::bytes(bundle.clone()).file_name("f"));
            let request = daemon.request(Method::POST, "/snapshots/import/two").bearer_auth(&first).multipart(form);
            let response = request.timeout(PATIENCE).send().unwrap();
            assert_eq!(response.status(), expected);
            answers.lock().unwrap().push((password.to_owned(), response.bytes().unwrap().to_vec()));
        }
        // Refusals that say back what was wrong.
        ask(Method::POST, "/snapshots/one/export", Some(json!({ "password": [WRONG] })));
        ask(Method::POST, "/snapshots/one/export", Some(json!({ "password": WRONG, "format": "none" })));
        ask(Method::POST, "/snapshots/none/export", Some(json!({ "password": WRONG })));
        for path in ["/operations", "/audit?limit=1000", "/tokens", "/metrics", "/apps", "/apps/a/captures", "/healthz"]
        {
            assert_eq!(ask(Method::GET, path, None).0, 200, "{path}");
        }
        over.store(true, Ordering::SeqCst);
        (token, session)
    });
    assert_eq!(daemon.end(), 0);

    let secrets = [REPOSITORY, OTHERS, EXPORT, WRONG, &first, &token, &session];
    for (path, bytes) in answers.lock().unwrap().iter() {
        assert_holds_none(path, bytes, &secrets);
    }
    assert_holds_none("the log", &fs::read(world.path("log")).unwrap(), &secrets);
    let mut searched = 0;
    for folder in ["serve", "state", "cache", "home"] {
        for file in files_below(&world.path(folder)) {
            assert_holds_none(&file.display().to_string(), &fs::read(&file).unwrap(), &secrets);
            searched += 1;
        }
    }
    assert!(searched > 5, "only {searched} files were searched: the test has lost its form");
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().any(|shown| shown.contains("watchdog")), "the watchdog was seen");
    assert!(seen.iter().any(|shown| shown.contains("hook-environment")), "a hook was seen");
    for shown in &seen {
        assert_holds_none(shown, shown.as_bytes(), &secrets);
    }
    assert_holds_none("a hook's environment", &fs::read(world.path("hook-environment")).unwrap(), &secrets);
    assert_eq!(fs::read_dir(world.path("serve/uploads")).unwrap().count(), 0);
}
