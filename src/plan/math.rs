//! Transcendental functions from IEEE basic operations alone.
//!
//! The platform's `exp` and `ln` differ in the last bit between C libraries, and a crop box is a
//! rounded function of them: the same seed could give another crop on another machine. These use
//! additions, multiplications and divisions in a fixed order, which are exact to the bit everywhere.

/// e^x for |x| below 700, within 2 units in the last place.
pub(crate) fn exp(x: f64) -> f64 {
    // ln 2 in two parts: the high one has 32 bits, so that its product with a small integer is exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN_2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    let k = (x * std::f64::consts::LOG2_E).round_ties_even();
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    // |r| < 0.347: the Taylor series to r^14 leaves 1e-19.
    let mut sum = 1.0;
    for n in (1..=14).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    sum * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// The natural logarithm of a positive normal number, within 2 units in the last place of the larger
/// of the result and 1.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)); the argument is below 0.172, so 13 terms leave 1e-21.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for n in (0..13).rev() {
        sum = sum * square + 1.0 / f64::from(2 * n + 1);
    }
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * sum
}

/// The integer nearest to a number, halves to even, as Python's `round`.
pub(crate) fn round_half_even(x: f64) -> f64 {
    x.round_ties_even()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_platform() {
        for i in -20_000..20_000 {
            let x = f64::from(i) * 0.00437;
            let (own, other) = (exp(x), x.exp());
            assert!(((own - other) / other).abs() < 5e-16, "exp {x}: {own} {other}");
            let (own, other) = (ln(other), x);
            assert!((own - other).abs() < 5e-16 * other.abs().max(1.0), "ln: {own} {other}");
        }
        assert_eq!((exp(0.0), ln(1.0)), (1.0, 0.0));
    }

    #[test]
    fn fixed_bits() {
        // The bits themselves, so that a change of order shows.
        assert_eq!(exp(1.0).to_bits(), 0x4005_bf0a_8b14_576a);
        assert_eq!(ln(4.0 / 3.0).to_bits(), 0x3fd2_6962_1134_db92);
    }
}
