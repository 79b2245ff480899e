//! The header of a NumPy file: versions 1 to 3 of the format that `numpy.lib.format` describes.
//!
//! Behind the magic number and the version stand a length and a Python dictionary of that length, whose keys are
//! `descr`, `fortran_order` and `shape`; the array follows. What is read of Python here are the literals that NumPy
//! writes, and no more.

use std::borrow::Cow;

use super::{Facts, Shape};
use crate::error::{Error, ErrorKind, Result};

/// What every NumPy file begins with.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest header that is looked at; one of an image has some 100 bytes, and NumPy itself refuses over 10,000.
const HEADER_MAX_BYTES: usize = 64 << 10;

/// Dimensions that an array can have in NumPy.
const DIMENSIONS_MAX: usize = 64;

const REMEDY: &str = "write the file again with numpy.save";

/// Reads the header of a whole file, of which nothing may be missing.
///
/// # Errors
/// `Unsupported`, naming the type and the shape, for an array that is no image of bytes in C order; `Corrupt` for what
/// is no header or has bytes behind the array; `Truncated` for a file that ends before its array does.
pub fn parse(bytes: &[u8]) -> Result<Facts> {
    let (dictionary, offset) = split(bytes)?;
    let array = Parser { rest: dictionary }.array()?;
    let facts = Facts { shape: array.image()?, offset: offset as u64 };
    let (held, declared) = ((bytes.len() - offset) as u64, facts.shape.len_bytes());
    if held == declared {
        return Ok(facts);
    }
    let message = format!(".npy declares {} pixels of {declared} bytes, and holds {held}", facts.shape);
    let kind = if held < declared { ErrorKind::Truncated } else { ErrorKind::Corrupt };
    Err(Error::new(kind, message).with_remedy("copy the file again, or write it again with numpy.save"))
}

/// The header of an image, of `len_bytes`: where its pixels are to start in the file. Spaces fill it, as NumPy does to
/// align the array.
///
/// # Errors
/// `InvalidParameter` if it cannot have that length: it takes up to 119 bytes, is a multiple of 64 in every file that
/// NumPy writes, and NumPy reads up to 10,000.
pub fn header(shape: Shape, len_bytes: usize) -> Result<Vec<u8>> {
    shape.check()?;
    let Shape { height, width, channels } = shape;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&[1, 0, 0, 0]);
    let start = header.len();
    let dictionary = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}, {channels}), }}");
    header.extend_from_slice(dictionary.as_bytes());
    let len = u16::try_from(len_bytes.saturating_sub(start)).ok().filter(|_| header.len() < len_bytes);
    let Some(len) = len else {
        return Err(Error::invalid_parameter(
            "npy header",
            format_args!("{len_bytes} bytes"),
            "120 to 65,545 are allowed",
        ));
    };
    header[start - 2..start].copy_from_slice(&len.to_le_bytes());
    header.resize(len_bytes - 1, b' ');
    header.push(b'\n');
    Ok(header)
}

/// The dictionary, and where the array starts.
fn split(bytes: &[u8]) -> Result<(&[u8], usize)> {
    let ends = || {
        let message = format!(".npy ends inside its header ({} bytes are there)", bytes.len());
        Error::new(ErrorKind::Truncated, message).with_remedy("copy the file again")
    };
    let behind = bytes.strip_prefix(MAGIC).ok_or_else(|| corrupt("it does not begin as one"))?;
    let (version, behind) = behind.split_first_chunk::<2>().ok_or_else(ends)?;
    let (len, behind) = match version {
        [1, 0] => {
            let (len, behind) = behind.split_first_chunk().ok_or_else(ends)?;
            (u16::from_le_bytes(*len).into(), behind)
        }
        [2 | 3, 0] => {
            let (len, behind) = behind.split_first_chunk().ok_or_else(ends)?;
            (u32::from_le_bytes(*len), behind)
        }
        [major, minor] => {
            let message = format!(".npy is of format {major}.{minor}; 1.0, 2.0 and 3.0 are known");
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(REMEDY));
        }
    };
    let len = len as usize;
    if len > HEADER_MAX_BYTES {
        let message = format!(".npy has a header of {len} bytes, over {HEADER_MAX_BYTES}");
        return Err(Error::new(ErrorKind::LimitExceeded, message).with_remedy(REMEDY));
    }
    let dictionary = behind.get(..len).ok_or_else(ends)?;
    Ok((dictionary, bytes.len() - behind.len() + len))
}

/// What a header says.
#[derive(Debug, PartialEq)]
struct Array<'a> {
    dtype: Cow<'a, str>,
    is_fortran: bool,
    shape: Vec<u64>,
}

impl Array<'_> {
    /// The image that the array is.
    fn image(&self) -> Result<Shape> {
        let Self { dtype, is_fortran, shape } = self;
        let unsupported = |remedy: &str| {
            let order = if *is_fortran { " in Fortran order" } else { "" };
            let dimensions: Vec<_> = shape.iter().map(u64::to_string).collect();
            let message = format!(
                ".npy holds {dtype} of shape ({}){order}; an image is |u1 of shape (height, width, 3), or 1 channel or none",
                dimensions.join(", "),
            );
            Error::new(ErrorKind::Unsupported, message).with_remedy(remedy)
        };
        if !matches!(dtype.as_ref(), "|u1" | "u1" | "<u1") {
            return Err(unsupported("store pixels as numpy.uint8, or leave the file out of the data set"));
        }
        if *is_fortran {
            return Err(unsupported("store numpy.ascontiguousarray(image)"));
        }
        let (height, width, channels) = match shape[..] {
            [height, width] => (height, width, 1),
            [height, width, channels @ (1 | 3)] => (height, width, channels as u8),
            [1 | 3, _, _] => return Err(unsupported("store image.transpose(1, 2, 0): channels come last")),
            _ => return Err(unsupported("store one image a file, without alpha")),
        };
        let side = |len: u64| u32::try_from(len).unwrap_or(u32::MAX);
        let shape = Shape { height: side(height), width: side(width), channels };
        shape.check().map_err(|_| unsupported("an image has sides of 1 to 2^30 pixels")).map(|()| shape)
    }
}

/// Reads the literals of a header.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn array(&mut self) -> Result<Array<'a>> {
        let (mut dtype, mut is_fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let is_new = match key {
                "descr" => dtype.replace(self.dtype()?).is_none(),
                "fortran_order" => is_fortran.replace(self.boolean()?).is_none(),
                "shape" => shape.replace(self.tuple()?).is_none(),
                _ => false,
            };
            if !is_new {
                return Err(corrupt("its header has a key that is unknown or comes twice"));
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        if !self.rest.trim_ascii().is_empty() {
            return Err(corrupt("its header goes on behind the dictionary"));
        }
        let (Some(dtype), Some(is_fortran), Some(shape)) = (dtype, is_fortran, shape) else {
            return Err(corrupt("its header lacks one of descr, fortran_order and shape"));
        };
        Ok(Array { dtype, is_fortran, shape })
    }

    /// The name of a type; that of several in a record is its text.
    fn dtype(&mut self) -> Result<Cow<'a, str>> {
        self.skip_blanks();
        if self.rest.first() != Some(&b'[') {
            return self.string().map(Cow::Borrowed);
        }
        // It is refused whatever it holds, so that its end need not be found.
        let shown = self.rest.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let shown: String = shown.chars().take(40).collect();
        let message = format!(".npy holds records of several fields, {shown}..; an image is |u1");
        Err(Error::new(ErrorKind::Unsupported, message)
            .with_remedy("store pixels as numpy.uint8, or leave the file out of the data set"))
    }

    /// A string without escapes.
    fn string(&mut self) -> Result<&'a str> {
        self.skip_blanks();
        let quote = self.rest.first().copied().filter(|byte| b"'\"".contains(byte));
        let quote = quote.ok_or_else(|| corrupt("its header lacks a string where one should be"))?;
        let text = &self.rest[1..];
        let end = memchr::memchr(quote, text).ok_or_else(|| corrupt("a string of its header has no end"))?;
        let is_plain = text[..end].iter().all(|byte| (b' '..=b'~').contains(byte) && *byte != b'\\');
        self.rest = &text[end + 1..];
        match std::str::from_utf8(&text[..end]) {
            Ok(text) if is_plain && text.len() <= 32 => Ok(text),
            _ => Err(corrupt("a string of its header is no name")),
        }
    }

    fn boolean(&mut self) -> Result<bool> {
        self.skip_blanks();
        for (name, value) in [(&b"True"[..], true), (b"False", false)] {
            if let Some(rest) = self.rest.strip_prefix(name) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(corrupt("fortran_order is neither True nor False"))
    }

    fn tuple(&mut self) -> Result<Vec<u64>> {
        self.expect(b'(')?;
        let mut numbers = Vec::new();
        while !self.take(b')') {
            if numbers.len() == DIMENSIONS_MAX {
                return Err(corrupt("its shape has more dimensions than arrays can have"));
            }
            numbers.push(self.number()?);
            if !self.take(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(numbers)
    }

    fn number(&mut self) -> Result<u64> {
        self.skip_blanks();
        let len = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(len);
        self.rest = rest;
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| corrupt("its shape holds something that is no length"))
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(corrupt(&format!("its header lacks a {:?}", char::from(byte)))) }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }
}

fn corrupt(cause: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!(".npy is damaged: {cause}")).with_remedy(REMEDY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dictionary: &str, data: usize) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[version, 0]);
        match version {
            1 => bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes()),
            _ => bytes.extend_from_slice(&(dictionary.len() as u32).to_le_bytes()),
        }
        bytes.extend_from_slice(dictionary.as_bytes());
        bytes.resize(bytes.len() + data, 7);
        bytes
    }

    fn facts(height: u32, width: u32, channels: u8, offset: u64) -> Facts {
        Facts { shape: Shape { height, width, channels }, offset }
    }

    #[test]
    fn every_version_and_spelling_is_read() {
        let plain = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 3), }";
        assert_eq!(parse(&file(1, plain, 18)).unwrap(), facts(2, 3, 3, 10 + plain.len() as u64));
        for version in [2, 3] {
            assert_eq!(parse(&file(version, plain, 18)).unwrap(), facts(2, 3, 3, 12 + plain.len() as u64));
        }
        for (text, channels) in [
            ("{'shape':(2,3,3),'fortran_order':False,'descr':'u1'}   \n", 3),
            ("{ \"descr\" : \"<u1\" , \"fortran_order\" : False , \"shape\" : ( 2 , 3 , 1 , ) , }\n", 1),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }", 1),
        ] {
            assert_eq!(
                parse(&file(1, text, 6 * channels)).unwrap().shape,
                Shape { height: 2, width: 3, channels: channels as u8 }
            );
        }
    }

    #[test]
    fn what_is_no_image_is_named_with_type_and_shape() {
        for (dtype, order, shape, named) in [
            ("'<f4'", "False", "(2, 3, 3)", "<f4 of shape (2, 3, 3)"),
            ("'|u1'", "True", "(2, 3, 3)", "Fortran"),
            ("'|u1'", "False", "(3, 20, 30)", "transpose"),
            ("'|u1'", "False", "(2, 3, 4)", "(2, 3, 4)"),
            ("'|u1'", "False", "()", "shape ()"),
            ("'|u1'", "False", "(18,)", "(18)"),
            ("'|u1'", "False", "(0, 3, 3)", "(0, 3, 3)"),
            ("'|u1'", "False", "(18446744073709551615, 18446744073709551615, 3)", "18446744073709551615"),
            ("'|u1'", "False", "(2, 2, 3, 3)", "one image a file"),
            ("[('r', '|u1'), ('g', '|u1')]", "False", "(2, 3)", "several fields"),
        ] {
            let text = format!("{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}");
            let error = parse(&file(1, &text, 18)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}: {error}");
            assert!(error.to_string().contains(named) && error.remedy().is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for text in [
            "",
            "{}",
            "{'descr': '|u1', 'fortran_order': False, }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), 'more': 1, }",
            "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, -3), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3L), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 99999999999999999999999), }",
            "{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 3), }",
            "{'descr': '|u1' 'fortran_order': False, 'shape': (2, 3), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), } {}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)",
            "{'descr': '|u1",
            "{'descr': '\\x7cu1', 'fortran_order': False, 'shape': (2, 3), }",
            "{'descr': '|ü1', 'fortran_order': False, 'shape': (2, 3), }",
        ] {
            assert_eq!(parse(&file(1, text, 6)).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
        let nested = "(".repeat(60_000);
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {nested}");
        assert_eq!(parse(&file(1, &text, 6)).unwrap_err().kind(), ErrorKind::Corrupt);
        let long = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}), }}", "1, ".repeat(1000));
        assert_eq!(parse(&file(1, &long, 1)).unwrap_err().kind(), ErrorKind::Corrupt);
        let kind = |bytes: &[u8]| parse(bytes).unwrap_err().kind();
        assert_eq!(kind(b"\x93NUMPY\x04\x00"), ErrorKind::Unsupported);
        assert_eq!(kind(b"\x93NUMPY\x01\x01\x00\x00"), ErrorKind::Unsupported);
        assert_eq!(kind(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{"), ErrorKind::LimitExceeded);
        assert_eq!(kind(b"\x93NUMPX"), ErrorKind::Corrupt);
    }

    #[test]
    fn too_few_and_too_many_bytes_are_told_with_both_numbers() {
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 3), }";
        for (data, kind) in [(17, ErrorKind::Truncated), (19, ErrorKind::Corrupt)] {
            let error = parse(&file(1, text, data)).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("18") && error.to_string().contains(&data.to_string()), "{error}");
        }
    }

    /// Every cut and every changed byte leads to an error or to an image that lies in the file.
    #[test]
    fn a_damaged_header_never_panics_and_never_lies() {
        let shape = Shape { height: 5, width: 4, channels: 3 };
        let mut bytes = header(shape, 128).unwrap();
        bytes.resize(128 + 60, 1);
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).is_err(), "{len}");
        }
        for at in 0..128 {
            for value in 0..=255 {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                if let Ok(facts) = parse(&damaged) {
                    facts.check(damaged.len() as u64).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_header_written_is_the_header_read() {
        for (height, width, channels) in [(1, 1, 1), (256, 256, 3), (1 << 30, 1 << 30, 3)] {
            let shape = Shape { height, width, channels };
            for len in [128, 512, 4096] {
                let header = header(shape, len).unwrap();
                assert_eq!((header.len(), header[len - 1]), (len, b'\n'));
                let (dictionary, offset) = split(&header).unwrap();
                assert_eq!(offset, len);
                assert_eq!(Parser { rest: dictionary }.array().unwrap().image().unwrap(), shape);
            }
            for len in [0, 12, 64, 70_000] {
                assert_eq!(header(shape, len).unwrap_err().kind(), ErrorKind::InvalidParameter, "{len}");
            }
        }
    }
}
