//! Conversions against Rust's, and halves against the definition of rounding.

use super::*;

/// The f16 nearest to a number, ties to even, by looking for it.
pub(super) fn nearest_half(value: f64) -> u64 {
    if value.is_nan() {
        return 0x7fff;
    }
    let sign = u64::from(value.is_sign_negative()) << 15;
    let magnitude = value.abs();
    let number = |bits: u64| match bits >> 10 {
        0 => bits as f64 * 2.0_f64.powi(-24),
        exponent => (1024 + (bits & 0x3ff)) as f64 * 2.0_f64.powi(exponent as i32 - 25),
    };
    // Infinity stands where the next number would be.
    let below = (0..0x7c00_u64).collect::<Vec<_>>().partition_point(|bits| number(*bits) <= magnitude) as u64 - 1;
    let (low, high) = (number(below), number(below + 1));
    let up = match (magnitude - low).total_cmp(&(high - magnitude)) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => below & 1 != 0,
        std::cmp::Ordering::Greater => true,
    };
    sign | (below + u64::from(up))
}

const SINGLES: [f32; 18] = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    0.499_999_97,
    254.5,
    255.5,
    -1.0,
    65504.0,
    65520.0,
    2_147_483_648.0,
    4e9,
    1e20,
    f32::INFINITY,
    f32::NAN,
];

fn edges() -> Vec<u64> {
    SINGLES.iter().map(|value| value.to_bits().into()).collect()
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

#[test]
fn between_integers() {
    check32("cvt.u32.u8 %d, %a;", |a, _, _| a & 255);
    check32("cvt.s32.s8 %d, %a;", |a, _, _| a as i8 as u32);
    check32("cvt.u32.u16 %d, %ha;", |a, _, _| a & 0xffff);
    check32("cvt.s32.s16 %d, %ha;", |a, _, _| a as i16 as u32);
    check64("cvt.s64.s32 %D, %a;", |a, _, _| a as i32 as u64);
    check64("cvt.u64.u32 %D, %a;", |a, _, _| a as u32 as u64);
    check64("cvt.s64.s8 %D, %A;", |a, _, _| a as i8 as u64);
    check("cvt.u32.u64 %d, %A;", &EDGES, |a, _, _| a as u32 as u64);
    check16("cvt.u16.u32 %h, %a;", |a, _, _| a);
    check16("cvt.s16.s8 %h, %ha;", |a, _, _| a as i8 as u16);
    check("cvt.u8.u64 %h, %A;", &EDGES, |a, _, _| a & 255);
}

#[test]
fn between_integers_with_saturation() {
    check32("cvt.sat.u8.s32 %d, %a;", |a, _, _| (a as i32).clamp(0, 255) as u32);
    check32("cvt.sat.s8.s32 %d, %a;", |a, _, _| (a as i32).clamp(-128, 127) as u32);
    check32("cvt.sat.s16.u32 %d, %a;", |a, _, _| a.min(32767));
    check("cvt.sat.u32.s64 %d, %A;", &EDGES, |a, _, _| (a as i64).clamp(0, u32::MAX.into()) as u64);
    check64("cvt.sat.s64.u64 %D, %A;", |a, _, _| a.min(i64::MAX as u64));
    check32("cvt.sat.u32.s32 %d, %a;", |a, _, _| (a as i32).max(0) as u32);
}

#[test]
fn from_integers_to_floats() {
    check32("cvt.rn.f32.s32 %d, %a;", |a, _, _| (a as i32 as f32).to_bits());
    check32("cvt.rn.f32.u32 %d, %a;", |a, _, _| (a as f32).to_bits());
    check("cvt.rn.f32.u64 %d, %A;", &EDGES, |a, _, _| (a as f32).to_bits().into());
    check("cvt.rn.f32.s64 %d, %A;", &EDGES, |a, _, _| (a as i64 as f32).to_bits().into());
    check32("cvt.rn.f32.u8 %d, %a;", |a, _, _| f32::from(a as u8).to_bits());
    check64("cvt.rn.f64.u64 %D, %A;", |a, _, _| (a as f64).to_bits());
    check64("cvt.rn.f64.s32 %D, %a;", |a, _, _| f64::from(a as i32).to_bits());
    check32("cvt.rz.f32.u32 %d, %a;", |a, _, _| {
        let nearest = a as f32;
        if nearest as u64 > a.into() { nearest.next_down().to_bits() } else { nearest.to_bits() }
    });
    check32("cvt.rp.f32.s32 %d, %a;", |a, _, _| {
        let nearest = a as i32 as f32;
        if (nearest as i64) < i64::from(a as i32) { nearest.next_up().to_bits() } else { nearest.to_bits() }
    });
    check("cvt.rn.f16.u32 %h, %a;", &EDGES, |a, _, _| nearest_half(f64::from(a as u32)));
}

#[test]
fn from_floats_to_integers() {
    type Round = fn(f32) -> f32;
    for (mode, round) in
        [("rzi", f32::trunc as Round), ("rni", f32::round_ties_even), ("rmi", f32::floor), ("rpi", f32::ceil)]
    {
        check(&format!("cvt.{mode}.s32.f32 %d, %a;"), &edges(), |a, _, _| (round(single(a)) as i32 as u32).into());
        check(&format!("cvt.{mode}.u32.f32 %d, %a;"), &edges(), |a, _, _| (round(single(a)) as u32).into());
        check(&format!("cvt.{mode}.u8.f32 %d, %a;"), &edges(), |a, _, _| (round(single(a)) as u8).into());
        check(&format!("cvt.{mode}.sat.u8.f32 %d, %a;"), &edges(), |a, _, _| (round(single(a)) as u8).into());
        check(&format!("cvt.{mode}.f32.f32 %d, %a;"), &edges(), |a, _, _| {
            let value = round(single(a));
            if value.is_nan() { 0x7fff_ffff } else { value.to_bits().into() }
        });
    }
    // "Not a number" becomes the highest bit where 64 bits are on either side.
    check("cvt.rzi.s64.f32 %D, %a;", &edges(), |a, _, _| match single(a) {
        a if a.is_nan() => 1 << 63,
        a => a as i64 as u64,
    });
    check("cvt.rzi.u32.f64 %d, %A;", &EDGES, |a, _, _| match f64::from_bits(a) {
        a if a.is_nan() => 1 << 31,
        a => u64::from(a as u32),
    });
    check("cvt.rni.u64.f64 %D, %A;", &EDGES, |a, _, _| match f64::from_bits(a) {
        a if a.is_nan() => 1 << 63,
        a => a.round_ties_even() as u64,
    });
}

#[test]
fn between_floats() {
    check("cvt.f64.f32 %D, %a;", &edges(), |a, _, _| match single(a) {
        a if a.is_nan() => f64::from(a).to_bits(),
        a => f64::from(a).to_bits(),
    });
    check("cvt.rn.f32.f64 %d, %A;", &EDGES, |a, _, _| match f64::from_bits(a) as f32 {
        a if a.is_nan() => 0x7fff_ffff,
        a => a.to_bits().into(),
    });
    check("cvt.rz.f32.f64 %d, %A;", &EDGES, |a, _, _| {
        let value = f64::from_bits(a);
        let nearest = value as f32;
        match f64::from(nearest).abs() > value.abs() {
            _ if value.is_nan() => 0x7fff_ffff,
            true if nearest > 0.0 => nearest.next_down().to_bits().into(),
            true => nearest.next_up().to_bits().into(),
            false => nearest.to_bits().into(),
        }
    });
    check("cvt.sat.f32.f32 %d, %a;", &edges(), |a, _, _| {
        let value = single(a);
        (if value > 0.0 { value.min(1.0) } else { 0.0 }).to_bits().into()
    });
}

#[test]
fn every_half_to_single_and_back() {
    let operands: Vec<[u64; 3]> = (0..0x1_0000).map(|bits| [bits, 0, 0]).collect();
    let singles = compute("cvt.f32.f16 %d, %ha;", &operands);
    let back: Vec<[u64; 3]> = singles.iter().map(|bits| [*bits, 0, 0]).collect();
    for ((bits, wide), found) in (0_u64..).zip(singles).zip(compute("cvt.rn.f16.f32 %h, %a;", &back)) {
        let expected = if bits & 0x7fff > 0x7c00 { 0x7fff } else { bits };
        assert_eq!(found, expected);
        if bits & 0x7fff < 0x7c00 {
            assert_eq!(nearest_half(f64::from(single(wide))), bits);
        }
    }
}

#[test]
fn halves_between_two_others() {
    // Just below the middle of two, at it, and just above, for every two.
    let mut operands = Vec::new();
    for bits in (0..0x7bff_u64).step_by(7) {
        let number = |bits: u64| match bits >> 10 {
            0 => bits as f32 * 2.0_f32.powi(-24),
            exponent => (1024 + (bits & 0x3ff)) as f32 * 2.0_f32.powi(exponent as i32 - 25),
        };
        let middle = (number(bits) + number(bits + 1)) / 2.0;
        for value in [middle.next_down(), middle, middle.next_up(), -middle] {
            operands.push([u64::from(value.to_bits()), 0, 0]);
        }
    }
    for (at, found) in compute("cvt.rn.f16.f32 %h, %a;", &operands).into_iter().enumerate() {
        let value = single(operands[at][0]);
        assert_eq!(found, nearest_half(value.into()), "{value:e}");
        let zero = compute("cvt.rz.f16.f32 %h, %a;", &operands[at..=at])[0];
        assert!(at % 97 != 0 || zero == found || zero == found - 1, "{value:e}");
    }
    assert_eq!(compute("cvt.rn.f16.f32 %h, %a;", &[[65519.0_f32.to_bits().into(), 0, 0]]), [0x7bff]);
    assert_eq!(compute("cvt.rn.f16.f32 %h, %a;", &[[65520.0_f32.to_bits().into(), 0, 0]]), [0x7c00]);
    assert_eq!(compute("cvt.rz.f16.f32 %h, %a;", &[[1e9_f32.to_bits().into(), 0, 0]]), [0x7bff]);
}

#[test]
fn brain_floats() {
    // The upper half of an f32, rounded to nearest even.
    let rounded = |bits: u32| match f32::from_bits(bits).is_nan() {
        true => 0x7fff,
        false => (u64::from(bits) + 0x7fff + u64::from(bits >> 16 & 1)) >> 16,
    };
    check("cvt.rn.bf16.f32 %h, %a;", &edges(), |a, _, _| rounded(a as u32));
    check(
        "cvt.rz.bf16.f32 %h, %a;",
        &edges(),
        |a, _, _| if single(a).is_nan() { 0x7fff } else { u64::from(a as u32 >> 16) },
    );
    check("cvt.f32.bf16 %d, %ha;", &EDGES, |a, _, _| match single(a << 16) {
        value if value.is_nan() => 0x7fff_ffff,
        value => value.to_bits().into(),
    });
    check("cvt.rn.bf16x2.f32 %d, %a, %b;", &edges(), |a, b, _| rounded(a as u32) << 16 | rounded(b as u32));
    check("cvt.rn.relu.bf16.f32 %h, %a;", &edges(), |a, _, _| if single(a) < 0.0 { 0 } else { rounded(a as u32) });
    check("cvt.rn.f16x2.f32 %d, %a, %b;", &edges(), |a, b, _| {
        nearest_half(single(a).into()) << 16 | nearest_half(single(b).into())
    });
}
