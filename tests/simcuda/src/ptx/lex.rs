//! The text of a module as tokens.

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) what: What<'a>,
    /// The line, counted from 1.
    pub(super) line: u32,
    /// Bytes of the text before it.
    pub(super) start: usize,
    /// Bytes of the text up to its end.
    pub(super) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What<'a> {
    /// A name, a directive or an opcode, with its dots.
    Word(&'a str),
    Integer(u64),
    /// `0f` and eight hexadecimal digits: the bits of an f32.
    Single(u32),
    /// `0d` and sixteen, or a decimal fraction: the bits of an f64.
    Double(u64),
    Text(&'a str),
    Sign(char),
}

/// Every token of `text`.
///
/// # Errors
/// In words, with the line, for what is no token.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    while let Some(&byte) = bytes.get(at) {
        let rest = &text[at..];
        let (what, len) = match byte {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            _ if byte.is_ascii_whitespace() || byte == 0 => {
                at += 1;
                continue;
            }
            _ if rest.starts_with("//") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            _ if rest.starts_with("/*") => {
                let len = rest.find("*/").ok_or_else(|| format!("line {line}: a comment without an end"))? + 2;
                line += newlines(&rest[..len]);
                at += len;
                continue;
            }
            b'"' => {
                let len = rest[1..].find('"').ok_or_else(|| format!("line {line}: a string without an end"))?;
                (What::Text(&rest[1..=len]), len + 2)
            }
            b'0'..=b'9' => number(rest).ok_or_else(|| format!("line {line}: no number: {}", first_word(rest)))?,
            _ if starts_word(byte) => {
                let len = word_len(rest.as_bytes());
                (What::Word(&rest[..len]), len)
            }
            _ => match rest.chars().next() {
                Some(sign) if "{}()[]<>,;:@!|+-=".contains(sign) => (What::Sign(sign), 1),
                sign => return Err(format!("line {line}: unexpected {sign:?}")),
            },
        };
        tokens.push(Token { what, line, start: at, end: at + len });
        line += newlines(&rest[..len]);
        at += len;
    }
    Ok(tokens)
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u32
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// How many bytes of `text` are its first word. `::` belongs to it (`.shared::cta`), a single colon ends a label.
fn word_len(text: &[u8]) -> usize {
    let mut len = 1;
    loop {
        match &text[len..] {
            [byte, ..] if starts_word(*byte) || byte.is_ascii_digit() => len += 1,
            [b':', b':', byte, ..] if byte.is_ascii_alphanumeric() => len += 2,
            _ => return len,
        }
    }
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || c == ',' || c == ';').next().unwrap_or(text)
}

/// A literal, and how many bytes it is.
fn number(text: &str) -> Option<(What<'_>, usize)> {
    let digits =
        |from: usize, radix: u32| text[from..].find(|c: char| !c.is_digit(radix)).map_or(text.len(), |len| from + len);
    let (what, end) = match &text.as_bytes()[..text.len().min(2)] {
        b"0f" | b"0F" => (What::Single(u32::from_str_radix(text.get(2..10)?, 16).ok()?), 10),
        b"0d" | b"0D" => (What::Double(u64::from_str_radix(text.get(2..18)?, 16).ok()?), 18),
        b"0x" | b"0X" => {
            let end = digits(2, 16);
            (What::Integer(u64::from_str_radix(&text[2..end], 16).ok()?), end)
        }
        b"0b" | b"0B" => {
            let end = digits(2, 2);
            (What::Integer(u64::from_str_radix(&text[2..end], 2).ok()?), end)
        }
        _ => {
            let end = digits(0, 10);
            if text[end..].starts_with('.') {
                let end = digits(end + 1, 10);
                (What::Double(text[..end].parse::<f64>().ok()?.to_bits()), end)
            } else if text.starts_with('0') && end > 1 {
                (What::Integer(u64::from_str_radix(&text[1..end], 8).ok()?), end)
            } else {
                (What::Integer(text[..end].parse().ok()?), end)
            }
        }
    };
    let unsigned = matches!(what, What::Integer(_)) && text[end..].starts_with('U');
    let end = end + usize::from(unsigned);
    let next = text.as_bytes().get(end);
    (!next.is_some_and(|byte| starts_word(*byte) || byte.is_ascii_digit())).then_some((what, end))
}
