//! Floating-point instructions: against the host's where it rounds the same way, and against properties of rounding.

use super::*;

/// Bits of f32 at the edges.
const SINGLES: [u64; 15] = [
    0,
    0x8000_0000,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x3f80_0000,
    0xbf80_0001,
    0x4b00_0001,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x3380_0000,
];

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// The bits of a result, with the one "not a number" there is.
fn bits(value: f32) -> u64 {
    if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() }
}

fn check_single(instruction: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    check(instruction, &SINGLES, |a, b, c| bits(expected(single(a), single(b), single(c))));
}

/// f64: whatever "not a number" it is.
fn check_double(instruction: &str, expected: impl Fn(f64, f64, f64) -> f64) {
    let edges: Vec<u64> = SINGLES.iter().map(|edge| f64::from(single(*edge)).to_bits()).chain(EDGES).collect();
    let operands = operands(&edges[..20]);
    for ([a, b, c], found) in operands.iter().zip(compute(instruction, &operands)) {
        let (found, expected) =
            (f64::from_bits(found), expected(f64::from_bits(*a), f64::from_bits(*b), f64::from_bits(*c)));
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{instruction} of {a:#x}, {b:#x}, {c:#x}: {found}, not {expected}");
    }
}

#[test]
fn to_nearest_as_on_the_host() {
    check_single("add.f32 %d, %a, %b;", |a, b, _| a + b);
    check_single("sub.rn.f32 %d, %a, %b;", |a, b, _| a - b);
    check_single("mul.rn.f32 %d, %a, %b;", |a, b, _| a * b);
    check_single("div.rn.f32 %d, %a, %b;", |a, b, _| a / b);
    check_single("rcp.rn.f32 %d, %a;", |a, _, _| 1.0 / a);
    check_single("sqrt.rn.f32 %d, %a;", |a, _, _| a.sqrt());
    check_single("fma.rn.f32 %d, %a, %b, %c;", f32::mul_add);
    check_double("add.f64 %D, %A, %B;", |a, b, _| a + b);
    check_double("mul.rn.f64 %D, %A, %B;", |a, b, _| a * b);
    check_double("div.rn.f64 %D, %A, %B;", |a, b, _| a / b);
    check_double("sqrt.rn.f64 %D, %A;", |a, _, _| a.sqrt());
    check_double("fma.rn.f64 %D, %A, %B, %C;", f64::mul_add);
}

#[test]
fn a_fused_product_is_rounded_once() {
    // Products of 25 bits lie in the middle between two numbers of 24, and the addend is too small for double precision:
    // it decides all the same.
    let mut state = 1_u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    for _ in 0..200_000 {
        let a = (4097 + 2 * random(2048)) as f32;
        let b = (4097 + 2 * random(2048)) as f32;
        let c = 2.0_f32.powi(20 - random(80) as i32) * if random(2) == 0 { 1.0 } else { -1.0 };
        let found = super::super::arithmetic::fused(a, b, c);
        assert_eq!(found.to_bits(), a.mul_add(b, c).to_bits(), "{a:e} * {b:e} + {c:e}");
    }
}

#[test]
fn saturated_to_one() {
    let held = |value: f32| if value > 0.0 { value.min(1.0) } else { 0.0 };
    check_single("add.sat.f32 %d, %a, %b;", |a, b, _| held(a + b));
    check_single("mul.rn.sat.f32 %d, %a, %b;", |a, b, _| held(a * b));
    check_single("fma.rn.sat.f32 %d, %a, %b, %c;", |a, b, c| held(a.mul_add(b, c)));
}

#[test]
fn directed_rounding_brackets_the_exact_result() {
    for (name, exact) in [("add", (|a, b| a + b) as fn(f64, f64) -> f64), ("mul", |a, b| a * b), ("sub", |a, b| a - b)]
    {
        let operands = operands(&SINGLES);
        let results =
            ["rm", "rp", "rz", "rn"].map(|mode| compute(&format!("{name}.{mode}.f32 %d, %a, %b;"), &operands));
        for (at, [a, b, _]) in operands.iter().enumerate() {
            let [down, up, zero, nearest] = [0, 1, 2, 3].map(|mode| single(results[mode][at]));
            let (a, b) = (single(*a), single(*b));
            if nearest.is_nan() {
                assert!(down.is_nan() && up.is_nan() && zero.is_nan());
                continue;
            }
            let exact = exact(a.into(), b.into());
            // Sums of far numbers are not exact in double precision, but then a step apart is far from it.
            assert!(
                f64::from(down) <= exact && exact <= f64::from(up),
                "{name} {a:e} {b:e}: {down:e} {exact:e} {up:e}"
            );
            assert!(down == up || up == down.next_up(), "{name} {a:e} {b:e}");
            assert!(nearest == down || nearest == up);
            assert_eq!(zero, if exact > 0.0 { down } else { up }, "{name} {a:e} {b:e}");
        }
    }
}

#[test]
fn zero_from_opposites_is_negative_only_rounding_down() {
    let operands = [[0x3f80_0000, 0xbf80_0000, 0], [0, 0x8000_0000, 0]];
    assert_eq!(compute("add.rm.f32 %d, %a, %b;", &operands), [0x8000_0000; 2]);
    for mode in ["rn", "rz", "rp"] {
        assert_eq!(compute(&format!("add.{mode}.f32 %d, %a, %b;"), &operands), [0; 2]);
    }
}

#[test]
fn quotients_and_roots_are_bracketed() {
    let operands = operands(&SINGLES);
    let divided = ["rm", "rp"].map(|mode| compute(&format!("div.{mode}.f32 %d, %a, %b;"), &operands));
    let roots = ["rm", "rp"].map(|mode| compute(&format!("sqrt.{mode}.f32 %d, %a;"), &operands));
    for (at, [a, b, _]) in operands.iter().enumerate() {
        let (a, b) = (single(*a), single(*b));
        let nearest = a / b;
        let [down, up] = [0, 1].map(|mode| single(divided[mode][at]));
        assert!(nearest.is_nan() && down.is_nan() || nearest == down || nearest == up, "{a:e} / {b:e}");
        // Exact where the product says so.
        let exact = f64::from(nearest) * f64::from(b) == f64::from(a);
        assert!(!nearest.is_finite() || !b.is_normal() || exact == (down == up), "{a:e} / {b:e}: {down:e} {up:e}");
        let nearest = a.sqrt();
        let [down, up] = [0, 1].map(|mode| single(roots[mode][at]));
        assert!(nearest.is_nan() && down.is_nan() || nearest == down || nearest == up, "root of {a:e}");
        let square = f64::from(nearest) * f64::from(nearest);
        assert!(!nearest.is_finite() || (square == f64::from(a)) == (down == up), "root of {a:e}");
    }
}

#[test]
fn soft_arithmetic_is_the_hosts_to_nearest() {
    use super::super::arithmetic::soft::{F32, F64, Number, Rounding};
    let single_of = |bits: u64| Number::unpack(bits & 0xffff_ffff, F32);
    let pack = |number: Number| number.pack(F32, Rounding::Nearest);
    for [a, b, c] in operands(&SINGLES) {
        let (x, y, z) = (single(a), single(b), single(c));
        let [a32, b32, c32] = [a, b, c].map(single_of);
        assert_eq!(pack(a32.add(b32, Rounding::Nearest)), bits(x + y), "{x:e} + {y:e}");
        assert_eq!(pack(a32.multiply(b32)), bits(x * y), "{x:e} * {y:e}");
        assert_eq!(pack(a32.divide(b32)), bits(x / y), "{x:e} / {y:e}");
        assert_eq!(pack(a32.square_root()), bits(x.sqrt()), "{x:e}");
        assert_eq!(pack(a32.multiply(b32).add(c32, Rounding::Nearest)), bits(x.mul_add(y, z)), "{x:e} {y:e} {z:e}");
        let (x, y, z) = (f64::from_bits(a), f64::from_bits(b), f64::from_bits(c));
        let [a64, b64, c64] = [a, b, c].map(|bits| Number::unpack(bits, F64));
        let found = a64.multiply(b64).add(c64, Rounding::Nearest).pack(F64, Rounding::Nearest);
        let expected = x.mul_add(y, z);
        assert!(
            found == expected.to_bits() || expected.is_nan() && f64::from_bits(found).is_nan(),
            "{x:e} {y:e} {z:e}"
        );
    }
}

#[test]
fn extremes() {
    // A number wins over "not a number", and zeros are ordered.
    let least = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    };
    let most = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                b
            } else {
                a
            }
        }
        _ => a.max(b),
    };
    check_single("min.f32 %d, %a, %b;", |a, b, _| least(a, b));
    check_single("max.f32 %d, %a, %b;", |a, b, _| most(a, b));
    check_single("max.NaN.f32 %d, %a, %b;", |a, b, _| if a.is_nan() || b.is_nan() { f32::NAN } else { most(a, b) });
    check_double("min.f64 %D, %A, %B;", |a, b, _| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => {
            if a.is_sign_negative() {
                a
            } else {
                b
            }
        }
        _ => a.min(b),
    });
}

#[test]
fn signs() {
    check("neg.f32 %d, %a;", &SINGLES, |a, _, _| (a as u32 ^ 1 << 31).into());
    check("abs.f32 %d, %a;", &SINGLES, |a, _, _| (a as u32 & !(1 << 31)).into());
    check("neg.f64 %D, %A;", &SINGLES, |a, _, _| a ^ 1 << 63);
    check("abs.f64 %D, %A;", &SINGLES, |a, _, _| a & !(1 << 63));
    check("copysign.f32 %d, %a, %b;", &SINGLES, |a, b, _| (a as u32 & 1 << 31 | b as u32 & !(1 << 31)).into());
}

#[test]
fn comparisons_of_what_is_not_ordered() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    for (name, orders, unordered) in [
        ("eq", &[Equal][..], false),
        ("ne", &[Less, Greater], false),
        ("lt", &[Less], false),
        ("le", &[Less, Equal], false),
        ("gt", &[Greater], false),
        ("ge", &[Greater, Equal], false),
        ("equ", &[Equal], true),
        ("neu", &[Less, Greater], true),
        ("ltu", &[Less], true),
        ("leu", &[Less, Equal], true),
        ("gtu", &[Greater], true),
        ("geu", &[Greater, Equal], true),
        ("num", &[Less, Equal, Greater], false),
        ("nan", &[], true),
    ] {
        check(&format!("setp.{name}.f32 %p, %a, %b; selp.u32 %d, 1, 0, %p;"), &SINGLES, |a, b, _| {
            single(a).partial_cmp(&single(b)).map_or(unordered, |order| orders.contains(&order)).into()
        });
    }
}

#[test]
fn half_precision() {
    let halves: [u64; 12] = [0, 0x8000, 1, 0x3ff, 0x400, 0x3c00, 0xbc01, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00];
    // Sums and products of f16 are exact in double precision.
    let wide = |bits: u64| {
        let (sign, exponent, fraction) = (bits >> 15 & 1, bits >> 10 & 31, (bits & 0x3ff) as f64);
        let magnitude = match exponent {
            0 => fraction * 2.0_f64.powi(-24),
            31 => {
                if fraction == 0.0 {
                    f64::INFINITY
                } else {
                    f64::NAN
                }
            }
            _ => (1024.0 + fraction) * 2.0_f64.powi(exponent as i32 - 25),
        };
        if sign == 1 { -magnitude } else { magnitude }
    };
    for (name, exact) in [("add", (|a, b| a + b) as fn(f64, f64) -> f64), ("sub", |a, b| a - b), ("mul", |a, b| a * b)]
    {
        check(&format!("{name}.f16 %h, %ha, %hb;"), &halves, |a, b, _| {
            super::convert::nearest_half(exact(wide(a), wide(b)))
        });
    }
    check("add.f16x2 %d, %a, %b;", &halves, |a, b, _| {
        let one = |at: u32| super::convert::nearest_half(wide(a >> at & 0xffff) + wide(b >> at & 0xffff));
        one(0) | one(16) << 16
    });
    check("fma.rn.f16 %h, %ha, %hb, %hc;", &halves, |a, b, c| {
        // Far apart, the sum is not exact in double precision: leave what is lost a trace.
        let (product, c) = (wide(a) * wide(b), wide(c));
        let sum = product + c;
        let error = if sum.is_finite() { (product - (sum - c)) + (c - (sum - (sum - c))) } else { 0.0 };
        let odd = if error != 0.0 && sum.to_bits() & 1 == 0 {
            if (error > 0.0) == (sum > 0.0) { sum.to_bits() + 1 } else { sum.to_bits() - 1 }
        } else {
            sum.to_bits()
        };
        super::convert::nearest_half(f64::from_bits(odd))
    });
}
