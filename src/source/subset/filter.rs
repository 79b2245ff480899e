//! What a filter asks of a sample.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::ops::Not;

use super::Candidate;
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Extent, Source, pattern};

/// The most patterns that the braces of one stand for: each is tried on each key.
const PATTERNS_MAX: usize = 1024;

/// Class names that an error lists.
const NAMES_SHOWN: usize = 8;

/// What samples of a [`Subset`](super::Subset) have in common. Made by functions, or from text:
///
/// | what | operators | for example |
/// |---|---|---|
/// | `label`, `number` | `=` `!=` `<` `<=` `>` `>=` `in` `not in` | `label in 3,5` |
/// | `class` | `=` `!=` `in` `not in` | `class not in cat,dog` |
/// | `key`: with `*` and `?`, which stand for slashes too, and braces | `=` `!=` `in` `not in` | `key = train/*` |
/// | `width`, `height`, `length`, `orientation`, `components`, `restart_interval`, `sampling` of the index | as `label` | `width >= 256` |
/// | `format`, `colour` of the index, in upper or lower case | `=` `!=` `in` `not in` | `format in baseline,PNG` |
///
/// Commas part the values of `in` and of nothing else; blanks around operators and values do not count. `number` is that of
/// the sample in the source that is filtered, `label` is -1 where there is none. `length` needs no index in tar shards.
///
/// ```
/// use forebay::source::Filter;
///
/// let filter: Filter = "width >= 256".parse()?;
/// let filter = filter.and("format = baseline".parse()?).and(!Filter::labels([3, 5]));
/// assert_eq!(filter.to_string(), "width >= 256 and format = baseline and not (label in 3,5)");
/// # Ok::<(), forebay::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Filter {
    pub(super) rule: Rule,
    pub(super) text: String,
    /// Whether the text is one of several joined by `or`.
    is_choice: bool,
}

/// What is asked, of what.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    Number(NumberField, NumberTest),
    /// Any of these, in lower case.
    Text(TextField, HashSet<String>),
    /// Of any of these classes.
    Class(Vec<String>),
    Key(KeyTest),
    Not(Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberField {
    Number,
    Label,
    Width,
    Height,
    Length,
    Orientation,
    Components,
    RestartInterval,
    Sampling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextField {
    Format,
    Colour,
}

#[derive(Clone, Debug)]
pub(super) enum NumberTest {
    Is(Comparison, i128),
    /// Sorted.
    Among(Vec<i128>),
}

/// The orders of the sample's value to the filter's in which it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison(pub &'static [Ordering]);

/// Keys that are matched in whole.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyTest {
    exact: HashSet<String>,
    prefixes: Vec<String>,
    /// With wildcards.
    patterns: Vec<Vec<u8>>,
}

impl Filter {
    /// Samples of any of these labels.
    pub fn labels(labels: impl IntoIterator<Item = i64>) -> Self {
        let mut among: Vec<i128> = labels.into_iter().map(i128::from).collect();
        among.sort_unstable();
        among.dedup();
        let text = format!("label in {}", listed(among.iter()));
        Self::of(Rule::Number(NumberField::Label, NumberTest::Among(among)), text)
    }

    /// Samples of any of these classes, by name. A name that the source does not know is an error where it is used.
    pub fn classes<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let text = format!("class in {}", listed(names.iter()));
        Self::of(Rule::Class(names), text)
    }

    /// Samples of exactly these keys. Keys that no sample has choose none.
    pub fn keys<T: Into<String>>(keys: impl IntoIterator<Item = T>) -> Self {
        let exact: HashSet<String> = keys.into_iter().map(Into::into).collect();
        let text = format!("key in a list of {}", exact.len());
        Self::of(Rule::Key(KeyTest { exact, ..KeyTest::default() }), text)
    }

    /// Samples whose keys begin so.
    pub fn key_prefix(prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        let text = format!("key = {prefix}*");
        Self::of(Rule::Key(KeyTest { prefixes: vec![prefix], ..KeyTest::default() }), text)
    }

    /// Samples whose keys match a pattern: `*` stands for any number of characters, slashes too, `?` for one byte, braces
    /// for a choice or a range, as in the names of shards.
    ///
    /// # Errors
    /// `InvalidParameter` for braces that are malformed or stand for more than 1024 patterns.
    pub fn key_pattern(pattern: &str) -> Result<Self> {
        Ok(Self::of(Rule::Key(KeyTest::of_patterns([pattern])?), format!("key = {pattern}")))
    }

    /// What both match.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let text = format!("{} and {}", self.bracketed(), other.bracketed());
        Self::of(Rule::All(vec![self.rule, other.rule]), text)
    }

    /// What either matches.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let text = format!("{} or {}", self.text, other.text);
        Self { is_choice: true, ..Self::of(Rule::Any(vec![self.rule, other.rule]), text) }
    }

    pub(super) fn of(rule: Rule, text: String) -> Self {
        Self { rule, text, is_choice: false }
    }

    fn bracketed(&self) -> String {
        if self.is_choice { format!("({})", self.text) } else { self.text.clone() }
    }

    /// What it asks of the samples of a source.
    ///
    /// # Errors
    /// `InvalidParameter` for classes that the source does not have.
    pub(super) fn bind(&self, source: &dyn Source) -> Result<Rule> {
        self.rule.clone().bind(source)
    }
}

impl Not for Filter {
    type Output = Self;

    /// What it does not match. Where it cannot say, its opposite cannot either.
    fn not(self) -> Self {
        let text = format!("not ({})", self.text);
        Self::of(Rule::Not(Box::new(self.rule)), text)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Rule {
    /// Puts labels in the place of class names.
    fn bind(self, source: &dyn Source) -> Result<Self> {
        let all = |rules: Vec<Self>| rules.into_iter().map(|rule| rule.bind(source)).collect::<Result<Vec<_>>>();
        Ok(match self {
            Self::Class(names) => Self::Number(NumberField::Label, NumberTest::Among(labels_of(&names, source)?)),
            Self::Not(rule) => Self::Not(Box::new(rule.bind(source)?)),
            Self::All(rules) => Self::All(all(rules)?),
            Self::Any(rules) => Self::Any(all(rules)?),
            rule => rule,
        })
    }

    /// Whether a sample has what is asked for; none where that is not known. As in SQL, what is unknown decides nothing
    /// alone, and nothing that the rest has decided.
    pub(super) fn holds(&self, sample: &Candidate<'_>) -> Result<Option<bool>> {
        Ok(match self {
            Self::Number(field, test) => field.of(sample)?.map(|value| test.holds(value)),
            Self::Text(field, values) => field.of(sample)?.map(|value| values.contains(&value.to_ascii_lowercase())),
            Self::Key(test) => Some(sample.with_key(|key| test.holds(key))?),
            // Bound to labels already.
            Self::Class(_) => None,
            Self::Not(rule) => rule.holds(sample)?.map(|holds| !holds),
            Self::All(rules) => decided(rules, sample, false)?,
            Self::Any(rules) => decided(rules, sample, true)?,
        })
    }
}

/// `deciding` if any rule says so, its opposite if all say that.
fn decided(rules: &[Rule], sample: &Candidate<'_>, deciding: bool) -> Result<Option<bool>> {
    let mut all = Some(!deciding);
    for rule in rules {
        match rule.holds(sample)? {
            Some(holds) if holds == deciding => return Ok(Some(deciding)),
            Some(_) => {}
            None => all = None,
        }
    }
    Ok(all)
}

/// The labels of classes, sorted.
fn labels_of(names: &[String], source: &dyn Source) -> Result<Vec<i128>> {
    let classes = source.classes();
    let label = |name: &String| classes.iter().position(|class| class == name).map(|label| label as i128);
    let unknown: Vec<&str> = names.iter().filter(|name| label(name).is_none()).map(String::as_str).collect();
    if unknown.is_empty() {
        let mut labels: Vec<i128> = names.iter().filter_map(label).collect();
        labels.sort_unstable();
        labels.dedup();
        return Ok(labels);
    }
    Err(unknown_classes(&unknown, classes))
}

/// The error of names that no class has.
pub(in crate::source) fn unknown_classes(unknown: &[&str], classes: &[String]) -> Error {
    let shown = |names: &mut dyn Iterator<Item = &str>, len: usize| {
        let first: Vec<&str> = names.take(NAMES_SHOWN).collect();
        let more = len.saturating_sub(first.len());
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{and_more}", first.join(", "))
    };
    let message = format!("the data set has no class named {}", shown(&mut unknown.iter().copied(), unknown.len()));
    let remedy = match classes {
        [] => "its classes have no names: use their labels".to_owned(),
        _ => format!("its classes are {}", shown(&mut classes.iter().map(String::as_str), classes.len())),
    };
    Error::new(ErrorKind::InvalidParameter, message).with_remedy(remedy)
}

impl NumberField {
    fn of(self, sample: &Candidate<'_>) -> Result<Option<i128>> {
        match self {
            Self::Number => return Ok(Some(sample.number().into())),
            Self::Label => return Ok(Some(sample.label()?.into())),
            Self::Length => {
                if let Extent::Range { len_bytes, .. } = sample.source().extent(sample.number())? {
                    return Ok(Some(len_bytes.into()));
                }
            }
            _ => {}
        }
        let columns = sample.columns()?.ok_or_else(|| no_index(sample))?;
        Ok(match self {
            Self::Width => columns.width.map(i128::from),
            Self::Height => columns.height.map(i128::from),
            Self::Orientation => columns.orientation.map(i128::from),
            Self::Components => columns.components.map(i128::from),
            Self::RestartInterval => columns.restart_interval.map(i128::from),
            Self::Sampling => columns.sampling.map(i128::from),
            Self::Length | Self::Number | Self::Label => Some(columns.length.into()),
        })
    }
}

impl TextField {
    fn of<'a>(self, sample: &'a Candidate<'_>) -> Result<Option<&'a str>> {
        let columns = sample.columns()?.ok_or_else(|| no_index(sample))?;
        Ok(match self {
            Self::Format => Some(columns.format),
            Self::Colour => columns.colour,
        })
    }
}

fn no_index(sample: &Candidate<'_>) -> Error {
    let error = Error::new(ErrorKind::NotFound, "the filter asks for what an index says, and no index covers it");
    let key = sample.with_key(str::to_owned).unwrap_or_else(|_| format!("number {}", sample.number()));
    error.with_sample(key).with_remedy("build it with `forebay index DATASET`, and open the data set with it")
}

impl NumberTest {
    fn holds(&self, value: i128) -> bool {
        match self {
            Self::Is(Comparison(orders), other) => orders.contains(&value.cmp(other)),
            Self::Among(values) => values.binary_search(&value).is_ok(),
        }
    }
}

impl KeyTest {
    pub fn of_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut test = Self::default();
        for text in patterns {
            let refused = |cause: &str| {
                Error::new(ErrorKind::InvalidParameter, format!("key pattern \"{text}\": {cause}"))
                    .with_remedy("write a range as {000..146} and a choice as {train,val}")
            };
            let expanded = pattern::expand_braces(text.as_bytes()).map_err(&refused)?;
            if expanded.len() > PATTERNS_MAX {
                return Err(refused("its braces stand for more than 1024 patterns"));
            }
            for pattern in expanded {
                // Braces part text at ASCII characters, so nothing is lost here.
                let text = String::from_utf8_lossy(&pattern).into_owned();
                let wildcards = pattern.iter().filter(|byte| b"*?".contains(byte)).count();
                match text.strip_suffix('*') {
                    Some(prefix) if wildcards == 1 => test.prefixes.push(prefix.to_owned()),
                    _ if wildcards == 0 => drop(test.exact.insert(text)),
                    _ => test.patterns.push(pattern),
                }
            }
        }
        Ok(test)
    }

    fn holds(&self, key: &str) -> bool {
        self.exact.contains(key)
            || self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
            || self.patterns.iter().any(|pattern| pattern::matches(pattern, key.as_bytes()))
    }
}

fn listed<T: ToString>(values: impl Iterator<Item = T>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
}
