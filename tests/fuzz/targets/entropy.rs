//! The entropy-coded data of a whole image: vector code and its specification agree on every pixel or both refuse.
#![no_main]

use std::cell::RefCell;

use forebay::jpeg::{Decoder, Header};
use forebay::pixels::Rect;
use forebay_fuzz::{Image, is_small};
use libfuzzer_sys::fuzz_target;

thread_local! {
    // Kept, as a loader keeps them: what one file leaves behind must not show in the next.
    static DECODERS: RefCell<[Decoder; 2]> = RefCell::new([Decoder::new(), Decoder::scalar()]);
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes) else { return };
    if !is_small(&header) {
        return;
    }
    let region = Rect::whole(header.width, header.height);
    DECODERS.with_borrow_mut(|[vector, scalar]| {
        let fast = Image::decode(vector, bytes, &header, region);
        let specified = Image::decode(scalar, bytes, &header, region);
        assert_eq!(fast.is_some(), specified.is_some(), "vector code or scalar code refuses alone");
        if let (Some(fast), Some(specified)) = (fast, specified) {
            fast.assert_part_of(&specified, "vector code");
        }
    });
});
