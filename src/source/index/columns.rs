//! What an index says of a sample, for those who choose samples by it.

use std::str;

use super::describe::{COLOURS, Format};
use super::map::Sidecar;
use crate::error::Result;

/// What an index says of one sample, whether it can be decoded or not: the columns of the same names that are facts about
/// the image. `None` is what the index does not know of it, such as the sampling of a PNG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Columns<'a> {
    /// What the image is: `"baseline"`, `"progressive"`, `"PNG"` and the other names in the head of an index.
    pub format: &'static str,
    /// Pixels, as stored.
    pub width: Option<u32>,
    /// Pixels, as stored.
    pub height: Option<u32>,
    /// EXIF, 1 to 8.
    pub orientation: Option<u8>,
    /// Of the JPEG, and channels of raw pixels.
    pub components: Option<u8>,
    /// The colour model of the JPEG: `"grey"`, `"YCbCr"` and so on.
    pub colour: Option<&'static str>,
    /// Factors as digits h v h v h v: 221111 is 4:2:0.
    pub sampling: Option<u32>,
    /// MCUs; 0 where there are no restarts.
    pub restart_interval: Option<u16>,
    /// The sample's bytes.
    pub length: u64,
    /// Why the image cannot be decoded, where it cannot.
    pub cause: Option<&'a str>,
}

impl Sidecar {
    /// What the index says of a sample.
    ///
    /// # Errors
    /// `IndexStale` if the row is not as it was written.
    pub(in crate::source) fn columns(&self, row: u64) -> Result<Columns<'_>> {
        let row = self.row(row)?;
        let (listed, listing_checksum) = row.listed()?;
        let stored = row.stored(listing_checksum)?;
        let [format, width, height, orientation, components, colour, sampling, _, restart, ..] = stored.numbers;
        let known = |number: u64| (number != 0).then_some(number);
        let format = Format::ALL.get(format as usize).copied().unwrap_or_default();
        let is_jpeg = components > 0 && format != Format::Raw;
        Ok(Columns {
            format: format.name(),
            width: known(width).map(|width| width as u32),
            height: known(height).map(|height| height as u32),
            orientation: known(orientation).map(|orientation| orientation as u8),
            components: known(components).map(|components| components as u8),
            colour: COLOURS.get(colour as usize).filter(|_| is_jpeg).map(|(_, name)| *name),
            sampling: known(sampling).map(|sampling| sampling as u32),
            restart_interval: known(sampling).map(|_| restart as u16),
            length: listed.length,
            cause: str::from_utf8(stored.cause).ok().filter(|cause| !cause.is_empty()),
        })
    }
}
