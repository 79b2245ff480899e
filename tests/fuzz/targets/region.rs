//! A region is a crop of the whole image.
#![no_main]

use std::cell::RefCell;

use forebay::jpeg::{Decoder, Header};
use forebay::pixels::Rect;
use forebay_fuzz::{Image, Tail, is_small};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes) else { return };
    if !is_small(&header) {
        return;
    }
    let region = Tail::new(bytes).region(header.width, header.height);
    DECODER.with_borrow_mut(|decoder| {
        let whole = Image::decode(decoder, bytes, &header, Rect::whole(header.width, header.height));
        let part = Image::decode(decoder, bytes, &header, region);
        // A region may pass over damage that the whole image meets, never the other way round.
        if let Some(whole) = whole {
            part.expect("a region of a whole image").assert_part_of(&whole, "region");
        }
    });
});
