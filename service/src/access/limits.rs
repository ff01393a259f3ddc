//! Limits on what clients may ask of the daemon.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::Patience;
use crate::problem::{Problem, Result};

/// Wrong tokens from one address: enough for a mistyped configuration, too few for a search.
const WRONG_TOKENS_BURST: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");
/// One more is allowed after so long.
const WRONG_TOKENS_EACH: Duration = Duration::from_secs(3);

/// Lines of the audit log about clients that are not known.
const UNKNOWN_LINES_A_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("60 is not zero");

/// What one daemon allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in a second by one token, or from one address without one; 0: no limit.
    pub requests_per_second: u32,
    /// Uploads and downloads at the same time.
    pub transfers: usize,
    /// Largest upload in bytes.
    pub upload_bytes_max: u64,
    /// Most uploaded bundles that wait to be imported.
    pub bundles_staged: usize,
    /// Bytes of them.
    pub staged_bytes_max: u64,
    /// Operations that run at once, over all applications.
    pub operations_at_once: usize,
    /// Most open connections; a quarter of them is for whoever has shown no token.
    pub connections: usize,
    /// How long clients are waited for.
    pub patience: Patience,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: 200,
            transfers: 8,
            upload_bytes_max: 1 << 40,
            bundles_staged: 16,
            staged_bytes_max: 1 << 40,
            operations_at_once: 4,
            connections: 2048,
            patience: Patience::default(),
        }
    }
}

/// Counts against the limits.
pub(crate) struct Counters {
    requests: Option<DefaultKeyedRateLimiter<String>>,
    wrong_tokens: DefaultKeyedRateLimiter<IpAddr>,
    transfers: Arc<Semaphore>,
    unknown_lines: DefaultDirectRateLimiter,
    skipped: AtomicU64,
}

impl Counters {
    pub(crate) fn new(limits: Limits) -> Self {
        let quota = NonZeroU32::new(limits.requests_per_second).map(|rate| {
            Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::new(2).expect("2 is not zero")))
        });
        let wrong =
            Quota::with_period(WRONG_TOKENS_EACH).expect("3 seconds are a period").allow_burst(WRONG_TOKENS_BURST);
        Self {
            requests: quota.map(RateLimiter::keyed),
            wrong_tokens: RateLimiter::keyed(wrong),
            transfers: Arc::new(Semaphore::new(limits.transfers.max(1))),
            unknown_lines: RateLimiter::direct(Quota::per_minute(UNKNOWN_LINES_A_MINUTE)),
            skipped: AtomicU64::new(0),
        }
    }

    /// Counts a request.
    pub(crate) fn request(&self, client: &str) -> Result<()> {
        match &self.requests {
            Some(limiter) if limiter.check_key(&client.to_owned()).is_err() => {
                Err(Problem::too_many("too many requests per second"))
            }
            _ => Ok(()),
        }
    }

    /// Counts a token that is not known.
    pub(crate) fn wrong_token(&self, peer: IpAddr) -> Result<()> {
        self.wrong_tokens
            .check_key(&peer)
            .map_err(|_| Problem::too_many("too many requests with a token that is not known here"))
    }

    /// A place for an upload or a download.
    pub(crate) fn transfer(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.transfers)
            .try_acquire_owned()
            .map_err(|_| Problem::too_many("too many uploads and downloads at once"))
    }

    /// Whether a line goes into the audit log, and how many did not before it. Whoever is not known could
    /// push out all others.
    pub(crate) fn audit(&self, is_known: bool) -> Option<u64> {
        if !is_known && self.unknown_lines.check().is_err() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.skipped.swap(0, Ordering::Relaxed))
    }

    /// Forgets clients that have not been here for a while.
    pub(crate) fn tidy(&self) {
        if let Some(limiter) = &self.requests {
            limiter.retain_recent();
        }
        self.wrong_tokens.retain_recent();
    }
}
