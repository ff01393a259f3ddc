//! Debian's PostgreSQL, started for one test in a folder of its own, on a Unix socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running server; it ends when dropped.
pub struct Server {
    bin: PathBuf,
    folder: tempfile::TempDir,
    /// Asked of everybody.
    password: Option<String>,
}

/// The newest version that is installed.
fn bin() -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .expect("`cargo xtask setup` installs PostgreSQL")
        .map(|entry| entry.unwrap().path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL's programs")
}

impl Server {
    pub fn start() -> Self {
        // Short: the path of a socket has some 100 bytes.
        let folder = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let server = Self { bin: bin(), folder, password: None };
        server.as_postgres(Command::new("chown").arg("postgres").arg(server.folder.path()), true);
        let (data, socket) = (server.data(), server.socket());
        let mut init = Command::new(server.bin.join("initdb"));
        init.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-U", "postgres", "-D"]).arg(&data);
        server.as_postgres(&mut init, false);
        let options = format!("-k {socket} -c listen_addresses='' -c fsync=off -c shared_buffers=32MB");
        let mut start = Command::new(server.bin.join("pg_ctl"));
        start
            .args(["start", "-w", "-s", "-o", &options, "-l"])
            .arg(server.folder.path().join("log"))
            .arg("-D")
            .arg(&data);
        server.as_postgres(&mut start, false);
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A new folder in which the server may write.
    pub fn folder_of_server(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        self.as_postgres(Command::new("mkdir").arg(&path), false);
        path.to_str().unwrap().to_owned()
    }

    /// Folder of the socket.
    pub fn socket(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    /// A server does not run as root.
    fn as_postgres(&self, command: &mut Command, as_root: bool) {
        let is_root = rustix::process::geteuid().is_root();
        let mut run = Command::new("setpriv");
        if is_root && !as_root {
            run.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        let status = run.arg(command.get_program()).args(command.get_args()).current_dir("/").status().unwrap();
        assert!(status.success(), "{command:?}");
    }

    pub fn dsn(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.socket())
    }

    /// Asks a statement; what it answers.
    #[track_caller]
    pub fn ask(&self, database: &str, statement: &str) -> String {
        let output = Command::new(self.bin.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, "-d"])
            .arg(self.dsn(database))
            .envs(self.password.iter().map(|password| ("PGPASSWORD", password)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What `pg_dumpall` says of databases and roles, without the rows.
    pub fn shown(&self) -> String {
        let mut command = Command::new(self.bin.join("pg_dumpall"));
        let output = command.args(["--schema-only", "-d"]).arg(self.dsn("postgres")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        // These have a word of chance.
        let told = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        told.map(|line| format!("{line}\n")).collect()
    }

    /// From here on nobody connects without this password.
    pub fn require(&mut self, password: &str) {
        self.ask("postgres", &format!("ALTER ROLE postgres PASSWORD '{password}'"));
        self.password = Some(password.to_owned());
        fs::write(self.data().join("pg_hba.conf"), "local all all scram-sha-256\n").unwrap();
        self.ask("postgres", "SELECT pg_reload_conf()");
        let without = || {
            let mut command = Command::new(self.bin.join("psql"));
            command.args(["-X", "-w", "-c", "SELECT 1", "-d"]).arg(self.dsn("postgres"));
            command.output().unwrap().status.success()
        };
        while without() {
            std::thread::yield_now();
        }
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = Command::new(self.bin.join("pg_ctl"));
        stop.args(["stop", "-s", "-m", "immediate", "-D"]).arg(self.data());
        if !std::thread::panicking() {
            self.as_postgres(&mut stop, false);
        }
    }
}
