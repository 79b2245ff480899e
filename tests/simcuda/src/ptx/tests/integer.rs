//! Integer instructions against Rust's.

use super::*;

#[test]
fn sums_and_products() {
    check32("add.s32 %d, %a, %b;", |a, b, _| a.wrapping_add(b));
    check32("sub.u32 %d, %a, %b;", |a, b, _| a.wrapping_sub(b));
    check32("add.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check32("sub.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_sub(b as i32) as u32);
    check64("add.s64 %D, %A, %B;", |a, b, _| a.wrapping_add(b));
    check16("sub.s16 %h, %ha, %hb;", |a, b, _| a.wrapping_sub(b));
    check32("mul.lo.s32 %d, %a, %b;", |a, b, _| a.wrapping_mul(b));
    check64("mul.lo.u64 %D, %A, %B;", |a, b, _| a.wrapping_mul(b));
    check16("mul.lo.s16 %h, %ha, %hb;", |a, b, _| a.wrapping_mul(b));
    check32("mad.lo.u32 %d, %a, %b, %c;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check64("mad.lo.s64 %D, %A, %B, %C;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check32("add.u32 %d, %a, -5;", |a, _, _| a.wrapping_sub(5));
}

#[test]
fn upper_halves_and_wide_products() {
    let signed = |a: u32, b: u32| i64::from(a as i32) * i64::from(b as i32);
    check32("mul.hi.u32 %d, %a, %b;", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check32("mul.hi.s32 %d, %a, %b;", |a, b, _| (signed(a, b) >> 32) as u32);
    check64("mul.hi.u64 %D, %A, %B;", |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    check64("mul.hi.s64 %D, %A, %B;", |a, b, _| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64);
    check32("mad.hi.s32 %d, %a, %b, %c;", |a, b, c| ((signed(a, b) >> 32) as u32).wrapping_add(c));
    check64("mul.wide.s32 %D, %a, %b;", |a, b, _| signed(a as u32, b as u32) as u64);
    check64("mul.wide.u32 %D, %a, %b;", |a, b, _| u64::from(a as u32) * u64::from(b as u32));
    check32("mul.wide.s16 %d, %ha, %hb;", |a, b, _| (i32::from(a as i16) * i32::from(b as i16)) as u32);
    check32("mul.wide.u16 %d, %ha, %hb;", |a, b, _| u32::from(a as u16) * u32::from(b as u16));
    check64("mad.wide.s32 %D, %a, %b, %C;", |a, b, c| (signed(a as u32, b as u32) as u64).wrapping_add(c));
    check64("mad.wide.u32 %D, %a, %b, %C;", |a, b, c| (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c));
    check32("mul24.lo.u32 %d, %a, %b;", |a, b, _| (u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)) as u32);
    check32("mul24.hi.s32 %d, %a, %b;", |a, b, _| {
        ((i64::from((a as i32) << 8 >> 8) * i64::from((b as i32) << 8 >> 8)) >> 16) as u32
    });
}

#[test]
fn quotients_and_remainders() {
    // By zero, as the hardware has it: all ones, and the dividend.
    check32("div.u32 %d, %a, %b;", |a, b, _| a.checked_div(b).unwrap_or(u32::MAX));
    check32("rem.u32 %d, %a, %b;", |a, b, _| a.checked_rem(b).unwrap_or(a));
    check64("div.u64 %D, %A, %B;", |a, b, _| a.checked_div(b).unwrap_or(u64::MAX));
    check32("div.s32 %d, %a, %b;", |a, b, _| match b {
        0 => u32::MAX,
        _ => (a as i32).wrapping_div(b as i32) as u32,
    });
    check64("rem.s64 %D, %A, %B;", |a, b, _| match b {
        0 => a,
        _ => (a as i64).wrapping_rem(b as i64) as u64,
    });
}

#[test]
fn extremes_signs_and_differences() {
    check32("min.s32 %d, %a, %b;", |a, b, _| (a as i32).min(b as i32) as u32);
    check32("max.u32 %d, %a, %b;", |a, b, _| a.max(b));
    check64("max.s64 %D, %A, %B;", |a, b, _| (a as i64).max(b as i64) as u64);
    check16("min.u16 %h, %ha, %hb;", |a, b, _| a.min(b));
    check16("max.s16 %h, %ha, %hb;", |a, b, _| (a as i16).max(b as i16) as u16);
    check32("abs.s32 %d, %a;", |a, _, _| (a as i32).wrapping_abs() as u32);
    check32("neg.s32 %d, %a;", |a, _, _| a.wrapping_neg());
    check64("neg.s64 %D, %A;", |a, _, _| a.wrapping_neg());
    check32("sad.u32 %d, %a, %b, %c;", |a, b, c| a.abs_diff(b).wrapping_add(c));
    check32("sad.s32 %d, %a, %b, %c;", |a, b, c| (a as i32).abs_diff(b as i32).wrapping_add(c));
}

#[test]
fn logic() {
    check32("and.b32 %d, %a, %b;", |a, b, _| a & b);
    check64("or.b64 %D, %A, %B;", |a, b, _| a | b);
    check16("xor.b16 %h, %ha, %hb;", |a, b, _| a ^ b);
    check32("not.b32 %d, %a;", |a, _, _| !a);
    check16("not.b16 %h, %ha;", |a, _, _| !a);
    check32("cnot.b32 %d, %a;", |a, _, _| u32::from(a == 0));
    for table in [0_u32, 0x80, 0xe8, 0x96, 0xca, 0x1b, 0xff] {
        check32(&format!("lop3.b32 %d, %a, %b, %c, {table};"), |a, b, c| {
            (0..32).fold(0, |word, bit| {
                let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1;
                word | (table >> row & 1) << bit
            })
        });
    }
}

#[test]
fn shifts() {
    check32("shl.b32 %d, %a, %b;", |a, n, _| a.checked_shl(n).unwrap_or(0));
    check64("shl.b64 %D, %A, %b;", |a, n, _| a.checked_shl(n as u32).unwrap_or(0));
    check32("shr.u32 %d, %a, %b;", |a, n, _| a.checked_shr(n).unwrap_or(0));
    check32("shr.s32 %d, %a, %b;", |a, n, _| ((a as i32) >> n.min(31)) as u32);
    check64("shr.s64 %D, %A, %b;", |a, n, _| ((a as i64) >> (n as u32).min(63)) as u64);
    check64("shr.u64 %D, %A, 33;", |a, _, _| a >> 33);
    check16("shr.s16 %h, %ha, 3;", |a, _, _| ((a as i16) >> 3) as u16);
    let joined = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    check32("shf.l.wrap.b32 %d, %a, %b, %c;", |a, b, n| ((joined(a, b) << (n & 31)) >> 32) as u32);
    check32("shf.r.wrap.b32 %d, %a, %b, %c;", |a, b, n| (joined(a, b) >> (n & 31)) as u32);
    check32("shf.l.clamp.b32 %d, %a, %b, %c;", |a, b, n| ((u128::from(joined(a, b)) << n.min(32)) >> 32) as u32);
    check32("shf.r.clamp.b32 %d, %a, %b, %c;", |a, b, n| (joined(a, b) >> n.min(32)) as u32);
}

#[test]
fn fields() {
    // The pseudocode of the PTX manual, bit by bit.
    fn extracted(a: u64, from: u32, len: u32, bits: u32, signed: bool) -> u64 {
        let (from, len) = (from & 255, len & 255);
        let sign = match signed && len != 0 {
            true => a >> (from + len - 1).min(bits - 1) & 1,
            false => 0,
        };
        (0..bits).fold(0, |word, at| {
            let bit = if at < len && from + at < bits { a >> (from + at) & 1 } else { sign };
            word | bit << at
        })
    }
    check32("bfe.u32 %d, %a, %b, %c;", |a, b, c| extracted(a.into(), b, c, 32, false) as u32);
    check32("bfe.s32 %d, %a, %b, %c;", |a, b, c| extracted(a.into(), b, c, 32, true) as u32);
    check64("bfe.u64 %D, %A, %b, %c;", |a, b, c| extracted(a, b as u32, c as u32, 64, false));
    check64("bfe.s64 %D, %A, %b, %c;", |a, b, c| extracted(a, b as u32, c as u32, 64, true));
    check32("bfe.s32 %d, %a, 5, 7;", |a, _, _| ((a << 20) as i32 >> 25) as u32);
    for (from, len) in [(0, 32), (4, 8), (28, 8), (31, 1), (32, 4), (7, 0), (0, 200)] {
        check32(&format!("bfi.b32 %d, %a, %b, {from}, {len};"), |a, b, _| {
            (0..len)
                .filter(|at| from + at < 32)
                .fold(b, |word, at| word & !(1 << (from + at)) | (a.checked_shr(at).unwrap_or(0) & 1) << (from + at))
        });
    }
    check64("bfi.b64 %D, %A, %B, 40, 16;", |a, b, _| b & !(0xffff << 40) | (a & 0xffff) << 40);
    check32("bmsk.clamp.b32 %d, 4, 9;", |_, _, _| 0x1ff << 4);
}

#[test]
fn counts_and_permutations() {
    check32("clz.b32 %d, %a;", |a, _, _| a.leading_zeros());
    check("clz.b64 %d, %A;", &EDGES, |a, _, _| a.leading_zeros().into());
    check32("popc.b32 %d, %a;", |a, _, _| a.count_ones());
    check("popc.b64 %d, %A;", &EDGES, |a, _, _| a.count_ones().into());
    check32("brev.b32 %d, %a;", |a, _, _| a.reverse_bits());
    check64("brev.b64 %D, %A;", |a, _, _| a.reverse_bits());
    check32("bfind.u32 %d, %a;", |a, _, _| a.checked_ilog2().unwrap_or(u32::MAX));
    check32("bfind.shiftamt.u32 %d, %a;", |a, _, _| if a == 0 { u32::MAX } else { a.leading_zeros() });
    check32("bfind.s32 %d, %a;", |a, _, _| (a ^ ((a as i32) >> 31) as u32).checked_ilog2().unwrap_or(u32::MAX));
    check32("prmt.b32 %d, %a, %b, %c;", |a, b, c| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        u32::from_le_bytes(std::array::from_fn(|at| {
            let selector = c >> (4 * at) & 15;
            let byte = bytes[selector as usize & 7];
            if selector > 7 { ((byte as i8) >> 7) as u8 } else { byte }
        }))
    });
    check32("prmt.b32.f4e %d, %a, %b, 1;", |a, b, _| a >> 8 | b << 24);
    check32("prmt.b32.rc16 %d, %a, %b, 1;", |a, _, _| a >> 16 | a & 0xffff_0000);
}

#[test]
fn dot_products() {
    check32("dp4a.s32.s32 %d, %a, %b, %c;", |a, b, c| {
        let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        products.fold(c, |sum, (a, b)| sum.wrapping_add((i32::from(a as i8) * i32::from(b as i8)) as u32))
    });
    check32("dp4a.u32.s32 %d, %a, %b, %c;", |a, b, c| {
        let products = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        products.fold(c, |sum, (a, b)| sum.wrapping_add((i32::from(a) * i32::from(b as i8)) as u32))
    });
    check32("dp2a.lo.s32.u32 %d, %a, %b, %c;", |a, b, c| {
        let [low, high] = [a as i16, (a >> 16) as i16].map(i32::from);
        c.wrapping_add((low * (b & 255) as i32 + high * (b >> 8 & 255) as i32) as u32)
    });
    check32("dp2a.hi.u32.s32 %d, %a, %b, %c;", |a, b, c| {
        let [low, high] = [(a & 0xffff) as i32, (a >> 16) as i32];
        let [first, second] = [(b >> 16) as i8, (b >> 24) as i8].map(i32::from);
        c.wrapping_add((low * first + high * second) as u32)
    });
}

#[test]
fn choices_and_comparisons() {
    check32("setp.lt.s32 %p, %a, %b; selp.b32 %d, %a, %c, %p;", |a, b, c| if (a as i32) < (b as i32) { a } else { c });
    check64("setp.hs.u64 %p, %A, %B; selp.u64 %D, %A, %C, %p;", |a, b, c| if a >= b { a } else { c });
    check16("setp.eq.s16 %p, %ha, %hb; selp.b16 %h, %ha, %hc, %p;", |a, b, c| if a == b { a } else { c });
    // Both results of a comparison that is combined with another predicate.
    let text = "setp.gt.u32 %pa, %c, 31;
        setp.ne.and.s32 %p|%q, %a, %b, !%pa;
        selp.u32 %d, 1, 0, %p;
        @%q add.s32 %d, %d, 2;";
    check32(text, |a, b, c| match c > 31 {
        true => 0,
        false => {
            if a != b {
                1
            } else {
                2
            }
        }
    });
    check32("setp.lt.or.u32 %p, %a, %b, 0; setp.gt.xor.u32 %q, %b, %c, %p; selp.b32 %d, 3, 5, %q;", |a, b, c| {
        if (a < b) ^ (b > c) { 3 } else { 5 }
    });
    check32("slct.b32.s32 %d, %a, %b, %c;", |a, b, c| if (c as i32) >= 0 { a } else { b });
    check32("set.lt.u32.s32 %d, %a, %b;", |a, b, _| if (a as i32) < (b as i32) { u32::MAX } else { 0 });
    let text = "setp.lt.u32 %p, %a, %b; setp.eq.u32 %q, %c, 0; not.pred %pa, %p; and.pred %pa, %pa, %q;
        xor.pred %pb, %pa, %p; or.pred %pb, %pb, %q; selp.b32 %d, 1, 0, %pb;";
    check32(text, |a, b, c| {
        let (p, q) = (a < b, c == 0);
        u32::from(((!p && q) ^ p) || q)
    });
}

#[test]
fn parts_of_a_whole() {
    check32("mov.b32 %d, {%ha, %hb};", |a, b, _| a & 0xffff | b << 16);
    check64("mov.b64 %D, {%a, %b};", |a, b, _| a & 0xffff_ffff | b << 32);
    check16("mov.b32 {%h, _}, %a;", |a, _, _| a);
    check("mov.b32 {_, %h}, %a;", &EDGES, |a, _, _| a >> 16 & 0xffff);
    check("mov.b64 {%a, %d}, %A;", &EDGES, |a, _, _| a >> 32);
    check64("mov.b64 %D, {%ha, %hb, %hc, %ha};", |a, b, c| {
        a & 0xffff | (b & 0xffff) << 16 | (c & 0xffff) << 32 | a << 48
    });
}
