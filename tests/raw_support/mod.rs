//! Pictures as PNG, as NumPy files and as bare pixels, in folders and shards.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use forebay::raw::{Shape, npy};
use image::{ExtendedColorType, ImageEncoder};

use crate::common;

/// A picture: its name without extension, its class and its samples.
pub struct Picture {
    pub name: String,
    pub class: usize,
    pub shape: Shape,
    pub pixels: Vec<u8>,
}

/// How a picture is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Png,
    /// Behind a header of 128 bytes.
    Npy,
    Raw,
}

impl Stored {
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Npy => "npy",
            Self::Raw => "raw",
        }
    }
}

/// Pictures in three classes; all of one shape, or each of its own and every third grey.
pub fn pictures(count: usize, one_shape: Option<Shape>) -> Vec<Picture> {
    (0..count)
        .map(|number| {
            let own = Shape {
                height: 70 + number as u32 % 23,
                width: 90 + 2 * number as u32 % 40,
                channels: if number % 3 == 2 { 1 } else { 3 },
            };
            let shape = one_shape.unwrap_or(own);
            let rgb = common::pixels(number, shape.width as usize, shape.height as usize);
            let pixels = if shape.channels == 3 { rgb } else { rgb.into_iter().step_by(3).collect() };
            let class = number * 3 / count;
            Picture { name: format!("class{class}/{number:05}"), class, shape, pixels }
        })
        .collect()
}

impl Picture {
    pub fn bytes(&self, stored: Stored) -> Vec<u8> {
        match stored {
            Stored::Png => {
                let mut bytes = vec![];
                let colour = if self.shape.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
                let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
                encoder.write_image(&self.pixels, self.shape.width, self.shape.height, colour).expect("a PNG");
                bytes
            }
            Stored::Npy => [npy::header(self.shape, 128).expect("a header"), self.pixels.clone()].concat(),
            Stored::Raw => self.pixels.clone(),
        }
    }
}

/// The pictures as a folder with one directory a class.
pub fn folder(root: &Path, pictures: &[Picture], stored: Stored) -> PathBuf {
    let folder = root.join(format!("folder-{}", stored.extension()));
    for picture in pictures {
        let path = folder.join(&picture.name).with_extension(stored.extension());
        fs::create_dir_all(path.parent().expect("a class")).expect("class folder");
        fs::write(path, picture.bytes(stored)).expect("sample");
    }
    folder
}

/// The pictures as shards of five, by their brace pattern.
pub fn shards(root: &Path, pictures: &[Picture], stored: Stored) -> PathBuf {
    let mut last = 0;
    for (number, chunk) in pictures.chunks(5).enumerate() {
        let path = root.join(format!("{}-{number:03}.tar", stored.extension()));
        let mut tar = tar::Builder::new(fs::File::create(path).expect("shard"));
        for picture in chunk {
            let label = picture.class.to_string().into_bytes();
            append(&mut tar, &format!("{}.cls", picture.name), &label);
            append(&mut tar, &format!("{}.{}", picture.name, stored.extension()), &picture.bytes(stored));
        }
        tar.finish().expect("shard's end");
        last = number;
    }
    root.join(format!("{}-{{000..{last:03}}}.tar", stored.extension()))
}

pub fn append(tar: &mut tar::Builder<fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).expect("entry");
}
