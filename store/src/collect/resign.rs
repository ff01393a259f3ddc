//! Signs again what decides over others when the key that signed it is about to count no more.

use crate::Result;
use crate::backend::Hold;
use crate::collect::{maintenance_lease, merge};
use crate::repository::Repository;
use crate::sealed::Unsigned;
use crate::signing::SignerId;

/// Signs fragments and labels again, with the key in use, whose signer the caller names: of a key that will
/// be removed, or of none, when a repository gets its first roster. Roots keep the signature that they have;
/// those that have none are sealed again, signed. Returns the maintenance lease; [`crate::Error::Busy`] while
/// a collection runs.
pub(crate) fn take_over(repository: &Repository, whose: &dyn Fn(Option<SignerId>) -> bool) -> Result<Box<dyn Hold>> {
    let lease = maintenance_lease(repository)?;
    merge::resign(repository, whose)?;
    repository.resign_labels(whose)?;
    if whose(None) {
        for root in repository.roots()? {
            match repository.reseal_root(&root, Unsigned::IsSigned) {
                // Its damage is its own, and named by who needs it.
                Err(error) if error.concerns_one_object() => {}
                resealed => drop(resealed?),
            }
        }
    }
    Ok(lease)
}
