//! Where a repository is: a folder, as a path or a `file:` URL.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::exit_code::ProgramError;

/// The folder that a `--repo` names.
pub(crate) fn local_folder(named: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    let named = named.filter(|named| !named.is_empty()).ok_or_else(|| {
        ProgramError::usage("no repository is named", "add --repo PLACE, or set the variable COPAL_REPO")
    })?;
    let bytes = named.as_bytes();
    if let Some(rest) = bytes.strip_prefix(b"file://") {
        let path = rest.strip_prefix(b"localhost").unwrap_or(rest);
        if !path.starts_with(b"/") {
            return Err(ProgramError::usage(
                format!("{} names another host, or no absolute path", named.display()),
                "write it as file:///absolute/path",
            ));
        }
        return Ok(OsString::from_vec(percent_decoded(path)).into());
    }
    if bytes.starts_with(b"s3://") {
        return Err(ProgramError::usage(
            format!("{} is in an S3 bucket, and this version of copal works on local folders only", named.display()),
            "name a folder with --repo",
        ));
    }
    if let Some(end) = bytes.windows(3).position(|window| window == b"://")
        && bytes[..end].iter().all(u8::is_ascii_alphanumeric)
    {
        return Err(ProgramError::usage(
            format!("{} is a kind of place that copal does not know", named.display()),
            "a repository is a folder, as a path or as file:///…",
        ));
    }
    Ok(PathBuf::from(named))
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).filter(|_| *first == b'%').and_then(|pair| hex::decode(pair).ok());
        decoded.push(pair.as_ref().map_or(*first, |pair| pair[0]));
        rest = if pair.is_some() { &tail[2..] } else { tail };
    }
    decoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: only folders are taken. Method: examples.

    use super::*;

    #[track_caller]
    fn check(named: &str, folder: &str) {
        assert_eq!(local_folder(Some(named.as_ref())).unwrap(), PathBuf::from(folder));
    }

    #[test]
    fn folders_are_paths_or_urls() {
        check("/srv/r", "/srv/r");
        check("a:b", "a:b");
        check("./weird://x", "./weird://x");
        check("file:///srv/a%20b%2", "/srv/a b%2");
        check("file://localhost/srv", "/srv");
    }

    #[test]
    fn other_places_are_refused_with_a_sentence() {
        for (named, part) in [
            ("s3://bucket/x", "S3"),
            ("sftp://host/x", "does not know"),
            ("file://host/x", "another host"),
            ("", "no repository is named"),
        ] {
            let error = local_folder(Some(named.as_ref())).unwrap_err();
            assert!(matches!(error, ProgramError::Usage { .. }) && error.to_string().contains(part), "{error}");
        }
        assert!(local_folder(None).is_err());
    }
}
