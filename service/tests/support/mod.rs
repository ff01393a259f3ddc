//! What the tests of the daemon share: a repository with two applications on the real disk, a daemon in this
//! process on a free port, and a client that speaks to it as any other would.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use copal_application::{Tools, parse};
use copal_engine::context::SilentMonitor;
use copal_engine::{Clock, Context};
use copal_manifest::entry::Timestamp;
use copal_service::access::{Limits, Role, Tokens};
use copal_service::platform::Applications;
use copal_service::{Authentication, ServeOptions, Server, TlsFiles};
use copal_store::config::{CipherSuite, Parameters};
use copal_store::entropy::OsEntropy;
use copal_store::keys::{Credential, StretchCost};
use copal_store::local::LocalBackend;
use copal_store::repository::{InitOptions, Repository};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Debug)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
    }
    fn monotonic_nanoseconds(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// A repository with the applications `hub` (the default one: a tree and a config file) and `shop`.
pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) folder: PathBuf,
    _temporary: TempDir,
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) url: String,
    pub(crate) client: Client,
    pub(crate) token: Option<String>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let temporary = TempDir::new().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let options = InitOptions {
            parameters: Parameters::default(),
            suite: CipherSuite::Aes256Gcm,
            stretch: StretchCost::default(),
            slot_label: "test".into(),
            created_seconds: 0,
        };
        let repository = Repository::init(
            Arc::new(LocalBackend::new(&folder.join("repository"))),
            Arc::new(OsEntropy),
            &Credential::KeyFile(zeroize::Zeroizing::new([7; 32])),
            &options,
        )
        .unwrap();
        let context = Context {
            repository,
            clock: Arc::new(RealClock(Instant::now())),
            monitor: Arc::new(SilentMonitor),
            cache_folder: Some(folder.join("cache")),
            memory: None,
            state_folder: Some(folder.join("state")),
            own_places: Vec::new(),
            interrupt: Arc::new(AtomicBool::new(false)),
            threads: 2,
            host: "test".into(),
            user: "tester".into(),
            program: "test".into(),
        };
        fs::create_dir_all(folder.join("hub/bucket")).unwrap();
        fs::create_dir_all(folder.join("shop")).unwrap();
        let world = Self { context, folder, _temporary: temporary };
        world.write("hub/bucket/a.txt", b"first");
        world.write("hub/bucket/deep/b.txt", b"second");
        world.write("hub/notes/n.txt", b"note");
        world.write("shop/goods.txt", b"goods");
        world
    }

    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.folder.join(path)).unwrap()
    }

    pub(crate) fn applications(&self) -> Applications {
        let text = "\
            [app.hub]\ndefault = true\n\
            [[app.hub.source]]\nkind = \"tree\"\nlabel = \"bucket\"\npath = \"hub/bucket\"\n\
            [[app.hub.source]]\nkind = \"tree\"\nlabel = \"notes\"\npath = \"hub/notes\"\n\
            [app.shop]\n\
            [[app.shop.source]]\nkind = \"tree\"\nlabel = \"shop\"\npath = \"shop\"\n";
        Applications::new(parse(&self.folder.join("copal.toml"), text).unwrap(), Tools::default())
    }

    pub(crate) fn options(&self) -> ServeOptions {
        ServeOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            authentication: Authentication::None,
            tls: None,
            state_folder: self.folder.join("serve"),
            limits: Limits { requests_per_second: 0, ..Limits::default() },
            deadline: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        }
    }

    /// Without tokens.
    pub(crate) async fn serve(&self) -> Daemon {
        self.serve_with(self.options()).await
    }

    /// With tokens; the client shows one of this role.
    pub(crate) async fn serve_as(&self, role: Role) -> Daemon {
        let options = ServeOptions { authentication: Authentication::Tokens, ..self.options() };
        let mut daemon = self.serve_with(options).await;
        daemon.token = Some(self.token(role, &[]));
        daemon
    }

    /// Makes a token as the program does: beside the daemon, in its folder.
    pub(crate) fn token(&self, role: Role, apps: &[&str]) -> String {
        fs::create_dir_all(self.folder.join("serve")).unwrap();
        let tokens = Tokens::open(&self.folder.join("serve"), Arc::new(OsEntropy)).unwrap();
        let made = tokens.add(&format!("a {}", role.name()), role, apps.iter().map(ToString::to_string).collect());
        // The daemon looks at the file twice a second.
        std::thread::sleep(Duration::from_millis(600));
        made.unwrap().token
    }

    pub(crate) async fn serve_with(&self, options: ServeOptions) -> Daemon {
        let server = Server::start(self.context.clone(), self.applications(), Arc::new(OsEntropy), options).await;
        let server = server.map_err(|problem| problem.detail.clone()).unwrap();
        let url = server.url().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            server.serve(async move { drop(stopped.await) }).await.map_err(|problem| problem.detail.clone()).unwrap();
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .tls_danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        Daemon { url, client, token: None, stop: Some(stop), served: Some(served) }
    }
}

impl Daemon {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    /// The JSON of a GET that succeeds.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }

    /// Takes a snapshot and waits for it.
    pub(crate) async fn create(&self, path: &str) -> Value {
        let response = self.post(&format!("{path}?wait=true")).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, 201, "{path}: {body}");
        body
    }

    /// Ends it as a signal would, and waits.
    pub(crate) async fn end(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.served.take().unwrap().await.unwrap();
    }
}

/// Asserts a problem document, and returns it.
#[track_caller]
pub(crate) fn problem(status: reqwest::StatusCode, body: &Value, expected: u16, code: &str) {
    assert_eq!(status, expected, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["status"], expected);
    assert_eq!(body["type"], format!("urn:copal:problem:{code}"));
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    assert!(body["exit_code"].as_u64().is_some_and(|code| code > 0));
}

/// Asserts that a response is a problem.
pub(crate) async fn refused(response: Response, expected: u16, code: &str) -> Value {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/problem+json", "{status}");
    let body: Value = response.json().await.unwrap();
    problem(status, &body, expected, code);
    body
}

/// A certificate for localhost, made for this test.
pub(crate) fn tls_files(folder: &Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    fs::write(&files.certificate, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}
