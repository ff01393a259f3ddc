//! The kernel's keyring: an opened key, kept for a while, so that a script pays for stretching once
//! (keyrings(7)). It stays in kernel memory, is bound to the user, is never swapped out or dumped, and
//! vanishes with its time.

use copal_store::keys::Unlocked;
use copal_store::{ObjectId, RepositoryId};
use linux_keyutils::{Key, KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use zeroize::Zeroizing;

/// Length of what is kept: a slot's id and its secret.
const PAYLOAD_BYTES: usize = 48;

/// The kernel does not keep keys here.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's keyring cannot be used here: {0}")]
pub(crate) struct NoKeyring(String);

/// Keeps an opened slot for so many seconds.
pub(crate) fn put(id: RepositoryId, unlocked: &Unlocked, seconds: usize) -> Result<(), NoKeyring> {
    let mut payload = Zeroizing::new(unlocked.slot.as_bytes().to_vec());
    payload.extend_from_slice(&*unlocked.stretched);
    let key = ring()?.add_key(&description(id), &payload).map_err(unusable)?;
    let limited = limit(key, seconds);
    if limited.is_err() {
        // A key without an end must not stay.
        let _ = key.invalidate();
    }
    limited
}

fn limit(key: Key, seconds: usize) -> Result<(), NoKeyring> {
    // The same user finds it from every session, as with an agent; nobody else.
    let user = Permission::VIEW | Permission::READ | Permission::SEARCH | Permission::SETATTR;
    let permissions = KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(user).build();
    key.set_timeout(seconds).map_err(unusable)?;
    key.set_perms(permissions).map_err(unusable)
}

/// What is kept for a repository.
pub(crate) fn get(id: RepositoryId) -> Result<Option<Unlocked>, NoKeyring> {
    let Some(key) = find(id)? else { return Ok(None) };
    let payload = Zeroizing::new(key.read_to_vec().map_err(unusable)?);
    if payload.len() != PAYLOAD_BYTES {
        return Ok(None);
    }
    let (mut slot, mut stretched) = ([0; 16], Zeroizing::new([0; 32]));
    slot.copy_from_slice(&payload[..16]);
    stretched.copy_from_slice(&payload[16..]);
    Ok(Some(Unlocked { slot: ObjectId(slot), stretched }))
}

/// Forgets; `false` when nothing was kept.
pub(crate) fn forget(id: RepositoryId) -> Result<bool, NoKeyring> {
    let Some(key) = find(id)? else { return Ok(false) };
    key.invalidate().map_err(unusable)?;
    Ok(true)
}

fn find(id: RepositoryId) -> Result<Option<Key>, NoKeyring> {
    match ring()?.search(&description(id)) {
        Ok(key) => Ok(Some(key)),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked | KeyError::KeyRejected) => {
            Ok(None)
        }
        Err(error) => Err(unusable(error)),
    }
}

fn ring() -> Result<KeyRing, NoKeyring> {
    KeyRing::from_special_id(KeyRingIdentifier::User, false).map_err(unusable)
}

fn description(id: RepositoryId) -> String {
    format!("copal:{id}")
}

fn unusable(error: KeyError) -> NoKeyring {
    NoKeyring(match error {
        KeyError::AccessDenied | KeyError::PermissionDenied | KeyError::OperationNotSupported => {
            "it is forbidden, as containers often do".to_owned()
        }
        KeyError::QuotaExceeded => "the quota of keys is used up (see /proc/key-users)".to_owned(),
        other => format!("{other:?}"),
    })
}
