//! Data sets of which some samples are bad, each in a way of its own.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::{Path, PathBuf};

pub type Samples = Vec<(String, usize, Vec<u8>)>;

/// The ways in which a sample is bad, whatever crop is made of it.
pub const WAYS: usize = 6;

/// The bytes of a JPEG made bad in one of so many ways.
pub fn spoilt(bytes: &[u8], way: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match way % WAYS {
        // Bits flipped in the header: a marker is none any more.
        0 => {
            let frame = bytes.windows(2).position(|marker| marker == [0xFF, 0xC0]).expect("a frame header");
            bytes[frame + 1] ^= 0x3F;
        }
        1 => bytes.truncate(bytes.len() / 20),
        2 => bytes.clear(),
        3 => bytes = b"not a picture at all".to_vec(),
        // A PNG of which little came.
        4 => {
            bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0".to_vec();
        }
        // Far more pixels than a limit allows.
        _ => {
            let frame = bytes.windows(2).position(|marker| marker == [0xFF, 0xC0]).expect("a frame header");
            bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
        }
    }
    bytes
}

/// Those samples spoilt that `is_bad`, one way after another.
pub fn spoil(samples: &Samples, is_bad: impl Fn(usize) -> bool) -> Samples {
    let mut way = 0;
    let spoil = |(number, (name, label, bytes)): (usize, &(String, usize, Vec<u8>))| {
        let bytes = if is_bad(number) {
            way += 1;
            spoilt(bytes, way)
        } else {
            bytes.clone()
        };
        (name.clone(), *label, bytes)
    };
    samples.iter().enumerate().map(spoil).collect()
}

/// A list of the samples of a folder, and of some that are not there behind each of them that `is_missing`.
pub fn list(root: &Path, samples: &Samples, is_missing: impl Fn(usize) -> bool) -> PathBuf {
    let folder = super::common::folder(root, samples);
    let mut lines = String::new();
    for (number, (name, label, _)) in samples.iter().enumerate() {
        let path = folder.join(name).with_extension("jpg");
        if is_missing(number) {
            std::fs::remove_file(&path).expect("a file to remove");
        }
        lines += &format!("folder/{name}.jpg\t{label}\n");
    }
    let list = root.join("list.txt");
    std::fs::write(&list, lines).expect("list");
    list
}
