//! Classes under other names: renamed, merged, dropped.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::subset::{Subset, unknown_classes};
use super::{Columns, Extent, Record, Source, StoredShard, UNLABELLED};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// Says for each class of a source which it becomes, by name or by label.
///
/// With names, what no rule speaks of keeps its name, and classes are numbered anew from 0 in the order of the labels they
/// had; one of several that were merged stands where the first of them stood. With labels, what no rule speaks of keeps its
/// label, and the classes have no names.
///
/// Samples without a label keep having none.
///
/// ```no_run
/// use forebay::source::{self, ClassMap};
///
/// # fn main() -> forebay::Result<()> {
/// let animals = ClassMap::new().merge(["tabby", "siamese"], "cat").rename("husky", "dog").drop(["car", "van"]);
/// let animals = animals.apply(source::open("data/train")?)?;
/// let coarse = ClassMap::new().relabel(3, 0).relabel(5, 1).drop_others().apply(source::open("train.csv")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClassMap {
    /// In the order in which they were given.
    named: Vec<(String, Option<String>)>,
    labelled: Vec<(i64, Option<i64>)>,
    drops_others: bool,
}

impl ClassMap {
    /// All classes as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a class another name. If another class has it, or gets it, they are one.
    #[must_use]
    pub fn rename(self, class: impl Into<String>, name: impl Into<String>) -> Self {
        self.merge([class], name)
    }

    /// Makes several classes one.
    #[must_use]
    pub fn merge<T: Into<String>>(mut self, classes: impl IntoIterator<Item = T>, name: impl Into<String>) -> Self {
        let name = name.into();
        self.named.extend(classes.into_iter().map(|class| (class.into(), Some(name.clone()))));
        self
    }

    /// Leaves out the samples of classes.
    #[must_use]
    pub fn drop<T: Into<String>>(mut self, classes: impl IntoIterator<Item = T>) -> Self {
        self.named.extend(classes.into_iter().map(|class| (class.into(), None)));
        self
    }

    /// Gives a label the place of another, where classes have no names or they do not matter.
    #[must_use]
    pub fn relabel(mut self, label: i64, new: i64) -> Self {
        self.labelled.push((label, Some(new)));
        self
    }

    /// Leaves out the samples of a label.
    #[must_use]
    pub fn drop_label(mut self, label: i64) -> Self {
        self.labelled.push((label, None));
        self
    }

    /// Leaves out the samples of all classes that no rule speaks of, and those without a label.
    #[must_use]
    pub fn drop_others(mut self) -> Self {
        self.drops_others = true;
        self
    }

    /// The source with these classes.
    ///
    /// # Errors
    /// `InvalidParameter` for a class that the source does not have (naming those that it has), that several rules speak
    /// of, or where some rules are of names and some of labels; if classes are dropped, those of [`Subset::new`].
    pub fn apply(&self, source: Arc<dyn Source>) -> Result<Relabelled> {
        if !self.named.is_empty() && !self.labelled.is_empty() {
            let message = "some rules of the class map are of names and some of labels";
            return Err(Error::new(ErrorKind::InvalidParameter, message).with_remedy("use one of the two"));
        }
        let (map, classes) = if self.labelled.is_empty() && !source.classes().is_empty() {
            self.by_name(source.classes())?
        } else if let Some((name, _)) = self.named.first() {
            return Err(unknown_classes(&[name], source.classes()));
        } else {
            (self.by_label()?, Vec::new())
        };
        let becomes = Becomes { map, drops_others: self.drops_others };
        let source = if becomes.drops_any() {
            let kept = Subset::new(source, |sample| Ok(becomes.of(sample.label()?).is_some()))?;
            Arc::new(kept)
        } else {
            source
        };
        Ok(Relabelled { source, becomes, classes })
    }

    /// New labels of old ones, and the new names.
    fn by_name(&self, old: &[String]) -> Result<(NewLabels, Vec<String>)> {
        let known: HashSet<&str> = old.iter().map(String::as_str).collect();
        let unknown: Vec<&str> =
            self.named.iter().map(|(class, _)| class.as_str()).filter(|class| !known.contains(class)).collect();
        if !unknown.is_empty() {
            return Err(unknown_classes(&unknown, old));
        }
        let mut rules = HashMap::new();
        for (class, new) in &self.named {
            if rules.insert(class.as_str(), new.as_deref()).is_some() {
                return Err(ruled_twice(&format!("named {class}")));
            }
        }
        let (mut map, mut classes, mut places) = (HashMap::new(), Vec::new(), HashMap::new());
        for (label, name) in (0i64..).zip(old) {
            let new = match rules.get(name.as_str()) {
                Some(new) => *new,
                None => (!self.drops_others).then_some(name.as_str()),
            };
            let place = new.map(|new| {
                *places.entry(new).or_insert_with(|| {
                    classes.push(new.to_owned());
                    classes.len() as i64 - 1
                })
            });
            map.insert(label, place);
        }
        Ok((map, classes))
    }

    fn by_label(&self) -> Result<NewLabels> {
        let mut map = HashMap::new();
        for (label, new) in &self.labelled {
            if map.insert(*label, *new).is_some() {
                return Err(ruled_twice(&format!("of label {label}")));
            }
        }
        Ok(map)
    }
}

fn ruled_twice(class: &str) -> Error {
    Error::new(ErrorKind::InvalidParameter, format!("the class map speaks twice of the class {class}"))
        .with_remedy("give each class one rule")
}

/// New labels by old ones; none of what is dropped.
type NewLabels = HashMap<i64, Option<i64>>;

/// What becomes of a label.
struct Becomes {
    map: NewLabels,
    drops_others: bool,
}

impl Becomes {
    fn of(&self, label: i64) -> Option<i64> {
        match self.map.get(&label) {
            Some(new) => *new,
            None => (!self.drops_others).then_some(label),
        }
    }

    fn drops_any(&self) -> bool {
        self.drops_others || self.map.values().any(Option::is_none)
    }
}

/// A source whose classes are others: made by [`ClassMap::apply`].
pub struct Relabelled {
    source: Arc<dyn Source>,
    becomes: Becomes,
    classes: Vec<String>,
}

impl Relabelled {
    /// The source whose labels these were, without the samples of classes that are dropped.
    pub fn inner(&self) -> &Arc<dyn Source> {
        &self.source
    }
}

impl Source for Relabelled {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        self.source.extent(sample)
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.source.object_path(object, path)
    }

    fn label(&self, sample: u64) -> Result<i64> {
        // None is dropped: those samples are not in the source.
        Ok(self.becomes.of(self.source.label(sample)?).unwrap_or(UNLABELLED))
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        self.source.key(sample, key)
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        self.source.is_headerless(sample)
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        self.source.record(sample)
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        self.source.columns(sample)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shards(&self) -> Vec<StoredShard> {
        self.source.shards()
    }

    fn notes(&self) -> &[String] {
        self.source.notes()
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        self.source.index_fallbacks()
    }
}
