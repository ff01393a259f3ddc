//! Bundles: a snapshot as one file that another repository can take in.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use copal_bundle::{self as bundle, ExportTarget, ImportRequest, hub_tar};
use copal_engine::Context;
use copal_store::keys::StretchCost;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::operation::Secret;
use crate::platform::Found;
use crate::platform::applications::view_of;
use crate::problem::{Problem, Result};

/// What a bundle looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BundleFormat {
    /// A gzip tar with `snapshot.yaml`, readable by `tar`.
    #[default]
    HubTar,
    /// Copal's own: encrypted as a whole.
    Native,
}

impl BundleFormat {
    /// By the name in a request.
    pub fn named(name: Option<&str>) -> Result<Self> {
        match name {
            None | Some("" | "hub-tar") => Ok(Self::HubTar),
            Some("native") => Ok(Self::Native),
            Some(other) => Err(Problem::bad_request(format!("there is no format {other:?}: it is hub-tar or native"))),
        }
    }

    /// Of its file.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::HubTar => "tar.gz",
            Self::Native => "copal",
        }
    }

    /// For its header.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::HubTar => "application/gzip",
            Self::Native => "application/octet-stream",
        }
    }
}

/// Writes a bundle of one snapshot.
pub(super) fn export(
    context: &Context,
    found: &Found,
    format: BundleFormat,
    secret: Option<&Secret>,
    out: &mut dyn Write,
) -> Result<Value> {
    let password = secret.map(bytes_of);
    match (format, password) {
        (BundleFormat::HubTar, password) => {
            let stretch = StretchCost::default();
            let request = hub_tar::HubExportRequest { reference: found.view.id.clone(), password, stretch };
            let report = hub_tar::export(context, &request, out)?;
            Ok(json!({ "portable": report.portable, "bytes": report.bytes, "warnings": report.warnings }))
        }
        (BundleFormat::Native, Some(password)) => {
            let references = vec![found.view.id.clone()];
            let request = bundle::ExportRequest { references, since: None, password, stretch: StretchCost::default() };
            let report = bundle::export(context, &request, ExportTarget::Stream(out))?;
            Ok(json!({ "portable": true, "bytes": report.bytes, "bundle_bytes": report.bundle_bytes }))
        }
        (BundleFormat::Native, None) => {
            Err(Problem::bad_request("a native bundle is encrypted as a whole: it needs a password"))
        }
    }
}

/// Reads a bundle of either kind; what is odd about it leaves nothing behind.
pub(super) fn import(
    context: &Context,
    app: &str,
    name: &str,
    staged: &Path,
    secret: Option<&Secret>,
) -> Result<Value> {
    let file = File::open(staged)?;
    let password = secret.map(bytes_of);
    let (imported, warnings, bytes_new, stored_new) = if bundle::is_native(staged)? {
        let password = password.ok_or_else(|| Problem::from(copal_bundle::Error::BundlePassword))?;
        let request = ImportRequest { password, name: Some(name.to_owned()), app: Some(app.to_owned()) };
        let mut report = bundle::import_within(context, file, &request).map_err(blame_bundle)?;
        let imported = report.snapshots.pop().ok_or_else(|| Problem::bad_bundle("no snapshot is in the bundle"))?;
        (imported, report.warnings, report.bytes_new, report.stored_new)
    } else {
        let limits = hub_tar::HubLimits::default();
        let request = hub_tar::HubImportRequest { name: Some(name.to_owned()), app: app.to_owned(), password, limits };
        let report = hub_tar::import(context, file, &request).map_err(blame_bundle)?;
        (report.imported, report.warnings, report.bytes_new, report.stored_new)
    };
    Ok(json!({
        "snapshot": view_of(context, imported.snapshot, imported.digest), "digest_there": imported.digest_there,
        "was_here": imported.was_here, "bytes_new": bytes_new, "stored_new": stored_new, "warnings": warnings,
    }))
}

/// A bundle that does not verify is the sender's affair, not damage of the repository.
fn blame_bundle(error: copal_bundle::Error) -> Problem {
    match &error {
        copal_bundle::Error::Engine(copal_engine::Error::Store(copal_store::Error::Damaged { object, .. }))
            if object.contains("bundle") =>
        {
            Problem::bad_bundle(error.to_string())
        }
        _ => error.into(),
    }
}

fn bytes_of(secret: &Secret) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(secret.expose().as_bytes().to_vec())
}
