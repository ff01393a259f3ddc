//! The page.
use std::sync::Arc;
use crate::daemon::Daemon;
pub(crate) fn router() -> axum::Router<Arc<Daemon>> { axum::Router::new() }
