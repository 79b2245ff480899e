//! A digest of everything that was delivered, where it belongs in the run.

use std::ops::{Add, AddAssign};
use std::str::FromStr;

use xxhash_rust::xxh3::Xxh3;

use super::Batch;
use crate::error::{Error, Result};

/// What a run delivered, as one number: the sum, modulo 2^128, of a digest of each sample.
///
/// The digest of a sample is XXH3-128 over its place in the run (epoch and position, 8 bytes each), label (8 bytes), key with
/// a terminating zero, shape (rows and columns, 4 bytes each), all little-endian, and tensor bytes; of several
/// [views](crate::LoaderBuilder::views) shape and tensor bytes of each, in order. So:
///
/// - Two runs that agree in seed, epochs and augmentation have the same digest, whatever the engine, the number of threads,
///   the device or the form of the data set, and whatever the batch size if it drops the same samples.
/// - A sample that stands in for a bad one counts at the place of that, and one that was skipped is missing.
/// - Digests of ranks, and of the parts of a run that was resumed, add up to that of the undisturbed run of a single
///   process. A sample that is missing, comes twice or stands elsewhere shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// Adds a batch. What lies on a device is copied to the host.
    ///
    /// # Errors
    ///
    /// Those of [`Batch::to_host`]; never for a batch on the host.
    pub fn update(&mut self, batch: &Batch) -> Result<()> {
        let images = batch.to_host()?;
        let mut hash = Xxh3::new();
        for (index, position) in batch.positions().enumerate() {
            hash.reset();
            hash.update(&batch.epoch().to_le_bytes());
            hash.update(&position.to_le_bytes());
            hash.update(&batch.labels()[index].to_le_bytes());
            hash.update(batch.key(index).as_bytes());
            hash.update(&[0]);
            for image in images.images(index) {
                hash.update(&image.height.to_le_bytes());
                hash.update(&image.width.to_le_bytes());
                hash.update(image.bytes);
            }
            *self += Self(hash.digest128());
        }
        Ok(())
    }

    /// The digest so far, as 32 hexadecimal digits. They can be read again, to add up those of several processes.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl Add for Digest {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| Error::invalid_parameter("digest", text, "32 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_add_up_in_any_order() {
        let of = |text: &str| text.parse::<Digest>().unwrap();
        let (a, b) = (of("ffffffffffffffffffffffffffffffff"), of("00000000000000000000000000000003"));
        assert_eq!((a + b).hex(), "00000000000000000000000000000002");
        assert_eq!(a + b, b + a);
        assert_eq!(a + Digest::default(), a);
        for bad in ["", "3", "+0000000000000000000000000000003", "g0000000000000000000000000000000"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }
}
