//! Import: a bundle that a client sends goes to a file of the daemon first, piece by piece, then an operation
//! reads it.

use axum::extract::multipart::Field;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::response::Response;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use utoipa::ToSchema;

use super::Shared;
use super::answer::{SnapshotPath, Success, Wait, answer, application};
use super::extract::{Path, Query, multipart};
use crate::access::{Principal, Role};
use crate::daemon::Daemon;
use crate::operation::{Operation, Secret, Task, Watch};
use crate::platform::SnapshotView;
use crate::problem::{Problem, Result};
use crate::staging::Staged;

/// Longest passphrase.
const PASSWORD_BYTES_MAX: usize = 4096;
/// How often the free space is looked at.
const LOOK_EACH_BYTES: u64 = 16 << 20;

/// What a client has sent beside the bundle.
pub(crate) struct Upload {
    has_file: bool,
    pub(crate) password: Option<Secret>,
    /// Other fields of the form.
    pub(crate) name: Option<String>,
    pub(crate) app: Option<String>,
}

/// The form of an import.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes a form that is read piece by piece")]
pub(crate) struct ImportForm {
    /// The bundle.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// The passphrase that it was exported with.
    password: Option<String>,
}

/// Brings a snapshot out of a bundle. Waits for the end when it is not told otherwise.
#[utoipa::path(post, path = "/snapshots/import/{name}", tag = "snapshots",
    params(
        ("name" = String, Path, description = "Name that the snapshot gets"),
        ("wait" = Option<String>, Query, pattern = "^(true|false|[0-9]{0,9}s?)$", description = "Seconds to wait for the end; without it: until the end"),
    ),
    request_body(content = ImportForm, content_type = "multipart/form-data"),
    responses((status = 201, body = SnapshotView), (status = 202, body = Operation)))]
pub(crate) async fn import(
    State(daemon): Shared,
    principal: Principal,
    Path(path): Path<SnapshotPath>,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<Response> {
    let app = application(&daemon, &principal, path.app.as_deref(), Role::Administer)?;
    let limit = wait.limit(None)?;
    let (asked, name) = (app.clone(), path.name.clone());
    daemon.ask(move |platform| platform.check_free(&asked, &name)).await?;
    let fields = &[ImportField::File, ImportField::Password];
    let upload = receive(&daemon, request, fields).await?;
    let watch = begin(&daemon, &principal, &app, path.name, upload).await?;
    answer(watch, limit, Success::Created).await
}

/// Hands an upload over to an operation.
pub(crate) async fn begin(
    daemon: &Daemon,
    principal: &Principal,
    app: &str,
    name: String,
    (upload, staged): (Upload, Staged),
) -> Result<Watch> {
    if !upload.has_file {
        return Err(Problem::unfit("the form has no field named file"));
    }
    // From now on the operation removes it, or what refuses the operation.
    let task = Task::Import { name, staged: staged.hand_over() };
    daemon.submit(app, task, upload.password, &principal.name).await
}

/// A field of a form that brings a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImportField {
    /// The bundle.
    File,
    /// Its passphrase.
    Password,
    /// Name that the snapshot gets.
    Name,
    /// The application that it is for.
    App,
}

impl ImportField {
    fn named(name: Option<&str>) -> Option<Self> {
        match name? {
            "file" => Some(Self::File),
            "password" => Some(Self::Password),
            "name" => Some(Self::Name),
            "app" => Some(Self::App),
            _ => None,
        }
    }
}

/// Reads the form: each of its fields stands once, in any order.
pub(crate) async fn receive(daemon: &Daemon, request: Request, expected: &[ImportField]) -> Result<(Upload, Staged)> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let length = length.unwrap_or(0);
    let _permit = daemon.counters.transfer()?;
    // Before anything of it is read.
    let staged = daemon.staging.begin(length)?;
    let mut form = multipart(request).await?;
    let mut upload = Upload { has_file: false, password: None, name: None, app: None };
    let mut left = expected.to_vec();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let meant = ImportField::named(field.name());
        let Some(place) = left.iter().position(|expected| Some(*expected) == meant) else {
            let name = field.name().unwrap_or_default();
            return Err(Problem::unfit(format!(
                "the form has a field {name:?} that is not known here, or that is given twice"
            )));
        };
        match left.swap_remove(place) {
            ImportField::File => {
                stage(&staged, field).await?;
                upload.has_file = true;
            }
            ImportField::Password => {
                let password = text(field).await?;
                upload.password = (!password.is_empty()).then(|| Secret::new(password));
            }
            ImportField::Name => upload.name = Some(text(field).await?),
            ImportField::App => upload.app = Some(text(field).await?),
        }
    }
    Ok((upload, staged))
}

async fn text(mut field: Field<'_>) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > PASSWORD_BYTES_MAX {
            return Err(Problem::too_large("a field of the form is longer than it can be"));
        }
    }
    String::from_utf8(bytes).map_err(|_| Problem::unfit("a field of the form is not text"))
}

async fn stage(staged: &Staged, mut field: Field<'_>) -> Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(staged.path()).await?;
    let (mut received, mut looked) = (0u64, 0u64);
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        received += piece.len() as u64;
        staged.grow(received)?;
        if received - looked >= LOOK_EACH_BYTES {
            looked = received;
            staged.check_space()?;
        }
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    // A bundle that an operation waits for outlives a kill of the daemon no longer than the operation does:
    // no sync is needed.
    Ok(())
}

fn broken(error: axum::extract::multipart::MultipartError) -> Problem {
    if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::too_large(error.body_text());
    }
    Problem::bad_request(error.body_text())
}

/// Uploads have a limit of their own.
pub(crate) fn unlimited() -> DefaultBodyLimit {
    DefaultBodyLimit::disable()
}
