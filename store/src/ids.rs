//! Identifiers of what a repository holds. Pure values: no I/O, no keys.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes of the identifier.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Parses the full lower-case hexadecimal form.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0u8; $len];
                if text.bytes().any(|b| b.is_ascii_uppercase()) {
                    return None;
                }
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }
    };
}

identifier!(
    /// A chunk: BLAKE3, keyed with a repository secret, over its plaintext.
    ChunkId, 32
);
identifier!(
    /// A pack file: random, because its sealing key is derived from it.
    PackId, 16
);
identifier!(
    /// Any other sealed object: random, because its sealing key is derived from it.
    ObjectId, 16
);
identifier!(
    /// A repository: random, made by `init`.
    RepositoryId, 16
);
identifier!(
    /// A snapshot: a UUID of version 7.
    SnapshotId, 16
);
