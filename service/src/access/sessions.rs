//! Browsers that have shown a token: a cookie stands for the token, so that the token itself is never in one.
//! Sessions live in memory and end with the daemon, with time, or with the token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use copal_store::entropy::Entropy;

use crate::problem::Result;

/// Name of the cookie.
pub(crate) const SESSION_COOKIE: &str = "copal_session";
/// The same where clients come over TLS: a browser takes it only from this host, over TLS, for the whole
/// host.
pub(crate) const SECURE_SESSION_COOKIE: &str = "__Host-copal_session";
/// How long a session lasts.
pub(crate) const SESSION_LASTS: Duration = Duration::from_secs(12 * 3600);
/// Most sessions; the oldest goes.
const SESSIONS_MAX: usize = 1000;
/// Most sessions of one token; its oldest goes: nobody ends those of others.
const SESSIONS_OF_TOKEN_MAX: usize = 20;

#[derive(Debug)]
pub(crate) struct Sessions {
    entropy: Arc<dyn Entropy>,
    /// Hash of the cookie → the token's id, and when it began.
    open: Mutex<HashMap<[u8; 32], (String, Instant)>>,
}

impl Sessions {
    pub(crate) fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self { entropy, open: Mutex::default() }
    }

    /// Begins a session for a token; returns the cookie's value.
    pub(crate) fn begin(&self, token: &str) -> Result<String> {
        let mut secret = [0; 32];
        self.entropy.fill(&mut secret)?;
        let secret = hex::encode(secret);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, begun)| begun.elapsed() < SESSION_LASTS);
        let of_token = open.values().filter(|(owner, _)| owner == token).count();
        let goes = |owner: &str| open.len() >= SESSIONS_MAX || of_token >= SESSIONS_OF_TOKEN_MAX && owner == token;
        if open.len() >= SESSIONS_MAX || of_token >= SESSIONS_OF_TOKEN_MAX {
            let candidates = open.iter().filter(|(_, (owner, _))| goes(owner));
            let oldest = candidates.min_by_key(|(_, (_, begun))| *begun).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                open.remove(&oldest);
            }
        }
        open.insert(*blake3::hash(secret.as_bytes()).as_bytes(), (token.to_owned(), Instant::now()));
        Ok(secret)
    }

    /// The token's id that a cookie stands for.
    pub(crate) fn find(&self, cookie: &str) -> Option<String> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(blake3::hash(cookie.as_bytes()).as_bytes())
            .filter(|(_, begun)| begun.elapsed() < SESSION_LASTS)
            .map(|(token, _)| token.clone())
    }

    pub(crate) fn end(&self, cookie: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(blake3::hash(cookie.as_bytes()).as_bytes());
    }
}
