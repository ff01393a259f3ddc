//! Connections: taken, encrypted, bounded in number and in time, ended gracefully.
//!
//! Invariants: whoever has shown no token costs a bounded number of connections, each for a bounded time, and
//! never a place of somebody who has; a process without files left goes on serving those that are open.
//! HTTP/1 alone is spoken: its one request at a time is what the bounds count.

mod paced;
mod table;
mod tls;
mod unread;
mod worded;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) use paced::{PacedBody, TooSlow};
pub(crate) use table::{Holder, Place};
pub(crate) use tls::load as load_tls;
pub(crate) use unread::{Courtesy, Unread};

use paced::{BusyBody, PacedStream};
use table::{Room, Table};
use worded::WordedStream;

/// Connections that the kernel has taken and the daemon not yet.
const BACKLOG: u32 = 4096;
/// Most of what is read ahead of a request's head, and of its body at once.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// More fields than the gate lets pass, so that it is the gate that refuses, with a problem.
const HEADER_FIELDS_MAX: usize = 512;
/// How long the daemon rests when a connection cannot be taken.
const REST: Duration = Duration::from_millis(50);
/// Slow downloads get a moment when the daemon ends.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long the other side is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the handshake of TLS.
    pub handshake: Duration,
    /// For the head of a request: from the beginning of the connection, or from the end of the answer before.
    pub head: Duration,
    /// For the next part of a body.
    pub body: Duration,
    /// For a part of an answer to be taken.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(20),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(60),
        }
    }
}

/// Where connections come in.
pub(crate) struct Door {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    table: Arc<Table>,
    patience: Patience,
}

impl Door {
    /// Listens, for so many connections at most.
    pub(crate) fn open(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        connections: usize,
        patience: Patience,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { listener, tls, table: Table::new(Room::new(connections, open_files_max())), patience })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes connections until told to end; then those that are open end after their answers.
    pub(crate) async fn serve(self, router: Router, ending: watch::Receiver<bool>) {
        let (table, mut told) = (Arc::clone(&self.table), ending.clone());
        tokio::select! {
            () = self.take(router, ending) => {}
            _ = told.wait_for(|ends| *ends) => {}
        }
        if tokio::time::timeout(END_PATIENCE, table.emptied()).await.is_err() {
            table.close();
        }
    }

    async fn take(self, router: Router, ending: watch::Receiver<bool>) {
        let service = TowerToHyperService::new(router);
        let mut failures = 0u64;
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(taken) => taken,
                Err(error) => {
                    failures += 1;
                    self.refused(&error, failures).await;
                    continue;
                }
            };
            failures = 0;
            let Some(place) = self.table.admit(peer.ip()) else {
                tracing::warn!(%peer, "a connection was refused: the limit of connections is reached");
                continue;
            };
            let connection =
                Connection { place, peer, service: service.clone(), ending: ending.clone(), patience: self.patience };
            tokio::spawn(connection.run(stream, self.tls.clone()));
        }
    }

    /// A connection could not be taken. That one of many was given up by its client says nothing; that no
    /// file is left is mended by closing one.
    async fn refused(&self, error: &io::Error, failures: u64) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        let (open, unknown) = self.table.counts();
        if failures.is_power_of_two() {
            tracing::warn!(%error, open, unknown, "a connection cannot be taken");
        }
        self.table.make_room();
        tokio::time::sleep(REST).await;
    }
}

/// One connection.
struct Connection {
    place: Arc<Place>,
    peer: SocketAddr,
    service: TowerToHyperService<Router>,
    ending: watch::Receiver<bool>,
    patience: Patience,
}

impl Connection {
    /// To its end, or until its place is needed.
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let place = Arc::clone(&self.place);
        tokio::select! {
            () = self.speak(stream, tls) => {}
            () = place.closed() => {}
        }
    }

    async fn speak(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are written whole: waiting for more to send helps nobody.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.serve(stream).await };
        // Who does not come to an end of the handshake, or to a right one, is gone.
        if let Ok(Ok(stream)) = tokio::time::timeout(self.patience.handshake, tls.accept(stream)).await {
            self.serve(stream).await;
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let Self { place, peer, service, mut ending, patience } = self;
        let answer = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let busy = place.begin();
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(Arc::clone(&place));
            let answered = service.call(request);
            async move {
                Ok::<_, std::convert::Infallible>(answered.await?.map(|body| Body::new(BusyBody::new(body, busy))))
            }
        });
        let stream = TokioIo::new(WordedStream::new(PacedStream::new(stream, patience.answer)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.head)
            .max_headers(HEADER_FIELDS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(stream, answer);
        let mut connection = std::pin::pin!(connection);
        // What goes wrong on a connection is the client's affair, and said to the client where it can be.
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = ending.wait_for(|ends| *ends) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Raises how many files the process may have open to what the system allows it.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, ?maximum, "the number of open files cannot be raised");
    }
}

/// How many files the process may have open.
fn open_files_max() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
