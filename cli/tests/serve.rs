//! Goal: the daemon keeps its promises as a process: options, signals, kills under load, memory. Method: the
//! built program, real requests from many threads, SIGKILL, the repository verified afterwards.
#![allow(clippy::unwrap_used)]

mod daemon;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use support::{World, noise};

/// Applications `a0` … of one small tree each.
fn applications(world: &World, number: usize) {
    let mut configuration = String::new();
    for app in 0..number {
        fs::create_dir_all(world.path(&format!("data/a{app}"))).unwrap();
        for file in 0..8 {
            fs::write(world.path(&format!("data/a{app}/{file}.bin")), noise((app * 8 + file) as u64, 20_000)).unwrap();
        }
        configuration.push_str(&format!(
            "[app.a{app}]\n[[app.a{app}.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data/a{app}\"\n"
        ));
    }
    fs::write(world.path("copal.toml"), configuration).unwrap();
}

/// As the program says it: which object, which snapshots and which paths are hurt.
#[test]
fn a_verification_names_the_snapshots_and_paths_that_are_hurt() {
    let world = World::new();
    applications(&world, 1);
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/apps/a0/snapshots/kept");
    let packs = world.objects_in("packs");
    let largest = packs.iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    support::flip(largest, 60_000, 3);
    let response = daemon.post("/repository/verify?wait=true");
    let problem: serde_json::Value = response.json().unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("a0/kept") && detail.contains(".bin"), "{problem}");
}

#[test]
fn options_that_endanger_are_refused() {
    let world = World::new();
    for arguments in [
        &["serve", "--listen", "0.0.0.0:0"][..],
        &["serve", "--no-auth", "--listen", "0.0.0.0:0"],
        &["serve", "--tls-cert", "cert.pem"],
        &["serve", "--listen", "localhost"],
    ] {
        let run = world.run(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {run:?}");
    }
    fs::write(world.path("copal.toml"), "[app.a]\nschedule = \"at night\"\n").unwrap();
    let run = world.run(&["serve", "--no-auth", "--listen", "127.0.0.1:0"]);
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("copal.toml:1") || run.stderr.contains("at night"), "{run:?}");
}

#[test]
fn one_daemon_serves_a_repository_and_ends_when_told_to() {
    let world = World::new();
    let first = Daemon::start(&world, &[]);
    assert_eq!(first.json("/healthz")["status"], "ok");
    let second = world.run(&["serve", "--no-auth", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, 11, "{second:?}");
    // What the program does is seen by the daemon.
    fs::create_dir(world.path("data")).unwrap();
    world.ok(&["create", "by-hand", "data"]);
    let begun = Instant::now();
    while first.json("/snapshots").as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(first.end(), 0);
}

#[test]
fn tokens_of_the_program_open_the_daemon() {
    let world = World::new();
    let state = world.text("serve");
    let daemon = Daemon::of(world.command(&["serve", "--listen", "127.0.0.1:0", "--state", &state]));
    assert_eq!(daemon.get("/snapshots").status(), 401);
    let token = world.ok(&["token", "add", "alice", "--role", "view", "--state", &state]);
    let listed = world.json(&["token", "list", "--state", &state]);
    assert_eq!(listed.as_array().unwrap().len(), 2, "the first one and alice's: {listed}");
    assert!(!listed.to_string().contains(token.trim()));
    let status =
        || daemon.client.get(format!("{}/snapshots", daemon.url)).bearer_auth(token.trim()).send().unwrap().status();
    let begun = Instant::now();
    while status() != 200 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the daemon learns of it within a second");
        std::thread::sleep(Duration::from_millis(100));
    }
    world.ok(&["token", "remove", "alice", "--state", &state]);
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(status(), 401);
}

#[test]
fn schedules_take_snapshots_by_themselves() {
    let world = World::new();
    applications(&world, 1);
    let configuration = fs::read_to_string(world.path("copal.toml")).unwrap();
    let scheduled = configuration.replacen(
        "[app.a0]\n",
        "[app.a0]\nschedule = \"* * * * * *\"\nverify_schedule = \"* * * * * *\"\n",
        1,
    );
    fs::write(world.path("copal.toml"), scheduled).unwrap();
    let daemon = Daemon::start(&world, &[]);
    let begun = Instant::now();
    loop {
        let operations = daemon.json("/operations");
        let done = |verb: &str| {
            let all = operations.as_array().unwrap();
            all.iter()
                .filter(|one| one["verb"] == verb && one["state"] == "succeeded" && one["actor"] == "schedule")
                .count()
        };
        if done("create") >= 2 && done("verify") >= 1 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{operations}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let names = daemon.json("/apps/a0/snapshots");
    assert!(names[0]["name"].as_str().unwrap().starts_with("scheduled-"), "{names}");
}

/// What clients were told.
#[derive(Default)]
struct Told {
    created: Mutex<BTreeSet<(usize, String)>>,
    accepted: Mutex<BTreeSet<String>>,
    listed: AtomicU64,
    deployed: AtomicU64,
}

#[test]
fn h12_a_daemon_killed_under_load_loses_nothing_that_it_promised() {
    let world = World::new();
    let (apps, clients) = (4, 64);
    applications(&world, apps);
    let (told, over) = (Told::default(), AtomicBool::new(false));
    for round in 0..2 {
        let daemon = Daemon::start(&world, &[]);
        over.store(false, Ordering::SeqCst);
        let url = daemon.url.clone();
        std::thread::scope(|scope| {
            for client in 0..clients {
                let (told, over, url) = (&told, &over, &url);
                scope.spawn(move || act(client, client / 4 % apps, round, url, told, over));
            }
            std::thread::sleep(Duration::from_millis(2500));
            daemon.kill();
            over.store(true, Ordering::SeqCst);
        });
    }
    let created = told.created.into_inner().unwrap();
    let accepted = told.accepted.into_inner().unwrap();
    assert!(created.len() >= 4 && told.listed.load(Ordering::SeqCst) > 20, "{} created", created.len());
    let daemon = Daemon::start(&world, &[]);
    let list = daemon.json("/snapshots");
    let found: BTreeSet<(String, String)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["app"].as_str().unwrap().to_owned(), line["name"].as_str().unwrap().to_owned()))
        .collect();
    for (app, name) in &created {
        assert!(found.contains(&(format!("a{app}"), name.clone())), "a{app}/{name} was acknowledged and is gone");
    }
    // Every operation that was accepted is known and comes to its end; a capture that was cut off says so.
    for id in &accepted {
        let ended = daemon.json(&format!("/operations/{id}?wait=60"));
        let cut_off = ended["state"] == "failed" && ended["error"]["code"] == "interrupted";
        assert!(ended["state"] == "succeeded" || cut_off, "{ended}");
    }
    println!(
        "{} snapshots acknowledged, {} operations accepted, {} lists, {} deploys",
        created.len(),
        accepted.len(),
        told.listed.load(Ordering::SeqCst),
        told.deployed.load(Ordering::SeqCst)
    );
    daemon.done("/repository/verify");
    for app in 0..apps {
        daemon.done(&format!("/apps/a{app}/snapshots/latest/deploy"));
        for file in 0..8 {
            let content = fs::read(world.path(&format!("data/a{app}/{file}.bin"))).unwrap();
            assert_eq!(content, noise((app * 8 + file) as u64, 20_000));
        }
    }
    assert_eq!(daemon.end(), 0);
}

/// One client: creates, lists, deploys, until the daemon is gone.
fn act(client: usize, app: usize, round: usize, url: &str, told: &Told, over: &AtomicBool) {
    let http = daemon::client().timeout(PATIENCE).build().unwrap();
    for turn in 0.. {
        if over.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("r{round}-c{client}-t{turn}");
        let path = match client % 4 {
            0 => format!("/apps/a{app}/snapshots/{name}?wait=true"),
            1 => format!("/apps/a{app}/snapshots/{name}"),
            2 => format!("/apps/a{app}/snapshots/latest/deploy?wait=true"),
            _ => "/snapshots".to_owned(),
        };
        let request =
            if client % 4 == 3 { http.get(format!("{url}{path}")) } else { http.post(format!("{url}{path}")) };
        // Without an answer nothing was promised.
        let Ok(response) = request.send() else { return };
        match response.status().as_u16() {
            201 => drop(told.created.lock().unwrap().insert((app, name))),
            202 => {
                let id = response.headers()["x-operation"].to_str().unwrap().to_owned();
                told.accepted.lock().unwrap().insert(id);
                // The queue is long enough.
                std::thread::sleep(Duration::from_millis(200));
            }
            200 if client % 4 == 3 => {
                if response.bytes().is_ok() {
                    told.listed.fetch_add(1, Ordering::SeqCst);
                }
            }
            200 => drop(told.deployed.fetch_add(1, Ordering::SeqCst)),
            404 | 409 | 429 | 503 => std::thread::sleep(Duration::from_millis(50)),
            other => panic!("{path}: {other}: {}", response.text().unwrap_or_default()),
        }
    }
}

#[test]
fn downloads_are_streams() {
    let world = World::new();
    applications(&world, 1);
    let megabytes: usize = std::env::var("COPAL_STREAM_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(384);
    let file = fs::File::create(world.path("data/a0/big.bin")).unwrap();
    let mut writer = std::io::BufWriter::new(file);
    for part in 0..megabytes {
        std::io::Write::write_all(&mut writer, &noise(part as u64 + 1000, 1 << 20)).unwrap();
    }
    drop(writer);
    let daemon = Daemon::start(&world, &[]);
    daemon.done("/snapshots/big");
    let before = daemon.memory_peak();
    let client = daemon::client().timeout(None).build().unwrap();
    let url = format!("{}/snapshots/big/content?path=data/big.bin", daemon.url);
    let mut response = client.get(url).send().unwrap();
    assert_eq!(response.status(), 200);
    let (mut buffer, mut received) = (vec![0; 1 << 20], 0usize);
    loop {
        let read = response.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        received += read;
        if received < 8 << 20 {
            // A slow client slows the daemon down.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(received, megabytes << 20);
    let growth = daemon.memory_peak().saturating_sub(before);
    println!("{megabytes} MiB downloaded, the peak of memory grew by {} MiB", growth >> 20);
    assert!(growth < 64 << 20, "the peak grew by {} MiB", growth >> 20);
}

/// An application with hooks: it is frozen while a file stands there.
fn with_hooks(world: &World, hold: &str) {
    fs::create_dir_all(world.path("data")).unwrap();
    fs::write(world.path("data/file"), "content").unwrap();
    let frozen = world.text("frozen");
    fs::write(
        world.path("copal.toml"),
        format!(
            "[app.a]\n[[app.a.source]]\nkind = \"tree\"\nlabel = \"data\"\npath = \"data\"\n\
             [[app.a.hook]]\nwhen = \"pre\"\nargv = [\"/usr/bin/touch\", \"{frozen}\"]\n\
             [[app.a.hook]]\nwhen = \"pre\"\n{hold}\n\
             [[app.a.hook]]\nwhen = \"post\"\nargv = [\"/bin/rm\", \"-f\", \"{frozen}\"]\n"
        ),
    )
    .unwrap();
}

#[test]
fn h11_an_application_that_cannot_hold_still_is_let_go_and_not_captured() {
    let world = World::new();
    with_hooks(&world, "argv = [\"/bin/sleep\", \"60\"]\ntimeout = \"1s\"\non_error = \"fail\"");
    let daemon = Daemon::start(&world, &[]);
    let response = daemon.post("/snapshots/one?wait=true");
    let (status, id) = (response.status(), response.headers()["x-operation"].to_str().unwrap().to_owned());
    assert!(status.is_server_error() || status.is_client_error(), "{status}");
    let operation = daemon.json(&format!("/operations/{id}"));
    assert_eq!((&operation["state"], &operation["error"]["exit_code"]), (&"failed".into(), &86.into()), "{operation}");
    assert_eq!(daemon.json("/snapshots").as_array().unwrap().len(), 0);
    assert!(!world.path("frozen").exists(), "the application goes on");
    let captures = daemon.json("/apps/a/captures");
    assert_eq!(captures[0]["phase"], "failed", "{captures}");
}

#[test]
fn h12_v08_a_daemon_killed_in_mid_capture_leaves_no_application_frozen() {
    let world = World::new();
    with_hooks(&world, "argv = [\"/bin/sleep\", \"20\"]\ntimeout = \"30s\"");
    let daemon = Daemon::start(&world, &[]);
    let accepted = daemon.post("/snapshots/one");
    let id = accepted.headers()["x-operation"].to_str().unwrap().to_owned();
    let begun = Instant::now();
    while !world.path("frozen").exists() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.kill();
    let killed = Instant::now();
    while world.path("frozen").exists() {
        assert!(killed.elapsed() < Duration::from_secs(15), "the application stays frozen");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("the application went on {} ms after the kill", killed.elapsed().as_millis());
    let daemon = Daemon::start(&world, &[]);
    let operation = daemon.json(&format!("/operations/{id}?wait=60"));
    assert_eq!(
        (&operation["state"], &operation["error"]["code"]),
        (&"failed".into(), &"interrupted".into()),
        "{operation}"
    );
    assert!(!world.path("frozen").exists());
}
