//! What a program loads as a module: PTX text, or a fat binary that holds some.

use std::ffi::{CStr, c_char};

use crate::result::{Code, Outcome};

/// First word of the structure that the compiler puts around a fat binary in a program.
const WRAPPER: u32 = 0x4662_43B1;
/// First word of a fat binary.
const FAT_BINARY: u32 = 0xBA55_ED50;
/// First word of an ELF file: a cubin.
const ELF: u32 = 0x464C_457F;
/// The kind of a fat binary's entry that is PTX.
const ENTRY_PTX: u16 = 1;
/// An entry's payload is compressed with LZ4.
const COMPRESSED_LZ4: u64 = 0x2000;
/// An entry's payload is compressed with Zstandard.
const COMPRESSED_ZSTD: u64 = 0x8000;

/// The PTX text of an image.
///
/// # Errors
/// The code that the real driver returns for what it cannot load, and in words what is the matter.
///
/// # Safety
/// The image is one: a string that ends in 0, or a binary whose header tells its length.
pub unsafe fn text(image: *const u8) -> Result<String, (Code, String)> {
    if image.is_null() {
        return Err((Code::INVALID_VALUE, "no image".into()));
    }
    let mut image = image;
    // SAFETY: each kind of image begins with four bytes or more: the shortest PTX has a version.
    let mut magic = unsafe { image.cast::<u32>().read_unaligned() };
    if magic == WRAPPER {
        // SAFETY: in the wrapper, the pointer to the fat binary follows the magic and the version.
        image = unsafe { image.add(8).cast::<*const u8>().read_unaligned() };
        // SAFETY: as above.
        magic = unsafe { image.cast::<u32>().read_unaligned() };
    }
    match magic {
        FAT_BINARY => {
            // SAFETY: the header is 16 bytes: magic, version, its own length, the length of what follows it.
            let len = unsafe { image.add(8).cast::<u64>().read_unaligned() } + 16;
            // SAFETY: the header says how many bytes there are.
            let bytes = unsafe { std::slice::from_raw_parts(image, len as usize) };
            from_fat_binary(bytes).map_err(|what| (Code::NO_BINARY_FOR_GPU, what))
        }
        ELF => Err((Code::INVALID_IMAGE, "a cubin is machine code, which is not simulated; give PTX".into())),
        // SAFETY: what is no binary is a string.
        _ => Ok(unsafe { CStr::from_ptr(image.cast::<c_char>()) }.to_string_lossy().into_owned()),
    }
}

/// The first PTX of a fat binary.
fn from_fat_binary(bytes: &[u8]) -> Result<String, String> {
    let mut at = number(bytes, 6, 2).ok_or("the fat binary ends within its header")? as usize;
    while let Some(entry) = bytes.get(at..).filter(|entry| !entry.is_empty()) {
        let field = |offset, len| number(entry, offset, len).ok_or("the fat binary ends within an entry");
        let (kind, header_bytes, payload_bytes) = (field(0, 2)? as u16, field(4, 4)? as usize, field(8, 8)? as usize);
        let payload = entry.get(header_bytes..header_bytes + payload_bytes);
        let payload = payload.ok_or("the fat binary ends within an entry")?;
        if kind == ENTRY_PTX {
            let flags = field(40, 8)?;
            let compressed = payload.get(..field(16, 4)? as usize).unwrap_or(payload);
            let text = match flags {
                _ if flags & COMPRESSED_LZ4 != 0 => decompress_lz4(compressed, field(56, 8)? as usize)?,
                _ if flags & COMPRESSED_ZSTD != 0 => {
                    return Err("its PTX is compressed with Zstandard; compile with --compress-mode=none".into());
                }
                _ => payload.to_vec(),
            };
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            return Ok(String::from_utf8_lossy(&text[..end]).into_owned());
        }
        at += header_bytes + payload_bytes;
    }
    Err("the fat binary has no PTX, only machine code, which is not simulated".into())
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + len)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// An LZ4 block (lz4_Block_format.md): literals, then a copy of what came before, and so on.
fn decompress_lz4(bytes: &[u8], len: usize) -> Result<Vec<u8>, String> {
    const DAMAGED: &str = "its compressed PTX is damaged";
    let mut rest = bytes.iter().copied();
    let mut out = Vec::with_capacity(len.min(64 << 20));
    while let Some(token) = rest.next() {
        let literals = lz4_length(&mut rest, usize::from(token >> 4)).ok_or(DAMAGED)?;
        let before = out.len();
        out.extend(rest.by_ref().take(literals));
        if out.len() - before < literals {
            return Err(DAMAGED.into());
        }
        let Some(low) = rest.next() else { break };
        let distance = usize::from(low) | usize::from(rest.next().ok_or(DAMAGED)?) << 8;
        let matched = lz4_length(&mut rest, usize::from(token & 15)).ok_or(DAMAGED)? + 4;
        let start = out.len().checked_sub(distance).filter(|_| distance > 0).ok_or(DAMAGED)?;
        (start..start + matched).for_each(|at| out.push(out[at]));
    }
    Ok(out)
}

fn lz4_length(rest: &mut impl Iterator<Item = u8>, nibble: usize) -> Option<usize> {
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let byte = rest.next()?;
            length += usize::from(byte);
            if byte != 255 {
                break;
            }
        }
    }
    Some(length)
}

/// A file's image.
///
/// # Errors
/// `FILE_NOT_FOUND`.
pub fn read(path: &str) -> Outcome<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(|_| Code::FILE_NOT_FOUND)?;
    bytes.extend([0; 16]);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fat_binary(kind: u16, payload: &[u8], flags: u64, len: u64) -> Vec<u8> {
        let mut entry = vec![0_u8; 64];
        entry[0..2].copy_from_slice(&kind.to_le_bytes());
        entry[4..8].copy_from_slice(&64_u32.to_le_bytes());
        entry[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        entry[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        entry[40..48].copy_from_slice(&flags.to_le_bytes());
        entry[56..64].copy_from_slice(&len.to_le_bytes());
        entry.extend(payload);
        let mut all = FAT_BINARY.to_le_bytes().to_vec();
        all.extend([1, 0, 16, 0]);
        all.extend((entry.len() as u64).to_le_bytes());
        all.extend(entry);
        all
    }

    fn load(image: &[u8]) -> Result<String, Code> {
        // SAFETY: the images of these tests are whole.
        unsafe { text(image.as_ptr()) }.map_err(|(code, _)| code)
    }

    #[test]
    fn text_and_fat_binaries_give_their_ptx() {
        assert_eq!(load(b".version 7.8\0"), Ok(".version 7.8".into()));
        assert_eq!(load(&fat_binary(1, b".version 7.8\0\0\0", 0, 0)), Ok(".version 7.8".into()));
        // "abcabcabcabcabc.": three literals, a copy of twelve at distance three, a literal.
        let packed = [0x38, b'a', b'b', b'c', 3, 0, 0x10, b'.'];
        assert_eq!(load(&fat_binary(1, &packed, COMPRESSED_LZ4, 16)), Ok("abcabcabcabcabc.".into()));
    }

    #[test]
    fn what_is_not_simulated_is_refused() {
        assert_eq!(load(&fat_binary(2, b"machine code", 0, 0)), Err(Code::NO_BINARY_FOR_GPU));
        assert_eq!(load(&fat_binary(1, b"zstd", COMPRESSED_ZSTD, 9)), Err(Code::NO_BINARY_FOR_GPU));
        assert_eq!(load(&fat_binary(1, &[0xF0], COMPRESSED_LZ4, 9)), Err(Code::NO_BINARY_FOR_GPU));
        assert_eq!(load(b"\x7fELF............"), Err(Code::INVALID_IMAGE));
    }
}
