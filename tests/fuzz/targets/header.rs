//! The header of a JPEG: whatever the bytes, facts that hold or an error.
#![no_main]

use forebay::Limits;
use forebay::decode::{self, Route};
use forebay::jpeg::Header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes) else { return };
    assert!(header.width > 0 && header.height > 0);
    assert!(header.scan_offset <= bytes.len());
    assert!((1..=8).contains(&header.orientation));
    assert!(!header.components().is_empty());
    for component in header.components() {
        assert!((1..=4).contains(&component.h) && (1..=4).contains(&component.v));
    }
    // What is behind the scan's start cannot change what is before it.
    let again = Header::parse(&bytes[..header.scan_offset]).expect("the same header");
    assert_eq!((again.width, again.height, again.support()), (header.width, header.height, header.support()));

    let Ok(info) = decode::Decoder::new(Limits::default()).inspect(bytes) else { return };
    assert_eq!((info.width, info.height), (header.width, header.height));
    assert_eq!(info.route == Route::Jpeg, header.support().is_ours());
});
