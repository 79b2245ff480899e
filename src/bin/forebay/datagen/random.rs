//! Random numbers for pictures. Only additions, multiplications, divisions and square roots, which
//! IEEE 754 fixes to the bit, so that a seed gives the same files on every machine.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for every list of keys.
    pub fn new(keys: &[u64]) -> Self {
        let mut random = Self(0x6a09_e667_f3bc_c908);
        for &key in keys {
            random.0 = random.next() ^ key;
        }
        random
    }

    /// 64 uniform bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [low, high).
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..count.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Near enough to the standard normal distribution: the sum of four uniform numbers, so never
    /// beyond 3.5 and never a logarithm.
    pub fn normal(&mut self) -> f32 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        (sum - 2.0) * 1.732_050_8
    }

    /// A factor whose logarithm is normal with this standard deviation and whose median is 1.
    pub fn log_normal(&mut self, sigma: f32) -> f32 {
        let mut power = 1.0 + sigma * self.normal() / 1024.0;
        for _ in 0..10 {
            power *= power;
        }
        power
    }

    /// A radius with density r^-3 between the two: the law of apparent sizes under which overlapping
    /// shapes look the same at every scale, as natural scenes do (Ruderman 1997; Lee, Mumford, Huang
    /// 2001, "Occlusion models for natural images").
    pub fn radius(&mut self, smallest: f32, largest: f32) -> f32 {
        let (high, low) = (1.0 / (smallest * smallest), 1.0 / (largest * largest));
        1.0 / self.between(low, high).sqrt()
    }

    /// A uniform direction.
    pub fn direction(&mut self) -> (f32, f32) {
        loop {
            let (x, y) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let square = x * x + y * y;
            if (0.01..=1.0).contains(&square) {
                let norm = 1.0 / square.sqrt();
                return (x * norm, y * norm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_numbers_have_mean_0_and_deviation_1() {
        let mut random = Random::new(&[1]);
        let values: Vec<f64> = (0..20_000).map(|_| f64::from(random.normal())).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }

    #[test]
    fn keys_in_another_order_are_another_generator() {
        assert_ne!(Random::new(&[1, 2]).next(), Random::new(&[2, 1]).next());
    }
}
