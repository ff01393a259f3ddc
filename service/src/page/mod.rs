//! The page.
use crate::daemon::Daemon;
use std::sync::Arc;
pub(crate) fn router() -> axum::Router<Arc<Daemon>> {
    axum::Router::new()
}
