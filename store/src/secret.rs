//! Small secrets of applications, wrapped under the repository's keys: whoever may read data opens them, and nobody else.
//!
//! An application's own key is kept so, and never under the key of another instance: putting one instance back needs nothing of the
//! others. The layout: version (1) | epoch (4) | salt or encapsulated key (32) | ciphertext | tag. The context, which says whose
//! secret it is, is bound.

use zeroize::Zeroizing;

use crate::config::CipherSuite;
use crate::envelope::Sealing;
use crate::keys::{Cipher, Domain, Keys, TAG_BYTES, nonce};
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
        let key = match self.keys().epochs().current() {
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
        let epoch = self.keys().epochs().get(number)?.ok_or_else(not_given)?;
        let private = epoch.private(Sealing::ForData).ok_or_else(not_given)?;
        let mut encapsulated = [0; 32];
        encapsulated.copy_from_slice(&head[5..]);
        sealed_to::decapsulate(private, &encapsulated, &info(head, context))
            .map_err(|_| damaged("its key cannot be found"))
    }
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
