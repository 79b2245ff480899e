//! The one fact of EXIF that changes pixels: which way up the picture was taken.

/// The orientation (1..=8) in the payload of an APP1 segment, or `None` where it holds no readable EXIF
/// orientation (Exif 2.32, 4.6.4 A, tag 274, SHORT). Never fails: metadata must not cost a sample.
pub fn orientation(payload: &[u8]) -> Option<u8> {
    let tiff = payload.strip_prefix(b"Exif\0")?.get(1..)?;
    let little_endian = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk::<2>()?;
        Some(if little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk::<4>()?;
        Some(if little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    let entries = short(directory)?;
    for entry in 0..usize::from(entries) {
        let at = directory.checked_add(2 + 12 * entry)?;
        if short(at)? == ORIENTATION_TAG {
            let value = if short(at + 2)? == TYPE_SHORT { short(at + 8)? } else { return None };
            return (1..=8).contains(&value).then_some(value as u8);
        }
    }
    None
}

const ORIENTATION_TAG: u16 = 0x0112;
const TYPE_SHORT: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(big_endian: bool, tag: u16, value: u16) -> Vec<u8> {
        let short = |v: u16| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let long = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut bytes = b"Exif\0\0".to_vec();
        bytes.extend(if big_endian { b"MM\0*" } else { b"II*\0" });
        bytes.extend(long(8));
        bytes.extend(short(1));
        bytes.extend(short(tag));
        bytes.extend(short(3));
        bytes.extend(long(1));
        bytes.extend(short(value));
        bytes.extend([0; 6]);
        bytes
    }

    #[test]
    fn reads_both_byte_orders() {
        for value in 1..=8 {
            assert_eq!(orientation(&exif(true, 0x112, value)), Some(value as u8));
            assert_eq!(orientation(&exif(false, 0x112, value)), Some(value as u8));
        }
    }

    #[test]
    fn ignores_what_it_cannot_read() {
        assert_eq!(orientation(&exif(true, 0x112, 9)), None);
        assert_eq!(orientation(&exif(true, 0x110, 1)), None);
        let whole = exif(false, 0x112, 6);
        for len in 0..whole.len() - 6 {
            assert_eq!(orientation(&whole[..len.min(whole.len() - 8)]), None, "{len} bytes");
        }
        let mut far = whole.clone();
        far[10..14].copy_from_slice(&[0xFF; 4]);
        assert_eq!(orientation(&far), None);
    }
}
