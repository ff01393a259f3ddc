//! Goal: whoever has a token is served, whatever others do to the port. Method: the built program, thousands
//! of raw connections that are idle, half open or slow, uploads that never end, a process with few files.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;

use daemon::{Daemon, PATIENCE};
use reqwest::Method;
use reqwest::blocking::multipart::{Form, Part};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{COPAL, World};

/// An application, a daemon with tokens, and a token of an administrator.
fn guarded(world: &World, command: impl FnOnce(&[&str]) -> Command) -> (Daemon, String) {
    fs::create_dir_all(world.path("data")).unwrap();
    fs::write(world.path("data/file"), "content").unwrap();
    let configuration =
        "[app.a]\ndefault = true\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data\"\n";
    fs::write(world.path("copal.toml"), configuration).unwrap();
    let state = world.text("serve");
    let token = world.ok(&["token", "add", "me", "--role", "administer", "--state", &state]);
    let daemon = Daemon::of(command(&["serve", "--listen", "127.0.0.1:0", "--state", &state]));
    (daemon, token.trim().to_owned())
}

fn address(daemon: &Daemon) -> String {
    daemon.url.trim_start_matches("http://").to_owned()
}

/// Connects and says something. A connection that is closed meanwhile is what the daemon may do.
fn say(daemon: &Daemon, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(daemon)).unwrap();
    let _ = stream.write_all(words.as_bytes());
    stream
}

#[track_caller]
fn assert_served(daemon: &Daemon, token: &str) {
    // A client of its own: no connection is open already.
    let client = daemon::client().timeout(PATIENCE).build().unwrap();
    let response = client.get(format!("{}/snapshots", daemon.url)).bearer_auth(token).send().unwrap();
    assert_eq!(response.status(), 200);
}

fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn sockets(daemon: &Daemon) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", daemon.id())).unwrap();
    let target = |file: std::io::Result<fs::DirEntry>| fs::read_link(file.ok()?.path()).ok();
    files.filter_map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn t12_a_request_with_a_token_is_answered_while_thousands_of_others_are_idle_or_slow() {
    raise_open_files();
    let world = World::new();
    let (daemon, token) = guarded(&world, |arguments| world.command(arguments));
    let mut held = Vec::new();
    for number in 0..2000 {
        held.push(match number % 5 {
            0 => say(&daemon, ""),
            1 => say(&daemon, "GET /snap"),
            2 => say(&daemon, "GET /snapshots HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
            3 => say(
                &daemon,
                "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                Content-Length: 1000\r\n\r\ntoken=",
            ),
            _ => say(&daemon, "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        });
        if number % 500 == 499 {
            assert_served(&daemon, &token);
        }
    }
    assert_served(&daemon, &token);
    let open = sockets(&daemon);
    println!("{open} sockets are open at the daemon");
    assert!(open < 600, "those without a token are few: {open}");

    // Uploads that begin and do not go on.
    let upload = format!(
        "POST /snapshots/import/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
        Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000000\r\n\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nsome"
    );
    held.extend((0..200).map(|_| say(&daemon, &upload)));
    assert_served(&daemon, &token);
    let staged = fs::read_dir(world.path("serve/uploads")).unwrap().count();
    assert!(staged <= 8, "{staged} uploads are taken at once");
    drop(held);
    assert_served(&daemon, &token);
    assert_eq!(daemon.end(), 0);
}

#[test]
fn t12_a_process_with_few_files_goes_on_serving() {
    raise_open_files();
    let world = World::new();
    let (daemon, token) = guarded(&world, |arguments| {
        let mut command = world.command_of("/bin/sh".as_ref(), &["-c", "ulimit -n 96; exec \"$@\"", "sh", COPAL]);
        command.args(arguments);
        command
    });
    let mut held = Vec::new();
    for _ in 0..10 {
        held.extend((0..60).map(|_| say(&daemon, "GET /")));
        assert_served(&daemon, &token);
    }
    let client = daemon::client().timeout(PATIENCE).build().unwrap();
    let created = client.post(format!("{}/snapshots/one?wait=true", daemon.url)).bearer_auth(&token).send().unwrap();
    assert_eq!(created.status(), 201, "files are left for the repository");
}

#[test]
fn t12_the_number_of_files_is_raised_to_what_the_system_allows() {
    let world = World::new();
    let (daemon, _) = guarded(&world, |arguments| {
        let mut command = world.command_of("/bin/sh".as_ref(), &["-c", "ulimit -S -n 200; exec \"$@\"", "sh", COPAL]);
        command.args(arguments);
        command
    });
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values[0], values[1], "{line}");
}

#[test]
fn t12_who_is_closed_for_others_hears_the_end() {
    raise_open_files();
    let world = World::new();
    let (daemon, _) = guarded(&world, |arguments| world.command(&[arguments, &["--connections", "16"]].concat()));
    let mut first = say(&daemon, "");
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    let held: Vec<TcpStream> = (0..40).map(|_| say(&daemon, "")).collect();
    let mut answer = Vec::new();
    // It ends, or is reset.
    let _ = first.read_to_end(&mut answer);
    assert!(answer.is_empty());
    assert!(sockets(&daemon) < 16);
    drop(held);
}

#[test]
fn t12_one_token_holds_its_share_of_the_connections_and_no_more() {
    raise_open_files();
    let world = World::new();
    let (daemon, me) = guarded(&world, |arguments| {
        let hook = "[[app.a.hook]]\nwhen = \"pre\"\ntimeout = \"120s\"\n\
                    argv = [\"/bin/sh\", \"-c\", \"while [ ! -e go ]; do sleep 0.1; done\"]\n";
        let configuration = fs::read_to_string(world.path("copal.toml")).unwrap();
        let top = "[app.a]\nfreeze_max = \"200s\"\n";
        fs::write(world.path("copal.toml"), configuration.replace("[app.a]\n", top) + hook).unwrap();
        world.command(&[arguments, &["--connections", "16"]].concat())
    });
    let state = world.text("serve");
    let greedy = world.ok(&["token", "add", "greedy", "--role", "view", "--state", &state]);
    let client = daemon::client().timeout(PATIENCE).build().unwrap();
    let begun = client.post(format!("{}/snapshots/held", daemon.url)).bearer_auth(&me).send().unwrap();
    assert_eq!(begun.status(), 202);
    let operation = begun.headers()["x-operation"].to_str().unwrap().to_owned();
    // A stream of events lasts as long as the operation.
    let watch = format!(
        "GET /operations/{operation}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        greedy.trim()
    );
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        let mut stream = say(&daemon, &watch);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = [0; 12];
        match stream.read_exact(&mut head) {
            Ok(()) if head.ends_with(b"200") => held.push(stream),
            Ok(()) => {
                assert!(head.ends_with(b"429"), "{}", String::from_utf8_lossy(&head));
                refused += 1;
            }
            Err(error) => panic!("a connection was closed without a word: {error}"),
        }
        assert_served(&daemon, &me);
    }
    assert_eq!((held.len(), refused), (8, 32));
    fs::write(world.path("go"), "").unwrap();
    drop(held);
    assert_served(&daemon, greedy.trim());
}

#[test]
fn t12_imports_of_two_hundred_clients_are_not_all_staged() {
    let world = World::new();
    fs::create_dir_all(world.path("data")).unwrap();
    let hold = "argv = [\"/bin/sh\", \"-c\", \"while [ ! -e go ]; do sleep 0.1; done\"]\ntimeout = \"120s\"";
    let configuration = format!(
        "[app.a]\ndefault = true\nfreeze_max = \"200s\"\n\
         [[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data\"\n[[app.a.hook]]\nwhen = \"pre\"\n{hold}\n"
    );
    fs::write(world.path("copal.toml"), configuration).unwrap();
    let state = world.text("serve");
    let daemon = Daemon::start(&world, &["--state", &state, "--transfers", "300"]);
    assert_eq!(daemon.post("/snapshots/holds").status(), 202);
    let staged = || fs::read_dir(world.path("serve/uploads")).unwrap().count();
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..200 {
            let (daemon, answers) = (&daemon, &answers);
            scope.spawn(move || {
                let form = Form::new().part("file", Part::bytes(vec![7; 1000]).file_name("f"));
                let path = format!("/snapshots/import/c{client}?wait=0");
                let response = daemon.request(Method::POST, &path).multipart(form).send().unwrap();
                let again = response.headers().contains_key("retry-after");
                let id = response.headers().get("x-operation").map(|id| id.to_str().unwrap().to_owned());
                answers.lock().unwrap().push((response.status().as_u16(), again, id));
            });
        }
    });
    let answers = answers.into_inner().unwrap();
    let taken: Vec<String> =
        answers.iter().filter(|answer| answer.0 == 202).filter_map(|answer| answer.2.clone()).collect();
    assert!(answers.iter().all(|answer| answer.0 == 202 || (answer.0 == 429 && answer.1)), "{answers:?}");
    assert_eq!((taken.len(), staged()), (16, 16));
    assert_eq!(daemon.post(&format!("/operations/{}/cancel", taken[3])).status(), 200);
    assert_eq!(staged(), 15, "a canceled import leaves nothing");
    fs::write(world.path("go"), "").unwrap();
    for id in &taken {
        let ended = daemon.json(&format!("/operations/{id}?wait=60"));
        assert!(ended["state"] == "failed" || ended["state"] == "canceled", "{ended}");
    }
    assert_eq!(staged(), 0);
    assert_eq!(daemon.end(), 0);
}
