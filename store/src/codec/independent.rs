//! A second reader of documents, written from the format page alone
//! ([Documents](../../../docs/format/README.md#documents)). Tests and fuzz targets read every document by
//! both and compare. It is the way out, should bincode have to go: no format would change. It knows nothing
//! of bincode, and no program has it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserializer, Serialize};

use super::encode;

/// Types that were compared.
static COMPARED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// Names of the types of which a document was read by both so far.
#[cfg(feature = "fuzzing")]
pub(crate) fn compared() -> Vec<&'static str> {
    COMPARED.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
}

/// Panics where the other reader found another value, or read what cannot be read, or the reverse.
pub(super) fn compare<T: Serialize + DeserializeOwned, E>(bytes: &[u8], other: &Result<T, E>) {
    let mut decoder = Decoder { rest: bytes };
    let value = T::deserialize(&mut decoder).ok().filter(|_| decoder.rest.is_empty());
    // A type may take more than one spelling of a value, as a map does.
    let value = value.and_then(|value| encode(&value).ok()).filter(|again| again == bytes);
    let name = std::any::type_name::<T>();
    let agreed = match other {
        Ok(other) => value.is_some() && encode(other).ok() == value,
        Err(_) => value.is_none(),
    };
    assert!(agreed, "two readers differ about a document {name} of {} bytes: {bytes:02x?}", bytes.len());
    if other.is_ok() {
        COMPARED.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }
}

#[derive(Debug)]
struct Undecodable;

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("undecodable")
    }
}

impl std::error::Error for Undecodable {}

impl de::Error for Undecodable {
    fn custom<T: std::fmt::Display>(_message: T) -> Self {
        Self
    }
}

type Read<T> = Result<T, Undecodable>;

struct Decoder<'d> {
    rest: &'d [u8],
}

impl<'d> Decoder<'d> {
    fn take(&mut self, bytes: usize) -> Read<&'d [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Undecodable)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    /// Below 251 in one byte, else a mark and 2, 4, 8 or 16 bytes, the fewest that do; at most `bytes_max`.
    fn number(&mut self, bytes_max: usize) -> Read<u128> {
        let bytes = match self.byte()? {
            small @ ..251 => return Ok(small.into()),
            251 => 2,
            252 => 4,
            253 => 8,
            254 => 16,
            255 => return Err(Undecodable),
        };
        let number = self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte));
        let least = if bytes == 2 { 251 } else { 1 << (bytes * 4) };
        if bytes <= bytes_max && number >= least { Ok(number) } else { Err(Undecodable) }
    }

    fn length(&mut self) -> Read<usize> {
        usize::try_from(self.number(8)?).map_err(|_| Undecodable)
    }

    /// Zigzag: 0, -1, 1, -2, …
    fn signed(&mut self, bytes_max: usize) -> Read<i128> {
        let number = self.number(bytes_max)?;
        let half = (number >> 1) as i128;
        Ok(if number & 1 == 0 { half } else { !half })
    }

    fn text(&mut self) -> Read<&'d str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Undecodable)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty: $read:ident;)*) => {$(
        fn $method<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
            let number = self.$read(size_of::<$type>())?;
            visitor.$visit(<$type>::try_from(number).map_err(|_| Undecodable)?)
        }
    )*};
}

impl<'d> Deserializer<'d> for &mut Decoder<'d> {
    type Error = Undecodable;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers! {
        deserialize_u16 visit_u16 u16: number;
        deserialize_u32 visit_u32 u32: number;
        deserialize_u64 visit_u64 u64: number;
        deserialize_u128 visit_u128 u128: number;
        deserialize_i16 visit_i16 i16: signed;
        deserialize_i32 visit_i32 i32: signed;
        deserialize_i64 visit_i64 i64: signed;
        deserialize_i128 visit_i128 i128: signed;
    }

    fn deserialize_any<V: Visitor<'d>>(self, _visitor: V) -> Read<V::Value> {
        Err(Undecodable)
    }

    fn deserialize_bool<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Undecodable),
        }
    }

    fn deserialize_u8<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_u8(self.byte()?)
    }

    fn deserialize_i8<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_i8(self.byte()? as i8)
    }

    fn deserialize_f32<V: Visitor<'d>>(self, _visitor: V) -> Read<V::Value> {
        Err(Undecodable)
    }

    fn deserialize_f64<V: Visitor<'d>>(self, _visitor: V) -> Read<V::Value> {
        Err(Undecodable)
    }

    fn deserialize_char<V: Visitor<'d>>(self, _visitor: V) -> Read<V::Value> {
        Err(Undecodable)
    }

    fn deserialize_str<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        let length = self.length()?;
        visitor.visit_borrowed_bytes(self.take(length)?)
    }

    fn deserialize_byte_buf<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(Undecodable),
        }
    }

    fn deserialize_unit<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'d>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'d>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        let left = self.length()?;
        visitor.visit_seq(Parts { decoder: self, left })
    }

    fn deserialize_tuple<V: Visitor<'d>>(self, left: usize, visitor: V) -> Read<V::Value> {
        visitor.visit_seq(Parts { decoder: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'d>>(self, _: &'static str, left: usize, visitor: V) -> Read<V::Value> {
        visitor.visit_seq(Parts { decoder: self, left })
    }

    fn deserialize_map<V: Visitor<'d>>(self, visitor: V) -> Read<V::Value> {
        let left = self.length()?;
        visitor.visit_map(Parts { decoder: self, left })
    }

    fn deserialize_struct<V: Visitor<'d>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_seq(Parts { decoder: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'d>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'d>>(self, _visitor: V) -> Read<V::Value> {
        Err(Undecodable)
    }

    fn deserialize_ignored_any<V: Visitor<'d>>(self, _visitor: V) -> Read<V::Value> {
        Err(Undecodable)
    }
}

/// The members of what has several.
struct Parts<'a, 'd> {
    decoder: &'a mut Decoder<'d>,
    left: usize,
}

impl<'d> de::SeqAccess<'d> for Parts<'_, 'd> {
    type Error = Undecodable;

    fn next_element_seed<T: DeserializeSeed<'d>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

impl<'d> de::MapAccess<'d> for Parts<'_, 'd> {
    type Error = Undecodable;

    fn next_key_seed<K: DeserializeSeed<'d>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<V: DeserializeSeed<'d>>(&mut self, seed: V) -> Read<V::Value> {
        seed.deserialize(&mut *self.decoder)
    }
}

impl<'d> de::EnumAccess<'d> for &mut Decoder<'d> {
    type Error = Undecodable;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'d>>(self, seed: V) -> Read<(V::Value, Self)> {
        let number = u32::try_from(self.number(4)?).map_err(|_| Undecodable)?;
        let number: U32Deserializer<Undecodable> = number.into_deserializer();
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'d> de::VariantAccess<'d> for &mut Decoder<'d> {
    type Error = Undecodable;

    fn unit_variant(self) -> Read<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'d>>(self, seed: T) -> Read<T::Value> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'d>>(self, left: usize, visitor: V) -> Read<V::Value> {
        visitor.visit_seq(Parts { decoder: self, left })
    }

    fn struct_variant<V: Visitor<'d>>(self, fields: &'static [&'static str], visitor: V) -> Read<V::Value> {
        visitor.visit_seq(Parts { decoder: self, left: fields.len() })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: both readers read the same from any document, and refuse the same. Method: values with every
    //! shape that the page names, drawn at random, then changed in one byte, cut off and made longer; every
    //! decode compares.

    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::codec::decode;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Nothing,
        One(u64),
        Two(i32, String),
        Named { small: u16, large: u128 },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        numbers: (u8, i8, u16, i16, u32, i32, u64, i64, u128, i128),
        yes: bool,
        text: String,
        bytes: Vec<u8>,
        id: [u8; 16],
        maybe: Option<Option<u32>>,
        choices: Vec<Choice>,
        map: BTreeMap<u16, Vec<[u8; 3]>>,
        unit: (),
    }

    /// Near every length that a number can have.
    fn number() -> impl Strategy<Value = u128> {
        (0u32..128, any::<u128>(), 0u128..8).prop_map(|(shift, random, near)| {
            if near == 0 { random >> shift } else { (1u128 << shift).wrapping_add(near).wrapping_sub(4) }
        })
    }

    fn choice() -> impl Strategy<Value = Choice> {
        prop_oneof![
            Just(Choice::Nothing),
            number().prop_map(|one| Choice::One(one as u64)),
            (number(), ".{0,5}").prop_map(|(one, two)| Choice::Two(one as i32, two)),
            (number(), number()).prop_map(|(small, large)| Choice::Named { small: small as u16, large }),
        ]
    }

    fn everything() -> impl Strategy<Value = Everything> {
        let numbers = [number(), number(), number(), number()];
        let map =
            proptest::collection::btree_map(any::<u16>(), proptest::collection::vec(any::<[u8; 3]>(), 0..3), 0..3);
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        let choices = proptest::collection::vec(choice(), 0..4);
        let maybe = proptest::option::of(proptest::option::of(any::<u32>()));
        (numbers, any::<bool>(), ".{0,20}", bytes, any::<[u8; 16]>(), maybe, choices, map).prop_map(
            |([a, b, c, d], yes, text, bytes, id, maybe, choices, map)| {
                let numbers =
                    ((a as u8, b as i8, c as u16, d as i16, a as u32), (b as i32, c as u64, d as i64, a, b as i128));
                let ((u1, i1, u2, i2, u4), (i4, u8, i8, u16, i16)) = numbers;
                let numbers = (u1, i1, u2, i2, u4, i4, u8, i8, u16, i16);
                Everything { numbers, yes, text, bytes, id, maybe, choices, map, unit: () }
            },
        )
    }

    proptest! {
        #[test]
        fn both_readers_read_the_same_and_refuse_the_same(
            value in everything(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        ) {
            let bytes = encode(&value).unwrap();
            // Each of these compares within.
            prop_assert_eq!(decode::<Everything>("whole", &bytes).unwrap(), value);
            for (place, byte) in changes {
                let mut changed = bytes.clone();
                changed[place.index(bytes.len())] = byte;
                let _ = decode::<Everything>("changed", &changed);
                changed.push(byte);
                let _ = decode::<Everything>("longer", &changed);
                let _ = decode::<Everything>("shorter", &bytes[..place.index(bytes.len())]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "two readers differ")]
    fn a_difference_is_seen() {
        compare::<u32, ()>(&[7], &Ok(8));
    }
}
