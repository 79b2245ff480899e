//! A NumPy file: whatever the bytes, an image that lies in them or an error; and an image that is written is read again.
#![no_main]

use forebay::raw::{Shape, npy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let bytes = if bytes.first() == Some(&b'{') {
        // A dictionary behind a sound head, which few inputs would come to have.
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&b"\x93NUMPY\x01\x00"[..], &length, bytes].concat()
    } else {
        bytes.to_vec()
    };
    let Ok(facts) = npy::parse(&bytes) else { return };
    let end = facts.offset + facts.shape.len_bytes();
    assert_eq!(end, bytes.len() as u64, "all of the file is the image and its header");
    let Shape { height, width, channels } = facts.shape;
    assert!(height > 0 && width > 0 && matches!(channels, 1 | 3));
    if let Ok(header) = npy::header(facts.shape, 64) {
        let written = [&header[..], &bytes[facts.offset as usize..]].concat();
        assert_eq!(npy::parse(&written).expect("what was written").shape, facts.shape);
    }
});
