//! What names stand for: registers, variables, parameters, special registers.

use std::collections::HashMap;

use super::super::program::{Relocation, Special};
use super::super::registers::{CONSTANT, Counts, Slot};
use super::super::types::{Kind, Type};

/// What a name of the module stands for.
#[derive(Clone, Copy, Debug)]
pub(in crate::ptx) enum Symbol {
    /// A variable in global or constant memory, by its number.
    Variable(usize),
    /// A shared variable, placed in a kernel that uses it.
    Shared { bytes: usize, align: usize },
    /// What a launch adds of shared memory.
    DynamicShared { align: usize },
}

/// What a name of a function stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Local {
    Register(Slot, Kind),
    /// An offset in parameter, shared or local memory.
    Offset(usize),
}

/// A scope in braces.
#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Local>,
    /// `%r<n>`: the name before the number, how many, and their type.
    ranges: Vec<(&'a str, u64, Type)>,
}

/// The names that hold at a place in a function, and what was allocated for them.
pub(super) struct Names<'a, 'm> {
    symbols: &'m HashMap<&'a str, Symbol>,
    scopes: Vec<Scope<'a>>,
    module_shared: HashMap<&'a str, usize>,
    constants_by_value: HashMap<u64, Slot>,
    dynamic_uses: Vec<(usize, i64)>,
    dynamic_align: usize,
    pub(super) counts: Counts,
    pub(super) constants: Vec<u64>,
    pub(super) specials: Vec<(Special, Slot)>,
    pub(super) relocations: Vec<Relocation>,
    pub(super) shared_bytes: usize,
    pub(super) local_bytes: usize,
}

impl<'a, 'm> Names<'a, 'm> {
    pub(super) fn new(symbols: &'m HashMap<&'a str, Symbol>) -> Self {
        Self {
            symbols,
            scopes: vec![Scope::default()],
            module_shared: HashMap::new(),
            constants_by_value: HashMap::new(),
            dynamic_uses: Vec::new(),
            dynamic_align: 16,
            counts: Counts::default(),
            constants: Vec::new(),
            specials: Vec::new(),
            relocations: Vec::new(),
            shared_bytes: 0,
            local_bytes: 0,
        }
    }

    pub(super) fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Whether there was a scope to close.
    pub(super) fn close(&mut self) -> bool {
        self.scopes.pop();
        !self.scopes.is_empty()
    }

    fn innermost(&mut self) -> &mut Scope<'a> {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    pub(super) fn parameter(&mut self, name: &'a str, offset: usize) {
        self.innermost().names.insert(name, Local::Offset(offset));
    }

    pub(super) fn registers(&mut self, prefix: &'a str, count: u64, ty: Type) {
        self.innermost().ranges.push((prefix, count, ty));
    }

    pub(super) fn register(&mut self, name: &'a str, ty: Type) {
        let slot = self.fresh(ty.kind());
        self.innermost().names.insert(name, Local::Register(slot, ty.kind()));
    }

    pub(super) fn shared(&mut self, name: &'a str, bytes: usize, align: usize) {
        let offset = self.shared_bytes.next_multiple_of(align);
        self.shared_bytes = offset + bytes;
        self.innermost().names.insert(name, Local::Offset(offset));
    }

    pub(super) fn local(&mut self, name: &'a str, bytes: usize, align: usize) {
        let offset = self.local_bytes.next_multiple_of(align);
        self.local_bytes = offset + bytes;
        self.innermost().names.insert(name, Local::Offset(offset));
    }

    /// A register that has no name.
    pub(super) fn fresh(&mut self, kind: Kind) -> Slot {
        let count = match kind {
            Kind::Word => &mut self.counts.words,
            Kind::Long => &mut self.counts.longs,
            Kind::Predicate => &mut self.counts.predicates,
        };
        *count += 1;
        *count - 1
    }

    pub(super) fn constant(&mut self, value: u64) -> Slot {
        let constants = &mut self.constants;
        *self.constants_by_value.entry(value).or_insert_with(|| {
            constants.push(value);
            CONSTANT | (constants.len() - 1) as Slot
        })
    }

    /// A constant that is filled in later.
    fn unresolved(&mut self) -> (usize, Slot) {
        self.constants.push(0);
        (self.constants.len() - 1, CONSTANT | (self.constants.len() - 1) as Slot)
    }

    /// The register of a name, and its kind. Special registers are filled when a warp starts.
    pub(super) fn find(&mut self, name: &'a str) -> Option<(Slot, Kind)> {
        match self.lookup(name) {
            Some(Local::Register(slot, kind)) => Some((slot, kind)),
            Some(Local::Offset(_)) => None,
            None => self.special(name),
        }
    }

    fn special(&mut self, name: &str) -> Option<(Slot, Kind)> {
        let special = Special::parse(name)?;
        let kind = special.kind();
        if let Some(known) = self.specials.iter().find(|known| known.0 == special) {
            return Some((known.1, kind));
        }
        let slot = self.fresh(kind);
        self.specials.push((special, slot));
        Some((slot, kind))
    }

    /// The address of a variable in its own space, as a constant.
    pub(super) fn address(&mut self, name: &'a str, offset: i64) -> Option<Slot> {
        if let Some(local) = self.lookup(name) {
            return match local {
                Local::Register(..) => None,
                Local::Offset(start) => Some(self.constant((start as u64).wrapping_add_signed(offset))),
            };
        }
        match *self.symbols.get(name)? {
            Symbol::Variable(variable) => {
                let (constant, slot) = self.unresolved();
                self.relocations.push(Relocation { constant, variable, offset });
                Some(slot)
            }
            Symbol::Shared { bytes, align } => {
                let start = match self.module_shared.get(name) {
                    Some(start) => *start,
                    None => {
                        let start = self.shared_bytes.next_multiple_of(align);
                        self.shared_bytes = start + bytes;
                        self.module_shared.insert(name, start);
                        start
                    }
                };
                Some(self.constant((start as u64).wrapping_add_signed(offset)))
            }
            Symbol::DynamicShared { align } => {
                let (constant, slot) = self.unresolved();
                self.dynamic_uses.push((constant, offset));
                self.dynamic_align = self.dynamic_align.max(align);
                Some(slot)
            }
        }
    }

    /// Places dynamic shared memory behind all that is static.
    pub(super) fn finish(&mut self) {
        if !self.dynamic_uses.is_empty() {
            self.shared_bytes = self.shared_bytes.next_multiple_of(self.dynamic_align);
        }
        for (constant, offset) in &self.dynamic_uses {
            self.constants[*constant] = (self.shared_bytes as u64).wrapping_add_signed(*offset);
        }
    }

    fn lookup(&mut self, name: &'a str) -> Option<Local> {
        let prefix_len = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(prefix_len);
        for at in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[at];
            if let Some(found) = scope.names.get(name) {
                return Some(*found);
            }
            let Ok(number) = number.parse::<u64>() else { continue };
            let range = scope.ranges.iter().find(|(known, count, _)| *known == prefix && number < *count);
            if let Some(kind) = range.map(|range| range.2.kind()) {
                let found = Local::Register(self.fresh(kind), kind);
                self.scopes[at].names.insert(name, found);
                return Some(found);
            }
        }
        None
    }
}
