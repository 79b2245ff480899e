//! A compact list of byte strings: paths and keys, millions of them.

use crate::error::{Error, ErrorKind, Result};

/// Names from one whole name to the next. A look-up decodes half of them on average, so this trades
/// time (some 10 ns a name) for memory (8 / 16 bytes a name).
const BLOCK: u64 = 16;

/// Byte strings numbered in the order in which they were pushed, front coded: each is stored as the
/// length of the prefix it shares with the one before it, and the rest.
///
/// Front coding is the classic store of sorted dictionaries (Witten, Moffat and Bell, "Managing
/// Gigabytes", 2nd ed., 4.1). Names of one folder or shard differ in their last few characters, so a
/// name takes about 12 bytes, and directories need no table of their own.
#[derive(Default)]
pub(super) struct Names {
    /// Per name: shared length and length of the rest as LEB128 numbers, then the rest.
    bytes: Vec<u8>,
    /// Where each block begins in `bytes`. Its first name shares nothing.
    blocks: Vec<u64>,
    len: u64,
    /// The name pushed last.
    last: Vec<u8>,
}

impl Names {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn push(&mut self, name: &[u8]) {
        let shared = if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(self.bytes.len() as u64);
            0
        } else {
            self.last.iter().zip(name).take_while(|(a, b)| a == b).count()
        };
        push_number(&mut self.bytes, shared);
        push_number(&mut self.bytes, name.len() - shared);
        self.bytes.extend_from_slice(&name[shared..]);
        self.last.truncate(shared);
        self.last.extend_from_slice(&name[shared..]);
        self.len += 1;
    }

    /// Gives back what growing left over. To be called after the last push.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.blocks.shrink_to_fit();
        self.last = Vec::new();
    }

    /// Appends name `number` to `out`.
    pub fn append(&self, number: u64, out: &mut Vec<u8>) -> Result<()> {
        if number >= self.len {
            return Err(out_of_range(number, self.len));
        }
        let start = out.len();
        let mut at = self.blocks[(number / BLOCK) as usize] as usize;
        for _ in 0..=number % BLOCK {
            let shared = read_number(&self.bytes, &mut at);
            let rest = read_number(&self.bytes, &mut at);
            out.truncate(start + shared);
            out.extend_from_slice(&self.bytes[at..at + rest]);
            at += rest;
        }
        Ok(())
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.blocks.capacity() * 8 + self.last.capacity()
    }
}

/// The error of a sample number that the source does not have.
pub(super) fn out_of_range(sample: u64, len: u64) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("sample {sample} does not exist: the data set has {len} samples"))
        .with_remedy("sample numbers go from 0 to len() - 1")
}

fn push_number(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(bytes: &[u8], at: &mut usize) -> usize {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_come_back_as_pushed(list in prop::collection::vec("[ab]{0,4}.{0,300}", 0..70)) {
            let mut names = Names::default();
            list.iter().for_each(|name| names.push(name.as_bytes()));
            names.shrink();
            prop_assert_eq!(names.len(), list.len() as u64);
            for (number, name) in list.iter().enumerate() {
                let mut out = b"root/".to_vec();
                names.append(number as u64, &mut out).unwrap();
                prop_assert_eq!(&out[5..], name.as_bytes());
            }
            prop_assert!(names.append(list.len() as u64, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn names_of_one_folder_take_a_dozen_bytes() {
        let mut names = Names::default();
        for number in 0..100_000 {
            names.push(format!("n{:08}/n{:08}_{:05}.JPEG", number / 1300, number / 1300, number % 1300).as_bytes());
        }
        names.shrink();
        assert!(names.memory_bytes() < 13 * 100_000, "{} bytes", names.memory_bytes());
    }
}
