//! A region is a crop of the whole image, decoded from the scan's start or from entry points; of an index that lies,
//! vector code and its specification make the same.
#![no_main]

use std::cell::RefCell;

use forebay::jpeg::{Decodability, Decoder, Grain, Header};
use forebay::pixels::Rect;
use forebay_fuzz::{Image, Indexed, Tail, displace, is_small, shorten};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DECODERS: RefCell<[Decoder; 2]> = RefCell::new([Decoder::new(), Decoder::scalar()]);
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes) else { return };
    if !is_small(&header) {
        return;
    }
    let mut tail = Tail::new(bytes);
    let region = tail.region(header.width, header.height);
    let grain = if tail.byte() % 4 == 0 { Grain::Rows } else { Grain::Bits(tail.below(4096)) };
    DECODERS.with_borrow_mut(|decoders| {
        let [decoder, scalar] = decoders;
        let whole = Image::decode(decoder, bytes, &header, Rect::whole(header.width, header.height));
        let part = Image::decode(decoder, bytes, &header, region);
        // A region may pass over damage that the whole image meets, never the other way round.
        if let Some(whole) = &whole {
            part.expect("a region of a whole image").assert_part_of(whole, "region");
        }
        let index = Indexed::new(decoder, bytes, &header, grain);
        if header.support() != Decodability::Streamed {
            assert!(index.is_err());
            return;
        }
        // Entry points need no pixels, so that what spoils only those may pass.
        assert!(index.is_ok() || whole.is_none(), "a whole image without entry points");
        let (Ok(mut index), Some(whole)) = (index, whole) else { return };
        let part = index.decode(decoder, bytes, region, |_| ()).expect("a region from entry points");
        part.assert_part_of(&whole, "indexed region");

        // What is missing is noticed where it is needed.
        if let Some(part) = index.decode(decoder, bytes, region, |pieces| shorten(pieces, &mut tail.clone())) {
            part.assert_part_of(&whole, "indexed region of too few bytes");
        }
        index.spoil(&mut tail);
        let fast = index.decode(decoder, bytes, region, |pieces| displace(pieces, &mut tail.clone()));
        let specified = index.decode(scalar, bytes, region, |pieces| displace(pieces, &mut tail));
        assert_eq!(fast.is_some(), specified.is_some(), "vector code or scalar code refuses alone");
        if let (Some(fast), Some(specified)) = (fast, specified) {
            fast.assert_part_of(&specified, "vector code");
        }
    });
});
