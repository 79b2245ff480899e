//! Files of blocks that say where they belong, so that a read of the wrong place, an old block or a torn one shows.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use forebay::{Error, ErrorKind, Result};

use crate::ui;

/// A block: its offset, the seed, and words that follow from both.
const BLOCK_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;
/// What is written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The blocks of a file.
pub struct Blocks {
    path: PathBuf,
    seed: u64,
}

impl Blocks {
    /// Of a file, whose first block is checked.
    ///
    /// # Errors
    /// `Corrupt` if it is no such file, or has another seed.
    pub fn of(path: &Path, seed: u64) -> Result<Self> {
        let blocks = Self { path: path.to_owned(), seed };
        let mut first = [0; BLOCK_BYTES];
        File::open(path).and_then(|mut file| file.read_exact(&mut first)).map_err(|error| reading(path, error))?;
        blocks.check(0, &first)?;
        Ok(blocks)
    }

    /// Checks the whole blocks among bytes that were read at `offset`: how many there are.
    ///
    /// # Errors
    /// `Corrupt`, naming the block.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> Result<u64> {
        let skip = (offset.next_multiple_of(BLOCK_BYTES as u64) - offset) as usize;
        let mut checked = 0;
        for (number, block) in bytes.get(skip..).unwrap_or_default().chunks_exact(BLOCK_BYTES).enumerate() {
            let at = offset + (skip + number * BLOCK_BYTES) as u64;
            let mut words = words(block);
            if !expected(self.seed, at).all(|expected| words.next() == Some(expected)) {
                return Err(self.wrong(at, block));
            }
            checked += 1;
        }
        Ok(checked)
    }

    /// What is wrong with a block.
    fn wrong(&self, at: u64, block: &[u8]) -> Error {
        let mut words = words(block);
        let (offset, seed) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let path = self.path.display();
        let is_whole = expected(seed, offset).eq(self::words(block));
        let cause = match (is_whole, offset == at) {
            (true, true) => format!("the block at {at} was made with --seed {seed}, not {}", self.seed),
            (true, false) => format!("at {at} is the block of {offset}"),
            (false, _) => format!("the block at {at} is not what --create wrote"),
        };
        let remedy = "make the file anew with --create and the same --seed; if it was, suspect the storage";
        Error::new(ErrorKind::Corrupt, format!("{path}: {cause}")).with_remedy(remedy)
    }
}

/// Makes a file of at least `len_bytes`, unless there is one.
///
/// # Errors
/// `InvalidParameter` for a smaller file that holds something else, which is left alone; those of writing.
pub fn create(path: &Path, len_bytes: u64, seed: u64) -> Result<()> {
    if len_bytes < BLOCK_BYTES as u64 {
        return Err(Error::invalid_parameter("--create", len_bytes, "a file has at least one block of 4 KiB"));
    }
    match path.metadata() {
        Ok(file) if !file.is_file() => {
            return Err(Error::invalid_parameter("--create", path.display(), "a file is made, and this is none"));
        }
        Ok(file) if file.len() >= len_bytes => return Ok(()),
        Ok(file) if file.len() > 0 && !is_ours(path) => {
            let allowed = "it is smaller, and holds something that --create has not written: name another file";
            return Err(Error::invalid_parameter("--create", path.display(), allowed));
        }
        _ => {}
    }
    let failed = |error| {
        let error = Error::io(format_args!("{}: writing the file to read", path.display()), error);
        error.with_remedy("name a file in a directory that this user can write, with room for it")
    };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)?;
    let blocks = len_bytes.div_ceil(BLOCK_BYTES as u64);
    let bar = ui::bar((blocks * BLOCK_BYTES as u64) >> 20, "MiB written");
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for block in 0..blocks {
        let words = expected(seed, block * BLOCK_BYTES as u64);
        words.for_each(|word| chunk.extend_from_slice(&word.to_le_bytes()));
        if chunk.len() == CHUNK_BYTES || block + 1 == blocks {
            file.write_all(&chunk).map_err(failed)?;
            bar.inc(chunk.len() as u64 >> 20);
            chunk.clear();
        }
    }
    file.sync_all().map_err(failed)?;
    bar.finish_and_clear();
    Ok(())
}

/// Whether a file begins with a block of ours, of any seed.
fn is_ours(path: &Path) -> bool {
    let mut first = [0; BLOCK_BYTES];
    let is_read = File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok();
    let seed = words(&first).nth(1).unwrap_or(0);
    is_read && expected(seed, 0).eq(words(&first))
}

/// The words of a block.
fn expected(seed: u64, offset: u64) -> impl Iterator<Item = u64> {
    let start = mix(seed ^ mix(offset));
    let pattern = (2..(BLOCK_BYTES / WORD_BYTES) as u64).map(move |word| mix(start.wrapping_add(word)));
    [offset, seed].into_iter().chain(pattern)
}

fn words(block: &[u8]) -> impl Iterator<Item = u64> {
    block.chunks_exact(WORD_BYTES).map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), with its step.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

fn reading(path: &Path, error: std::io::Error) -> Error {
    Error::io(format_args!("{}: reading its first block", path.display()), error)
        .with_remedy("make the file with --create SIZE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_in_the_wrong_place_with_another_seed_or_torn_is_named() {
        let folder = std::env::temp_dir().join(format!("forebay-blocks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        create(&path, 20_000, 7).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 5 * BLOCK_BYTES);
        let blocks = Blocks::of(&path, 7).unwrap();
        assert_eq!(blocks.check(0, &bytes).unwrap(), 5);
        assert_eq!(blocks.check(100, &bytes[100..]).unwrap(), 4, "from the first that begins there");
        assert_eq!(blocks.check(4095, &bytes[4095..4096]).unwrap(), 0);
        let says = |result: Result<u64>, words: &str| {
            let error = result.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains(words), "{error}");
        };
        says(blocks.check(4096, &bytes[8192..]), "at 4096 is the block of 8192");
        for at in [0, 8, 16, 4095] {
            let mut torn = bytes.clone();
            torn[8192 + at] ^= 1;
            says(blocks.check(0, &torn), "8192");
        }
        says(Blocks::of(&path, 8).map(|_| 0), "--seed 7");
        // A file of ours may grow, another one is left alone.
        create(&path, 40_000, 7).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 10 * BLOCK_BYTES as u64);
        create(&path, 100, 7).unwrap_err();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(create(&path, 40_000, 7).unwrap_err().kind(), ErrorKind::InvalidParameter);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
