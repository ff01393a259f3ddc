//! A client of HTTP/1.1 over one connection: it costs the machine little, so that the daemon is measured and
//! not the client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

/// Its bytes.
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How often a text stands in it.
    pub(crate) fn matches_of(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0).matches(text).count()
    }
}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    address: String,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { stream: BufReader::with_capacity(256 << 10, stream), address: address.to_owned() })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask("GET", path)
    }

    pub(crate) fn post(&mut self, path: &str) -> Result<Answer> {
        self.ask("POST", path)
    }

    fn ask(&mut self, method: &str, path: &str) -> Result<Answer> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let head = self.line()?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no answer of HTTP: {head:?}"))?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "transfer-encoding" => chunked = true,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        while chunked {
            let size = usize::from_str_radix(self.line()?.trim(), 16)?;
            let begin = body.len();
            body.resize(begin + size, 0);
            self.stream.read_exact(&mut body[begin..])?;
            self.line()?;
            chunked = size > 0;
        }
        Ok(Answer { status, body: Body(body) })
    }

    /// Without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the connection ended");
        }
        Ok(line.trim_end().to_owned())
    }
}
