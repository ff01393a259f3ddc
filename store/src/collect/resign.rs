//! Signs again what decides over others when the key that signed it is about to count no more.

use crate::Result;
use crate::backend::Hold;
use crate::collect::{maintenance_lease, merge, retired};
use crate::repository::Repository;
use crate::signing::SignerId;

/// Says whether something is taken over, by who signed it.
pub(crate) type Whose<'a> = &'a dyn Fn(Option<SignerId>) -> bool;

/// Signs fragments and labels again, with the key in use, whose signer the caller names: of a key that will
/// be removed, or of none, when a repository gets its first roster. Returns the maintenance lease;
/// [`crate::Error::Busy`] while a collection runs.
pub(crate) fn take_over(repository: &Repository, whose: Whose<'_>) -> Result<Box<dyn Hold>> {
    let lease = maintenance_lease(repository)?;
    // First, so that nothing is signed again that was retired.
    retired::join(repository, whose)?;
    merge::resign(repository, whose)?;
    repository.resign_labels(whose)?;
    Ok(lease)
}

/// Signs roots again: those that nobody signed, when a repository gets its first roster, and those of a key
/// whose holder changes it. Of a key that is removed they stay as they are: a snapshot says who made it.
/// Returns how many.
pub(crate) fn take_over_roots(repository: &Repository, whose: Whose<'_>) -> Result<u64> {
    let mut signed = 0;
    for root in repository.roots()? {
        let resealed = match repository.read_signed_root(&root) {
            Ok(content) if whose(content.signer) => repository.reseal_root(&root, whose),
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        match resealed {
            // Its damage is its own, and named by who needs it.
            Err(error) if error.concerns_one_object() => {}
            resealed => signed += u64::from(resealed?),
        }
    }
    Ok(signed)
}
