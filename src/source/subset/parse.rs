//! Filters in words.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::str::FromStr;

use super::filter::{Comparison, Filter, KeyTest, NumberField, NumberTest, Rule, TextField};
use crate::error::{Error, ErrorKind, Result};

/// The longest first, so that none hides another.
const OPERATORS: [(&str, Operator); 9] = [
    ("not in", Operator::NotIn),
    ("in", Operator::In),
    ("!=", Operator::Is(Comparison(&[Less, Greater]))),
    ("<=", Operator::Is(Comparison(&[Less, Equal]))),
    (">=", Operator::Is(Comparison(&[Greater, Equal]))),
    ("==", Operator::Is(Comparison(&[Equal]))),
    ("=", Operator::Is(Comparison(&[Equal]))),
    ("<", Operator::Is(Comparison(&[Less]))),
    (">", Operator::Is(Comparison(&[Greater]))),
];

const FIELDS: [(&str, Field); 13] = [
    ("label", Field::Number(NumberField::Label)),
    ("class", Field::Class),
    ("key", Field::Key),
    ("number", Field::Number(NumberField::Number)),
    ("width", Field::Number(NumberField::Width)),
    ("height", Field::Number(NumberField::Height)),
    ("length", Field::Number(NumberField::Length)),
    ("orientation", Field::Number(NumberField::Orientation)),
    ("components", Field::Number(NumberField::Components)),
    ("restart_interval", Field::Number(NumberField::RestartInterval)),
    ("sampling", Field::Number(NumberField::Sampling)),
    ("format", Field::Text(TextField::Format)),
    ("colour", Field::Text(TextField::Colour)),
];

#[derive(Clone, Copy)]
enum Operator {
    Is(Comparison),
    In,
    NotIn,
}

#[derive(Clone, Copy)]
enum Field {
    Number(NumberField),
    Text(TextField),
    Class,
    Key,
}

impl FromStr for Filter {
    type Err = Error;

    /// A filter of one comparison; [`and`](Self::and) joins several.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let refused = |cause: String, remedy: &str| {
            let error = Error::new(ErrorKind::InvalidParameter, format!("filter \"{text}\": {cause}"));
            error.with_remedy(remedy)
        };
        let name_len = text.find(|c: char| !c.is_ascii_alphabetic() && c != '_').unwrap_or(text.len());
        let (name, rest) = (&text[..name_len], text[name_len..].trim_start());
        let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            let names = FIELDS.map(|(name, _)| name).join(", ");
            return Err(refused(format!("there is nothing named \"{name}\" to filter by"), &format!("use {names}")));
        };
        let operator = OPERATORS.iter().find_map(|(sign, operator)| {
            let values = rest.strip_prefix(sign)?;
            let is_word = sign.ends_with(|c: char| c.is_ascii_alphabetic());
            (!is_word || values.starts_with(char::is_whitespace)).then_some((*operator, values.trim()))
        });
        let Some((operator, values)) = operator else {
            return Err(refused(
                "there is no operator behind the name".to_owned(),
                "use =, !=, <, <=, >, >=, in or not in, as in `label in 3,5`",
            ));
        };
        let values: Vec<&str> = match operator {
            Operator::Is(_) => vec![values],
            Operator::In | Operator::NotIn => values.split(',').map(str::trim).collect(),
        };
        if values.iter().any(|value| value.is_empty()) {
            return Err(refused("a value is empty".to_owned(), "write values as in `label in 3,5` or `key = train/*`"));
        }
        let (test, is_not) = match (field, operator) {
            (Field::Number(field), Operator::Is(comparison)) => {
                (Rule::Number(*field, NumberTest::Is(comparison, number(values[0], &refused)?)), false)
            }
            (Field::Number(field), _) => {
                let mut among = values.iter().map(|value| number(value, &refused)).collect::<Result<Vec<_>>>()?;
                among.sort_unstable();
                (Rule::Number(*field, NumberTest::Among(among)), matches!(operator, Operator::NotIn))
            }
            (field, operator) => {
                let is_not = match operator {
                    Operator::In | Operator::Is(Comparison([Equal])) => false,
                    Operator::NotIn | Operator::Is(Comparison([Less, Greater])) => true,
                    Operator::Is(_) => {
                        let cause = format!("\"{name}\" is text, of which none is less or greater");
                        return Err(refused(cause, "use =, !=, in or not in"));
                    }
                };
                let rule = match field {
                    Field::Key => Rule::Key(KeyTest::of_patterns(values)?),
                    Field::Class => Rule::Class(values.into_iter().map(str::to_owned).collect()),
                    Field::Text(field) => Rule::Text(*field, values.into_iter().map(str::to_ascii_lowercase).collect()),
                    Field::Number(_) => unreachable!("told apart above"),
                };
                (rule, is_not)
            }
        };
        let rule = if is_not { Rule::Not(Box::new(test)) } else { test };
        Ok(Self::of(rule, text.to_owned()))
    }
}

fn number(text: &str, refused: &impl Fn(String, &str) -> Error) -> Result<i128> {
    text.parse::<i64>()
        .map(i128::from)
        .map_err(|_| refused(format!("\"{text}\" is no whole number"), "write it in decimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_named_with_a_remedy() {
        for (text, words) in [
            ("", &["nothing named \"\"", "width"][..]),
            ("size > 3", &["\"size\"", "width", "height"]),
            ("width", &["operator"]),
            ("width ~ 3", &["operator"]),
            ("labelin 3", &["\"labelin\""]),
            ("label in3", &["operator"]),
            ("label in", &["operator"]),
            ("label =", &["empty"]),
            ("label in 3,,5", &["empty"]),
            ("label = three", &["\"three\"", "whole number"]),
            ("width >= 1.5", &["\"1.5\""]),
            ("width >= 99999999999999999999", &["whole number"]),
            ("key < b", &["\"key\" is text"]),
            ("class >= b", &["\"class\" is text"]),
            ("key = {a", &["brace", "{train,val}"]),
            ("key = {0..2000}", &["1024"]),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{text}");
            for word in words {
                assert!(error.to_string().contains(word), "{text}: {error}");
            }
            assert!(error.remedy().is_some(), "{text}");
        }
    }

    #[test]
    fn blanks_do_not_count() {
        for text in ["width>=256", " width  >=  256 ", "label not in 1 , 2", "key=a b", "format==PNG"] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text.trim());
        }
    }
}
