//! Bytes of a sample: where they land, and where they are.

use std::ops::Range;

use crate::jpeg::Piece;
use crate::memory::{DeviceRegion, Region, Upload};

/// Where the bytes of a sample land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Landing {
    /// In the ring, for the decode threads.
    #[default]
    Host,
    /// In the upload of their slot, from where one copy takes them to the device.
    Upload,
    /// In the memory of the device, by cuFile: the host never has them.
    Device,
}

/// The memory of some bytes.
pub(super) enum Bytes {
    Host(Region),
    Device(DeviceRegion),
}

/// Bytes of a sample that are here.
pub(super) struct Landed {
    /// Where they start in the sample.
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
}

impl Bytes {
    fn len(&self) -> usize {
        match self {
            Self::Host(region) => region.len(),
            Self::Device(region) => region.len(),
        }
    }

    /// Where they start in the landing area of their slot.
    fn position(&self) -> usize {
        match self {
            Self::Host(region) => region.position(),
            Self::Device(region) => region.position(),
        }
    }
}

impl Landed {
    /// The bytes, where the host has them.
    pub(super) fn on_host(&self) -> Option<&[u8]> {
        match &self.bytes {
            Bytes::Host(region) => Some(region.as_slice()),
            Bytes::Device(_) => None,
        }
    }

    /// The same as a piece of the sample.
    pub(super) fn piece(&self) -> Option<Piece<'_>> {
        self.on_host().map(|bytes| Piece { offset: self.offset, bytes })
    }

    /// Where the memory that they take ends in the landing area of an upload on the host; 0 where it is elsewhere.
    pub(super) fn uploaded_end(&self) -> usize {
        match &self.bytes {
            Bytes::Host(region) => region.end(),
            Bytes::Device(_) => 0,
        }
    }

    /// Where a range of the sample is in the upload, if all of it is here.
    pub(super) fn find(&self, range: &Range<u64>, upload: &Upload) -> Option<u32> {
        let start = usize::try_from(range.start.checked_sub(self.offset)?).ok()?;
        let end = usize::try_from(range.end.checked_sub(self.offset)?).ok()?;
        (start <= end && end <= self.bytes.len()).then(|| upload.offset(self.bytes.position() + start) as u32)
    }
}
