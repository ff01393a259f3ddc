//! What cannot be read as HTTP is refused below the routes, with a status and no word. The refusal gets one
//! here, so that every refusal is a problem document.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::problem::Problem;

/// Every answer of the gate has this field; a refusal of the HTTP library has not.
const OURS: &[u8] = b"content-security-policy: ";
/// A refusal of the library is a head of a few short lines.
const BARE_BYTES_MAX: usize = 512;

/// A stream in which bare refusals are replaced.
pub(super) struct WordedStream<S> {
    stream: S,
    /// What is written instead, and how much of it has been.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> WordedStream<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, instead: None }
    }
}

impl<S: AsyncWrite + Unpin> WordedStream<S> {
    /// Writes the words for what was given to be written; then all of that counts as written.
    fn write_instead(&mut self, context: &mut Context<'_>, given: usize) -> Poll<io::Result<usize>> {
        while let Some((words, written)) = self.instead.as_mut() {
            if *written == words.len() {
                self.instead = None;
                break;
            }
            match ready!(Pin::new(&mut self.stream).poll_write(context, &words[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                more => *written += more,
            }
        }
        Poll::Ready(Ok(given))
    }
}

/// The words for a bare refusal; `None` for everything else.
fn worded(bytes: &[u8]) -> Option<Vec<u8>> {
    let is_bare = bytes.starts_with(b"HTTP/1.") && bytes.get(8..10) == Some(b" 4") && bytes.len() <= BARE_BYTES_MAX;
    let is_ours = || bytes.windows(OURS.len()).any(|window| window == OURS);
    if !is_bare || !bytes.ends_with(b"\r\n\r\n") || is_ours() {
        return None;
    }
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse::<u16>().ok()?;
    let status = StatusCode::from_u16(status).ok()?;
    let detail = match status {
        StatusCode::URI_TOO_LONG => "the path and its query are too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the header fields of the request are too many or too long",
        _ => "that is not an HTTP request",
    };
    let body = serde_json::to_vec(&*Problem::of_status(status, detail)).ok()?;
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut words = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        status.as_u16(),
        body.len()
    )
    .into_bytes();
    words.extend(body);
    Some(words)
}

impl<S: AsyncRead + Unpin> AsyncRead for WordedStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WordedStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.instead.is_none() {
            this.instead = worded(bytes).map(|words| (words, 0));
        }
        match this.instead {
            Some(_) => this.write_instead(context, bytes.len()),
            None => Pin::new(&mut this.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A bare refusal is one part: it has no body.
        if let [only] = parts
            && this.instead.is_none()
        {
            this.instead = worded(only).map(|words| (words, 0));
        }
        match this.instead {
            Some(_) => this.write_instead(context, parts.iter().map(|part| part.len()).sum()),
            None => Pin::new(&mut this.stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a bare refusal gets words, everything else passes as it is. Method: heads as the library writes
    //! them.

    use super::*;

    #[test]
    fn t13_only_bare_refusals_are_replaced() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let words = String::from_utf8(worded(bare).unwrap()).unwrap();
        assert!(words.starts_with("HTTP/1.1 431 ") && words.contains("application/problem+json"), "{words}");
        assert!(words.ends_with('}') && words.contains("\"status\":431"), "{words}");
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-security-policy: x\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert_eq!(worded(other), None);
        }
    }
}
