//! The kernels' PTX, interpreted, against the host's decoder and augmentation: the same bits, kernel by kernel.

mod destuff;
mod entropy;
mod idct;
mod machine;
mod resize;
mod taps;
mod wave;

use crate::plan::{Augment, Geometry, Orientation, SampleKey, SamplePlan};

/// Files of every kind that is decoded in one scan.
const FILES: [&str; 18] = [
    "444_131x97",
    "420_131x97",
    "422_33x31",
    "440_131x97",
    "411_131x97",
    "410_131x97",
    "141_33x31",
    "311_131x97",
    "grey_131x97",
    "rgb_33x31",
    "rgb_subsampled",
    "crossed_131x97",
    "mixed_hv_131x97",
    "coarse_luma_131x97",
    "restart_rows_420",
    "restart_every_mcu",
    "quality_100",
    "wild_90_420",
];

/// The bytes of a fixture.
fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/jpeg/{name}.jpg", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Numbers that look random, the same ones for a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 ^ self.0 >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The plan that takes an image as it is.
fn whole_plan(file: &[u8]) -> SamplePlan {
    let header = crate::jpeg::Header::parse(file).unwrap();
    let augment = Augment::builder(Geometry::None).build().unwrap();
    augment
        .plan(SampleKey { seed: 0, epoch: 0, sample: 0, view: 0 }, header.width, header.height, Orientation::AS_STORED)
        .unwrap()
}
