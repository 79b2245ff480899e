//! A tar shard: every sample it claims lies inside the file, whatever the headers say.
#![no_main]

use forebay::source::{Extent, Source, TarShards};
use forebay_fuzz::Scratch;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

fuzz_target!(|bytes: &[u8]| {
    let path = SCRATCH.with(|scratch| scratch.write("shard.tar", bytes));
    let Ok(shards) = TarShards::open(&[path]) else { return };
    assert!(!shards.is_empty());
    // Entries take a block each at least.
    assert!(shards.len() <= bytes.len() as u64 / 512);
    let (mut key, mut end_before) = (String::new(), 0);
    for sample in 0..shards.len() {
        shards.key(sample, &mut key).expect("a key");
        let _ = shards.label(sample);
        let Ok(extent) = shards.extent(sample) else { continue };
        let Extent::Range { object: 0, offset, len_bytes } = extent else { panic!("{extent:?}") };
        let end = offset.checked_add(len_bytes).expect("an end");
        assert!(end <= bytes.len() as u64, "{extent:?} of {} bytes", bytes.len());
        assert!(offset > end_before, "{extent:?} overlaps the sample before it");
        end_before = end;
    }
    assert!(shards.extent(shards.len()).is_err());
});
