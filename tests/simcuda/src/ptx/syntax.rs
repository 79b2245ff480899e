//! Statements: what the tokens of a function's body say, before names mean anything.

use super::lex::{Token, What};

/// The tokens still to be read.
pub(super) struct Cursor<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

/// An instruction as it is written.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    /// The predicate that guards it, and whether it must be false.
    pub(super) guard: Option<(&'a str, bool)>,
    pub(super) opcode: &'a str,
    pub(super) operands: Vec<Operand<'a>>,
    pub(super) line: u32,
    /// Where it stands in the text.
    pub(super) span: (usize, usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand<'a> {
    Name(&'a str),
    /// A symbol and bytes past it.
    Sum(&'a str, i64),
    Not(&'a str),
    /// `p|q`: two results.
    Pair(&'a str, &'a str),
    Integer(u64),
    Single(u32),
    Double(u64),
    Address(Base<'a>, i64),
    Vector(Vec<Operand<'a>>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Base<'a> {
    Name(&'a str),
    Absolute(u64),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &'a [Token<'a>]) -> Self {
        Self { tokens, at: 0 }
    }

    pub(super) fn peek(&self) -> Option<What<'a>> {
        self.tokens.get(self.at).map(|token| token.what)
    }

    pub(super) fn peek_second(&self) -> Option<What<'a>> {
        self.tokens.get(self.at + 1).map(|token| token.what)
    }

    /// The line of the next token, or of the last.
    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    pub(super) fn next(&mut self) -> Option<What<'a>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    pub(super) fn error<T>(&self, message: &str) -> Result<T, String> {
        let token = self.tokens.get(self.at.saturating_sub(1)).or(self.tokens.last());
        Err(format!("line {}: {message}", token.map_or(1, |token| token.line)))
    }

    pub(super) fn take(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(What::Sign(sign));
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.take(sign) {
            return Ok(());
        }
        let found = self.next();
        self.error(&format!("expected '{sign}', found {}", described(found)))
    }

    pub(super) fn word(&mut self) -> Result<&'a str, String> {
        match self.next() {
            Some(What::Word(word)) => Ok(word),
            other => self.error(&format!("expected a name, found {}", described(other))),
        }
    }

    /// Takes a word if it is this one.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(What::Word(word));
        self.at += usize::from(found);
        found
    }

    pub(super) fn integer(&mut self) -> Result<u64, String> {
        let negative = self.take('-');
        match self.next() {
            Some(What::Integer(value)) => Ok(if negative { value.wrapping_neg() } else { value }),
            other => self.error(&format!("expected an integer, found {}", described(other))),
        }
    }

    /// Passes over the rest of the line.
    pub(super) fn skip_line(&mut self) {
        let line = self.line();
        while self.tokens.get(self.at).is_some_and(|token| token.line == line) {
            self.at += 1;
        }
    }

    /// Passes over everything up to `sign`, and that.
    pub(super) fn skip_past(&mut self, sign: char) -> Result<(), String> {
        loop {
            match self.next() {
                Some(What::Sign(found)) if found == sign => return Ok(()),
                Some(_) => {}
                None => return self.error(&format!("the text ends before '{sign}'")),
            }
        }
    }

    /// Passes over a block in braces.
    pub(super) fn skip_block(&mut self) -> Result<(), String> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(What::Sign('{')) => depth += 1,
                Some(What::Sign('}')) => depth -= 1,
                Some(_) => {}
                None => return self.error("the text ends inside a block"),
            }
        }
        Ok(())
    }

    /// An instruction, up to its semicolon.
    pub(super) fn statement(&mut self) -> Result<Statement<'a>, String> {
        let first = self.at;
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let opcode = self.word()?;
        let mut operands = Vec::new();
        while !self.take(';') {
            operands.push(self.operand()?);
            if !self.take(',') {
                self.expect(';')?;
                break;
            }
        }
        let (first, last) = (&self.tokens[first], &self.tokens[self.at - 1]);
        Ok(Statement { guard, opcode, operands, line: first.line, span: (first.start, last.end) })
    }

    fn operand(&mut self) -> Result<Operand<'a>, String> {
        match self.next() {
            Some(What::Sign('{')) => {
                let mut parts = Vec::new();
                while !self.take('}') {
                    parts.push(self.operand()?);
                    if !self.take(',') {
                        self.expect('}')?;
                        break;
                    }
                }
                Ok(Operand::Vector(parts))
            }
            Some(What::Sign('[')) => self.address(),
            Some(What::Sign('!')) => Ok(Operand::Not(self.word()?)),
            Some(What::Sign('-')) => match self.next() {
                Some(What::Integer(value)) => Ok(Operand::Integer(value.wrapping_neg())),
                Some(What::Double(bits)) => Ok(Operand::Double(bits ^ 1 << 63)),
                other => self.error(&format!("expected a number, found {}", described(other))),
            },
            Some(What::Integer(value)) => Ok(Operand::Integer(value)),
            Some(What::Single(bits)) => Ok(Operand::Single(bits)),
            Some(What::Double(bits)) => Ok(Operand::Double(bits)),
            Some(What::Word(name)) if self.take('|') => Ok(Operand::Pair(name, self.word()?)),
            Some(What::Word(name)) => match self.offset()? {
                0 => Ok(Operand::Name(name)),
                offset => Ok(Operand::Sum(name, offset)),
            },
            Some(What::Sign('(')) => self.error("calls are not supported: mark the function __forceinline__"),
            other => self.error(&format!("expected an operand, found {}", described(other))),
        }
    }

    fn address(&mut self) -> Result<Operand<'a>, String> {
        let base = match self.next() {
            Some(What::Word(name)) => Base::Name(name),
            Some(What::Integer(value)) => Base::Absolute(value),
            other => return self.error(&format!("expected an address, found {}", described(other))),
        };
        let offset = self.offset()?;
        self.expect(']')?;
        Ok(Operand::Address(base, offset))
    }

    /// Bytes past a symbol, with a sign before them.
    fn offset(&mut self) -> Result<i64, String> {
        let plus = self.take('+');
        if plus || self.peek() == Some(What::Sign('-')) { Ok(self.integer()? as i64) } else { Ok(0) }
    }
}

fn described(token: Option<What<'_>>) -> String {
    match token {
        None => "the end of the text".into(),
        Some(What::Word(word)) => format!("'{word}'"),
        Some(What::Sign(sign)) => format!("'{sign}'"),
        Some(What::Integer(value)) => format!("{value}"),
        Some(What::Single(_) | What::Double(_)) => "a floating-point number".into(),
        Some(What::Text(text)) => format!("{text:?}"),
    }
}
