//! Small secrets of applications, wrapped under the repository's keys: whoever may read data opens them, and
//! nobody else.
//!
//! An application's own key is kept so, and never under the key of another instance: putting one instance
//! back needs nothing of the others. The layout: version (1) | epoch (4) | salt or encapsulated key (32) |
//! ciphertext | tag. The context, which says whose secret it is, is bound.

use zeroize::Zeroizing;

use crate::config::CipherSuite;
use crate::entropy::Entropy;
use crate::envelope::Sealing;
use crate::keys::{Cipher, Domain, Keys, StretchCost, TAG_BYTES, nonce, stretch_password};
use crate::repository::Repository;
use crate::sealed_to;
use crate::{Error, Result};

/// The context of applications' own keys: the same for all, so that a snapshot can be renamed and travel.
pub const INSTANCE_KEY: &[u8] = b"instance key";
/// Longest secret in bytes.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// What wrapping adds in bytes.
pub const WRAPPING_BYTES: usize = HEAD_BYTES + TAG_BYTES;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 4 + 32;
const OBJECT: &str = "a wrapped secret";

impl Repository {
    /// Wraps a secret. `context` says whose it is, and has to be given again.
    pub fn wrap_secret(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
        if secret.len() > SECRET_BYTES_MAX {
            return Err(Error::Limit { what: "a secret".into(), limit: SECRET_BYTES_MAX as u64 });
        }
        let mut head = [0; HEAD_BYTES];
        head[0] = VERSION;
        let key = match self.keys().sealing_epoch()? {
            None => {
                self.entropy().fill(&mut head[5..])?;
                self.keys().first_secret_key(&head[5..])?
            }
            Some(epoch) => {
                head[1..5].copy_from_slice(&epoch.number.to_le_bytes());
                let public = epoch.public(Sealing::ForData).ok_or_else(|| damaged("no key is meant for it"))?;
                let (encapsulated, key) = sealed_to::encapsulate(&**self.entropy(), public, &info(&head, context))?;
                head[5..].copy_from_slice(&encapsulated);
                key
            }
        };
        let mut wrapped = Vec::with_capacity(secret.len() + WRAPPING_BYTES);
        wrapped.extend_from_slice(&head);
        wrapped.extend_from_slice(secret);
        let tag = cipher(&key)?.seal(nonce(Domain::Wrapped, 0), &bound(&head, context), &mut wrapped[HEAD_BYTES..])?;
        wrapped.extend_from_slice(&tag);
        Ok(wrapped)
    }

    /// Unwraps a secret.
    pub fn unwrap_secret(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let (head, sealed) =
            wrapped.split_first_chunk::<HEAD_BYTES>().ok_or_else(|| damaged("it is shorter than its head"))?;
        if head[0] > VERSION {
            let (found, supported) = (u32::from(head[0]), u32::from(VERSION));
            return Err(Error::Unsupported { what: OBJECT.into(), found, supported });
        }
        if head[0] == 0 || sealed.len() > SECRET_BYTES_MAX + TAG_BYTES {
            return Err(damaged("its head or its length cannot be"));
        }
        let number = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let key = self.secret_key(number, head, context)?;
        let mut secret = Zeroizing::new(sealed.to_vec());
        let opened = cipher(&key)?.open(nonce(Domain::Wrapped, 0), &bound(head, context), &mut secret);
        let bytes = opened.ok_or_else(|| damaged("it does not verify"))?;
        secret.truncate(bytes);
        Ok(secret)
    }

    fn secret_key(&self, number: u32, head: &[u8; HEAD_BYTES], context: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        if number == 0 {
            return self.keys().first_secret_key(&head[5..]);
        }
        let not_given =
            || Error::NotPermitted { role: self.keys().role(), what: format!("open secrets of epoch {number}") };
        let epoch = self.keys().epoch_keys(OBJECT, number)?;
        let private = epoch.private(Sealing::ForData).ok_or_else(not_given)?;
        let mut encapsulated = [0; 32];
        encapsulated.copy_from_slice(&head[5..]);
        sealed_to::decapsulate(private, &encapsulated, &info(head, context))
            .map_err(|_| damaged("its key cannot be found"))
    }
}

/// A secret under a password, as it travels in formats of others: version (1) | costs (12) | salt (32) |
/// commitment (32) | ciphertext | tag.
pub fn seal_with_password(entropy: &dyn Entropy, password: &[u8], cost: StretchCost, secret: &[u8]) -> Result<Vec<u8>> {
    let mut head = [0; PASSWORD_HEAD_BYTES];
    head[0] = VERSION;
    for (place, number) in [cost.memory_kib, cost.passes, cost.lanes].into_iter().enumerate() {
        head[1 + place * 4..][..4].copy_from_slice(&number.to_le_bytes());
    }
    entropy.fill(&mut head[13..45])?;
    let stretched = stretched(password, &head)?;
    head[45..].copy_from_slice(&blake3::derive_key(PASSWORD_COMMITMENT, &*stretched));
    let key = Zeroizing::new(blake3::derive_key(PASSWORD_KEY, &*stretched));
    let mut sealed = [&head[..], secret].concat();
    let tag = cipher(&key)?.seal(nonce(Domain::Wrapped, 0), &head, &mut sealed[PASSWORD_HEAD_BYTES..])?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what [`seal_with_password`] made. [`Error::WrongKey`]: another password.
pub fn open_with_password(password: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let (head, text) =
        sealed.split_first_chunk::<PASSWORD_HEAD_BYTES>().ok_or_else(|| damaged("it is shorter than its head"))?;
    if head[0] != VERSION || text.len() > SECRET_BYTES_MAX + TAG_BYTES {
        return Err(damaged("its head or its length cannot be"));
    }
    let stretched = stretched(password, head).map_err(|_| damaged("its stretching cannot be"))?;
    if head[45..] != blake3::derive_key(PASSWORD_COMMITMENT, &*stretched) {
        return Err(Error::WrongKey);
    }
    let key = Zeroizing::new(blake3::derive_key(PASSWORD_KEY, &*stretched));
    let mut secret = Zeroizing::new(text.to_vec());
    let opened = cipher(&key)?.open(nonce(Domain::Wrapped, 0), head, &mut secret);
    let bytes = opened.ok_or_else(|| damaged("it does not verify"))?;
    secret.truncate(bytes);
    Ok(secret)
}

const PASSWORD_HEAD_BYTES: usize = 1 + 12 + 32 + 32;
const PASSWORD_COMMITMENT: &str = "copal v1 travelling secret commitment";
const PASSWORD_KEY: &str = "copal v1 travelling secret key";

fn stretched(password: &[u8], head: &[u8; PASSWORD_HEAD_BYTES]) -> Result<Zeroizing<[u8; 32]>> {
    let number = |place: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&head[1 + place * 4..][..4]);
        u32::from_le_bytes(bytes)
    };
    let cost = StretchCost { memory_kib: number(0), passes: number(1), lanes: number(2) };
    let mut out = Zeroizing::new([0; 32]);
    stretch_password(password, &head[13..45], cost, &mut out)?;
    Ok(out)
}

impl Keys {
    fn first_secret_key(&self, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let all = self.first_secrets_key()?;
        Ok(Zeroizing::new(*blake3::keyed_hash(&all, salt).as_bytes()))
    }
}

fn cipher(key: &[u8; 32]) -> Result<Cipher> {
    Cipher::new(CipherSuite::ChaCha20Poly1305, key)
}

fn info(head: &[u8; HEAD_BYTES], context: &[u8]) -> Vec<u8> {
    [&b"copal v2 wrapped secret"[..], &head[..5], context].concat()
}

fn bound(head: &[u8; HEAD_BYTES], context: &[u8]) -> Vec<u8> {
    [&head[..], context].concat()
}

fn damaged(detail: &str) -> Error {
    Error::damaged(OBJECT, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::OsEntropy;

    #[test]
    fn a_travelling_secret_opens_with_its_password_only() {
        let cost = StretchCost { memory_kib: 8, passes: 1, lanes: 1 };
        let sealed = seal_with_password(&OsEntropy, b"pass", cost, b"instance key").unwrap();
        assert_eq!(open_with_password(b"pass", &sealed).unwrap().as_slice(), b"instance key");
        assert!(matches!(open_with_password(b"other", &sealed), Err(Error::WrongKey)));
        assert!(!sealed.windows(12).any(|window| window == b"instance key"));
        for position in (0..sealed.len()).filter(|position| !(1..13).contains(position)) {
            let mut flipped = sealed.clone();
            flipped[position] ^= 1;
            assert!(open_with_password(b"pass", &flipped).is_err(), "a flipped bit at {position}");
            assert!(open_with_password(b"pass", &sealed[..position]).is_err());
        }
    }
}
