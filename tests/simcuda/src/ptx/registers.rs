//! The registers of a warp: for each register 32 lanes side by side, and a mask of the lanes that have a value.
//!
//! A value that was never written may be copied about, as compilers do; it is an error only where it decides something.
//! So every operation says of its result in which lanes it was made of values alone.

use super::types::Kind;

/// Threads of a warp.
pub(super) const LANES: usize = 32;

/// A set of lanes, lane 0 in bit 0.
pub(super) type Mask = u32;

/// Where an operand lies: an index into the register array of its kind, or with [`CONSTANT`] set into the constants.
pub(super) type Slot = u32;

/// The bit of a [`Slot`] that says it is a constant.
pub(super) const CONSTANT: Slot = 1 << 31;

/// What an instruction works on: its results first. Only as many as it needs are looked at.
pub(super) type Slots = [Slot; 6];

/// The lanes of `mask`, in order.
pub(super) fn lanes(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}

/// The registers of a warp.
pub(super) struct Registers {
    words: Vec<[u32; LANES]>,
    longs: Vec<[u64; LANES]>,
    predicates: Vec<Mask>,
    words_defined: Vec<Mask>,
    longs_defined: Vec<Mask>,
    predicates_defined: Vec<Mask>,
    constants: Vec<u64>,
}

/// How many registers of each kind a kernel has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) words: u32,
    pub(super) longs: u32,
    pub(super) predicates: u32,
}

impl Registers {
    pub(super) fn new(counts: Counts, constants: &[u64]) -> Self {
        Self {
            words: vec![[0; LANES]; counts.words as usize],
            longs: vec![[0; LANES]; counts.longs as usize],
            predicates: vec![0; counts.predicates as usize],
            words_defined: vec![0; counts.words as usize],
            longs_defined: vec![0; counts.longs as usize],
            predicates_defined: vec![0; counts.predicates as usize],
            constants: constants.to_vec(),
        }
    }

    /// No register has a value any more.
    pub(super) fn clear(&mut self) {
        self.words_defined.fill(0);
        self.longs_defined.fill(0);
        self.predicates_defined.fill(0);
    }

    /// A predicate in all lanes at once.
    pub(super) fn predicate(&self, slot: Slot) -> Mask {
        match slot & CONSTANT {
            0 => self.predicates[slot as usize],
            _ => Mask::from(self.constant(slot) != 0).wrapping_neg(),
        }
    }

    /// Writes a predicate in the lanes of `mask`.
    pub(super) fn set_predicate(&mut self, slot: Slot, mask: Mask, value: Mask, defined: Mask) {
        let slot = slot as usize;
        self.predicates[slot] = self.predicates[slot] & !mask | value & mask;
        self.predicates_defined[slot] = self.predicates_defined[slot] & !mask | defined & mask;
    }

    /// A word or a long of one lane, widened.
    pub(super) fn bits(&self, kind: Kind, slot: Slot, lane: usize) -> u64 {
        match kind {
            Kind::Word => u64::from(u32::one(self, slot, lane)),
            Kind::Long => u64::one(self, slot, lane),
            Kind::Predicate => u64::from(bool::one(self, slot, lane)),
        }
    }

    /// Lanes in which the register has a value.
    pub(super) fn defined(&self, kind: Kind, slot: Slot) -> Mask {
        if slot & CONSTANT != 0 {
            return Mask::MAX;
        }
        match kind {
            Kind::Word => self.words_defined[slot as usize],
            Kind::Long => self.longs_defined[slot as usize],
            Kind::Predicate => self.predicates_defined[slot as usize],
        }
    }

    /// Says of the lanes of `mask` in which the register has a value.
    pub(super) fn define(&mut self, kind: Kind, slot: Slot, mask: Mask, defined: Mask) {
        let masks = match kind {
            Kind::Word => &mut self.words_defined,
            Kind::Long => &mut self.longs_defined,
            Kind::Predicate => &mut self.predicates_defined,
        };
        let old = &mut masks[slot as usize];
        *old = *old & !mask | defined & mask;
    }

    fn constant(&self, slot: Slot) -> u64 {
        self.constants[(slot & !CONSTANT) as usize]
    }
}

/// A type that a register can be read and written as.
pub(super) trait Value: Copy + Default + Send + Sync + 'static {
    const KIND: Kind;
    fn all(registers: &Registers, slot: Slot) -> [Self; LANES];
    fn one(registers: &Registers, slot: Slot, lane: usize) -> Self;
    fn put_all(registers: &mut Registers, slot: Slot, values: &[Self; LANES]);
    fn put(registers: &mut Registers, slot: Slot, lane: usize, value: Self);
}

macro_rules! value {
    ($type:ty, $kind:ident, $array:ident, $raw:ty, $bits:ident => $from:expr, $value:ident => $into:expr) => {
        impl Value for $type {
            const KIND: Kind = Kind::$kind;
            #[inline(always)]
            fn all(registers: &Registers, slot: Slot) -> [Self; LANES] {
                match slot & CONSTANT {
                    0 => registers.$array[slot as usize].map(|$bits| $from),
                    _ => [Self::one(registers, slot, 0); LANES],
                }
            }
            #[inline(always)]
            fn one(registers: &Registers, slot: Slot, lane: usize) -> Self {
                let $bits = match slot & CONSTANT {
                    0 => registers.$array[slot as usize][lane],
                    _ => registers.constant(slot) as $raw,
                };
                $from
            }
            #[inline(always)]
            fn put_all(registers: &mut Registers, slot: Slot, values: &[Self; LANES]) {
                registers.$array[slot as usize] = values.map(|$value| $into);
            }
            #[inline(always)]
            fn put(registers: &mut Registers, slot: Slot, lane: usize, $value: Self) {
                registers.$array[slot as usize][lane] = $into;
            }
        }
    };
}

value!(u8, Word, words, u32, bits => bits as u8, value => u32::from(value));
value!(u16, Word, words, u32, bits => bits as u16, value => u32::from(value));
value!(u32, Word, words, u32, bits => bits, value => value);
value!(i8, Word, words, u32, bits => bits as i8, value => value as u32);
value!(i16, Word, words, u32, bits => bits as i16, value => value as u32);
value!(i32, Word, words, u32, bits => bits as i32, value => value as u32);
value!(f32, Word, words, u32, bits => f32::from_bits(bits), value => value.to_bits());
value!(u64, Long, longs, u64, bits => bits, value => value);
value!(i64, Long, longs, u64, bits => bits as i64, value => value as u64);
value!(f64, Long, longs, u64, bits => f64::from_bits(bits), value => value.to_bits());

impl Value for bool {
    const KIND: Kind = Kind::Predicate;

    fn all(registers: &Registers, slot: Slot) -> [Self; LANES] {
        let mask = registers.predicate(slot);
        std::array::from_fn(|lane| mask >> lane & 1 != 0)
    }

    fn one(registers: &Registers, slot: Slot, lane: usize) -> Self {
        registers.predicate(slot) >> lane & 1 != 0
    }

    #[inline(always)]
    fn put_all(registers: &mut Registers, slot: Slot, values: &[Self; LANES]) {
        let mut mask = 0;
        for (lane, value) in values.iter().enumerate() {
            mask |= Mask::from(*value) << lane;
        }
        registers.predicates[slot as usize] = mask;
    }

    fn put(registers: &mut Registers, slot: Slot, lane: usize, value: Self) {
        let mask = &mut registers.predicates[slot as usize];
        *mask = *mask & !(1 << lane) | Mask::from(value) << lane;
    }
}

/// What an arithmetic instruction does in the lanes of a mask.
pub(super) type Run = Box<dyn Fn(&mut Registers, &Slots, Mask) + Send + Sync>;

/// An arithmetic instruction: what it does, and the kinds of its results and operands, in order.
pub(super) struct Alu {
    pub(super) run: Run,
    pub(super) kinds: Vec<Kind>,
}

pub(super) fn unary<A: Value, D: Value>(f: impl Fn(A) -> D + Copy + Send + Sync + 'static) -> Alu {
    let run = move |r: &mut Registers, slots: &Slots, mask: Mask| {
        let defined = r.defined(A::KIND, slots[1]);
        if mask == Mask::MAX {
            let a = A::all(r, slots[1]);
            D::put_all(r, slots[0], &a.map(f));
        } else {
            for lane in lanes(mask) {
                let a = A::one(r, slots[1], lane);
                D::put(r, slots[0], lane, f(a));
            }
        }
        r.define(D::KIND, slots[0], mask, defined);
    };
    Alu { run: Box::new(run), kinds: vec![D::KIND, A::KIND] }
}

pub(super) fn binary<A: Value, B: Value, D: Value>(f: impl Fn(A, B) -> D + Copy + Send + Sync + 'static) -> Alu {
    let run = move |r: &mut Registers, slots: &Slots, mask: Mask| {
        let defined = r.defined(A::KIND, slots[1]) & r.defined(B::KIND, slots[2]);
        if mask == Mask::MAX {
            let (a, b) = (A::all(r, slots[1]), B::all(r, slots[2]));
            let mut values = [D::default(); LANES];
            for lane in 0..LANES {
                values[lane] = f(a[lane], b[lane]);
            }
            D::put_all(r, slots[0], &values);
        } else {
            for lane in lanes(mask) {
                let (a, b) = (A::one(r, slots[1], lane), B::one(r, slots[2], lane));
                D::put(r, slots[0], lane, f(a, b));
            }
        }
        r.define(D::KIND, slots[0], mask, defined);
    };
    Alu { run: Box::new(run), kinds: vec![D::KIND, A::KIND, B::KIND] }
}

pub(super) fn ternary<A: Value, B: Value, C: Value, D: Value>(
    f: impl Fn(A, B, C) -> D + Copy + Send + Sync + 'static,
) -> Alu {
    let run = move |r: &mut Registers, slots: &Slots, mask: Mask| {
        let defined = r.defined(A::KIND, slots[1]) & r.defined(B::KIND, slots[2]) & r.defined(C::KIND, slots[3]);
        if mask == Mask::MAX {
            let (a, b, c) = (A::all(r, slots[1]), B::all(r, slots[2]), C::all(r, slots[3]));
            let mut values = [D::default(); LANES];
            for lane in 0..LANES {
                values[lane] = f(a[lane], b[lane], c[lane]);
            }
            D::put_all(r, slots[0], &values);
        } else {
            for lane in lanes(mask) {
                let a = A::one(r, slots[1], lane);
                let (b, c) = (B::one(r, slots[2], lane), C::one(r, slots[3], lane));
                D::put(r, slots[0], lane, f(a, b, c));
            }
        }
        r.define(D::KIND, slots[0], mask, defined);
    };
    Alu { run: Box::new(run), kinds: vec![D::KIND, A::KIND, B::KIND, C::KIND] }
}

pub(super) fn quaternary<A: Value, B: Value, C: Value, E: Value, D: Value>(
    f: impl Fn(A, B, C, E) -> D + Copy + Send + Sync + 'static,
) -> Alu {
    let run = move |r: &mut Registers, slots: &Slots, mask: Mask| {
        let defined = r.defined(A::KIND, slots[1])
            & r.defined(B::KIND, slots[2])
            & r.defined(C::KIND, slots[3])
            & r.defined(E::KIND, slots[4]);
        for lane in lanes(mask) {
            let (a, b) = (A::one(r, slots[1], lane), B::one(r, slots[2], lane));
            let (c, e) = (C::one(r, slots[3], lane), E::one(r, slots[4], lane));
            D::put(r, slots[0], lane, f(a, b, c, e));
        }
        r.define(D::KIND, slots[0], mask, defined);
    };
    Alu { run: Box::new(run), kinds: vec![D::KIND, A::KIND, B::KIND, C::KIND, E::KIND] }
}
