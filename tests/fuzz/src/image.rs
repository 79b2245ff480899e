//! A decoded rectangle, kept to be compared.

use forebay::jpeg::{Decoder, Header};
use forebay::pixels::{ROW_PADDING_BYTES, Rect, RowSink};

/// Pixels of the largest image that is decoded. What more would find, it would find too slowly.
const PIXELS_MAX: u32 = 1 << 16;

/// Whether an image is decoded at all.
pub fn is_small(header: &Header) -> bool {
    header.width.checked_mul(header.height).is_some_and(|pixels| pixels <= PIXELS_MAX)
}

/// Three planes, row by row.
pub struct Image {
    region: Rect,
    /// Of each row the three planes with their padding.
    bytes: Vec<u8>,
    row: [Vec<u8>; 3],
    rows: u32,
}

impl Image {
    /// What `decode` hands out for a region; `None` where it refuses.
    ///
    /// # Panics
    /// If it hands out more rows than the region has, or fewer and calls that a success.
    pub fn of(region: Rect, decode: impl FnOnce(&mut Self) -> forebay::Result<()>) -> Option<Self> {
        let row = [(); 3].map(|()| vec![0; region.width as usize + ROW_PADDING_BYTES]);
        let mut image = Self { region, bytes: Vec::new(), row, rows: 0 };
        let result = decode(&mut image);
        assert!(image.rows <= region.height, "{} rows of {region:?}", image.rows);
        result.ok()?;
        assert_eq!(image.rows, region.height, "rows of {region:?}");
        Some(image)
    }

    /// A region of a file, decoded from the scan's first bit.
    pub fn decode(decoder: &mut Decoder, bytes: &[u8], header: &Header, region: Rect) -> Option<Self> {
        Self::of(region, |image| decoder.decode(bytes, header, region, image))
    }

    /// Fails where the pixels are not those of `other`, of which this one's region must be a part.
    pub fn assert_part_of(&self, other: &Self, what: &str) {
        let (x, y) = ((self.region.x - other.region.x) as usize, self.region.y - other.region.y);
        let width = self.region.width as usize;
        for row in 0..self.rows {
            for plane in 0..3 {
                let (ours, theirs) = (self.row(row, plane), other.row(y + row, plane));
                assert!(ours == &theirs[x..x + width], "{what}: row {row} of {:?} differs", self.region);
            }
        }
    }

    fn row(&self, row: u32, plane: usize) -> &[u8] {
        let width = self.region.width as usize;
        &self.bytes[(3 * row as usize + plane) * width..][..width]
    }
}

impl RowSink for Image {
    fn row(&mut self) -> [&mut [u8]; 3] {
        // What a decoder leaves out shows: twice the same mistake gives two different rows.
        let stale = 0x5A ^ self.rows as u8;
        self.row.each_mut().map(|plane| {
            plane.fill(stale);
            plane.as_mut_slice()
        })
    }

    fn commit(&mut self) {
        self.rows += 1;
        for plane in &self.row {
            self.bytes.extend_from_slice(&plane[..self.region.width as usize]);
        }
    }
}
