//! The text of a module: directives, variables, entry points.

use std::collections::HashMap;

use super::lex::{What, tokens};
use super::lower::{self, Parameter, Symbol};
use super::program::Program;
use super::syntax::Cursor;
use super::types::Type;

/// What a module is made of.
pub(super) struct Parts {
    pub(super) kernels: Vec<KernelParts>,
    pub(super) variables: Vec<VariableParts>,
}

pub(super) struct KernelParts {
    pub(super) name: String,
    /// Offset and size of each.
    pub(super) params: Vec<(usize, usize)>,
    pub(super) threads_max: Option<u32>,
    pub(super) program: Program,
}

/// A variable in global or constant memory.
pub(super) struct VariableParts {
    pub(super) name: String,
    pub(super) align: usize,
    /// What it holds at first.
    pub(super) bytes: Vec<u8>,
    pub(super) constant: bool,
}

/// A variable as it is declared.
pub(super) struct Declaration<'a> {
    pub(super) name: &'a str,
    pub(super) align: usize,
    pub(super) bytes: usize,
    ty: Type,
    /// An array that does not say how long it is.
    open: bool,
}

/// Reads the text of a module.
///
/// # Errors
/// In words, with the line.
pub(super) fn parse(text: &str) -> Result<Parts, String> {
    let tokens = tokens(text)?;
    let mut cursor = Cursor::new(&tokens);
    if !cursor.take_word(".version") {
        return cursor.error("no PTX: it does not begin with .version");
    }
    cursor.skip_line();
    let mut reader = Reader { symbols: HashMap::new(), parts: Parts { kernels: Vec::new(), variables: Vec::new() } };
    while cursor.peek().is_some() {
        reader.directive(&mut cursor)?;
    }
    Ok(reader.parts)
}

struct Reader<'a> {
    symbols: HashMap<&'a str, Symbol>,
    parts: Parts,
}

impl<'a> Reader<'a> {
    fn directive(&mut self, cursor: &mut Cursor<'a>) -> Result<(), String> {
        let mut external = false;
        loop {
            match cursor.word()? {
                ".visible" | ".weak" | ".common" => {}
                ".extern" => external = true,
                ".target" | ".address_size" | ".file" | ".loc" => {
                    cursor.skip_line();
                    return Ok(());
                }
                ".pragma" | ".alias" => return cursor.skip_past(';'),
                ".section" => {
                    cursor.word()?;
                    return cursor.skip_block();
                }
                ".func" => return skip_function(cursor),
                ".entry" => return self.entry(cursor),
                ".shared" => return self.shared(cursor, external),
                space @ (".global" | ".const") => return self.variable(cursor, external, space == ".const"),
                other => return cursor.error(&format!("the directive {other} is not supported")),
            }
        }
    }

    fn shared(&mut self, cursor: &mut Cursor<'a>, external: bool) -> Result<(), String> {
        let found = declaration(cursor)?;
        cursor.expect(';')?;
        let symbol = match external || found.open {
            true => Symbol::DynamicShared { align: found.align },
            false => Symbol::Shared { bytes: found.bytes, align: found.align },
        };
        self.symbols.insert(found.name, symbol);
        Ok(())
    }

    fn variable(&mut self, cursor: &mut Cursor<'a>, external: bool, constant: bool) -> Result<(), String> {
        let found = declaration(cursor)?;
        if external {
            return cursor.error(&format!("{} is defined in another module, and nothing is linked here", found.name));
        }
        let mut bytes = Vec::with_capacity(found.bytes);
        if cursor.take('=') {
            initial(cursor, found.ty, &mut bytes)?;
        }
        cursor.expect(';')?;
        if bytes.len() > found.bytes && !found.open {
            return cursor.error(&format!("{} has more values than room", found.name));
        }
        bytes.resize(bytes.len().max(found.bytes), 0);
        self.symbols.insert(found.name, Symbol::Variable(self.parts.variables.len()));
        self.parts.variables.push(VariableParts { name: found.name.into(), align: found.align, bytes, constant });
        Ok(())
    }

    fn entry(&mut self, cursor: &mut Cursor<'a>) -> Result<(), String> {
        let name = cursor.word()?;
        let params = if cursor.peek() == Some(What::Sign('(')) { parameters(cursor)? } else { Vec::new() };
        let mut threads_max = None;
        loop {
            match cursor.peek() {
                Some(What::Sign('{')) => break,
                Some(What::Sign(';')) => {
                    cursor.next();
                    return Ok(());
                }
                _ => {}
            }
            match cursor.word()? {
                ".maxntid" | ".reqntid" => {
                    let mut threads = cursor.integer()?;
                    while cursor.take(',') {
                        threads = threads.saturating_mul(cursor.integer()?);
                    }
                    threads_max = Some(u32::try_from(threads).unwrap_or(u32::MAX));
                }
                ".minnctapersm" | ".maxnctapersm" | ".maxnreg" => {
                    cursor.integer()?;
                }
                ".pragma" => cursor.skip_past(';')?,
                other => return cursor.error(&format!("the directive {other} is not supported")),
            }
        }
        let program = lower::body(cursor, &self.symbols, &params)?;
        let params = params.iter().map(|param| (param.offset, param.bytes)).collect();
        self.parts.kernels.push(KernelParts { name: name.into(), params, threads_max, program });
        Ok(())
    }
}

/// Functions that are called are not supported, but may be there: what is compiled for debugging, or declared.
fn skip_function(cursor: &mut Cursor<'_>) -> Result<(), String> {
    loop {
        match cursor.peek() {
            Some(What::Sign('{')) => return cursor.skip_block(),
            Some(What::Sign(';')) => {
                cursor.next();
                return Ok(());
            }
            Some(_) => {
                cursor.next();
            }
            None => return cursor.error("the text ends inside a function"),
        }
    }
}

fn parameters<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<Parameter<'a>>, String> {
    cursor.expect('(')?;
    let mut params: Vec<Parameter<'a>> = Vec::new();
    while !cursor.take(')') {
        if !cursor.take_word(".param") {
            return cursor.error("expected .param");
        }
        let found = declaration(cursor)?;
        let end = params.last().map_or(0, |last| last.offset + last.bytes);
        let offset = end.next_multiple_of(found.align);
        params.push(Parameter { name: found.name, offset, bytes: found.bytes });
        if !cursor.take(',') {
            cursor.expect(')')?;
            break;
        }
    }
    Ok(params)
}

/// Alignment, type, name and extent of a variable or parameter.
pub(super) fn declaration<'a>(cursor: &mut Cursor<'a>) -> Result<Declaration<'a>, String> {
    let (mut align, mut ty, mut count) = (None, None, 1);
    let name = loop {
        match cursor.word()? {
            ".align" => align = Some(cursor.integer()? as usize),
            ".v2" => count = 2,
            ".v4" => count = 4,
            ".ptr" | ".global" | ".shared" | ".const" | ".local" | ".managed" => {}
            word => match word.strip_prefix('.') {
                Some(name) => match Type::parse(name) {
                    Some(found) => ty = Some(found),
                    None => return cursor.error(&format!("the type {word} is not supported")),
                },
                None => break word,
            },
        }
    };
    let Some(ty) = ty else { return cursor.error(&format!("{name} has no type")) };
    let mut open = false;
    while cursor.take('[') {
        if cursor.take(']') {
            (open, count) = (true, 0);
        } else {
            count = count.max(1) * cursor.integer()? as usize;
            cursor.expect(']')?;
        }
    }
    let align = align.unwrap_or(ty.bytes());
    if !align.is_power_of_two() {
        return cursor.error(&format!("{name} is aligned to {align} bytes, which is no power of two"));
    }
    let Some(bytes) = count.checked_mul(ty.bytes()).filter(|bytes| *bytes <= 1 << 30) else {
        return cursor.error(&format!("{name} is too large"));
    };
    Ok(Declaration { name, align, bytes, ty, open })
}

/// The values of a variable, nested as its dimensions are.
fn initial(cursor: &mut Cursor<'_>, ty: Type, bytes: &mut Vec<u8>) -> Result<(), String> {
    if cursor.take('{') {
        while !cursor.take('}') {
            initial(cursor, ty, bytes)?;
            if !cursor.take(',') {
                return cursor.expect('}');
            }
        }
        return Ok(());
    }
    let negative = cursor.take('-');
    let value = match cursor.next() {
        Some(What::Integer(value)) if negative => value.wrapping_neg(),
        Some(What::Integer(value)) => value,
        Some(What::Single(bits)) if ty == Type::F32 => u64::from(bits) ^ u64::from(negative) << 31,
        Some(What::Double(bits)) if ty == Type::F64 => bits ^ u64::from(negative) << 63,
        _ => return cursor.error("a variable whose value is no number is not supported"),
    };
    bytes.extend(&value.to_le_bytes()[..ty.bytes()]);
    Ok(())
}
