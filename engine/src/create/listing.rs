//! Which paths of which source a list names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use copal_source::scan::Listed;

use crate::create::input::{Input, InputContent};
use crate::error::{Error, Result};

/// Lets each source take only what is named of it. A path below several sources is of each; one that is below
/// none is refused, and so is a list that names nothing.
pub(super) fn apply(words: &[Vec<u8>], inputs: &mut [Input]) -> Result<()> {
    let mut named: Vec<Vec<Vec<u8>>> = vec![Vec::new(); inputs.len()];
    let roots: Vec<Vec<PathBuf>> = inputs.iter().map(roots_of).collect();
    for word in words {
        let path = Path::new(OsStr::from_bytes(word));
        let mut is_below = false;
        for (at, input) in inputs.iter().enumerate() {
            let below = match path.is_absolute() {
                true => roots[at].iter().find_map(|root| path.strip_prefix(root).ok()),
                false if input.label.is_empty() => Some(path),
                false => path.strip_prefix(&input.label).ok(),
            };
            if let Some(below) = below.and_then(plain) {
                named[at].push(below);
                is_below = true;
            }
        }
        if !is_below {
            return Err(Error::Usage(format!(
                "the list names {}, which is below no source: a path is absolute, or counts from the source \
                 (LABEL/PATH where that has a label)",
                path.display()
            )));
        }
    }
    if words.is_empty() {
        return Err(Error::Usage("the list names nothing to take".into()));
    }
    for (input, paths) in inputs.iter_mut().zip(named) {
        // Who names the source itself means all of it.
        input.only = (!paths.iter().any(Vec::is_empty)).then(|| Arc::new(Listed::new(paths)));
    }
    Ok(())
}

/// What an absolute path of the source begins with.
fn roots_of(input: &Input) -> Vec<PathBuf> {
    let recorded = PathBuf::from(OsStr::from_bytes(&input.path));
    let InputContent::Path(path) = &input.content else { return vec![recorded] };
    let real = path.canonicalize().ok();
    [Some(recorded), real].into_iter().flatten().collect()
}

/// Without what does not matter; none for one that goes up.
fn plain(path: &Path) -> Option<Vec<u8>> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain.as_os_str().as_bytes().to_vec())
}
