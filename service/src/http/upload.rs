//! Import: a bundle that a client sends goes to a file of the daemon first, piece by piece, then an operation reads it.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::extract::multipart::{Field, Multipart};
use axum::extract::{DefaultBodyLimit, Request, State};
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

/// Longest passphrase.
const PASSWORD_BYTES_MAX: usize = 4096;
/// This much stays free on the disk of the uploads, whatever is sent.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// How often the free space is looked at.
const LOOK_EACH_BYTES: u64 = 16 << 20;

/// What a client has sent. The file is removed with it, unless an operation has taken it over.
pub(crate) struct Upload {
    staged: Option<PathBuf>,
    pub(crate) password: Option<Secret>,
    /// Other fields of the form.
    pub(crate) name: Option<String>,
    pub(crate) app: Option<String>,
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            // Left behind it goes with the next start.
            let _ = std::fs::remove_file(staged);
        }
    }
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
        ("wait" = Option<String>, Query, description = "Seconds to wait for the end; without it: until the end"),
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
    let upload = receive(&daemon, multipart(request).await?, fields).await?;
    let watch = begin(&daemon, &principal, &app, path.name, upload).await?;
    answer(watch, limit, Success::Created).await
}

/// Hands an upload over to an operation.
pub(crate) async fn begin(
    daemon: &Daemon,
    principal: &Principal,
    app: &str,
    name: String,
    mut upload: Upload,
) -> Result<Watch> {
    let staged = upload.staged.clone().ok_or_else(|| Problem::unfit("the form has no field named file"))?;
    let watch = daemon.submit(app, Task::Import { name, staged }, upload.password.take(), &principal.name).await?;
    // From now on the operation removes it.
    upload.staged = None;
    Ok(watch)
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
pub(crate) async fn receive(daemon: &Arc<Daemon>, mut form: Multipart, expected: &[ImportField]) -> Result<Upload> {
    let _permit = daemon.counters.transfer()?;
    let mut upload = Upload { staged: None, password: None, name: None, app: None };
    let mut left = expected.to_vec();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let meant = ImportField::named(field.name());
        let Some(place) = left.iter().position(|expected| Some(*expected) == meant) else {
            let name = field.name().unwrap_or_default();
            return Err(Problem::unfit(format!(
                "the form has a field {name:?} that means nothing here, or stood before"
            )));
        };
        match left.swap_remove(place) {
            ImportField::File => {
                let staged = daemon.uploads.join(format!("{}.part", uuid::Uuid::now_v7()));
                upload.staged = Some(staged.clone());
                stage(&staged, field, daemon.limits.upload_bytes_max).await?;
            }
            ImportField::Password => {
                let password = text(field).await?;
                upload.password = (!password.is_empty()).then(|| Secret::new(password));
            }
            ImportField::Name => upload.name = Some(text(field).await?),
            ImportField::App => upload.app = Some(text(field).await?),
        }
    }
    Ok(upload)
}

async fn text(mut field: Field<'_>) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > PASSWORD_BYTES_MAX {
            return Err(Problem::too_large("a field of the form is longer than it can be"));
        }
    }
    String::from_utf8(bytes).map_err(|_| Problem::unfit("a field of the form is no text"))
}

async fn stage(path: &FilePath, mut field: Field<'_>, limit: u64) -> Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).await?;
    let (mut received, mut looked) = (0u64, 0u64);
    while let Some(piece) = field.chunk().await.map_err(broken)? {
        received += piece.len() as u64;
        if received > limit {
            return Err(Problem::too_large(format!("the bundle is larger than {limit} bytes")));
        }
        if received - looked >= LOOK_EACH_BYTES {
            looked = received;
            check_space(path)?;
        }
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    // A bundle that an operation waits for outlives a kill of the daemon no longer than the operation does: no sync is needed.
    Ok(())
}

fn check_space(path: &FilePath) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let found = rustix::fs::statvfs(folder).map_err(std::io::Error::from)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < FREE_BYTES_MIN {
        let place = folder.to_owned();
        return Err(copal_engine::Error::NoSpace { place, free, needed: FREE_BYTES_MIN }.into());
    }
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
