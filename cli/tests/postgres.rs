//! Goal: databases of a PostgreSQL server are captured at one instant and put back whole; any error is a
//! failure. Method: the built program and Debian's server.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use support::World;
use support::postgres::Server;

const SUM: &str = "SELECT count(*) || ':' || coalesce(sum(hashtext(t::text)::bigint), 0) FROM t";

fn configure(world: &World, server: &Server, more: &str) {
    let config = format!(
        "[app.shop]\n[[app.shop.source]]\nkind = \"postgres\"\nlabel = \"pg\"\ndsn = \"host={} user=postgres\"\n\
         databases = [\"shop\", \"log\"]\nbin = {:?}\nversion_query = \"SELECT version FROM schema_version\"\n{more}",
        server.socket(),
        server.bin().to_str().unwrap()
    );
    fs::write(world.path("copal.toml"), config).unwrap();
}

fn planted() -> (World, Server) {
    let (world, server) = (World::new(), Server::start());
    server.ask("postgres", "CREATE ROLE keeper");
    for database in ["shop", "log"] {
        server.ask("postgres", &format!("CREATE DATABASE {database} OWNER keeper"));
        server.ask(database, "CREATE TABLE schema_version AS SELECT 3 AS version");
        server.ask(database, "CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, 20000) n");
        server.ask(database, "ALTER TABLE t OWNER TO keeper");
    }
    configure(&world, &server, "");
    (world, server)
}

#[test]
fn a6_databases_are_dumped_and_put_back_as_one() {
    let (world, server) = planted();
    let before = [server.ask("shop", SUM), server.ask("log", SUM)];
    let first = world.json(&["create", "one", "--app", "shop"]);
    server.ask("shop", "UPDATE t SET v = 'changed' WHERE id % 100 = 0");
    server.ask("log", "DELETE FROM t WHERE id > 5");
    let second = world.json(&["create", "two", "--app", "shop"]);
    // Uncompressed dumps deduplicate.
    let grown = |report: &serde_json::Value| report["bytes_new"].as_u64().unwrap();
    assert!(grown(&second) < grown(&first), "{second}");
    let after = [server.ask("shop", SUM), server.ask("log", SUM)];
    let report = world.json(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    assert_eq!(report["components"][0]["label"], "pg");
    assert_eq!([server.ask("shop", SUM), server.ask("log", SUM)], before);
    world.ok(&["deploy", "shop/two", "--app", "shop", "--yes", "--no-safety"]);
    assert_eq!([server.ask("shop", SUM), server.ask("log", SUM)], after);
    let databases = server.ask("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE '%copal%'");
    assert_eq!(databases, "0", "databases were left behind");
    assert_eq!(server.ask("shop", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "keeper");
}

#[test]
fn h14_what_is_pinned_is_what_stood_at_the_capture() {
    let (world, server) = planted();
    let post = "[[app.shop.hook]]\nwhen = \"pre\"\nargv = [\"/bin/true\"]\n[[app.shop.hook]]\nwhen = \"post\"\nargv = [\"psql\", \"-X\", \"-q\", \"-c\", \"DELETE FROM t\", \"-d\", \"DSN\"]\n";
    configure(&world, &server, &post.replace("DSN", &server.dsn("shop")));
    let before = server.ask("shop", SUM);
    // The post hook changes everything before the dump begins.
    world.ok(&["create", "one", "--app", "shop"]);
    assert_eq!(server.ask("shop", SUM), "0:0");
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes", "--no-safety"]);
    assert_eq!(server.ask("shop", SUM), before);
}

#[test]
fn a6_a_missing_role_is_a_failure_and_leaves_what_stood_there() {
    let (world, server) = planted();
    world.ok(&["create", "one", "--app", "shop"]);
    let missing =
        "ALTER TABLE t OWNER TO postgres; ALTER DATABASE shop OWNER TO postgres; ALTER DATABASE log OWNER TO postgres";
    for statement in missing.split("; ") {
        let database = "shop";
        server.ask(database, statement);
    }
    server.ask("log", "ALTER TABLE t OWNER TO postgres");
    server.ask("postgres", "DROP ROLE keeper");
    server.ask("shop", "DELETE FROM t WHERE id > 7");
    let before = server.ask("shop", SUM);
    let error = world.fails(&["deploy", "shop/one", "--app", "shop", "--yes", "--no-safety"], 79, "database");
    assert!(error["message"].as_str().unwrap().contains("keeper"), "{error}");
    assert_eq!(server.ask("shop", SUM), before);
    let databases = server.ask("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE '%copal%'");
    assert_eq!(databases, "0", "databases were left behind");
    // With the globals the role is made again.
    configure(&world, &server, "globals = true\n");
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes", "--no-safety"]);
    assert_eq!(server.ask("shop", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "keeper");
}

#[test]
fn a_newer_schema_is_refused() {
    let (world, server) = planted();
    world.ok(&["create", "one", "--app", "shop"]);
    server.ask("shop", "UPDATE schema_version SET version = 2");
    let before = server.ask("shop", SUM);
    world.fails(&["deploy", "shop/one", "--app", "shop", "--yes"], 79, "schema-newer");
    assert_eq!(server.ask("shop", SUM), before);
}

#[test]
fn a_database_on_the_command_line() {
    let (world, server) = planted();
    world.ok(&["create", "one", &format!("postgres:{}", server.dsn("shop"))]);
    world.ok(&["deploy", "one", &world.text("dumps")]);
    let listed: Vec<_> = fs::read_dir(world.path("dumps")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed.len(), 2, "{listed:?}");
    world.fails(&["create", "two", "postgres:host=/nowhere dbname=x"], 86, "database");
}

/// All that can be said about a database as a whole comes back with it, and what the server ends by itself
/// does not end a capture.
#[test]
fn d17_a_database_comes_back_as_pg_dumpall_shows_it() {
    let (world, server) = planted();
    server.ask("postgres", "CREATE ROLE \"odd \"\" role\"");
    server.ask("postgres", "CREATE ROLE third");
    let place = server.folder_of_server("space");
    server.ask("postgres", &format!("CREATE TABLESPACE \"odd space\" LOCATION '{place}'"));
    let icu =
        "CREATE DATABASE words TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LOCALE 'C'";
    server.ask("postgres", icu);
    for statement in [
        "ALTER DATABASE shop SET work_mem = '7MB'",
        "ALTER DATABASE shop SET search_path = \"$user\", public, \"odd, schema\"",
        "ALTER DATABASE shop SET \"my.setting\" = 'it''s \\ so'",
        "ALTER DATABASE shop SET default_transaction_read_only = on",
        "ALTER ROLE keeper IN DATABASE shop SET lock_timeout = '3s'",
        "ALTER DATABASE shop CONNECTION LIMIT 17",
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
        "GRANT CREATE, CONNECT ON DATABASE shop TO \"odd \"\" role\" WITH GRANT OPTION",
        "COMMENT ON DATABASE shop IS E'two\nlines, and it''s \\\\ all'",
        "SET SESSION AUTHORIZATION \"odd \"\" role\"; GRANT CONNECT ON DATABASE shop TO third",
        "ALTER DATABASE log SET TABLESPACE \"odd space\"",
        "ALTER DATABASE log IS_TEMPLATE true",
        "ALTER DATABASE words SET statement_timeout = '50ms'",
        "ALTER DATABASE words SET idle_in_transaction_session_timeout = '50ms'",
    ] {
        server.ask("postgres", statement);
    }
    configure(&world, &server, "");
    let config = fs::read_to_string(world.path("copal.toml")).unwrap();
    let slow = "[[app.shop.hook]]\nwhen = \"post\"\nargv = [\"/bin/sleep\", \"0.2\"]\n";
    let config = config.replace("\"log\"]", "\"log\", \"words\"]") + slow;
    fs::write(world.path("copal.toml"), config).unwrap();
    let before = server.shown();
    assert!(before.contains("de-AT") && before.contains("17") && before.contains("odd, schema"), "{before}");
    for said in ["odd space", "TO third", "IS_TEMPLATE"] {
        assert!(before.contains(said), "{said}: {before}");
    }
    world.ok(&["create", "one", "--app", "shop"]);
    world.ok(&["deploy", "shop/one", "--app", "shop", "--yes", "--no-safety"]);
    assert_eq!(server.shown(), before);
}

/// Who owns a database and is no superuser may take it.
#[test]
fn d17_an_owner_who_is_no_superuser_can_take_a_database() {
    let (world, server) = planted();
    server.ask("postgres", "ALTER ROLE keeper LOGIN");
    server.ask("shop", "ALTER TABLE schema_version OWNER TO keeper");
    let dsn = server.dsn("shop").replace("user=postgres", "user=keeper");
    world.ok(&["create", "one", &format!("postgres:{dsn}")]);
    assert!(world.ok(&["ls", "--recursive", "one"]).contains("globals.sql"));
}

#[test]
fn d17_an_owner_who_is_no_superuser_can_put_a_database_back() {
    let (world, server) = planted();
    server.ask("postgres", "ALTER ROLE keeper LOGIN CREATEDB");
    server.ask("shop", "ALTER TABLE schema_version OWNER TO keeper");
    server.ask("postgres", "ALTER DATABASE shop SET work_mem = '7MB'");
    server.ask("postgres", "COMMENT ON DATABASE shop IS 'of the keeper'");
    let before = (server.shown(), server.ask("shop", SUM));
    let dsn = server.dsn("shop").replace("user=postgres", "user=keeper");
    world.ok(&["create", "one", &format!("postgres:{dsn}")]);
    server.ask("shop", "DELETE FROM t");
    world.ok(&["deploy", "one", &format!("postgres:{dsn}"), "--yes"]);
    assert_eq!((server.shown(), server.ask("shop", SUM)), before);
}

/// Under the name that the connection string has; what stands there is asked for, and becomes a snapshot
/// first.
#[test]
fn d17_a_database_is_loaded_under_another_name() {
    let (world, server) = planted();
    server.ask("postgres", "COMMENT ON DATABASE shop IS 'all of it'");
    let before = server.ask("shop", SUM);
    let word = |database: &str| format!("postgres:{}", server.dsn(database));
    world.ok(&["create", "one", &word("shop")]);
    let copy = word("shop_copy");
    let rehearsal = world.json(&["deploy", "one", &copy, "--dry-run"]);
    assert_eq!((&rehearsal["dry_run"], &rehearsal["target"]), (&true.into(), &"postgres:shop_copy".into()));
    let is_there = "SELECT count(*) FROM pg_database WHERE datname = 'shop_copy'";
    assert_eq!(server.ask("postgres", is_there), "0");
    // Nothing stands there: nobody is asked.
    let report = world.json(&["deploy", "one", &copy]);
    assert_eq!(report["safety"], serde_json::Value::Null);
    assert_eq!((server.ask("shop_copy", SUM), server.ask("shop", SUM)), (before.clone(), before.clone()));
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()";
    assert_eq!(server.ask("shop_copy", comment), "all of it");
    server.ask("shop_copy", "DELETE FROM t WHERE id > 3");
    let changed = server.ask("shop_copy", SUM);
    world.fails(&["deploy", "one", &copy], 2, "usage");
    assert_eq!(server.ask("shop_copy", SUM), changed);
    let uri = format!("postgres:///shop_copy?user=postgres&host={}", server.socket().replace('/', "%2F"));
    let report = world.json(&["deploy", "one", &uri, "--yes"]);
    assert_eq!(server.ask("shop_copy", SUM), before);
    world.ok(&["deploy", report["safety"].as_str().unwrap(), &copy, "--yes"]);
    assert_eq!(server.ask("shop_copy", SUM), changed);
    // What cannot be is refused before anything is made.
    let databases = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    let stand = server.ask("postgres", databases);
    world.ok(&["create", "both", "--app", "shop"]);
    world.fails(&["deploy", "shop/both", &word("new"), "--yes"], 79, "database");
    world.fails(&["deploy", "one", &format!("postgres:host={} user=postgres", server.socket()), "--yes"], 2, "usage");
    world.fails(&["deploy", "one", &copy, "--yes", "--mode", "swap"], 2, "usage");
    world.fails(&["deploy", "one", &copy, "--yes", "--path", "other"], 2, "usage");
    world.fails(&["deploy", "one", "postgres:host=/nowhere dbname=x", "--yes"], 79, "database");
    assert_eq!(server.ask("postgres", databases), stand);
    assert!(!world.path(&copy).exists());
}

/// Programs of the server that do something besides: after a dump, and before each statement that changes a
/// database.
fn wrap_programs(world: &World, server: &Server) -> String {
    let (bin, folder) = (server.bin().to_str().unwrap(), world.path("bin"));
    fs::create_dir(&folder).unwrap();
    for name in ["pg_restore", "pg_dumpall"] {
        symlink(format!("{bin}/{name}"), folder.join(name)).unwrap();
    }
    let (armed, said, left) = (world.text("armed"), world.text("acknowledged"), world.text("left"));
    let insert = format!("{bin}/psql -X -q -c \"INSERT INTO t VALUES (-1, 'late')\" -d '{}'", server.dsn("shop"));
    let dump = format!(
        "#!/bin/sh\n{bin}/pg_dump \"$@\" || exit $?\n[ -e {armed} ] && {insert} 2>/dev/null && echo >>{said}\nexit 0\n"
    );
    let pipe = world.text("pipe");
    let ask = format!(
        "#!/bin/sh\nmkfifo {pipe}.$$\nexec 4<&0\nwhile IFS= read -r line; do\n\
         case $line in ALTER*|BEGIN*|COMMIT*) if [ -e {left} ]; then\n\
         n=$(cat {left}); if [ $n = 0 ]; then rm {left}; kill -9 $PPID; exit; fi; echo $((n - 1)) >{left}; fi;; esac\n\
         printf '%s\\n' \"$line\"\ndone <&4 >{pipe}.$$ 2>/dev/null &\nexec {bin}/psql \"$@\" <{pipe}.$$ 4<&-\n"
    );
    for (name, text) in [("pg_dump", dump), ("psql", ask)] {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = fs::read_to_string(world.path("copal.toml")).unwrap();
    let wrapped = format!("bin = {:?}", folder.to_str().unwrap());
    let config = config.replace(&format!("bin = {bin:?}"), &wrapped);
    assert!(config.contains(&wrapped));
    fs::write(world.path("copal.toml"), config).unwrap();
    said
}

#[test]
fn d06_what_is_committed_until_a_database_is_replaced_is_in_the_safety_snapshot() {
    let (world, server) = planted();
    let said = wrap_programs(&world, &server);
    world.ok(&["create", "one", "--app", "shop"]);
    let before = server.ask("shop", SUM);
    server.ask("shop", "DELETE FROM t WHERE id > 7");
    fs::write(world.path("armed"), "").unwrap();
    // A session that was there before does not go on either.
    let mut session = Command::new(server.bin().join("psql"));
    session.args(["-X", "-q", "-c", "SELECT pg_sleep(600)", "-d"]).arg(server.dsn("shop")).stderr(Stdio::null());
    let mut session = session.spawn().unwrap();
    let report = world.json(&["deploy", "shop/one", "--app", "shop", "--yes"]);
    assert!(!session.wait().unwrap().success());
    assert_eq!(server.ask("shop", SUM), before);
    fs::remove_file(world.path("armed")).unwrap();
    let acknowledged = fs::read_to_string(&said).unwrap_or_default().lines().count();
    world.ok(&["deploy", report["safety"].as_str().unwrap(), "--app", "shop", "--yes", "--no-safety"]);
    assert_eq!(server.ask("shop", "SELECT count(*) FROM t WHERE id = -1"), acknowledged.to_string());
    assert_eq!(server.ask("shop", "SELECT count(*) FROM t WHERE id > 0"), "7");
    server.ask("shop", "INSERT INTO t VALUES (8, 'open')");
}

#[test]
fn d06_a_kill_at_any_step_of_the_exchange_of_databases_is_taken_back() {
    let (world, server) = planted();
    wrap_programs(&world, &server);
    world.ok(&["create", "one", "--app", "shop"]);
    server.ask("shop", "DELETE FROM t WHERE id > 7");
    server.ask("postgres", "ALTER DATABASE log ALLOW_CONNECTIONS false");
    let state = "SELECT string_agg(datname || datallowconn || datconnlimit, ' ' ORDER BY datname) FROM pg_database";
    let before = (server.ask("postgres", state), server.ask("shop", SUM));
    let deploy = ["deploy", "shop/one", "--app", "shop", "--yes", "--no-safety"];
    let mut kills = 0;
    loop {
        fs::write(world.path("left"), format!("{kills}\n")).unwrap();
        if !world.run(&deploy).was_killed() {
            break;
        }
        world.ok(&["list"]);
        assert_eq!((server.ask("postgres", state), server.ask("shop", SUM)), before, "{kills}");
        kills += 1;
    }
    assert!(kills > 10, "{kills}");
    assert_eq!(server.ask("shop", "SELECT count(*) FROM t"), "20000");
    assert_eq!(server.ask("postgres", "SELECT count(*) FROM pg_database WHERE NOT datallowconn"), "1");
}
