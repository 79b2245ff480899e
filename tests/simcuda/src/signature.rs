//! The kernels that a PTX text declares, and how their parameters lie in parameter space.

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Where it is.
    pub offset: usize,
    /// How many bytes it has.
    pub len: usize,
}

/// Entry points in the order of the text, with their parameters. What is not understood is left out: the interpreter,
/// which reads the whole text, is there to complain.
pub fn entries(text: &str) -> Vec<(String, Vec<Parameter>)> {
    let text = without_comments(text);
    let mut entries = Vec::new();
    for after in text.split(".entry").skip(1) {
        let after = after.trim_start();
        let name_len =
            after.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '%'))).unwrap_or(after.len());
        let (name, rest) = after.split_at(name_len);
        let rest = rest.trim_start();
        let list = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or("", |(list, _)| list);
        entries.push((name.to_owned(), parameters(list)));
    }
    entries
}

fn parameters(list: &str) -> Vec<Parameter> {
    let mut offset = 0;
    let each = list.split(',').filter(|declaration| declaration.contains(".param"));
    each.map(|declaration| {
        let (align, len) = layout(declaration);
        offset = usize::next_multiple_of(offset, align);
        let parameter = Parameter { offset, len };
        offset += len;
        parameter
    })
    .collect()
}

/// Alignment and size: `.param .align 8 .b8 name[24]`, `.param .u64 name`.
fn layout(declaration: &str) -> (usize, usize) {
    let mut words =
        declaration.split(|c: char| c.is_whitespace() || c == '[' || c == ']').filter(|word| !word.is_empty());
    let (mut align, mut size, mut count) = (None, 1, 1);
    while let Some(word) = words.next() {
        match word {
            ".align" => align = words.next().and_then(|word| word.parse().ok()),
            // The alignment of what a pointer points to is no layout.
            ".ptr" => {
                while words.next().is_some_and(|word| word != ".align") {}
                words.next();
            }
            _ if word.starts_with('.') => {
                let bits = word.trim_start_matches(|c: char| !c.is_ascii_digit());
                size = bits.parse::<usize>().map_or(size, |bits| bits / 8);
            }
            _ => count = word.parse().unwrap_or(count),
        }
    }
    (align.unwrap_or(size).max(1), size * count)
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        out.push_str(&rest[..start]);
        rest = rest[start..].split_once("*/").map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out.lines().map(|line| line.split("//").next().unwrap_or("")).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lie_as_c_lays_them() {
        let text = "// .entry no(\n.visible .entry first(\n .param .u64 first_param_0,\n .param .u32 first_param_1,\n \
                    .param .align 8 .b8 first_param_2[24], /* , */ .param .u8 first_param_3\n)\n{ }\n\
                    .entry second\n{ }\n.entry third(.param .u64 .ptr .global .align 16 p, .param .f32 x) { }";
        let parameter = |offset, len| Parameter { offset, len };
        assert_eq!(
            entries(text),
            [
                ("first".to_owned(), vec![parameter(0, 8), parameter(8, 4), parameter(16, 24), parameter(40, 1)]),
                ("second".to_owned(), vec![]),
                ("third".to_owned(), vec![parameter(0, 8), parameter(8, 4)]),
            ]
        );
    }
}
