//! A list file: every sample it names has a path, a key and a label.
#![no_main]

use std::path::PathBuf;

use forebay::source::{Extent, List, Source};
use forebay_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

fuzz_target!(|bytes: &[u8]| {
    for name in ["list.txt", "list.csv"] {
        let path = SCRATCH.with(|scratch| scratch.write(name, bytes));
        let Ok(list) = List::open(path) else { continue };
        let lines = bytes.split(|&byte| byte == b'\n').count() as u64;
        assert!((1..=lines).contains(&list.len()));
        let (mut key, mut path) = (String::new(), PathBuf::new());
        for sample in 0..list.len() {
            assert_eq!(list.extent(sample).expect("an extent"), Extent::Object(sample));
            list.object_path(sample, &mut path).expect("a path");
            list.key(sample, &mut key).expect("a key");
            list.label(sample).expect("a label");
            assert!(path.is_absolute() && key.len() <= 3 * bytes.len());
        }
    }
});
