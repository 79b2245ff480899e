//! Textures that tile: noise whose power falls with the square of the frequency, as in photographs,
//! and rougher, streaked and plain white kinds of it.

use super::random::Random;

/// Columns and rows of a texture; a power of two, so that it wraps by masking.
pub const SIDE: usize = 512;

/// The textures all pictures of one data set are made of. Every surface looks at its own place in one
/// of them, so making them once serves a million pictures.
pub struct Textures {
    surfaces: Vec<Texture>,
    /// Uncorrelated from pixel to pixel: the noise of a sensor.
    pub white: Texture,
    /// Power falling with the square of the frequency.
    pub cloud: Texture,
}

/// Values of mean 0 and variance 1.
pub struct Texture(Vec<f32>);

impl Textures {
    /// Makes them.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(&[seed, 0x7465_7874]);
        let cloud = Texture::fractal(&mut random, 1.0);
        let rough = Texture::fractal(&mut random, 1.35);
        let grain = Texture::fractal(&mut random, 1.8);
        let fur = Texture::fractal(&mut random, 1.5).streaked(9);
        let grass = Texture::fractal(&mut random, 1.5).streaked(5).transposed();
        let water = Texture::fractal(&mut random, 1.2).streaked(25);
        let plain = Texture::fractal(&mut random, 1.0);
        Self { surfaces: vec![plain, rough, grain, fur, grass, water], white: Texture::white(&mut random), cloud }
    }

    /// How many kinds of surface there are.
    pub fn kinds(&self) -> usize {
        self.surfaces.len()
    }

    /// The texture of a kind of surface.
    pub fn surface(&self, kind: usize) -> &Texture {
        &self.surfaces[kind]
    }
}

impl Texture {
    /// The value at any place; the texture repeats in both directions.
    pub fn at(&self, x: usize, y: usize) -> f32 {
        self.0[(y % SIDE) * SIDE + x % SIDE]
    }

    /// Values from a place to the right, up to where the texture repeats.
    pub fn row_from(&self, x: usize, y: usize) -> &[f32] {
        let row = (y % SIDE) * SIDE;
        &self.0[row + x % SIDE..row + SIDE]
    }

    fn white(random: &mut Random) -> Self {
        Self((0..SIDE * SIDE).map(|_| random.normal()).collect())
    }

    /// Octave upon octave: the coarser picture doubled in size, plus new noise. `gain` is the amplitude
    /// of each octave over the one below it; 1 makes the power fall with the square of the frequency,
    /// more makes it fall less.
    fn fractal(random: &mut Random, gain: f32) -> Self {
        let mut side = 4;
        let mut values: Vec<f32> = (0..side * side).map(|_| random.normal()).collect();
        let mut amplitude = 1.0;
        while side < SIDE {
            values = doubled(&values, side);
            side *= 2;
            amplitude *= gain;
            values.iter_mut().for_each(|value| *value += amplitude * random.normal());
        }
        Self(values).normalised()
    }

    /// Averages each row over `length` pixels, which draws the noise out into streaks.
    fn streaked(self, length: usize) -> Self {
        let mut out = vec![0.0; SIDE * SIDE];
        for y in 0..SIDE {
            for x in 0..SIDE {
                out[y * SIDE + x] = (0..length).map(|i| self.at(x + i, y)).sum();
            }
        }
        Self(out).normalised()
    }

    fn transposed(self) -> Self {
        Self((0..SIDE * SIDE).map(|i| self.0[i % SIDE * SIDE + i / SIDE]).collect())
    }

    fn normalised(mut self) -> Self {
        let count = self.0.len() as f32;
        let mean = self.0.iter().sum::<f32>() / count;
        let variance = self.0.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / count;
        let scale = 1.0 / variance.sqrt();
        self.0.iter_mut().for_each(|value| *value = (*value - mean) * scale);
        self
    }
}

/// Twice as large, wrapping at the edges, with the weights 3/4 and 1/4 in each direction.
fn doubled(values: &[f32], side: usize) -> Vec<f32> {
    let mut out = vec![0.0; 4 * side * side];
    for y in 0..2 * side {
        let near_y = y / 2;
        let far_y = if y % 2 == 0 { (near_y + side - 1) % side } else { (near_y + 1) % side };
        for x in 0..2 * side {
            let near_x = x / 2;
            let far_x = if x % 2 == 0 { (near_x + side - 1) % side } else { (near_x + 1) % side };
            let near = 0.75 * values[near_y * side + near_x] + 0.25 * values[near_y * side + far_x];
            let far = 0.75 * values[far_y * side + near_x] + 0.25 * values[far_y * side + far_x];
            out[y * 2 * side + x] = 0.75 * near + 0.25 * far;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_falls_with_the_square_of_the_frequency() {
        // Where it does, halving the resolution leaves the variance of the pixel differences alone.
        let texture = Textures::new(3).cloud;
        let difference = |step: usize| {
            let sum: f64 = (0..SIDE * SIDE)
                .map(|i| f64::from(texture.at(i % SIDE + step, i / SIDE) - texture.at(i % SIDE, i / SIDE)).powi(2))
                .sum();
            sum / (SIDE * SIDE) as f64
        };
        let slope = (difference(16) / difference(2)).log2() / 3.0;
        assert!((0.0..0.6).contains(&slope), "structure function rises by 2^{slope} an octave");
    }

    #[test]
    fn textures_have_unit_variance() {
        let textures = Textures::new(5);
        for kind in 0..textures.kinds() {
            let values = &textures.surface(kind).0;
            let square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
            assert!((square - 1.0).abs() < 0.01, "kind {kind}: {square}");
        }
    }
}
