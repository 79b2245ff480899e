//! Which vector instructions this machine has, found once at run time.

/// A set of kernels that this machine can run: a value is proof of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd(Level);

/// The kernels to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The specification.
    Scalar,
    /// AVX2, BMI1, BMI2 and LZCNT: x86-64-v3.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Simd {
    /// No vector instructions.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// The fastest kernels of this machine.
    pub fn detect() -> Self {
        *Self::available().last().unwrap_or(&Self::SCALAR)
    }

    /// All that this machine can run, the fastest last.
    pub fn available() -> Vec<Self> {
        let levels = [
            Some(Self::SCALAR),
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("bmi2")
                && is_x86_feature_detected!("lzcnt"))
            .then_some(Self(Level::Avx2)),
        ];
        levels.into_iter().flatten().collect()
    }

    /// What to run.
    pub fn level(self) -> Level {
        self.0
    }
}
