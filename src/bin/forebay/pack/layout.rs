//! Where things come to lie in an archive: how much goes before an image for it to begin at a multiple of so many bytes,
//! and in which order a sample's entries need the least of that.
//!
//! All is counted in whole blocks of 512 bytes, of which every archive is made. An image is moved by an extension header
//! before its own (`pax Extended Header`, IEEE Std 1003.1, pax, "Extended Header"), which takes two blocks or more, so
//! that a gap of a single one needs eight more where the alignment is 4096.

/// The unit of an archive.
pub const BLOCK_BYTES: u64 = 512;

/// What goes before the data of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// Blocks of records behind an extension header; none where there is no such header.
    pub record_blocks: u64,
    /// Bytes of the data itself before what is to be aligned: the header of an array.
    pub lead_bytes: u64,
}

impl Front {
    /// Bytes of the headers, up to the data.
    pub fn header_bytes(self) -> u64 {
        match self.record_blocks {
            0 => BLOCK_BYTES,
            blocks => (blocks + 2) * BLOCK_BYTES,
        }
    }

    fn len_bytes(self) -> u64 {
        self.header_bytes() + self.lead_bytes
    }
}

/// An entry whose data, behind one of the `leads_bytes`, is to be aligned.
#[derive(Clone, Copy, Debug)]
pub struct Aligned {
    /// Blocks of records that it needs anyway, for its name.
    pub record_blocks: u64,
    /// Whole blocks, rising.
    pub leads_bytes: &'static [u64],
    /// A power of two of at least a block.
    pub align_bytes: u64,
}

impl Aligned {
    /// The shortest front of an entry that begins at `at`.
    pub fn front(&self, at: u64) -> Front {
        let of_lead = |lead_bytes| {
            // Each block more moves it by one, but for the first, which brings its header along.
            let last = self.record_blocks + self.align_bytes / BLOCK_BYTES + 1;
            let mut fronts = (self.record_blocks..=last).map(|record_blocks| Front { record_blocks, lead_bytes });
            fronts.find(|front| (at + front.len_bytes()).is_multiple_of(self.align_bytes))
        };
        let fronts = self.leads_bytes.iter().copied().filter_map(of_lead);
        fronts.min_by_key(|front| front.len_bytes()).unwrap_or(Front { record_blocks: 0, lead_bytes: 0 })
    }

    fn front_bytes(&self, at: u64) -> u64 {
        self.front(at).len_bytes()
    }
}

/// Whether the label's entry, of `label_bytes` with its headers, goes before that of an image of `image_bytes`: the way
/// in which this image and the next one, if it is alike, need less before them.
///
/// What lies before an image depends on where the one before it ends, and on the labels between: two choices, and so all
/// that can be chosen without changing the order of the samples, which would change nothing.
pub fn label_first(at: u64, image: &Aligned, image_bytes: u64, label_bytes: u64) -> bool {
    let cost = |is_first: bool| {
        let (before, behind) = if is_first { (label_bytes, 0) } else { (0, label_bytes) };
        let front = image.front_bytes(at + before);
        let next = at + before + front + image_bytes.next_multiple_of(BLOCK_BYTES) + behind;
        front + image.front_bytes(next).min(image.front_bytes(next + label_bytes))
    };
    cost(true) < cost(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JPEG: Aligned = Aligned { record_blocks: 0, leads_bytes: &[0], align_bytes: 4096 };
    const ARRAY: Aligned = Aligned { leads_bytes: &[512, 1024], ..JPEG };

    #[test]
    fn an_image_begins_where_it_should_behind_as_little_as_there_can_be() {
        for at in (0..16384).step_by(512) {
            for entry in [JPEG, ARRAY, Aligned { record_blocks: 1, ..JPEG }, Aligned { align_bytes: 1 << 16, ..ARRAY }]
            {
                let front = entry.front(at);
                assert!((at + front.len_bytes()).is_multiple_of(entry.align_bytes), "{at}: {front:?}");
                assert!(front.record_blocks >= entry.record_blocks);
            }
            // One block is too few for an extension header.
            let gap = (4096 - (at + 512) % 4096) % 4096;
            assert_eq!(JPEG.front_bytes(at), 512 + if gap == 512 { 4608 } else { gap });
            assert_eq!(ARRAY.front_bytes(at), 1024 + (4096 - (at + 1024) % 4096) % 4096);
        }
        let blocks = Aligned { align_bytes: 512, ..JPEG };
        assert_eq!(blocks.front(512), Front { record_blocks: 0, lead_bytes: 0 });
    }

    /// Against every order of the labels of a few samples, and the one that is always the same.
    #[test]
    fn the_order_of_entries_saves_most_of_what_can_be_saved() {
        let (mut chosen, mut best, mut naive) = (0, 0, 0);
        let mut state = 1_u64;
        for _ in 0..50 {
            let images: Vec<u64> = (0..10)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    80_000 + (state >> 48)
                })
                .collect();
            let pack = |order: &mut dyn FnMut(usize, u64) -> bool| {
                let mut at = 0;
                for (number, image) in images.iter().enumerate() {
                    let (before, behind) = if order(number, at) { (1024, 0) } else { (0, 1024) };
                    at += before + JPEG.front_bytes(at + before) + image.next_multiple_of(512) + behind;
                }
                at
            };
            let data: u64 = images.iter().map(|image| image.next_multiple_of(512) + 512 + 1024).sum();
            chosen += pack(&mut |number, at| label_first(at, &JPEG, images[number], 1024)) - data;
            naive += pack(&mut |_, _| false) - data;
            best += (0..1 << 10).map(|bits| pack(&mut |number, _| bits >> number & 1 == 1)).min().unwrap() - data;
        }
        assert!(chosen * 100 <= best * 108, "{chosen} of {best}");
        assert!(chosen * 100 <= naive * 75, "{chosen} of {naive}");
    }
}
