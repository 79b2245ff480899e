//! The marker segments of a file, one at a time, as leniently as libjpeg reads them.

use crate::error::{Error, ErrorKind, Result};

pub const SOI: u8 = 0xD8;
pub const EOI: u8 = 0xD9;
pub const SOS: u8 = 0xDA;
pub const DQT: u8 = 0xDB;
pub const DNL: u8 = 0xDC;
pub const DRI: u8 = 0xDD;
pub const DHT: u8 = 0xC4;
pub const DAC: u8 = 0xCC;
pub const APP0: u8 = 0xE0;
pub const APP1: u8 = 0xE1;
pub const APP14: u8 = 0xEE;
pub const APP15: u8 = 0xEF;
pub const COM: u8 = 0xFE;
pub const TEM: u8 = 0x01;
pub const RST0: u8 = 0xD0;
pub const RST7: u8 = 0xD7;

/// A cursor over the markers of a file.
#[derive(Clone)]
pub struct Markers<'a> {
    bytes: &'a [u8],
    /// The next byte to read.
    pub position: usize,
}

impl<'a> Markers<'a> {
    pub fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    /// The code of the next marker. Skips what is no marker (stray bytes, fill bytes, stuffed zeros), as
    /// libjpeg does with a warning.
    pub fn next_marker(&mut self) -> Result<u8> {
        while let Some(skipped) = memchr::memchr(0xFF, &self.bytes[self.position.min(self.bytes.len())..]) {
            self.position += skipped + 1;
            while let Some(&byte) = self.bytes.get(self.position) {
                self.position += 1;
                match byte {
                    0xFF => continue,
                    0x00 => break,
                    code => return Ok(code),
                }
            }
        }
        self.position = self.bytes.len();
        Err(truncated("file ends where a marker is expected"))
    }

    /// The payload of the segment whose marker was just read, without its length.
    pub fn payload(&mut self, name: &str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let Some((&length, _)) = rest.split_first_chunk::<2>() else {
            return Err(truncated(format!("file ends in the length of its {name} segment")));
        };
        let length = usize::from(u16::from_be_bytes(length));
        if length < 2 {
            return Err(corrupt(format!("{name} segment declares a length of {length}")));
        }
        let Some(payload) = rest.get(2..length) else {
            return Err(truncated(format!("file ends in its {name} segment")));
        };
        self.position += length;
        Ok(payload)
    }
}

/// An error about bytes that contradict the format.
pub fn corrupt(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("JPEG is corrupt: {cause}"))
}

/// An error about bytes that are missing.
pub fn truncated(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Truncated, format!("JPEG is truncated: {cause}"))
}

/// An error about a valid file that this decoder does not handle.
pub fn unsupported(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("JPEG is unsupported: {cause}"))
}
