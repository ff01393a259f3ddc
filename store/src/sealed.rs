//! Sealed objects: parts under one key, found through a sealed directory; or one payload whole.
//!
//! An object of parts: header | parts … | directory | footer. Nothing in it is clear but the header (the
//! envelope, and behind it the encapsulated key of an object that is sealed to a public key): the directory's
//! place is in the footer, whose length is fixed, and the directory carries the padding that brings the
//! object onto the grid. The nonce of a part is its domain and offset; the associated data is the envelope
//! and what the caller binds.

use crate::backend::{Backend, ObjectKind, ObjectName};
use crate::envelope::{ENVELOPE_BYTES, Envelope, Sealing};
use crate::ids::ObjectId;
pub(crate) use crate::keys::HEADER_BYTES_MAX;
use crate::keys::{Cipher, Domain, Header, Keys, TAG_BYTES, nonce};
use crate::padding::on_grid;
use crate::signing::{SignerId, Statement};
use crate::{Error, Result};

/// Plaintext of a footer: offset and length of the sealed directory.
const FOOTER_PLAIN_BYTES: usize = 12;
/// A footer as stored.
pub(crate) const FOOTER_BYTES: usize = FOOTER_PLAIN_BYTES + TAG_BYTES;
/// Longest directory in bytes: of a fragment of ten million entries.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;
/// Longest payload of a whole object in bytes.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// Seals the parts of one object, front to back.
pub(crate) struct PartsSealer {
    cipher: Cipher,
    envelope: [u8; ENVELOPE_BYTES],
    offset: u64,
}

impl PartsSealer {
    /// Appends the header to `out`.
    pub(crate) fn new(keys: &Keys, kind: ObjectKind, id: ObjectId, class: Sealing, out: &mut Vec<u8>) -> Result<Self> {
        let header = keys.seal_header(kind, id, class)?;
        header.write(out);
        Ok(Self { offset: header.bytes() as u64, envelope: header.envelope, cipher: header.cipher })
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Appends a sealed part; returns its stored length.
    pub(crate) fn seal_part(&mut self, bound: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<u32> {
        self.seal(Domain::Part, bound, plain, out)
    }

    fn seal(&mut self, domain: Domain, bound: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<u32> {
        let begin = out.len();
        out.extend_from_slice(plain);
        let aad = associated_data(&self.envelope, bound);
        let tag = self.cipher.seal(nonce(domain, self.offset), aad.as_slice(), &mut out[begin..])?;
        out.extend_from_slice(&tag);
        let stored = out.len() - begin;
        self.offset += stored as u64;
        u32::try_from(stored).map_err(|_| Error::Limit { what: "a sealed part".into(), limit: u64::from(u32::MAX) })
    }

    /// Appends directory and footer, the directory padded so that the object's length is on the grid.
    pub(crate) fn finish(mut self, directory: &[u8], out: &mut Vec<u8>) -> Result<u64> {
        let at = self.offset;
        let least = at + (4 + directory.len() + TAG_BYTES + FOOTER_BYTES) as u64;
        let padding = usize::try_from(on_grid(least) - least).unwrap_or(0);
        let plain = padded(directory, padding)?;
        let stored = self.seal(Domain::Directory, b"", &plain, out)?;
        let mut footer = [0; FOOTER_PLAIN_BYTES];
        footer[..8].copy_from_slice(&at.to_le_bytes());
        footer[8..].copy_from_slice(&stored.to_le_bytes());
        self.seal(Domain::Footer, b"", &footer, out)?;
        Ok(self.offset)
    }
}

/// Opens the parts of one object.
pub(crate) struct PartsOpener {
    cipher: Cipher,
    envelope: [u8; ENVELOPE_BYTES],
    is_signed: bool,
    header_bytes: u64,
    object: String,
}

impl PartsOpener {
    /// For an object whose header (at least [`HEADER_BYTES_MAX`] of its bytes, or all) is that of its name:
    /// `id` is in the name.
    pub(crate) fn new(keys: &Keys, name: &ObjectName, id: ObjectId, header: &[u8]) -> Result<Self> {
        let object = name.to_string();
        let (header, found) = keys.open_header(&object, name.kind(), header)?;
        if found != id {
            return Err(Error::damaged(object, "it has the id of another object"));
        }
        let is_signed = header.is_signed();
        let header_bytes = header.bytes() as u64;
        Ok(Self { header_bytes, is_signed, envelope: header.envelope, cipher: header.cipher, object })
    }

    /// Without reading the header, for an object of epoch 0 that was written with the repository's suite: a
    /// wrong guess fails to verify.
    pub(crate) fn assume(keys: &Keys, name: &ObjectName, id: ObjectId) -> Result<Self> {
        let envelope = Envelope::first(name.kind(), keys.suite(), id).encode();
        let cipher = keys.object_cipher(keys.suite(), name.kind(), id)?;
        let header_bytes = ENVELOPE_BYTES as u64;
        Ok(Self { cipher, envelope, is_signed: false, header_bytes, object: name.to_string() })
    }

    /// Whether its writer has signed the directory.
    pub(crate) fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// Where the first part begins.
    pub(crate) fn header_bytes(&self) -> u64 {
        self.header_bytes
    }

    /// Opens a part in place; returns the length of its plaintext.
    pub(crate) fn open_part(&self, offset: u64, bound: &[u8], sealed: &mut [u8]) -> Result<usize> {
        self.open(Domain::Part, offset, bound, sealed)
    }

    fn open(&self, domain: Domain, offset: u64, bound: &[u8], sealed: &mut [u8]) -> Result<usize> {
        let aad = associated_data(&self.envelope, bound);
        self.cipher
            .open(nonce(domain, offset), aad.as_slice(), sealed)
            .ok_or_else(|| Error::damaged(&self.object, format!("its bytes at {offset} do not verify")))
    }

    /// Reads footer and directory; returns the directory and its offset.
    pub(crate) fn read_directory(
        &self,
        backend: &dyn Backend,
        name: &ObjectName,
        bytes: u64,
    ) -> Result<(Vec<u8>, u64)> {
        let damaged = |detail: &str| Error::damaged(&self.object, detail);
        let footer_at =
            bytes.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged("it is shorter than its footer"))?;
        if on_grid(bytes) != bytes {
            return Err(damaged("its length is not one that objects have"));
        }
        let mut footer = [0; FOOTER_BYTES];
        backend.read_range(name, footer_at, &mut footer)?;
        self.open(Domain::Footer, footer_at, b"", &mut footer)?;
        let at = u64::from_le_bytes(footer[..8].try_into().unwrap_or_default());
        let stored = u64::from(u32::from_le_bytes(footer[8..12].try_into().unwrap_or_default()));
        let sound =
            at >= self.header_bytes && stored <= DIRECTORY_BYTES_MAX && at.checked_add(stored) == Some(footer_at);
        if !sound {
            return Err(damaged("its footer names a place outside it"));
        }
        let mut directory = vec![0; usize::try_from(stored).unwrap_or(0)];
        backend.read_range(name, at, &mut directory)?;
        let plain_bytes = self.open(Domain::Directory, at, b"", &mut directory)?;
        directory.truncate(plain_bytes);
        Ok((unpadded(&self.object, directory)?, at))
    }
}

/// What a whole object holds, its signature checked.
pub(crate) struct Content {
    pub(crate) payload: Vec<u8>,
    /// Who signed it; `None` in formats 1 and 2.
    pub(crate) signer: Option<SignerId>,
}

/// What a whole object holds, with signer and signature where it has them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Unsealed {
    bytes: Vec<u8>,
    is_signed: bool,
}

impl Unsealed {
    /// Who signed it, the signature checked.
    pub(crate) fn signer(&self, keys: &Keys, name: &ObjectName) -> Result<Option<SignerId>> {
        if self.is_signed { Ok(verified(keys, name, self.bytes.clone())?.signer) } else { Ok(None) }
    }
}

/// Seals one payload as a whole object; in a repository that has a roster the key in use signs it.
pub(crate) fn seal_object(keys: &Keys, name: &ObjectName, id: ObjectId, payload: &[u8]) -> Result<Vec<u8>> {
    seal_content(keys, name, id, &signed(keys, name, payload.to_vec())?)
}

/// Whose word a content is, when it is sealed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It stays what it is: the signature, or that nobody signed it.
    Stays,
    /// The key in use signs it.
    IsTakenOver,
}

/// Seals again what was sealed before, under the newest keys.
pub(crate) fn reseal_object(
    keys: &Keys,
    name: &ObjectName,
    id: ObjectId,
    content: Unsealed,
    word: Word,
) -> Result<Vec<u8>> {
    match (content.is_signed, word) {
        (true, Word::Stays) => seal_content(keys, name, id, &content.bytes),
        (false, Word::Stays) => seal_unsigned(keys, name, id, &content.bytes),
        (true, Word::IsTakenOver) => seal_object(keys, name, id, &verified(keys, name, content.bytes)?.payload),
        (false, Word::IsTakenOver) => seal_object(keys, name, id, &content.bytes),
    }
}

/// Seals a payload that nobody signs.
pub(crate) fn seal_unsigned(keys: &Keys, name: &ObjectName, id: ObjectId, payload: &[u8]) -> Result<Vec<u8>> {
    seal_behind(keys.seal_unsigned_header(name.kind(), id, class_of(name))?, name, payload)
}

/// Signs a content, where the repository has signatures.
pub(crate) fn signed(keys: &Keys, name: &ObjectName, content: Vec<u8>) -> Result<Vec<u8>> {
    if !keys.is_signed() {
        return Ok(content);
    }
    let object = stated_name(name);
    let statement = Statement { repository: keys.repository(), object: &object };
    Ok(keys.signing_key()?.sign(&statement, content))
}

/// Checks the signature behind a content, and takes it off.
pub(crate) fn verified(keys: &Keys, name: &ObjectName, bytes: Vec<u8>) -> Result<Content> {
    let object = stated_name(name);
    let statement = Statement { repository: keys.repository(), object: &object };
    let (payload, signer) = statement.verify(bytes)?;
    Ok(Content { payload, signer: Some(signer) })
}

/// The name that is signed: of a root that was sealed again the one that it had first.
fn stated_name(name: &ObjectName) -> String {
    let full = name.to_string();
    match name.kind() {
        ObjectKind::Root => {
            let mut dashes = full.match_indices('-').map(|(at, _)| at);
            dashes.nth(1).map_or(full.clone(), |second| full[..second].to_owned())
        }
        _ => full,
    }
}

fn seal_content(keys: &Keys, name: &ObjectName, id: ObjectId, content: &[u8]) -> Result<Vec<u8>> {
    seal_behind(keys.seal_header(name.kind(), id, class_of(name))?, name, content)
}

fn class_of(name: &ObjectName) -> Sealing {
    match name.kind() {
        ObjectKind::Root | ObjectKind::Label => Sealing::ForManifests,
        _ => Sealing::Derived,
    }
}

fn seal_behind(header: Header, name: &ObjectName, content: &[u8]) -> Result<Vec<u8>> {
    let least = (header.bytes() + 4 + content.len() + TAG_BYTES) as u64;
    let padding = usize::try_from(on_grid(least) - least).unwrap_or(0);
    let mut text = padded(content, padding)?;
    let aad = associated_data(&header.envelope, name.to_string().as_bytes());
    let tag = header.cipher.seal(nonce(Domain::Part, 0), aad.as_slice(), &mut text)?;
    let mut object = Vec::with_capacity(header.bytes() + text.len() + tag.len());
    header.write(&mut object);
    object.extend_from_slice(&text);
    object.extend_from_slice(&tag);
    Ok(object)
}

/// Opens a whole object and checks who signed it; whether the signer counts is the caller's affair.
pub(crate) fn open_object(keys: &Keys, name: &ObjectName, bytes: Vec<u8>) -> Result<Content> {
    let Unsealed { bytes, is_signed } = unseal_object(keys, name, bytes)?;
    if is_signed { verified(keys, name, bytes) } else { Ok(Content { payload: bytes, signer: None }) }
}

/// Opens a whole object, its signature still behind it and not checked.
pub(crate) fn unseal_object(keys: &Keys, name: &ObjectName, mut bytes: Vec<u8>) -> Result<Unsealed> {
    let object = name.to_string();
    let (header, _) = keys.open_header(&object, name.kind(), &bytes)?;
    let aad = associated_data(&header.envelope, object.as_bytes());
    bytes.drain(..header.bytes());
    let plain_bytes = header
        .cipher
        .open(nonce(Domain::Part, 0), aad.as_slice(), &mut bytes)
        .ok_or_else(|| Error::damaged(&object, "its bytes do not verify"))?;
    bytes.truncate(plain_bytes);
    Ok(Unsealed { bytes: unpadded(&object, bytes)?, is_signed: header.is_signed() })
}

fn padded(payload: &[u8], padding: usize) -> Result<Vec<u8>> {
    let length = u32::try_from(payload.len())
        .map_err(|_| Error::Limit { what: "a payload".into(), limit: PAYLOAD_BYTES_MAX })?;
    let mut plain = Vec::with_capacity(4 + payload.len() + padding);
    plain.extend_from_slice(&length.to_le_bytes());
    plain.extend_from_slice(payload);
    plain.resize(plain.len() + padding, 0);
    Ok(plain)
}

fn unpadded(object: &str, mut plain: Vec<u8>) -> Result<Vec<u8>> {
    let length = plain.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize);
    match length {
        Some(length) if length <= plain.len() - 4 && plain[4 + length..].iter().all(|&byte| byte == 0) => {
            plain.drain(..4);
            plain.truncate(length);
            Ok(plain)
        }
        _ => Err(Error::damaged(object, "its payload does not say its length")),
    }
}

fn associated_data(envelope: &[u8; ENVELOPE_BYTES], bound: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(ENVELOPE_BYTES + bound.len());
    aad.extend_from_slice(envelope);
    aad.extend_from_slice(bound);
    aad
}
