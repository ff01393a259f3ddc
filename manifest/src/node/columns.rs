//! The byte columns that nodes are made of: LEB128 numbers in their shortest form, raw runs of known length.

use copal_store::ChunkId;

/// Why bytes are no node. The caller adds which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A result of decoding.
pub(crate) type Decoded<T> = Result<T, Malformed>;

/// Longest LEB128 form of 64 bits.
const NUMBER_BYTES_MAX: usize = 10;

/// A column under construction.
#[derive(Debug, Default)]
pub(crate) struct Column(Vec<u8>);

impl Column {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Zigzag, so that small negative numbers are short.
    pub(crate) fn signed(&mut self, value: i64) {
        self.number((value.wrapping_shl(1) ^ (value >> 63)) as u64);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn counted(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads columns one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> Decoded<u8> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed("it ends early"))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Decoded<u64> {
        let mut value = 0u64;
        for place in 0..NUMBER_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == NUMBER_BYTES_MAX - 1 && bits > 1 {
                return Err(Malformed("a number has more than 64 bits"));
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                let shortest = place == 0 || bits != 0;
                return if shortest { Ok(value) } else { Err(Malformed("a number is not in its shortest form")) };
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }

    /// A number up to `max`.
    pub(crate) fn number_to(&mut self, max: u64) -> Decoded<u64> {
        let value = self.number()?;
        if value > max { Err(Malformed("a number is over its limit")) } else { Ok(value) }
    }

    pub(crate) fn signed(&mut self) -> Decoded<i64> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn raw(&mut self, bytes: usize) -> Decoded<&'b [u8]> {
        let (run, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed("it ends early"))?;
        self.rest = rest;
        Ok(run)
    }

    pub(crate) fn counted(&mut self, max: usize) -> Decoded<&'b [u8]> {
        let bytes = self.number_to(max as u64)?;
        self.raw(bytes as usize)
    }

    pub(crate) fn id(&mut self) -> Decoded<ChunkId> {
        let run = self.raw(ChunkId::LEN)?;
        run.try_into().map(ChunkId).map_err(|_| Malformed("it ends early"))
    }

    pub(crate) fn small(&mut self) -> Decoded<u32> {
        u32::try_from(self.number()?).map_err(|_| Malformed("a number has more than 32 bits"))
    }

    /// The end: nothing may be left.
    pub(crate) fn end(self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes stand after its end")) }
    }

    /// A column of numbers.
    pub(crate) fn numbers(&mut self, count: usize) -> Decoded<Vec<u64>> {
        (0..count).map(|_| self.number()).collect()
    }
}
