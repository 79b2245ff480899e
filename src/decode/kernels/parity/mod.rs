//! The kernels' PTX, interpreted, against the host's decoder and augmentation: the same bits, kernel by kernel.

mod counts;
mod destuff;
mod entropy;
mod idct;
mod machine;
mod pixels;
mod planted;
mod resize;
mod taps;
mod wave;

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

#[test]
fn the_text_is_that_of_the_sources() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "cu" || end == "cuh")).collect();
    paths.sort();
    let bytes: Vec<u8> = paths.iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    let fnv = |value: u64, byte: &u8| (value ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
    let fingerprint = format!("sources {:016x}.", bytes.iter().fold(0xCBF2_9CE4_8422_2325, fnv));
    let head = machine::PTX.lines().next().unwrap();
    assert!(head.ends_with(&fingerprint), "{head}, not {fingerprint} .ci/kernels update makes it anew");
}
