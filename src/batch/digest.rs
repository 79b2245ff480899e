//! A digest of everything that was delivered, in order.

use xxhash_rust::xxh3::Xxh3;

use super::Batch;
use crate::error::Result;

/// XXH3-128 over every tensor byte, label and key of the batches given to it, in order.
///
/// Two runs that agree in seed, epochs, batch size and augmentation have the same digest, whatever the
/// engine, the number of threads, the device or the form of the data set.
#[derive(Default)]
pub struct Digest(Xxh3);

impl Digest {
    /// Adds a batch: for each sample its label (8 bytes, little-endian), its key with a terminating
    /// zero, its shape (two 4-byte numbers, rows and columns) and its tensor bytes. What lies on a device is
    /// copied to the host.
    ///
    /// # Errors
    ///
    /// Those of [`Batch::to_host`]; never for a batch on the host.
    pub fn update(&mut self, batch: &Batch) -> Result<()> {
        let images = batch.to_host()?;
        for index in 0..batch.len() {
            let image = images.image(index);
            self.0.update(&batch.labels()[index].to_le_bytes());
            self.0.update(batch.key(index).as_bytes());
            self.0.update(&[0]);
            self.0.update(&image.height.to_le_bytes());
            self.0.update(&image.width.to_le_bytes());
            self.0.update(image.bytes);
        }
        Ok(())
    }

    /// The digest so far, as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0.digest128())
    }
}
