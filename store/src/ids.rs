//! Identifiers of what a repository holds. Pure values: no I/O, no keys.

use std::fmt;

/// What is no digit.
const NO_DIGIT: u8 = 0x80;

/// Values of lower-case hexadecimal digits. A listing parses ids by the ten thousand, and a table does it in
/// a fifth of the time.
const DIGITS: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

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
                let (digits, rest) = text.as_bytes().as_chunks::<2>();
                if digits.len() != $len || !rest.is_empty() {
                    return None;
                }
                let mut bytes = [0u8; $len];
                let mut seen = 0;
                for (byte, [high, low]) in bytes.iter_mut().zip(digits) {
                    let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
                    seen |= high | low;
                    *byte = high << 4 | low & 0xf;
                }
                (seen & NO_DIGIT == 0).then_some(Self(bytes))
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
impl Default for RepositoryId {
    /// None: of keys that belong to no repository yet.
    fn default() -> Self {
        Self([0; 16])
    }
}
identifier!(
    /// A snapshot: a UUID of version 7.
    SnapshotId, 16
);

#[cfg(test)]
mod tests {
    //! Goal: an id has one written form. Method: the form, and everything that is nearly it.

    use super::*;

    #[test]
    fn only_the_full_lower_case_form_is_an_id() {
        let id = ObjectId(std::array::from_fn(|at| (at * 17) as u8));
        let text = id.to_string();
        assert_eq!(text, "00112233445566778899aabbccddeeff");
        assert_eq!(ObjectId::from_hex(&text), Some(id));
        let longer = format!("{text}00");
        for near in ["", &text[1..], &text[2..], &longer, "00112233445566778899AABBCCDDEEFF"] {
            assert_eq!(ObjectId::from_hex(near), None, "{near}");
        }
        for (at, odd) in [(0, "g"), (31, "/"), (5, ":"), (6, "`"), (9, " "), (8, "é")] {
            let mut near = text.clone();
            near.replace_range(at..at + odd.len(), odd);
            assert_eq!(ObjectId::from_hex(&near), None, "{near}");
        }
    }
}
