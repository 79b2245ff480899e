//! Host memory that a copy will use later: what it held when the copy was called for.

use std::ptr;

/// Fills host memory that a copy is going to write, so that whoever reads it before the copy is done reads garbage, and
/// returns the digest of that.
///
/// # Safety
/// The bytes may be written, and nobody reads them before the copy is done.
pub unsafe fn poison(at: *mut u8, len: u64, number: u64) -> u64 {
    // SAFETY: as this function demands.
    unsafe { ptr::write_bytes(at, 0xD5 ^ (number as u8), len as usize) };
    digest(at, len)
}

/// A digest of bytes that must not change, and may all the same, while it is taken.
pub fn digest(at: *const u8, len: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B1_85EB_CA87;
    let mut lanes = [1_u64, 2, 3, 4];
    let words = len as usize / 8;
    for word in 0..words {
        // SAFETY: the caller found the range in memory that is live, or lent by the program until the copy is done.
        let value = unsafe { at.cast::<u64>().add(word).read_unaligned() };
        let lane = &mut lanes[word % 4];
        *lane = (*lane ^ value).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
    for byte in words * 8..len as usize {
        // SAFETY: as above.
        lanes[byte % 4] = (lanes[byte % 4] ^ u64::from(unsafe { at.add(byte).read() })).wrapping_mul(MULTIPLIER);
    }
    lanes.iter().fold(len, |all, lane| (all ^ lane).wrapping_mul(MULTIPLIER).rotate_left(31))
}
