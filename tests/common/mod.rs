//! Small data sets of real JPEGs, made on the spot.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::{Path, PathBuf};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

/// A smooth, coloured picture that differs by `number`.
pub fn pixels(number: usize, width: usize, height: usize) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let wave = |phase: usize| {
                let angle = (x * (phase + 2) + y * (number % 7 + 1)) as f32 / 31.0 + (number * phase) as f32;
                (127.5 + 110.0 * angle.sin()) as u8
            };
            rgb.extend([wave(0), wave(1), wave(2)]);
        }
    }
    rgb
}

/// A baseline JPEG of that picture: odd sizes, both common samplings, its own Huffman tables.
pub fn jpeg(number: usize) -> Vec<u8> {
    let (width, height) = (90 + number % 40, 70 + number % 23);
    let mut bytes = vec![];
    let mut encoder = Encoder::new(&mut bytes, 80 + (number % 15) as u8);
    encoder.set_sampling_factor(if number.is_multiple_of(4) { SamplingFactor::F_2_2 } else { SamplingFactor::F_1_1 });
    encoder.set_optimized_huffman_tables(true);
    let rgb = pixels(number, width, height);
    encoder.encode(&rgb, width as u16, height as u16, ColorType::Rgb).expect("encoding");
    bytes
}

/// `count` samples in `classes` classes: name within the data set without extension, label, bytes.
pub fn samples(count: usize, classes: usize) -> Vec<(String, usize, Vec<u8>)> {
    let per_class = count.div_ceil(classes);
    (0..count).map(|n| (format!("class{}/{n:05}", n / per_class), n / per_class, jpeg(n))).collect()
}

/// The samples as a folder with one directory a class.
pub fn folder(root: &Path, samples: &[(String, usize, Vec<u8>)]) -> PathBuf {
    let folder = root.join("folder");
    for (name, _, bytes) in samples {
        let path = folder.join(name).with_extension("jpg");
        std::fs::create_dir_all(path.parent().expect("a class")).expect("class folder");
        std::fs::write(path, bytes).expect("sample");
    }
    folder
}

/// The samples as tar shards of `per_shard`, by their brace pattern.
pub fn shards(root: &Path, samples: &[(String, usize, Vec<u8>)], per_shard: usize) -> String {
    let mut last = 0;
    for (number, chunk) in samples.chunks(per_shard).enumerate() {
        let file = std::fs::File::create(root.join(format!("train-{number:03}.tar"))).expect("shard");
        let mut tar = tar::Builder::new(file);
        for (name, label, bytes) in chunk {
            append(&mut tar, &format!("{name}.jpg"), bytes);
            append(&mut tar, &format!("{name}.cls"), label.to_string().as_bytes());
        }
        tar.finish().expect("shard's end");
        last = number;
    }
    format!("{}/train-{{000..{last:03}}}.tar", root.display())
}

fn append(tar: &mut tar::Builder<std::fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).expect("entry");
}

/// Threads of this process.
pub fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Names of the threads that loaders of this process have.
pub fn loader_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("forebay-")).collect()
}

/// Open descriptors of this process.
pub fn descriptor_count() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
