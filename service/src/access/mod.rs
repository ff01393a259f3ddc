//! Who may do what: roles, tokens, sessions of browsers, limits, and the record of who did what.
//!
//! Invariants: a request reaches a handler only with a [`Principal`]; secrets of clients are kept as hashes;
//! none is in an answer or a log. A page of another site can make a browser send a request here, but not one
//! that changes anything.

mod audit;
mod gate;
mod limits;
mod sessions;
mod tokens;

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use audit::{Audit, AuditLine};
pub(crate) use gate::{OPERATION_HEADER, accepts_html, cookie, gate, wants_page};
pub(crate) use limits::Counters;
pub use limits::Limits;
pub(crate) use sessions::{SECURE_SESSION_COOKIE, SESSION_COOKIE, SESSION_LASTS, Sessions};
pub use tokens::{NewToken, TokenView, Tokens};

use crate::problem::{Problem, Result};

/// What a token may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See snapshots, what is in them, operations and figures.
    View,
    /// Take, pin, tag and verify snapshots.
    Create,
    /// Deploy snapshots, download files out of them.
    Deploy,
    /// Delete, export and import snapshots, return space, make and remove tokens, read the audit log.
    Administer,
}

impl Role {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::View, Self::Create, Self::Deploy, Self::Administer];

    /// As written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Create => "create",
            Self::Deploy => "deploy",
            Self::Administer => "administer",
        }
    }

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token, or `local` without access rules.
    pub name: String,
    /// Id of the token.
    pub token: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Applications that it may see; empty: all.
    pub apps: Vec<String>,
    /// Where the request came from.
    pub peer: IpAddr,
}

impl Principal {
    /// Whether it may see an application.
    #[must_use]
    pub fn sees(&self, app: &str) -> bool {
        self.apps.is_empty() || self.apps.iter().any(|allowed| allowed == app)
    }

    /// Refuses what the role or the list of applications does not allow. What may not be seen is not there.
    pub fn may(&self, role: Role, app: &str) -> Result<()> {
        if !self.sees(app) {
            return Err(Problem::not_found("no-such-application", format!("no application is named {app:?}")));
        }
        self.has(role)
    }

    /// Refuses what concerns the repository as a whole to those who may see only some applications.
    pub fn may_all(&self, role: Role) -> Result<()> {
        if !self.apps.is_empty() {
            return Err(Problem::forbidden("this token is for some applications only"));
        }
        self.has(role)
    }

    /// Whether the role suffices.
    pub fn has(&self, role: Role) -> Result<()> {
        if self.role >= role {
            Ok(())
        } else {
            Err(Problem::forbidden(format!("this needs the role {}; the token has {}", role.name(), self.role.name())))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::unauthorized)
    }
}
