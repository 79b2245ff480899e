//! Binary floating point of any width and rounding, exactly: what the host's own arithmetic does not offer (directed
//! rounding, f16 and bf16). IEEE 754-2019; a value is computed with enough bits that nothing is lost but what a sticky bit
//! remembers, then rounded once.

/// A binary interchange format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ptx) struct Format {
    /// Bits of precision, the hidden one included.
    precision: u32,
    exponent_bits: u32,
    /// What an operation gives for "not a number".
    nan: u64,
}

pub(in crate::ptx) const F16: Format = Format { precision: 11, exponent_bits: 5, nan: 0x7fff };
pub(in crate::ptx) const BF16: Format = Format { precision: 8, exponent_bits: 8, nan: 0x7fff };
pub(in crate::ptx) const F32: Format = Format { precision: 24, exponent_bits: 8, nan: 0x7fff_ffff };
pub(in crate::ptx) const F64: Format = Format { precision: 53, exponent_bits: 11, nan: 0x7fff_ffff_ffff_ffff };

/// How a result that does not fit is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ptx) enum Rounding {
    /// To nearest, ties to even (`.rn`).
    Nearest,
    /// Towards zero (`.rz`).
    Zero,
    /// Towards minus infinity (`.rm`).
    Down,
    /// Towards plus infinity (`.rp`).
    Up,
}

impl Rounding {
    /// By the modifier's name; `.rni` and its kin are the same, to an integer.
    pub(in crate::ptx) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "rn" | "rni" => Self::Nearest,
            "rz" | "rzi" => Self::Zero,
            "rm" | "rmi" => Self::Down,
            "rp" | "rpi" => Self::Up,
            _ => return None,
        })
    }
}

/// A number apart from its format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::ptx) enum Number {
    Nan,
    Infinite {
        negative: bool,
    },
    /// `magnitude * 2^exponent`. The lowest bit of the magnitude may stand for anything below it.
    Finite {
        negative: bool,
        exponent: i32,
        magnitude: u128,
    },
}

use Number::{Finite, Infinite, Nan};

/// Where the highest bit of a magnitude stands while numbers are added: room for a carry above, and below it for all bits
/// of a product of two f64 and 18 to guard.
const TOP: u32 = 124;

impl Number {
    pub(in crate::ptx) fn zero(negative: bool) -> Self {
        Finite { negative, exponent: 0, magnitude: 0 }
    }

    pub(in crate::ptx) fn integer(value: i128) -> Self {
        Finite { negative: value < 0, exponent: 0, magnitude: value.unsigned_abs() }
    }

    /// What `bits` say in `format`.
    pub(in crate::ptx) fn unpack(bits: u64, format: Format) -> Self {
        let stored = format.precision - 1;
        let negative = bits >> (stored + format.exponent_bits) & 1 != 0;
        let biased = bits >> stored & ((1 << format.exponent_bits) - 1);
        let fraction = bits & ((1 << stored) - 1);
        if biased == (1 << format.exponent_bits) - 1 {
            return if fraction != 0 { Nan } else { Infinite { negative } };
        }
        let hidden = u64::from(biased != 0) << stored;
        let exponent = biased.max(1) as i32 - 1 + format.least_exponent();
        Finite { negative, exponent, magnitude: u128::from(fraction | hidden) }
    }

    /// Rounded into `format`.
    pub(in crate::ptx) fn pack(self, format: Format, rounding: Rounding) -> u64 {
        let sign_bit = |negative: bool| u64::from(negative) << (format.precision - 1 + format.exponent_bits);
        let infinity = format.infinity();
        match self {
            Nan => format.nan,
            Infinite { negative } => sign_bit(negative) | infinity,
            Finite { negative, magnitude: 0, .. } => sign_bit(negative),
            Finite { negative, exponent, magnitude } => {
                let highest = exponent + magnitude.ilog2() as i32;
                let unit = (highest + 1 - format.precision as i32).max(format.least_exponent());
                let kept = round(magnitude, unit - exponent, negative, rounding) as u64;
                // The hidden bit of a normal number, and a carry out of the fraction, count the exponent up by one.
                let bits = ((unit - format.least_exponent()) as u64)
                    .checked_mul(1 << (format.precision - 1))
                    .map_or(u64::MAX, |scale| scale.saturating_add(kept));
                sign_bit(negative) | if bits < infinity { bits } else { infinity - overflow(negative, rounding) }
            }
        }
    }

    pub(in crate::ptx) fn negate(self) -> Self {
        match self {
            Nan => Nan,
            Infinite { negative } => Infinite { negative: !negative },
            Finite { negative, exponent, magnitude } => Finite { negative: !negative, exponent, magnitude },
        }
    }

    /// Zero that is the sum of opposites is negative only when rounding down.
    pub(in crate::ptx) fn add(self, other: Self, rounding: Rounding) -> Self {
        match (self, other) {
            (Nan, _) | (_, Nan) => Nan,
            (Infinite { negative: a }, Infinite { negative: b }) if a != b => Nan,
            (Infinite { negative }, _) | (_, Infinite { negative }) => Infinite { negative },
            (Finite { negative: a, magnitude: 0, .. }, Finite { negative: b, magnitude: 0, .. }) => {
                Self::zero(if a == b { a } else { rounding == Rounding::Down })
            }
            (Finite { magnitude: 0, .. }, number) | (number, Finite { magnitude: 0, .. }) => number,
            (a, b) => add_finite(a.normalised(), b.normalised(), rounding),
        }
    }

    /// Exact.
    pub(in crate::ptx) fn multiply(self, other: Self) -> Self {
        match (self, other) {
            (Nan, _) | (_, Nan) => Nan,
            (Infinite { .. }, Finite { magnitude: 0, .. }) | (Finite { magnitude: 0, .. }, Infinite { .. }) => Nan,
            (Infinite { negative: a } | Finite { negative: a, .. }, Infinite { negative: b })
            | (Infinite { negative: a }, Finite { negative: b, .. }) => Infinite { negative: a != b },
            (
                Finite { negative: a, exponent, magnitude },
                Finite { negative: b, exponent: other_exponent, magnitude: other_magnitude },
            ) => {
                Finite { negative: a != b, exponent: exponent + other_exponent, magnitude: magnitude * other_magnitude }
            }
        }
    }

    /// Exact but for a sticky bit. For operands of at most 53 bits.
    pub(in crate::ptx) fn divide(self, other: Self) -> Self {
        match (self, other) {
            (Nan, _) | (_, Nan) | (Infinite { .. }, Infinite { .. }) => Nan,
            (Finite { magnitude: 0, .. }, Finite { magnitude: 0, .. }) => Nan,
            (Infinite { negative: a }, Finite { negative: b, .. })
            | (Finite { negative: a, .. }, Finite { negative: b, magnitude: 0, .. }) => Infinite { negative: a != b },
            (Finite { negative: a, .. }, Infinite { negative: b }) => Self::zero(a != b),
            (
                Finite { negative: a, exponent, magnitude },
                Finite { negative: b, exponent: other_exponent, magnitude: divisor },
            ) => {
                if magnitude == 0 {
                    return Self::zero(a != b);
                }
                let shift = magnitude.leading_zeros();
                let dividend = magnitude << shift;
                let sticky = u128::from(dividend % divisor != 0);
                Finite {
                    negative: a != b,
                    exponent: exponent - other_exponent - shift as i32,
                    magnitude: (dividend / divisor) | sticky,
                }
            }
        }
    }

    /// Exact but for a sticky bit.
    pub(in crate::ptx) fn square_root(self) -> Self {
        match self {
            Finite { magnitude: 0, .. } | Infinite { negative: false } => self,
            Nan | Infinite { .. } | Finite { negative: true, .. } => Nan,
            Finite { exponent, magnitude, .. } => {
                let spare = magnitude.leading_zeros();
                let shift = spare - u32::from((exponent - spare as i32) % 2 != 0);
                let radicand = magnitude << shift;
                let root = radicand.isqrt();
                let sticky = u128::from(root * root != radicand);
                // Two bits further, so that the sticky bit is below every bit of the root.
                Finite { negative: false, exponent: (exponent - shift as i32) / 2 - 2, magnitude: root << 2 | sticky }
            }
        }
    }

    /// With the highest bit of the magnitude at [`TOP`]. Only of finite numbers that are not zero.
    fn normalised(self) -> (bool, i32, u128) {
        let Finite { negative, exponent, magnitude } = self else { return (false, 0, 0) };
        let shift = TOP as i32 - magnitude.ilog2() as i32;
        (negative, exponent - shift, shifted(magnitude, -shift))
    }
}

impl Format {
    /// Bits of an encoded number.
    pub(in crate::ptx) fn bits(self) -> u32 {
        self.precision + self.exponent_bits
    }

    #[inline(always)]
    pub(in crate::ptx) fn is_nan(self, bits: u64) -> bool {
        bits & ((1 << (self.bits() - 1)) - 1) > self.infinity()
    }

    pub(in crate::ptx) fn canonical_nan(self) -> u64 {
        self.nan
    }

    fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << (self.precision - 1)
    }

    /// The exponent of the lowest bit of the least number.
    fn least_exponent(self) -> i32 {
        let bias = (1 << (self.exponent_bits - 1)) - 1;
        2 - bias - self.precision as i32
    }
}

fn add_finite(a: (bool, i32, u128), b: (bool, i32, u128), rounding: Rounding) -> Number {
    let (large, small) = if (a.1, a.2) >= (b.1, b.2) { (a, b) } else { (b, a) };
    let small_magnitude = shifted(small.2, large.1.saturating_sub(small.1));
    let magnitude = if large.0 == small.0 { large.2 + small_magnitude } else { large.2 - small_magnitude };
    let negative = if magnitude == 0 { rounding == Rounding::Down } else { large.0 };
    Finite { negative, exponent: large.1, magnitude }
}

/// Shifted right (left if negative); bits that fall out leave the lowest bit set.
fn shifted(magnitude: u128, right: i32) -> u128 {
    match right {
        ..=0 => magnitude << -right,
        1..=127 => magnitude >> right | u128::from(magnitude & ((1 << right) - 1) != 0),
        _ => u128::from(magnitude != 0),
    }
}

/// Shifted right (left if negative), and rounded.
fn round(magnitude: u128, right: i32, negative: bool, rounding: Rounding) -> u128 {
    if right <= 0 {
        return magnitude << -right;
    }
    let (kept, rest, half) = match right {
        ..=127 => (magnitude >> right, magnitude & ((1 << right) - 1), 1 << (right - 1)),
        _ => (0, u128::from(magnitude != 0), 2),
    };
    let up = match rounding {
        Rounding::Nearest => rest > half || rest == half && kept & 1 != 0,
        Rounding::Zero => false,
        Rounding::Down => negative && rest != 0,
        Rounding::Up => !negative && rest != 0,
    };
    kept + u128::from(up)
}

/// What a number too large is less than infinity, in units of its last place.
fn overflow(negative: bool, rounding: Rounding) -> u64 {
    match rounding {
        Rounding::Nearest => 0,
        Rounding::Zero => 1,
        Rounding::Down => u64::from(!negative),
        Rounding::Up => u64::from(negative),
    }
}
