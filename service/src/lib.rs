//! The daemon: a REST interface and a web page over the applications of one repository.
//!
//! [`platform`] is the one door to the engine, [`operation`] the queues of long work, [`access`] says who may
//! do what, `http` is the interface for programs and `page` the one for people. The daemon stands beside an
//! application: it works when that does not. It never knows how bytes are stored.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod access;
mod connection;
mod daemon;
mod http;
mod log;
mod page;
mod schedule;
mod server;
mod staging;

pub mod metrics;
pub mod operation;
pub mod platform;
pub mod problem;

pub use connection::Patience;
pub use http::description;
pub use log::{LogFormat, log_to_stderr};
pub use server::{Authentication, ServeOptions, Server, TlsFiles, run};
