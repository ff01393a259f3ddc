//! `cargo xtask freeze --gib N`: for how long an application is held while its data are captured, for each
//! kind of source.
//!
//! Each kind is made anew, captured once whole and once after a change by the built program in release form,
//! with `/bin/true` as the hooks before and after; the figure is `frozen_ms` of the record. Root is needed:
//! the filesystems are loop-mounted in the folder that is named, and all goes away again. A kind needs some
//! three times its size.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// Files of the tree.
const FILES: u64 = 100_000;
const KINDS: [&str; 4] = ["sqlite", "postgres", "tree", "image"];

struct Arguments {
    gib: u64,
    folder: PathBuf,
    program: PathBuf,
    kinds: Vec<String>,
}

pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<()> {
    let arguments = parse(words)?;
    for kind in &arguments.kinds {
        let bench = Bench::new(&arguments, kind)?;
        match kind.as_str() {
            "sqlite" => bench.sqlite()?,
            "postgres" => bench.postgres()?,
            "tree" => bench.tree()?,
            _ => bench.image()?,
        }
    }
    Ok(())
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Arguments> {
    let mut arguments = Arguments {
        gib: 1,
        folder: std::env::temp_dir(),
        program: "target/release/copal".into(),
        kinds: KINDS.map(str::to_owned).to_vec(),
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().and_then(|value| value.into_string().ok()).context("a value is missing");
        match word.to_str() {
            Some("--gib") => arguments.gib = value()?.parse()?,
            Some("--folder") => arguments.folder = value()?.into(),
            Some("--program") => arguments.program = value()?.into(),
            Some("--kind") => arguments.kinds = vec![value()?],
            _ => bail!(
                "usage: cargo xtask freeze [--gib N] [--folder DIR] [--program COPAL] [--kind {}]",
                KINDS.join("|")
            ),
        }
    }
    ensure!(arguments.kinds.iter().all(|kind| KINDS.contains(&kind.as_str())), "a kind is one of {KINDS:?}");
    arguments.program = fs::canonicalize(&arguments.program).context("build it: cargo build --release")?;
    Ok(arguments)
}

/// A folder with a world for the program, on XFS with reflinks.
struct Bench {
    kind: String,
    bytes: u64,
    top: PathBuf,
    program: PathBuf,
}

impl Bench {
    fn new(arguments: &Arguments, kind: &str) -> Result<Self> {
        let top = arguments.folder.join(format!("copal-freeze-{}", std::process::id()));
        let bench = Self { kind: kind.into(), bytes: arguments.gib << 30, top, program: arguments.program.clone() };
        fs::create_dir_all(bench.path(""))?;
        let image = bench.top.join("filesystem");
        // Sparse: it takes what is written.
        File::create(&image)?.set_len(bench.bytes * 4 + (2 << 30))?;
        shell(&format!(
            "mkfs.xfs -q -m reflink=1 {0} && mount -o loop {0} {1}",
            image.display(),
            bench.path("").display()
        ))?;
        fs::write(bench.path("key"), [7; 32])?;
        bench.copal(&["init"])?;
        Ok(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.join("mount").join(name)
    }

    fn copal(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .env("HOME", self.path("home"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("COPAL_REPO", self.path("repository"))
            .env("COPAL_KEY_FILE", self.path("key"))
            .current_dir(self.path(""))
            .output()?;
        ensure!(output.status.success(), "copal {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn configure(&self, fields: &str) -> Result<()> {
        let hook = |when: &str| format!("[[app.a.hook]]\nwhen = \"{when}\"\nargv = [\"/bin/true\"]\n");
        let kind = &self.kind;
        let config = format!(
            "[app.a]\nclass = \"direct\"\n[[app.a.source]]\nkind = \"{kind}\"\nlabel = \"data\"\n{fields}\n{}{}",
            hook("pre"),
            hook("post")
        );
        Ok(fs::write(self.path("copal.toml"), config)?)
    }

    /// Captures; prints how long the application was held, and how long all took.
    fn capture(&self, name: &str, what: &str) -> Result<()> {
        // Files of the last instant are not trusted.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let begun = Instant::now();
        let report: serde_json::Value = serde_json::from_str(&self.copal(&["create", name, "--app", "a", "--json"])?)?;
        let took = begun.elapsed();
        let shown: serde_json::Value = serde_json::from_str(&self.copal(&["show", &format!("a/{name}"), "--json"])?)?;
        let held = find(&shown, "frozen_ms").context("the record says nothing of the freeze")?;
        println!(
            "{:9} {what:34} held {held:>8} ms; {:>7.1} s in all, {:>6} of {:>6} MiB read",
            self.kind,
            took.as_secs_f64(),
            report["bytes_read"].as_u64().unwrap_or_default() >> 20,
            report["bytes"].as_u64().unwrap_or_default() >> 20,
        );
        Ok(std::io::stdout().flush()?)
    }

    fn sqlite(&self) -> Result<()> {
        let path = self.path("hub.db");
        let rows = i64::try_from(self.bytes / 4096)?;
        let database = rusqlite::Connection::open(&path)?;
        database.pragma_update(None, "journal_mode", "wal")?;
        database.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")?;
        // Half a page of noise a row, so that all of it is neither equal nor incompressible.
        let fill = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
                    INSERT INTO t (id, v) SELECT i, CAST(randomblob(2000) || zeroblob(2000) AS BLOB) FROM n";
        for from in (0..rows).step_by(50_000) {
            database.execute(fill, [from, (from + 50_000).min(rows) - 1])?;
        }
        self.configure(&format!("path = {path:?}\ncheck = \"none\""))?;
        self.capture("one", "whole")?;
        database.execute("UPDATE t SET v = randomblob(4000) WHERE id % 1000 = 0", [])?;
        self.capture("two", "0.1% of the rows changed")
    }

    fn postgres(&self) -> Result<()> {
        let folder = PathBuf::from(format!("/tmp/pgfreeze{}", std::process::id()));
        let bin = shell("ls -d /usr/lib/postgresql/*/bin | tail -1")?;
        let (bin, data) = (bin.trim(), self.path("postgres"));
        let (socket, data) = (folder.display(), data.display());
        let as_postgres = "setpriv --reuid=postgres --regid=postgres --clear-groups";
        shell(&format!(
            "chmod 755 {} && mkdir -p {socket} {data} && chown postgres {socket} {data}",
            self.path("").display()
        ))?;
        shell(&format!("cd / && {as_postgres} {bin}/initdb -A trust -N -U postgres -D {data}"))?;
        shell(&format!(
            "cd / && {as_postgres} {bin}/pg_ctl start -w -s -l {data}/log -D {data} -o \"-k {socket} -c listen_addresses='' -c fsync=off -c max_wal_size=256MB\""
        ))?;
        let outcome = self.postgres_running(bin, &socket.to_string());
        shell(&format!("cd / && {as_postgres} {bin}/pg_ctl stop -m immediate -D {data}; rm -rf {socket}"))?;
        outcome
    }

    fn postgres_running(&self, bin: &str, socket: &str) -> Result<()> {
        let ask = |statement: &str| {
            shell(&format!(
                "{bin}/psql -X -q -v ON_ERROR_STOP=1 -h {socket} -U postgres -d postgres -c \"{statement}\""
            ))
        };
        let rows = self.bytes / 1060;
        ask("CREATE TABLE t (id bigint, v text)")?;
        ask("ALTER TABLE t ALTER v SET STORAGE PLAIN")?;
        ask(&format!(
            "INSERT INTO t SELECT i, repeat(md5(i::text), 16) || repeat(md5((i * 7)::text), 15) FROM generate_series(1, {rows}) i"
        ))?;
        self.configure(&format!("dsn = \"host={socket} user=postgres dbname=postgres\"\ntimeout = \"1h\""))?;
        self.capture("one", "whole")?;
        ask("UPDATE t SET v = 'changed' WHERE id % 1000 = 0")?;
        self.capture("two", "0.1% of the rows changed")
    }

    fn tree(&self) -> Result<()> {
        let tree = self.path("tree");
        let each = self.bytes / FILES;
        let mut content = vec![0; each as usize];
        let mut random = File::open("/dev/urandom")?;
        for number in 0..FILES {
            let folder = tree.join(format!("{:03}", number / 200));
            if number % 200 == 0 {
                fs::create_dir_all(&folder)?;
            }
            // Every second half is noise of its own.
            std::io::Read::read_exact(&mut random, &mut content[..each as usize / 2])?;
            fs::write(folder.join(format!("{number}")), &content)?;
        }
        self.configure(&format!("path = {tree:?}"))?;
        self.capture("one", "100,000 files, all new")?;
        for number in (0..FILES).step_by(10_000) {
            fs::write(tree.join(format!("{:03}/{number}", number / 200)), &content)?;
        }
        self.capture("two", "10 files changed")?;
        for number in (1..FILES).step_by(50) {
            fs::write(tree.join(format!("{:03}/{number}", number / 200)), &content)?;
        }
        self.capture("three", "2,000 files changed")
    }

    fn image(&self) -> Result<()> {
        let path = self.path("disk.img");
        shell(&format!("head -c {} /dev/urandom > {}", self.bytes, path.display()))?;
        self.configure(&format!("path = {path:?}"))?;
        self.capture("one", "whole")?;
        let file = OpenOptions::new().write(true).open(&path)?;
        for page in (0..self.bytes / 4096).step_by(1000) {
            file.write_all_at(&[page as u8; 4096], page * 4096)?;
        }
        drop(file);
        self.capture("two", "0.1% of the pages changed")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let point = self.path("");
        if let Err(error) = shell(&format!("umount {} && rm -rf {}", point.display(), self.top.display())) {
            eprintln!("xtask: {} is left: {error:#}", self.top.display());
        }
    }
}

fn shell(script: &str) -> Result<String> {
    let output = Command::new("/bin/sh").args(["-c", script]).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The first value of a name, wherever it stands.
fn find<'v>(document: &'v serde_json::Value, name: &str) -> Option<&'v serde_json::Value> {
    match document {
        serde_json::Value::Object(fields) => {
            fields.get(name).or_else(|| fields.values().find_map(|value| find(value, name)))
        }
        serde_json::Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}
