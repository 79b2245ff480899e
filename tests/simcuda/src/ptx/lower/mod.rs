//! From the text of a function to a [`Program`].

mod control;
mod data;
mod memory;
mod names;

use std::collections::HashMap;

use super::arithmetic::{self, Opcode};
use super::lex::What;
use super::program::{Address, Guard, Instruction, Op, Program};
use super::registers::{Slot, Slots};
use super::syntax::{Base, Cursor, Operand, Statement};
use super::types::{Kind, Type};

use names::Names;
pub(super) use names::Symbol;

/// A parameter: its name, where it lies in parameter memory, and its size.
pub(super) struct Parameter<'a> {
    pub(super) name: &'a str,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// Reads a function's body, from its opening brace to the closing one.
///
/// # Errors
/// In words, with the line, for what is no PTX or is not supported.
pub(super) fn body<'a>(
    cursor: &mut Cursor<'a>,
    symbols: &HashMap<&'a str, Symbol>,
    parameters: &[Parameter<'a>],
) -> Result<Program, String> {
    let mut lower = Lower::new(symbols);
    for parameter in parameters {
        lower.names.parameter(parameter.name, parameter.offset);
    }
    cursor.expect('{')?;
    lower.block(cursor)?;
    lower.finish(cursor)
}

/// What a lowered instruction is, or why it is not.
type Lowered = Result<Op, String>;

struct Lower<'a, 'm> {
    names: Names<'a, 'm>,
    code: Vec<Instruction>,
    /// Scopes by number: the scope that each is in. Labels belong to one.
    parents: Vec<usize>,
    scope: usize,
    labels: HashMap<(usize, &'a str), u32>,
    target_lists: HashMap<(usize, &'a str), Vec<&'a str>>,
    /// Branches, whose targets are not known before the end.
    branches: Vec<Jump<'a>>,
    /// Instructions that the one being lowered needs before it.
    before: Vec<Op>,
}

/// A branch to a label, or by a list of labels.
struct Jump<'a> {
    at: usize,
    scope: usize,
    label: &'a str,
    line: u32,
}

impl<'a, 'm> Lower<'a, 'm> {
    fn new(symbols: &'m HashMap<&'a str, Symbol>) -> Self {
        Self {
            names: Names::new(symbols),
            code: Vec::new(),
            parents: vec![0],
            scope: 0,
            labels: HashMap::new(),
            target_lists: HashMap::new(),
            branches: Vec::new(),
            before: Vec::new(),
        }
    }

    /// Statements up to the brace that ends the function.
    fn block(&mut self, cursor: &mut Cursor<'a>) -> Result<(), String> {
        loop {
            match (cursor.peek(), cursor.peek_second()) {
                (Some(What::Sign('{')), _) => {
                    cursor.next();
                    self.names.open();
                    self.parents.push(self.scope);
                    self.scope = self.parents.len() - 1;
                }
                (Some(What::Sign('}')), _) => {
                    cursor.next();
                    self.scope = self.parents[self.scope];
                    if !self.names.close() {
                        return Ok(());
                    }
                }
                (Some(What::Sign(';')), _) => {
                    cursor.next();
                }
                (Some(What::Word(label)), Some(What::Sign(':'))) => {
                    cursor.next();
                    cursor.next();
                    self.label(label, cursor)?;
                }
                (Some(What::Word(directive)), _) if directive.starts_with('.') => self.directive(cursor)?,
                (Some(_), _) => {
                    let statement = cursor.statement()?;
                    self.statement(&statement)?;
                }
                (None, _) => return cursor.error("the text ends inside a function"),
            }
        }
    }

    fn label(&mut self, label: &'a str, cursor: &mut Cursor<'a>) -> Result<(), String> {
        if cursor.take_word(".branchtargets") {
            let mut targets = vec![cursor.word()?];
            while cursor.take(',') {
                targets.push(cursor.word()?);
            }
            cursor.expect(';')?;
            self.target_lists.insert((self.scope, label), targets);
        } else if self.labels.insert((self.scope, label), self.code.len() as u32).is_some() {
            return cursor.error(&format!("the label {label} is there twice"));
        }
        Ok(())
    }

    fn directive(&mut self, cursor: &mut Cursor<'a>) -> Result<(), String> {
        match cursor.word()? {
            ".loc" | ".file" => {
                cursor.skip_line();
                Ok(())
            }
            ".pragma" => cursor.skip_past(';'),
            ".reg" => self.declare_registers(cursor),
            space @ (".shared" | ".local") => {
                let variable = super::module::declaration(cursor)?;
                cursor.expect(';')?;
                match space {
                    ".shared" => self.names.shared(variable.name, variable.bytes, variable.align),
                    _ => self.names.local(variable.name, variable.bytes, variable.align),
                }
                Ok(())
            }
            ".param" => cursor.error("calls are not supported: mark the function __forceinline__"),
            other => cursor.error(&format!("the directive {other} is not supported in a function")),
        }
    }

    fn declare_registers(&mut self, cursor: &mut Cursor<'a>) -> Result<(), String> {
        let name = cursor.word()?;
        let Some(ty) = name.strip_prefix('.').and_then(Type::parse) else {
            return cursor.error(&format!("registers of type {name} are not supported"));
        };
        loop {
            let name = cursor.word()?;
            if cursor.take('<') {
                let count = cursor.integer()?;
                cursor.expect('>')?;
                self.names.registers(name, count, ty);
            } else {
                self.names.register(name, ty);
            }
            if !cursor.take(',') {
                return cursor.expect(';');
            }
        }
    }

    fn statement(&mut self, statement: &Statement<'a>) -> Result<(), String> {
        let parts: Vec<&str> = statement.opcode.split('.').collect();
        let opcode = Opcode { parts: &parts };
        let at_line = |error: String| format!("line {}: {error}", statement.line);
        let op = self.operation(&opcode, statement).map_err(at_line)?;
        let guard = match statement.guard {
            Some((name, negated)) => {
                let predicate = self.register(name, Kind::Predicate).map_err(at_line)?;
                Some(Guard { predicate, negated })
            }
            None => None,
        };
        for op in std::mem::take(&mut self.before).into_iter().chain([op]) {
            self.code.push(Instruction { guard, op, line: statement.line, span: statement.span });
        }
        // A branch was noted before the instructions that it needs were placed.
        if let Some(jump) = self.branches.last_mut()
            && jump.at == usize::MAX
        {
            jump.at = self.code.len() - 1;
        }
        Ok(())
    }

    fn operation(&mut self, opcode: &Opcode<'_>, statement: &Statement<'a>) -> Lowered {
        let operands = &statement.operands;
        match opcode.name() {
            "ld" | "ldu" => self.load(opcode, operands),
            "st" => self.store(opcode, operands),
            "atom" | "red" => self.atomic(opcode, operands),
            "mov" => self.mov(opcode, operands),
            "cvta" => self.convert_address(opcode, operands),
            "isspacep" => self.is_space(opcode, operands),
            "cvt" => self.convert(opcode, operands),
            "setp" => self.set_predicate(opcode, operands),
            "set" => self.set_register(opcode, operands),
            "lop3" => self.lop3(opcode, operands),
            "bra" | "brx" => self.branch(opcode, operands, statement.line),
            "bar" | "barrier" => self.barrier(opcode, operands),
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => self.warp_op(opcode, operands),
            "ret" | "exit" => Ok(Op::Exit),
            "trap" => Ok(Op::Trap),
            "membar" | "fence" | "prefetch" | "prefetchu" | "nanosleep" | "discard" | "applypriority" => {
                Ok(Op::Nothing)
            }
            "call" => Err("calls are not supported: mark the function __forceinline__".into()),
            _ => match arithmetic::instruction(opcode) {
                Some(alu) => self.alu(alu, operands),
                None => Err(unsupported(opcode)),
            },
        }
    }

    /// An instruction whose operands are what its kinds say.
    fn alu(&mut self, alu: arithmetic::Alu, operands: &[Operand<'a>]) -> Lowered {
        if operands.len() != alu.kinds.len() {
            return Err(format!("{} operands, found {}", alu.kinds.len(), operands.len()));
        }
        let mut slots: Slots = [0; 6];
        for (at, (operand, kind)) in operands.iter().zip(&alu.kinds).enumerate() {
            slots[at] = if at == 0 { self.result(operand, *kind)? } else { self.source(operand, *kind)? };
        }
        Ok(Op::Alu { run: alu.run, slots })
    }

    fn register(&mut self, name: &'a str, kind: Kind) -> Result<Slot, String> {
        match self.names.find(name) {
            Some((slot, found)) if found == kind => Ok(slot),
            Some((_, found)) => Err(format!("{name} is {}, not {}", described(found), described(kind))),
            None => Err(format!("{name} is not declared")),
        }
    }

    /// The register of a result; `_` is one that nobody reads.
    fn result(&mut self, operand: &Operand<'a>, kind: Kind) -> Result<Slot, String> {
        match operand {
            Operand::Name("_") => Ok(self.names.fresh(kind)),
            Operand::Name(name) => self.register(name, kind),
            _ => Err("a result is not a register".into()),
        }
    }

    fn source(&mut self, operand: &Operand<'a>, kind: Kind) -> Result<Slot, String> {
        match (operand, kind) {
            (Operand::Name(name), _) if self.names.find(name).is_some() => self.register(name, kind),
            (Operand::Name("WARP_SZ"), Kind::Word) => Ok(self.names.constant(32)),
            (Operand::Name(name), Kind::Word | Kind::Long) => {
                self.names.address(name, 0).ok_or_else(|| format!("{name} is not declared"))
            }
            (Operand::Sum(name, offset), Kind::Word | Kind::Long) => {
                self.names.address(name, *offset).ok_or_else(|| format!("{name} is no variable"))
            }
            (Operand::Integer(value), _) => Ok(self.names.constant(*value)),
            (Operand::Single(bits), Kind::Word) => Ok(self.names.constant((*bits).into())),
            (Operand::Single(bits), Kind::Long) => Ok(self.names.constant(f64::from(f32::from_bits(*bits)).to_bits())),
            (Operand::Double(bits), Kind::Long) => Ok(self.names.constant(*bits)),
            (Operand::Double(bits), Kind::Word) => {
                Ok(self.names.constant((f64::from_bits(*bits) as f32).to_bits().into()))
            }
            _ => Err(format!("{operand:?} is not an operand here")),
        }
    }

    /// A predicate operand, which may be negated.
    fn predicate(&mut self, operand: &Operand<'a>) -> Result<Guard, String> {
        match operand {
            Operand::Not(name) => Ok(Guard { predicate: self.register(name, Kind::Predicate)?, negated: true }),
            Operand::Integer(value) => {
                Ok(Guard { predicate: self.names.constant(u64::from(*value != 0)), negated: false })
            }
            _ => Ok(Guard { predicate: self.source(operand, Kind::Predicate)?, negated: false }),
        }
    }

    fn address(&mut self, operand: &Operand<'a>) -> Result<Address, String> {
        let Operand::Address(base, offset) = *operand else { return Err("expected an address in brackets".into()) };
        match base {
            Base::Absolute(address) => Ok(Address {
                base: self.names.constant(address.wrapping_add_signed(offset)),
                kind: Kind::Long,
                offset: 0,
            }),
            Base::Name(name) => match self.names.find(name) {
                Some((base, kind)) => Ok(Address { base, kind, offset }),
                None => match self.names.address(name, offset) {
                    Some(base) => Ok(Address { base, kind: Kind::Long, offset: 0 }),
                    None => Err(format!("{name} is not declared")),
                },
            },
        }
    }

    /// What is known only at the end: where labels are, and what comes behind static shared memory.
    fn finish(mut self, cursor: &Cursor<'_>) -> Result<Program, String> {
        let line = cursor.line();
        self.code.push(Instruction { guard: None, op: Op::Exit, line, span: (0, 0) });
        for jump in std::mem::take(&mut self.branches) {
            let op = match &self.code[jump.at].op {
                Op::BranchIndexed { index, .. } => {
                    let list = find(&self.target_lists, &self.parents, jump.scope, jump.label).cloned();
                    let targets = list.into_iter().flatten().map(|label| self.target(&jump, label));
                    Op::BranchIndexed { index: *index, targets: targets.collect::<Result<_, _>>()? }
                }
                _ => Op::Branch(self.target(&jump, jump.label)?),
            };
            self.code[jump.at].op = op;
        }
        self.names.finish();
        let names = self.names;
        Ok(Program {
            code: self.code,
            counts: names.counts,
            constants: names.constants,
            specials: names.specials,
            relocations: names.relocations,
            shared_bytes: names.shared_bytes,
            local_bytes: names.local_bytes,
        })
    }

    fn target(&self, jump: &Jump<'a>, label: &'a str) -> Result<u32, String> {
        find(&self.labels, &self.parents, jump.scope, label)
            .copied()
            .ok_or_else(|| format!("line {}: there is no label {label}", jump.line))
    }
}

/// What a label stands for in a scope or those around it.
fn find<'v, 'a, V>(
    labels: &'v HashMap<(usize, &'a str), V>,
    parents: &[usize],
    mut scope: usize,
    label: &'a str,
) -> Option<&'v V> {
    loop {
        if let Some(found) = labels.get(&(scope, label)) {
            return Some(found);
        }
        if scope == 0 {
            return None;
        }
        scope = parents[scope];
    }
}

fn unsupported(opcode: &Opcode<'_>) -> String {
    format!("the instruction {} is not supported", opcode.parts.join("."))
}

fn described(kind: Kind) -> &'static str {
    match kind {
        Kind::Word => "a register of up to 32 bits",
        Kind::Long => "a register of 64 bits",
        Kind::Predicate => "a predicate",
    }
}
