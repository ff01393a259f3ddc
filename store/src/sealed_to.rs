//! Sealing to a public key: HPKE (RFC 9180) with X25519, HKDF-SHA256 and, for messages, ChaCha20-Poly1305.
//!
//! Objects use only the key encapsulation: their key is exported from it, bound to the object's envelope.
//! Grants use the mode with a pre-shared key, so that nobody but an owner of the repository can make one.

use hpke::aead::{ChaCha20Poly1305, ExportOnlyAead};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as X25519;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable, setup_receiver, setup_sender_with_rng};
use zeroize::{Zeroize, Zeroizing};

use crate::entropy::Entropy;
use crate::{Error, Result};

/// Length of a public key, a private key and an encapsulated key in bytes.
pub(crate) const PUBLIC_KEY_BYTES: usize = 32;

/// A key pair of a private key, from 32 secret bytes that are used for nothing else.
pub(crate) fn key_pair(material: &[u8; 32]) -> (Zeroizing<[u8; 32]>, [u8; PUBLIC_KEY_BYTES]) {
    let (private, public) = X25519::derive_keypair(material);
    (Zeroizing::new(private.to_bytes().into()), public.to_bytes().into())
}

/// Makes a key that only the holder of the private key can find again. Returns the encapsulation and the key.
pub(crate) fn encapsulate(
    entropy: &dyn Entropy,
    public: &[u8; PUBLIC_KEY_BYTES],
    info: &[u8],
) -> Result<([u8; PUBLIC_KEY_BYTES], Zeroizing<[u8; 32]>)> {
    let public = <X25519 as Kem>::PublicKey::from_bytes(public).map_err(|_| unusable())?;
    let (encapsulated, context) = setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, X25519>(
        &OpModeS::Base,
        &public,
        info,
        &mut Drawn::new(entropy)?,
    )
    .map_err(|_| unusable())?;
    let mut key = Zeroizing::new([0; 32]);
    context.export(b"key", &mut *key).map_err(|_| unusable())?;
    Ok((encapsulated.to_bytes().into(), key))
}

/// Finds the key of an encapsulation. A wrong private key gives another key, with which nothing verifies.
pub(crate) fn decapsulate(
    private: &[u8; 32],
    encapsulated: &[u8; PUBLIC_KEY_BYTES],
    info: &[u8],
) -> Result<Zeroizing<[u8; 32]>> {
    let private = <X25519 as Kem>::PrivateKey::from_bytes(private).map_err(|_| unusable())?;
    let encapsulated = <X25519 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| unusable())?;
    let context = setup_receiver::<ExportOnlyAead, HkdfSha256, X25519>(&OpModeR::Base, &private, &encapsulated, info)
        .map_err(|_| unusable())?;
    let mut key = Zeroizing::new([0; 32]);
    context.export(b"key", &mut *key).map_err(|_| unusable())?;
    Ok(key)
}

/// Seals a message to a public key, under a key that sender and receiver share too:
/// `encapsulation || ciphertext || tag`.
pub(crate) fn seal_message(
    entropy: &dyn Entropy,
    public: &[u8; PUBLIC_KEY_BYTES],
    shared: &[u8; 32],
    info: &[u8],
    message: &[u8],
) -> Result<Vec<u8>> {
    let public = <X25519 as Kem>::PublicKey::from_bytes(public).map_err(|_| unusable())?;
    let mode = OpModeS::Psk(PskBundle::new(shared, PSK_ID).map_err(|_| unusable())?);
    let (encapsulated, mut context) =
        setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519>(&mode, &public, info, &mut Drawn::new(entropy)?)
            .map_err(|_| unusable())?;
    let sealed = context.seal(message, b"").map_err(|_| unusable())?;
    Ok([&encapsulated.to_bytes()[..], &sealed].concat())
}

/// Opens what [`seal_message`] made; `None` when it does not verify.
pub(crate) fn open_message(
    private: &[u8; 32],
    shared: &[u8; 32],
    info: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (encapsulated, sealed) = sealed.split_at_checked(PUBLIC_KEY_BYTES)?;
    let private = <X25519 as Kem>::PrivateKey::from_bytes(private).ok()?;
    let encapsulated = <X25519 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
    let mode = OpModeR::Psk(PskBundle::new(shared, PSK_ID).ok()?);
    let mut context =
        setup_receiver::<ChaCha20Poly1305, HkdfSha256, X25519>(&mode, &private, &encapsulated, info).ok()?;
    context.open(sealed, b"").ok().map(Zeroizing::new)
}

const PSK_ID: &[u8] = b"copal v2 slot";

fn unusable() -> Error {
    Error::damaged("a public key", "it is none")
}

/// Randomness drawn beforehand, because drawing can fail and the library's generators cannot.
struct Drawn {
    bytes: [u8; 64],
    used: usize,
}

impl Drawn {
    fn new(entropy: &dyn Entropy) -> Result<Self> {
        let mut bytes = [0; 64];
        entropy.fill(&mut bytes)?;
        Ok(Self { bytes, used: 0 })
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl TryRng for Drawn {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, wanted: &mut [u8]) -> Result<(), Self::Error> {
        let drawn = self.bytes.get(self.used..self.used + wanted.len());
        wanted.copy_from_slice(drawn.expect("an encapsulation draws 32 bytes once"));
        self.used += wanted.len();
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    //! Goal: what is sealed to a key opens with its private key only. Method: round trips, foreign keys,
    //! flipped bits, known answers.

    use super::*;
    use crate::entropy::OsEntropy;

    #[derive(Debug)]
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) -> Result<()> {
            buffer.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn an_encapsulated_key_is_found_with_the_private_key_and_the_same_words() {
        let (private, public) = key_pair(&[1; 32]);
        let (other, _) = key_pair(&[2; 32]);
        let (encapsulated, key) = encapsulate(&OsEntropy, &public, b"info").unwrap();
        assert_eq!(*decapsulate(&private, &encapsulated, b"info").unwrap(), *key);
        assert_ne!(*decapsulate(&other, &encapsulated, b"info").unwrap(), *key);
        assert_ne!(*decapsulate(&private, &encapsulated, b"other").unwrap(), *key);
        assert!(encapsulate(&OsEntropy, &[0; 32], b"info").is_err(), "a key of small order");
        assert!(decapsulate(&private, &[0; 32], b"info").is_err());
    }

    #[test]
    fn a_message_opens_with_both_keys_only() {
        let (private, public) = key_pair(&[1; 32]);
        let sealed = seal_message(&OsEntropy, &public, &[7; 32], b"info", b"grant").unwrap();
        assert_eq!(open_message(&private, &[7; 32], b"info", &sealed).unwrap().as_slice(), b"grant");
        assert!(open_message(&private, &[8; 32], b"info", &sealed).is_none());
        assert!(open_message(&key_pair(&[3; 32]).0, &[7; 32], b"info", &sealed).is_none());
        assert!(open_message(&private, &[7; 32], b"other", &sealed).is_none());
        for position in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[position] ^= 1;
            assert!(open_message(&private, &[7; 32], b"info", &flipped).is_none(), "a flipped bit at {position}");
            assert!(open_message(&private, &[7; 32], b"info", &sealed[..position]).is_none());
        }
    }

    #[test]
    fn key_pairs_and_encapsulations_have_known_answers() {
        let (private, public) = key_pair(&[9; 32]);
        let (encapsulated, key) = encapsulate(&Fixed(5), &public, b"copal").unwrap();
        let found = [&private[..], &public, &encapsulated, &*key].map(hex::encode).join("\n") + "\n";
        assert_eq!(found, include_str!("../tests/known_answers_hpke.txt"));
    }
}
