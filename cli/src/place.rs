//! Where something is: a path of this machine, and for a repository also a `file:` URL. One table of what is
//! no path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use copal_manifest::snapshot::SourceKind;

use crate::exit_code::ProgramError;

/// What other programs of this trade take for a place, and what kind of place that is. With or without
/// slashes after the colon.
const SCHEMES: [(&str, &str); 20] = [
    ("azure", "a container of Azure"),
    ("b2", "a bucket of Backblaze"),
    ("dav", "a WebDAV server"),
    ("file", "a URL of a file"),
    ("ftp", "an FTP server"),
    ("gs", "a bucket of Google"),
    ("http", "a web server"),
    ("https", "a web server"),
    ("nfs", "an NFS server"),
    ("rclone", "a remote of rclone"),
    ("rest", "a REST server"),
    ("rsync", "an rsync server"),
    ("s3", "an S3 bucket"),
    ("scp", "another host"),
    ("sftp", "another host"),
    ("smb", "an SMB server"),
    ("ssh", "another host"),
    ("swift", "a container of Swift"),
    ("webdav", "a WebDAV server"),
    ("webdavs", "a WebDAV server"),
];
/// Words for kinds of sources beside their names.
const KINDS: [&str; 2] = ["postgresql", "search"];

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
    path_here(named)
}

/// A word as a path of this machine. What other programs take for another kind of place, and what `create`
/// takes for a kind of source, is refused: a folder of that name is hardly ever meant. With `./` before it
/// any path can be written.
pub(crate) fn path_here(word: &OsStr) -> Result<PathBuf, ProgramError> {
    let bytes = word.as_bytes();
    let refused = |what: &str| {
        let shown = word.display();
        Err(ProgramError::usage(
            format!("{shown} {what}, and this version of copal works on local files and folders only"),
            format!("name a path; for a path that is written like that write ./{shown}"),
        ))
    };
    let Some(colon) = bytes.iter().position(|&byte| byte == b':').filter(|&at| at > 0) else { return Ok(word.into()) };
    let (head, rest) = (&bytes[..colon], &bytes[colon + 1..]);
    if head.contains(&b'/') {
        return Ok(word.into());
    }
    let scheme = String::from_utf8_lossy(head).to_ascii_lowercase();
    if let Some((_, what)) = SCHEMES.iter().find(|(known, _)| *known == scheme) {
        return refused(&format!("names {what}"));
    }
    if KINDS.contains(&scheme.as_str()) || SourceKind::ALL.iter().any(|kind| kind.name() == scheme) {
        return refused("names a kind of source, which is no target");
    }
    if rest.starts_with(b"//") {
        return refused("is a kind of place that copal does not know");
    }
    if head.contains(&b'@') || head.starts_with(b"[") || rest.starts_with(b"/") {
        return refused("names another host");
    }
    Ok(word.into())
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
            ("sftp://host/x", "another host"),
            ("file://host/x", "another host"),
            ("sftp:host/x", "another host"),
            ("u@host:x", "another host"),
            ("strange://x", "does not know"),
            ("", "no repository is named"),
        ] {
            let error = local_folder(Some(named.as_ref())).unwrap_err();
            assert!(matches!(error, ProgramError::Usage { .. }) && error.to_string().contains(part), "{error}");
        }
        assert!(local_folder(None).is_err());
    }
}
