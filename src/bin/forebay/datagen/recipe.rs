//! Which sample has which key, label, size and picture: a function of its number and the options alone.

use super::encode::{Spectrum, Subsampling};
use super::random::Random;
use super::scene::{self, Request};
use super::texture::Textures;
use super::write::Sample;
use super::{Options, Sampling};

/// Makes samples by number.
pub struct Recipe {
    options: Options,
    textures: Textures,
}

impl Recipe {
    /// Prepares what all pictures share.
    pub fn new(options: Options) -> Self {
        let textures = Textures::new(options.seed);
        Self { options, textures }
    }

    /// How many samples there are.
    pub fn len(&self) -> u64 {
        self.options.count
    }

    /// `class_0003/00000042`. Keys rise with the number, so that a sorted folder has the order of the tar.
    pub fn key(&self, number: u64) -> String {
        let (class, index) = self.place(number);
        format!("class_{class:04}/{index:08}")
    }

    /// Draws and encodes a sample.
    pub fn make(&self, number: u64) -> Sample {
        let (class, index) = self.place(number);
        // By class and index, not by number, so that a larger set contains the smaller one.
        let mut random = Random::new(&[self.options.seed, class.into(), index]);
        let (width, height) = self.dimensions(&mut random);
        let bits_per_pixel = self.bits_per_pixel(&mut random);
        let subsampling = match self.options.sampling {
            Sampling::Full => Subsampling::None,
            Sampling::Half => Subsampling::Half,
            Sampling::Mixed if random.chance(0.76) => Subsampling::None,
            Sampling::Mixed => Subsampling::Half,
        };
        // Pictures with more to see take more bits; what is left of the difference is made up by quality.
        let detail = bits_per_pixel / 4.7 * random.log_normal(0.35);
        let request = Request { width: width as usize, height: height as usize, class, detail };
        let image = scene::paint(&request, &self.textures, &mut random);
        let spectrum = Spectrum::new(&image, subsampling);
        let len_bytes = f64::from(bits_per_pixel) / 8.0 * f64::from(width) * f64::from(height);
        let quality = spectrum.quality_for(len_bytes as u64);
        let jpeg = spectrum.encode(quality, self.options.restart_interval);
        Sample { key: self.key(number), label: class, jpeg }
    }

    /// Class and index within the class. Classes follow each other; the first ones hold what is left over.
    fn place(&self, number: u64) -> (u32, u64) {
        let classes = u64::from(self.options.classes);
        let (each, left_over) = (self.options.count / classes, self.options.count % classes);
        let in_larger = left_over * (each + 1);
        if number < in_larger {
            return ((number / (each + 1)) as u32, number % (each + 1));
        }
        let rest = number - in_larger;
        ((left_over + rest / each) as u32, rest % each)
    }

    /// Landscape, portrait, some square; most with the usual longer side. Shares as in ImageNet photos.
    fn dimensions(&self, random: &mut Random) -> (u32, u32) {
        if let Some(size) = self.options.size {
            return size;
        }
        let usual = self.options.long_side as f32;
        let long = if random.chance(0.7) { usual } else { usual * random.log_normal(0.45) };
        let ratio = match random.unit() {
            0.0..0.58 => 0.75,
            0.58..0.78 => 2.0 / 3.0,
            0.78..0.86 => 1.0,
            _ => random.between(0.5, 1.0),
        };
        let long = long.clamp(16.0, 16_384.0);
        let (long, short) = (long as u32, (long * ratio).max(8.0) as u32);
        if random.chance(0.68) { (long, short) } else { (short, long) }
    }

    /// Normal about the mean: measured on photos, the 10th, 50th and 90th percentiles are 1.5, 4.7 and 7.7.
    fn bits_per_pixel(&self, random: &mut Random) -> f32 {
        let mean = self.options.bits_per_pixel;
        (mean * (1.0 + 0.47 * random.normal())).clamp(mean * 0.17, mean * 2.4)
    }
}
