//! Tokens: 32 random bytes that a client holds and the daemon knows by hash only. One small file, replaced as
//! a whole, which the program changes too while the daemon runs.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use copal_manifest::shown::is_hidden;
use copal_store::entropy::Entropy;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Role;
use crate::problem::{Problem, Result};

/// Marks a token where it leaks, for scanners of secrets.
const PREFIX: &str = "copal_";
/// How often the file is read for changes of others.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Most tokens.
const TOKENS_MAX: usize = 1000;
/// Longest name of a token.
const NAME_BYTES_MAX: usize = 100;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    view: TokenView,
    /// BLAKE3 of the token, in hexadecimal. The token has 256 random bits: nothing has to be stretched.
    hash: String,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// Whose it is, for the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Applications that it may see; empty: all.
    #[serde(default)]
    pub apps: Vec<String>,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// A token just made: the only time that its secret is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// The secret.
    pub token: String,
    /// The rest.
    #[serde(flatten)]
    pub view: TokenView,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    tokens: Vec<Kept>,
}

/// The tokens of a daemon.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    /// Holds the first token, until somebody has shown it.
    first: PathBuf,
    entropy: Arc<dyn Entropy>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_hash: HashMap<String, TokenView>,
    looked: Option<Instant>,
    /// What was read last, by its hash: times and lengths of two files may be the same.
    read: Option<blake3::Hash>,
    /// Hash of the first token, as long as it stands in its file.
    first: Option<String>,
}

impl Tokens {
    /// Those of a state folder; none yet is fine.
    pub fn open(folder: &Path, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let (path, first) = (folder.join("tokens.json"), folder.join("first-token"));
        let tokens = Self { path, first, entropy, known: Mutex::default() };
        let document = tokens.read()?;
        // Without any token the first one may just be made by another process.
        if !document.tokens.is_empty() {
            tokens.forget_first_unless_known(&document)?;
        }
        Ok(tokens)
    }

    /// Makes the first token, when there is none, into a file that only the daemon's user can read; where it
    /// is.
    pub(crate) fn begin(&self) -> Result<Option<&Path>> {
        if !self.read()?.tokens.is_empty() {
            return Ok(None);
        }
        let made = self.new_token("first", Role::Administer, Vec::new())?;
        // In the file first: a token that nobody has would lock everybody out.
        remove_if_there(&self.first)?;
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&self.first)?;
        writeln!(file, "{}", made.token)?;
        file.sync_all()?;
        self.keep(&made)?;
        self.known().first = Some(hash(&made.token));
        Ok(Some(&self.first))
    }

    /// Whose secret it is.
    pub fn find(&self, secret: &str) -> Result<Option<TokenView>> {
        let hash = hash(secret);
        let mut known = self.known();
        if known.looked.is_none_or(|looked| looked.elapsed() > LOOK_AFTER) {
            let bytes = self.read_bytes()?;
            let read = Some(blake3::hash(bytes.as_deref().unwrap_or_default()));
            if read != known.read {
                let document = self.parse(bytes)?;
                known.by_hash = document.tokens.into_iter().map(|kept| (kept.hash, kept.view)).collect();
                known.read = read;
            }
            known.looked = Some(Instant::now());
        }
        let found = known.by_hash.get(&hash).cloned();
        if found.is_some() && known.first.as_ref() == Some(&hash) {
            // Whoever shows it has it: it need not lie there any more.
            match remove_if_there(&self.first) {
                Ok(()) => known.first = None,
                Err(error) => {
                    tracing::error!(%error, path = %self.first.display(), "the file of the first token cannot be removed");
                }
            }
        }
        Ok(found)
    }

    /// By id, to see whether it is still there.
    pub fn get(&self, id: &str) -> Result<Option<TokenView>> {
        // Brings the map up to date first.
        self.find("")?;
        let known = self.known();
        Ok(known.by_hash.values().find(|view| view.id == id).cloned())
    }

    /// All, oldest first.
    pub fn list(&self) -> Result<Vec<TokenView>> {
        Ok(self.read()?.tokens.into_iter().map(|kept| kept.view).collect())
    }

    /// Makes one. Durable when it returns.
    pub fn add(&self, name: &str, role: Role, apps: Vec<String>) -> Result<NewToken> {
        let made = self.new_token(name, role, apps)?;
        self.keep(&made)?;
        Ok(made)
    }

    fn new_token(&self, name: &str, role: Role, apps: Vec<String>) -> Result<NewToken> {
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(is_hidden) {
            return Err(Problem::unfit(format!(
                "a token's name has 1 to {NAME_BYTES_MAX} bytes, all of them printable"
            )));
        }
        let mut secret = [0; 32];
        self.entropy.fill(&mut secret)?;
        let secret = format!("{PREFIX}{}", hex::encode(secret));
        let view = TokenView {
            id: uuid::Uuid::now_v7().to_string(),
            name: name.to_owned(),
            role,
            apps,
            created: jiff::Timestamp::now().to_string(),
        };
        Ok(NewToken { token: secret, view })
    }

    fn keep(&self, made: &NewToken) -> Result<()> {
        self.change(|document| {
            if document.tokens.len() >= TOKENS_MAX {
                return Err(Problem::bad_request(format!("there are {TOKENS_MAX} tokens already")));
            }
            document.tokens.push(Kept { view: made.view.clone(), hash: hash(&made.token) });
            Ok(())
        })
    }

    /// Removes one, by id or by its whole name. Durable when it returns.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.change(|document| {
            let before = document.tokens.len();
            document.tokens.retain(|kept| kept.view.id != id && kept.view.name != id);
            if document.tokens.len() == before {
                return Err(Problem::not_found("no-such-token", format!("no token {id}")));
            }
            Ok(())
        })
    }

    fn read(&self) -> Result<Document> {
        self.parse(self.read_bytes()?)
    }

    /// None: there is no file.
    fn read_bytes(&self) -> Result<Option<Vec<u8>>> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(read?)),
        }
    }

    fn parse(&self, bytes: Option<Vec<u8>>) -> Result<Document> {
        let Some(bytes) = bytes else { return Ok(Document::default()) };
        serde_json::from_slice(&bytes)
            .map_err(|error| Problem::internal(format!("{} cannot be read: {error}", self.path.display())))
    }

    fn change(&self, change: impl FnOnce(&mut Document) -> Result<()>) -> Result<()> {
        // The program and the daemon may both be at it.
        let guard = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.with_extension("lock"))?;
        rustix::fs::flock(&guard, rustix::fs::FlockOperation::LockExclusive).map_err(io::Error::from)?;
        let mut document = self.read()?;
        change(&mut document)?;
        document.version = 1;
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&document).map_err(io::Error::from)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        if let Some(folder) = self.path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        // Seen at once by this process.
        let mut known = self.known();
        (known.looked, known.read) = (None, None);
        drop(known);
        self.forget_first_unless_known(&document)
    }

    /// The file of the first token goes with the token.
    fn forget_first_unless_known(&self, document: &Document) -> Result<()> {
        let first = match fs::read_to_string(&self.first) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(hash(read?.trim())),
        };
        let is_known = |first: &String| document.tokens.iter().any(|kept| kept.hash == *first);
        let known = first.filter(is_known);
        if known.is_none() {
            remove_if_there(&self.first)?;
        }
        self.known().first = known;
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}
