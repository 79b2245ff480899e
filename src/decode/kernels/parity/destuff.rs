//! `forebay_destuff` on bytes of any kind.

use super::Random;
use super::machine::Machine;
use super::wave::{Buffers, Wave};
use crate::decode::kernels::abi::{END_UNCHECKED, Image, MARKER, SOURCE_BITS, Segment};

/// Words between those of two segments, which must stay as they are.
const GAP_WORDS: usize = 4;

/// Words that a segment may take.
fn reserved(bytes: &[u8]) -> usize {
    3 + bytes.len().div_ceil(4)
}

/// What a segment's words must be: how many bytes, the bytes, two words of zeros.
fn expected(stuffed: &[u8], end: u8) -> Vec<u32> {
    let mut bytes = Vec::new();
    let mut is_cut = false;
    let mut at = 0;
    while at < stuffed.len() && !is_cut {
        match stuffed[at..] {
            [0xFF, 0, ..] => {
                bytes.push(0xFF);
                at += 1;
            }
            [0xFF, 0xFF, ..] => {}
            [0xFF, _, ..] => is_cut = true,
            [byte, ..] => bytes.push(byte),
            [] => {}
        }
        at += 1;
    }
    if is_cut && end != END_UNCHECKED {
        bytes.clear();
    }
    let len = bytes.len() as u32;
    bytes.resize(bytes.len().next_multiple_of(4) + 8, 0);
    let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    std::iter::once(len).chain(words).collect()
}

/// Bytes in which FFs and zeros are as frequent as `hostility` says.
fn bytes(random: &mut Random, len: usize, hostility: usize) -> Vec<u8> {
    let byte = |random: &mut Random| match random.below(100) {
        roll if roll < hostility => [0xFF, 0xFF, 0, 0, 0xD0][random.below(5)],
        _ => random.next() as u8,
    };
    let mut bytes: Vec<u8> = (0..len).map(|_| byte(random)).collect();
    if random.below(3) > 0 {
        // Most streams are well stuffed.
        for i in 1..len {
            if bytes[i - 1] == 0xFF && bytes[i] != 0xFF {
                bytes[i] = 0;
            }
        }
    }
    bytes
}

/// One image of these segments at any alignment.
fn wave(random: &mut Random, segments: &[(Vec<u8>, u8)]) -> Wave {
    let mut wave = Wave::default();
    let mut descriptors = Vec::new();
    for (bytes, end) in segments {
        wave.upload.extend((0..random.below(40)).map(|_| 0xFF_u8));
        let (byte, len) = (wave.upload.len() as u32, bytes.len() as u32);
        descriptors.push(Segment { byte, bytes: len, words: wave.words as u32, end: *end, ..Segment::default() });
        wave.words += reserved(bytes) + GAP_WORDS;
        wave.upload.extend_from_slice(bytes);
    }
    wave.upload.resize(wave.upload.len().next_multiple_of(16), 0xFF);
    let (segments, segment_count) = (wave.upload.len() as u32, descriptors.len() as u32);
    wave.upload.extend_from_slice(bytemuck::cast_slice(&descriptors));
    wave.images = vec![Image::default(), Image { source: SOURCE_BITS, segments, segment_count, ..Image::default() }];
    wave
}

pub fn run(seed: u64, machine: &mut Machine) -> Result<(), String> {
    machine.clear();
    let mut random = Random(seed);
    let count = 1 + random.below(20);
    let segments: Vec<(Vec<u8>, u8)> = (0..count)
        .map(|_| {
            let len = [1, 2 + random.below(30), random.below(600), random.below(3000)][random.below(4)];
            let hostility = [0, 2, 30, 100][random.below(4)];
            let end = [0, 3, MARKER, END_UNCHECKED][random.below(4)];
            (bytes(&mut random, len, hostility), end)
        })
        .collect();
    let wave = wave(&mut random, &segments);
    let at: Buffers = wave.buffers(machine);
    wave.destuff(machine, &at)?;
    let mut place = 0;
    for (i, (bytes, end)) in segments.iter().enumerate() {
        let expected = expected(bytes, *end);
        let found: Vec<u32> = machine.read(at.words + 4 * place as u64, expected.len());
        if found != expected {
            return Err(format!("seed {seed}, segment {i} of {} bytes that ends with {end}: other words", bytes.len()));
        }
        place += reserved(bytes) + GAP_WORDS;
        if machine.is_written(at.words + 4 * (place - GAP_WORDS) as u64, 4 * GAP_WORDS) {
            return Err(format!("seed {seed}, segment {i}: words behind those reserved for it"));
        }
    }
    Ok(())
}

#[test]
fn words_are_the_bytes_without_stuffing() {
    let mut machine = Machine::new();
    for seed in 0..60 {
        run(seed, &mut machine).unwrap();
    }
}
