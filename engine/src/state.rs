//! The folder of local state, and the secret in it that vouches for what is written down to be done later.
//!
//! Journals and notes say what the next command shall do, with the rights of whoever runs it; they lie where
//! others may write as well, or where an earlier owner did. So nothing of them is believed that does not bear
//! a tag made with the secret of this state folder. The secret never leaves it, and is no secret of a
//! repository: losing it costs that interrupted work is not ended by itself.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use copal_source::target::{Identity, TargetTree, rename_new};
use copal_store::entropy::Entropy;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::deploy::{failed, private_folder};
use crate::error::{Error, Result};

/// Links that are followed from one to the next, as many as the system follows.
const LINKS_MAX: usize = 40;
const SECRET: &str = "recovery-secret";
const SECRET_BYTES: usize = 32;
/// Write permission for all, and the bit that lets only owners rename: the one without the other leaves all
/// to everybody.
const FREE_TO_ALL: u32 = 0o1002;
const ALL_MAY_WRITE: u32 = 0o0002;
/// Length of a tag.
pub const TAG_BYTES: usize = 32;

/// What a tag is of: a tag of one kind is none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The commit record of a journal beside a target.
    DeployJournal,
    /// The note of a deploy under way.
    DeployNote,
    /// A document of an application: a capture, a deploy.
    Application,
    /// The list of clones that stay between captures.
    KeptClones,
}

impl Record {
    fn context(self) -> &'static str {
        match self {
            Self::DeployJournal => "copal 2026-11-27 local state: commit record of a deploy journal",
            Self::DeployNote => "copal 2026-11-27 local state: note of a deploy",
            Self::Application => "copal 2026-11-27 local state: document of an application",
            Self::KeptClones => "copal 2026-11-27 local state: list of kept clones",
        }
    }
}

/// The secret of one state folder.
#[derive(Clone)]
pub struct StateSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl std::fmt::Debug for StateSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StateSecret")
    }
}

impl StateSecret {
    /// The secret, made now when there is none.
    pub fn obtain(state_folder: &Path, entropy: &dyn Entropy) -> Result<Self> {
        check_way(state_folder)?;
        private_folder(state_folder)?;
        if let Some(secret) = Self::find(state_folder)? {
            return Ok(secret);
        }
        let folder = own_folder(state_folder)?;
        let mut random = [0; 8];
        entropy.fill(&mut random)?;
        let made = Self::of_process(entropy)?;
        let new = format!("{SECRET}.{}", hex::encode(random));
        let file = folder.create_file(new.as_bytes(), 0, true)?;
        file.write_at(0, &*made.0)?;
        file.sync()?;
        match rename_new(&state_folder.join(&new), &state_folder.join(SECRET)) {
            Ok(()) => Ok(made),
            // Another command was first.
            Err(error) => {
                folder.remove(new.as_bytes())?;
                Self::find(state_folder)?.ok_or_else(|| error.into())
            }
        }
    }

    /// The secret, if there is one.
    pub fn find(state_folder: &Path) -> Result<Option<Self>> {
        let folder = match own_folder(state_folder) {
            Err(error) if is_not_found(&error) => return Ok(None),
            other => other?,
        };
        let file = match folder.open_own_file(SECRET.as_bytes(), SECRET_BYTES as u64) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        let path = state_folder.join(SECRET);
        read_whole(file, &mut *secret).map_err(|error| failed("reading", &path, error))?;
        Ok(Some(Self(secret)))
    }

    /// A secret that ends with this process: what it vouches for is believed by nobody else.
    pub(crate) fn of_process(entropy: &dyn Entropy) -> Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        entropy.fill(&mut *secret)?;
        Ok(Self(secret))
    }

    /// The tag of a document under its name.
    pub fn tag(&self, record: Record, name: &[u8], document: &[u8]) -> [u8; TAG_BYTES] {
        *self.hash(record, name, document).as_bytes()
    }

    /// Whether a tag is of this document, under this name.
    pub fn vouches(&self, record: Record, name: &[u8], document: &[u8], tag: &[u8; TAG_BYTES]) -> bool {
        // The comparison of hashes takes the same time wherever they differ.
        self.hash(record, name, document) == blake3::Hash::from_bytes(*tag)
    }

    fn hash(&self, record: Record, name: &[u8], document: &[u8]) -> blake3::Hash {
        let key = Zeroizing::new(blake3::derive_key(record.context(), &*self.0));
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(document);
        hasher.finalize()
    }
}

/// Exactly so many bytes, and none more.
fn read_whole(mut file: File, bytes: &mut [u8]) -> io::Result<()> {
    file.read_exact(bytes)?;
    match file.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long")),
    }
}

/// The state folder, open: of whoever runs this, with no write permission for others, and nowhere on the way
/// to it does anybody else decide what stands there.
pub fn own_folder(state_folder: &Path) -> Result<TargetTree> {
    check_way(state_folder)?;
    let real = fs::canonicalize(state_folder).map_err(|error| failed("opening", state_folder, error))?;
    check_way(&real)?;
    let folder = TargetTree::open_real(&real)?;
    folder.check_own()?;
    Ok(folder)
}

/// Every folder and link above a path belongs to the system or to whoever runs this, and is not free to all.
/// What is not there yet will be made by whoever runs this.
fn check_way(path: &Path) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    for above in path.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        let Ok(found) = fs::symlink_metadata(above) else { continue };
        let refuse =
            |detail: String| Err(Error::Source(copal_source::Error::Refused { path: above.to_owned(), detail }));
        if ![0, me].contains(&found.uid()) {
            return refuse(format!("belongs to user {}, not to user {me}, who runs this", found.uid()));
        }
        if found.is_dir() && found.mode() & FREE_TO_ALL == ALL_MAY_WRITE {
            return refuse(format!("can be written by everybody (mode {:o})", found.mode() & 0o7777));
        }
    }
    Ok(())
}

/// Whether an error says that nothing is at a path.
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Source(error) if error.is_not_found())
}

/// Why nothing in a folder of local state or of caches can be believed, and nothing private put into it;
/// none: all is well, or it is not there yet.
#[must_use]
pub fn fault(folder: &Path) -> Option<String> {
    match own_folder(folder) {
        Err(error) if is_not_found(&error) => None,
        Err(error) => Some(error.to_string()),
        Ok(_) => None,
    }
}

/// An [`Identity`] as written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    inode: u64,
    born: Option<(i64, u32)>,
}

impl From<Identity> for Known {
    fn from(Identity { inode, born }: Identity) -> Self {
        Self { inode, born }
    }
}

impl From<Known> for Identity {
    fn from(Known { inode, born }: Known) -> Self {
        Self { inode, born }
    }
}

/// A path whose folder has no link in it any more. Where links lead is decided once, by whoever named the
/// path.
pub fn real(path: &Path) -> PathBuf {
    let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    fs::canonicalize(parent).map_or_else(|_| path.to_owned(), |parent| parent.join(name))
}

/// Where a link leads that stands in the place of a file or a folder; anything else is itself. A link leads
/// there for whoever runs this only when it is theirs, or of the owner of what it leads to: others could have
/// something of a third one captured or written over. That goes for each link on the way from one to the
/// next.
pub fn place_led_to(path: &Path) -> Result<PathBuf> {
    let path = &path.components().collect::<PathBuf>();
    let (mut place, mut owners) = (path.clone(), Vec::new());
    let end = loop {
        // What is open is what is asked and read: names are in others' hands.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let looked = openat(CWD, &place, flags, Mode::empty()).and_then(|open| Ok((fstat(&open)?, open)));
        // What is not there is for others to tell.
        let Ok((found, open)) = looked else { return Ok(path.clone()) };
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            break found;
        }
        let text = readlinkat(&open, "", Vec::new()).map_err(|error| failed("reading", &place, error.into()))?;
        owners.push(found.st_uid);
        if owners.len() > LINKS_MAX {
            return Ok(path.clone());
        }
        place = place.parent().unwrap_or(&place).join(OsStr::from_bytes(text.to_bytes())).components().collect();
    };
    let kind = FileType::from_raw_mode(end.st_mode);
    if owners.is_empty() || !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return Ok(path.clone());
    }
    let allowed = [geteuid().as_raw(), end.st_uid];
    if !owners.iter().all(|owner| allowed.contains(owner)) {
        let detail = "it is a symbolic link of another user, and leads to what is not theirs: name the place itself";
        return Err(Error::UnfitTarget { target: path.clone(), detail: detail.into() });
    }
    match place.file_name() {
        Some(_) => Ok(real(&place)),
        None => fs::canonicalize(&place).map_err(|error| failed("resolving", path, error)),
    }
}

/// Parent folder, open, and name of a whole path without links; none where the folder is gone.
pub fn open_parent(path: &Path) -> Result<Option<(TargetTree, Vec<u8>)>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Internal(format!("{} has no folder above it", path.display())));
    };
    match TargetTree::open_real(parent) {
        Ok(parent) => Ok(Some((parent, name.as_bytes().to_vec()))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a tag is of one secret, kind, name and document; the secret is its owner's alone. Method: each
    //! of them changed.

    use std::os::unix::fs::{PermissionsExt, symlink};

    use copal_sim::SeededEntropy;

    use super::*;

    #[test]
    fn a_tag_is_of_one_secret_kind_name_and_document() {
        let entropy = SeededEntropy::new(1);
        let (one, other) = (StateSecret::of_process(&entropy).unwrap(), StateSecret::of_process(&entropy).unwrap());
        let tag = one.tag(Record::DeployNote, b"ab", b"c");
        assert!(one.vouches(Record::DeployNote, b"ab", b"c", &tag));
        assert!(!other.vouches(Record::DeployNote, b"ab", b"c", &tag));
        assert!(!one.vouches(Record::DeployJournal, b"ab", b"c", &tag));
        assert!(!one.vouches(Record::DeployNote, b"a", b"bc", &tag), "where a name ends counts");
        assert!(!one.vouches(Record::DeployNote, b"ab", b"d", &tag));
    }

    #[test]
    fn t01_the_secret_is_made_once_and_only_ones_own_is_believed() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state/deep");
        let entropy = SeededEntropy::new(2);
        assert!(StateSecret::find(&state).unwrap().is_none());
        let made = StateSecret::obtain(&state, &entropy).unwrap();
        assert_eq!(*StateSecret::obtain(&state, &entropy).unwrap().0, *made.0);
        let path = state.join(SECRET);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&state), fs::read_dir(&state).unwrap().count()), (0o600, 0o700, 1));
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            StateSecret::find(&state).unwrap_err();
        }
        fs::rename(&path, state.join("elsewhere")).unwrap();
        symlink("elsewhere", &path).unwrap();
        StateSecret::find(&state).unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::write(&path, [1; 31]).unwrap();
        StateSecret::find(&state).unwrap_err();
        fs::remove_file(&path).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(fault(&state).unwrap().contains("can be written by everybody"));
        StateSecret::obtain(&state, &entropy).unwrap_err();
    }
}
