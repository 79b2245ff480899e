//! Runs an augmentation on an interleaved RGB image, as a decoder would drive it.

use forebay::augment::Resizer;
use forebay::pixels::RowSink;
use forebay::plan::SamplePlan;

/// An image in memory: rows of red, green and blue side by side.
#[derive(Clone, Debug)]
pub struct Image {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<u8>,
}

#[allow(dead_code, reason = "not every test binary makes images of its own")]
impl Image {
    pub fn new(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Self {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
        Self { width, height, pixels }
    }

    /// Noise; every pixel differs from its neighbours.
    pub fn noise(width: u32, height: u32) -> Self {
        Self::new(width, height, |x, y| {
            let mut hash = (u64::from(y) << 32 | u64::from(x)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash = (hash ^ hash >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            [hash as u8, (hash >> 24) as u8, (hash >> 48) as u8]
        })
    }

    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        self.pixels[at..at + 3].try_into().unwrap()
    }
}

/// The output of a plan. Bytes beyond a row are filled with rubbish, as a decoder may.
pub fn run(resizer: &mut Resizer, plan: &SamplePlan, image: &Image) -> Vec<u8> {
    let region = plan.region();
    assert!(region.fits(image.width, image.height));
    // Floats, so that any element type is aligned.
    let mut output = vec![f32::NAN; plan.output_bytes().div_ceil(4)];
    let bytes = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut output)[..plan.output_bytes()];
    let mut rows = resizer.begin(plan, bytes).unwrap();
    for y in region.y..region.y + region.height {
        let planes = rows.row();
        for (channel, plane) in planes.into_iter().enumerate() {
            plane.fill(0xA5 ^ y as u8);
            for x in 0..region.width {
                plane[x as usize] = image.pixel(region.x + x, y)[channel];
            }
        }
        rows.commit();
    }
    rows.finish().unwrap();
    bytes.to_vec()
}

/// Bytes as floats.
#[allow(dead_code, reason = "not every test binary looks at floats")]
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect()
}
