//! What handlers take out of a request. Whatever does not fit is refused with a problem, and nothing that a
//! client says is passed over: a field that is not known, a field that stands twice, a query where there is
//! none.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::multipart::Multipart;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::problem::{Problem, Result};

/// Largest body of a request that is no upload.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Fields of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Self(path.0)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// Fields of the query; the structure refuses those that it does not know.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        check_escapes(parts.uri.query().unwrap_or_default())?;
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(query) => Ok(Self(query.0)),
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => Err(Problem::unfit(error.body_text())),
            Err(other) => Err(Problem::bad_request(other.body_text())),
        }
    }
}

/// No field at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// A form of the page.
pub(crate) struct Form<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        match axum::extract::Form::<T>::from_request(request, state).await {
            Ok(form) => Ok(Self(form.0)),
            Err(FormRejection::InvalidFormContentType(error)) => Err(Problem::other_media(error.body_text())),
            Err(FormRejection::BytesRejection(error)) if error.status() == 413 => {
                Err(Problem::too_large(error.body_text()))
            }
            Err(FormRejection::BytesRejection(error)) => Err(Problem::bad_request(error.body_text())),
            Err(other) => Err(Problem::unfit(other.body_text())),
        }
    }
}

/// A form with a file, which is read piece by piece.
pub(crate) async fn multipart(request: Request) -> Result<Multipart> {
    let form = Multipart::from_request(request, &()).await;
    form.map_err(|_| Problem::other_media("this takes a form: multipart/form-data, with a boundary"))
}

/// The body that came, read whole. What it means is asked after the role has been looked at.
pub(crate) struct Sent {
    is_json: bool,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self> {
        let is_json = is_json(request.headers());
        let mut pieces = request.into_body().into_data_stream();
        let mut body = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Problem::cut_off())?;
            if body.len() + piece.len() > BODY_BYTES_MAX {
                return Err(Problem::too_large(format!("the body is longer than {BODY_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        let body = body.freeze();
        Ok(Self { is_json, body })
    }
}

impl Sent {
    /// An object that may be left away.
    pub(crate) fn optional<T: Default + DeserializeOwned>(&self) -> Result<T> {
        if self.body.is_empty() { Ok(T::default()) } else { self.required() }
    }

    /// An object.
    pub(crate) fn required<T: DeserializeOwned>(&self) -> Result<T> {
        if self.body.is_empty() {
            return Err(Problem::unfit("the body is missing: a JSON object is wanted"));
        }
        if !self.is_json {
            return Err(Problem::other_media("the body has to be application/json"));
        }
        // A structure may be read from a list too, in which no field has a name.
        if self.body.trim_ascii_start().first().is_some_and(|&first| first != b'{' && is_value(first)) {
            return Err(Problem::unfit("the body is not a JSON object"));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            if serde_json::from_slice::<IgnoredAny>(&self.body).is_ok() {
                Problem::unfit(format!("the body is not as described: {error}"))
            } else {
                Problem::bad_request(format!("the body is not JSON: {error}"))
            }
        })
    }

    /// Nothing, or an object without fields.
    pub(crate) fn nothing(&self) -> Result<()> {
        if self.body.is_empty() { Ok(()) } else { self.required::<Nothing>().map(drop) }
    }
}

/// How another value than an object begins.
fn is_value(first: u8) -> bool {
    matches!(first, b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

/// A body whose kind is not said is taken for JSON.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}

/// An escape that is none, or that gives no text, would be read as something else than what was meant.
fn check_escapes(query: &str) -> Result<()> {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let escape = after.get(..2).and_then(|digits| hex::decode(digits).ok());
        let Some(escape) = escape else {
            return Err(Problem::unfit("the query has a % that begins no escape: write it as %25"));
        };
        bytes.extend(escape);
        rest = &after[2..];
    }
    match std::str::from_utf8(&bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::unfit("the query is not UTF-8: path_hex takes paths that are not text")),
    }
}

/// A map in which no key stands twice: the second value would be lost, or the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Unique(pub(crate) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if found.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("the key {key:?} is given twice")));
            }
            found.insert(key, value);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    //! Goal: nothing that a client says is passed over. Method: bodies and queries, well formed and not.

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Example {
        text: Option<String>,
        number: Option<u32>,
    }

    #[test]
    fn bodies_are_objects_with_known_fields() {
        let check = |body: &'static str, is_json: bool, status: u16| {
            let sent = Sent { is_json, body: Bytes::from_static(body.as_bytes()) };
            let read = sent.optional::<Example>();
            assert_eq!(read.err().map_or(200, |problem| problem.status), status, "{body}");
        };
        check("", false, 200);
        check("{}", true, 200);
        check(" {\"text\": null, \"number\": 3}\n", true, 200);
        check("{}", false, 415);
        check("[null,null]", true, 422);
        check("null", true, 422);
        check("\"text\"", true, 422);
        check("{\"other\": 1}", true, 422);
        check("{\"text\": 1}", true, 422);
        check("{\"text\": \"a\", \"text\": \"b\"}", true, 422);
        check("{\"number\": -1}", true, 422);
        check("{", true, 400);
        check("{} {}", true, 400);
        check("%", true, 400);
        check(" ", true, 400);
    }

    #[test]
    fn escapes_of_a_query_are_whole_and_give_text() {
        let check = |query: &str, fits: bool| assert_eq!(check_escapes(query).is_ok(), fits, "{query}");
        check("", true);
        check("path=a%2Fb%20c&x=sp%C3%A4t+%F0%9F%A6%80", true);
        check("path=100%", false);
        check("path=%zz", false);
        check("path=%2", false);
        check("path=%FF", false);
        check("path=%C0%AF", false);
    }

    #[test]
    fn keys_stand_once() {
        let read = |text: &str| serde_json::from_str::<Unique>(text).map(|Unique(map)| map.len());
        assert_eq!(read("{\"a\": \"1\", \"b\": \"2\"}").unwrap(), 2);
        assert!(read("{\"a\": \"1\", \"a\": \"2\"}").is_err());
        assert!(read("[[\"a\", \"1\"]]").is_err());
    }
}
