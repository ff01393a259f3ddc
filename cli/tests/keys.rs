//! Goal: what `docs/guide/keys.md` promises, by the built program: slots, roles, rotation, and the kernel's
//! keyring. Method: one repository opened by each kind of key; golden repositories of the first format are
//! rotated.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::forge::with_key;
use support::{Run, World, finish, noise};

fn with_password(world: &World, password: &str, arguments: &[&str]) -> Run {
    let mut command = world.command(arguments);
    command.env_remove("COPAL_KEY_FILE").env("COPAL_PASSWORD", password);
    finish(command.output().unwrap())
}

fn sources(world: &World) {
    fs::create_dir_all(world.path("source/folder")).unwrap();
    fs::write(world.path("source/folder/file"), noise(1, 400_000)).unwrap();
}

#[test]
fn several_passwords_and_keys_open_and_the_last_stays() {
    let world = World::new();
    fs::write(world.path("second"), noise(2, 32)).unwrap();
    fs::write(world.path("word"), "a password\n").unwrap();
    world.ok(&["key", "add", "--label", "file", "--new-key-file", "second"]);
    world.ok(&["key", "add", "--label", "word", "--new-password-file", "word"]);
    assert_eq!(world.json(&["key", "list"]).as_array().unwrap().len(), 3);
    assert_eq!(with_key(&world, "second", &["list"]).code, 0);
    assert_eq!(with_password(&world, "a password", &["list"]).code, 0);
    assert_eq!(with_password(&world, "another", &["list"]).code, 12);
    world.ok(&["key", "remove", "word"]);
    assert_eq!(with_password(&world, "a password", &["list"]).code, 12);
    fs::write(world.path("third"), noise(3, 32)).unwrap();
    assert_eq!(with_key(&world, "second", &["key", "change", "--new-key-file", &world.text("third")]).code, 0);
    assert_eq!(with_key(&world, "second", &["list"]).code, 12);
    assert_eq!(with_key(&world, "third", &["key", "remove", "first"]).code, 0);
    let refused = with_key(&world, "third", &["key", "remove", "file", "--json"]);
    assert_eq!((refused.code, refused.error()["code"].as_str().unwrap().to_owned()), (1, "key-slot".to_owned()));
}

#[test]
fn roles_may_what_they_may() {
    let world = World::new();
    sources(&world);
    world.create("monday", "source");
    for role in ["create", "read", "maintain"] {
        fs::write(world.path(role), noise(role.len() as u64, 32)).unwrap();
        let early = world.run(&["key", "add", "--role", role, "--label", role, "--new-key-file", role]);
        assert_eq!(early.code, 1, "before a rotation: {early:#?}");
    }
    world.ok(&["key", "rotate", "--reseal"]);
    for role in ["create", "read", "maintain"] {
        world.ok(&["key", "add", "--role", role, "--label", role, "--new-key-file", role]);
    }
    let allowed: [(&str, &[&str], [i32; 3]); 10] = [
        // command, and its exit code for create, read, maintain
        ("create", &["create", "new", "source"], [0, 68, 68]),
        ("list", &["list"], [68, 0, 0]),
        ("show", &["show", "monday"], [68, 0, 0]),
        ("dump", &["dump", "monday", "folder/file"], [68, 0, 68]),
        ("verify", &["verify", "monday"], [68, 0, 68]),
        ("tag", &["pin", "monday"], [68, 68, 0]),
        ("unpin", &["pin", "--remove", "monday"], [68, 68, 0]),
        ("gc", &["gc"], [68, 68, 0]),
        ("keys", &["key", "list"], [68, 68, 68]),
        ("rotate", &["key", "rotate"], [68, 68, 68]),
    ];
    for (what, arguments, codes) in allowed {
        for (role, code) in ["create", "read", "maintain"].into_iter().zip(codes) {
            // A name that is taken would be refused before the role is.
            let name = format!("new-{role}");
            let own: Vec<&str> =
                arguments.iter().map(|&word| if word == "new" && role != "create" { &name } else { word }).collect();
            let run = with_key(&world, role, &own);
            assert_eq!(run.code, code, "{what} with a {role} key: {run:#?}");
        }
    }
    // What the creating key stored is whole, and the owner reads it.
    world.ok(&["deploy", "new", "target"]);
    assert_eq!(fs::read(world.path("target/folder/file")).unwrap(), noise(1, 400_000));
    world.ok(&["verify"]);
    assert_eq!(with_key(&world, "create", &["deploy", "new", "elsewhere"]).code, 68);
    assert!(!world.path("elsewhere").exists());
}

#[test]
fn a_rotation_shuts_out_whoever_was_removed() {
    let world = World::new();
    sources(&world);
    world.create("monday", "source");
    fs::write(world.path("anna"), noise(5, 32)).unwrap();
    fs::write(world.path("bert"), noise(6, 32)).unwrap();
    world.ok(&["key", "add", "--label", "anna", "--new-key-file", "anna"]);
    world.ok(&["key", "add", "--label", "bert", "--new-key-file", "bert"]);
    world.ok(&["key", "remove", "anna"]);
    let rotated = world.json(&["key", "rotate"]);
    assert_eq!((&rotated["epoch"], &rotated["slots"]), (&1.into(), &2.into()));
    fs::write(world.path("source/folder/more"), noise(7, 100_000)).unwrap();
    world.create("tuesday", "source");
    assert_eq!(with_key(&world, "anna", &["list"]).code, 12);
    assert_eq!(with_key(&world, "bert", &["verify"]).code, 0);
    let resealed = world.json(&["key", "reseal"]);
    assert!(resealed["packs"].as_u64().unwrap() > 0 && resealed["roots"] == 1, "{resealed}");
    assert_eq!(world.json(&["key", "reseal"])["packs"], 0);
    assert_eq!(with_key(&world, "bert", &["verify"]).code, 0);
    world.ok(&["deploy", "monday", "target"]);
    world.ok(&["gc"]);
    world.ok(&["verify"]);
}

#[test]
fn golden_repositories_of_the_first_format_are_rotated_and_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/repositories/v1-plain");
    let world = World::bare();
    copy(&golden, &world.repository());
    for folder in ["sessions", "leases", "condemned", "labels", "tmp"] {
        fs::create_dir_all(world.repository().join(folder)).unwrap();
    }
    let key = fs::read(golden.with_extension("key")).unwrap();
    fs::write(world.path("golden.key"), key).unwrap();
    assert_eq!(with_key(&world, "golden.key", &["verify"]).code, 0);
    // It has a slot for a password: whoever ever had the master key could have made it, so it is not carried
    // over.
    let refused = with_key(&world, "golden.key", &["key", "rotate"]);
    assert!(refused.code == 1 && refused.stderr.contains("copal key remove"), "{refused:#?}");
    fs::write(world.path("new"), "new password").unwrap();
    let early = with_key(&world, "golden.key", &["key", "add", "--new-password-file", "new"]);
    assert!(early.code == 1 && early.stderr.contains("copal key rotate"), "{early:#?}");
    let listed = with_key(&world, "golden.key", &["key", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let other = listed.as_array().unwrap().iter().find(|slot| slot["current"] == false).unwrap();
    assert_eq!(with_key(&world, "golden.key", &["key", "remove", other["id"].as_str().unwrap()]).code, 0);
    let rotated = with_key(&world, "golden.key", &["key", "rotate", "--reseal"]);
    assert_eq!(rotated.code, 0, "{rotated:#?}");
    let added = with_key(&world, "golden.key", &["key", "add", "--label", "word", "--new-password-file", "new"]);
    assert_eq!(added.code, 0, "{added:#?}");
    assert_eq!(with_password(&world, "golden", &["list"]).code, 12);
    for run in [with_key(&world, "golden.key", &["verify"]), with_password(&world, "new password", &["verify"])] {
        assert_eq!(run.code, 0, "{run:#?}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}

#[test]
fn an_unlocked_repository_asks_for_nothing_until_it_is_locked() {
    let world = World::new();
    fs::write(world.path("word"), "a password").unwrap();
    world.ok(&["key", "add", "--label", "word", "--new-password-file", "word"]);
    let unlocked = with_password(&world, "a password", &["unlock", "--for", "60s"]);
    if unlocked.code != 0 {
        // A kernel or container without keyrings: it says so, and nothing else changes.
        assert!(unlocked.stderr.contains("keyring cannot be used here"), "{unlocked:#?}");
        assert_eq!(with_password(&world, "a password", &["list"]).code, 0);
        return;
    }
    assert_eq!(with_password(&world, "wrong", &["list"]).code, 0, "the kernel's key opens");
    let flag = finish(world.command(&["list", "--key-file", "word"]).output().unwrap());
    assert_eq!(flag.code, 2, "a flag comes before it");
    assert_eq!(world.json(&["lock"])["was_unlocked"], true);
    assert_eq!(with_password(&world, "wrong", &["list"]).code, 12);
    assert_eq!(world.json(&["lock"])["was_unlocked"], false);
    // A removed slot opens nothing, unlocked or not.
    assert_eq!(with_password(&world, "a password", &["unlock", "--for", "60s"]).code, 0);
    let itself = world.run(&["key", "remove", "word"]);
    assert!(itself.code == 1 && itself.stderr.contains("the one in use"), "{itself:#?}");
    world.ok(&["key", "remove", "word", "--key-file", "key"]);
    assert_eq!(with_password(&world, "a password", &["list"]).code, 12);
    world.ok(&["lock"]);
    // Its time ends.
    world.ok(&["unlock", "--for", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(with_password(&world, "wrong", &["list"]).code, 12);
}

/// Forbids the three system calls to a child, as container runtimes do.
#[test]
fn a_forbidden_keyring_is_told_and_changes_nothing() {
    let world = World::new();
    let Some(forbidding) = forbidding_keyrings() else { return };
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&forbidding[0]);
        command.args(&forbidding[1..]).arg(support::COPAL).args(arguments);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", world.path("home"));
        command.env("COPAL_REPO", world.repository()).env("COPAL_KEY_FILE", world.path("key"));
        finish(command.output().unwrap())
    };
    let unlock = run(&["unlock"]);
    assert!(unlock.code == 1 && unlock.stderr.contains("keyring cannot be used here"), "{unlock:#?}");
    assert_eq!(run(&["list"]).code, 0);
    assert_eq!(run(&["lock"]).code, 1);
}

/// A command that runs another without key rings: Python installs the filter, where it is there.
fn forbidding_keyrings() -> Option<Vec<String>> {
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"].into_iter().find(|path| Path::new(path).exists())?;
    // A classic BPF program: add_key, request_key and keyctl of this processor fail with EPERM.
    let numbers = if cfg!(target_arch = "x86_64") { [248, 249, 250] } else { [217, 218, 219] };
    let program = format!(
        "import ctypes,os,struct,sys\n\
         n={numbers:?}\n\
         f=[(0x20,0,0,0)]+[(0x15,3-i,0,x) for i,x in enumerate(n)]+[(0x06,0,0,0x7fff0000),(0x06,0,0,0x50001)]\n\
         code=b''.join(struct.pack('HBBI',*x) for x in f)\n\
         b=ctypes.create_string_buffer(code,len(code))\n\
         p=ctypes.create_string_buffer(struct.pack('HxxxxxxP',len(f),ctypes.addressof(b)))\n\
         l=ctypes.CDLL(None,use_errno=True)\n\
         assert l.prctl(38,1,0,0,0)==0 and l.prctl(22,2,p,0,0)==0\n\
         os.execv(sys.argv[1],sys.argv[1:])\n"
    );
    Some(vec![python.to_owned(), "-c".to_owned(), program])
}
