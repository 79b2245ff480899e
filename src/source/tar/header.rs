//! One 512-byte header block.

/// Bytes of a tar block: headers are one, data is padded to a whole number of them.
pub(super) const BLOCK_LEN_BYTES: u64 = 512;

/// What the `ustar` header of POSIX.1-2024 (pax, "ustar Interchange Format") and its GNU variant say of
/// an entry.
pub(super) struct Header {
    pub kind: u8,
    pub size_bytes: u64,
    /// With the prefix, where there is one.
    pub name: Vec<u8>,
    /// An old GNU sparse header that goes on in the next block.
    pub is_extended: bool,
}

impl Header {
    /// Parses a block that is not all zeros. The error says what is wrong with it.
    pub fn parse(block: &[u8; BLOCK_LEN_BYTES as usize]) -> Result<Self, &'static str> {
        check_sum(block)?;
        let mut name = until_nul(&block[..100]).to_vec();
        // Only POSIX has a prefix; the GNU variant ("ustar  ") keeps other things there.
        let prefix = until_nul(&block[345..500]);
        if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let size_bytes = number(&block[124..136]).ok_or("its size is no number")?;
        Ok(Self { kind: block[156], size_bytes, name, is_extended: block[482] != 0 })
    }
}

fn check_sum(block: &[u8]) -> Result<(), &'static str> {
    let stored = number(&block[148..156]).ok_or("its checksum is no number")?;
    // The checksum's own field counts as spaces.
    let bytes = || block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let sum: u64 = bytes().map(u64::from).sum();
    // Old Sun and BSD tars added signed bytes.
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    if stored == sum || i64::try_from(stored) == Ok(signed) { Ok(()) } else { Err("its checksum is wrong") }
}

/// An octal number between blanks, or GNU's big-endian binary behind a first byte of 0x80.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return None;
        }
        return field[1..].iter().try_fold(0u64, |n, &byte| Some(n.checked_mul(256)? | u64::from(byte)));
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0u64, |n, &digit| match digit {
        b'0'..=b'7' => Some(n.checked_mul(8)? | u64::from(digit - b'0')),
        _ => None,
    })
}

/// The bytes up to the first NUL.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    &field[..memchr::memchr(0, field).unwrap_or(field.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"00000000017\0"), Some(15));
        assert_eq!(number(b"      17 \0\0\0"), Some(15));
        assert_eq!(number(b"77777777777\0"), Some((1 << 33) - 1));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(1 << 33));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0\0\0\0\0"), Some(0));
        for bad in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x80\x01\0\0\0\0\0\0\0\0\0\0", b"12389"]
        {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
