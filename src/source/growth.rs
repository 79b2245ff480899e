//! Data sets that grow: telling whether one has, and taking on a part of it.

use std::path::PathBuf;
use std::sync::Arc;

use super::index::modified;
use super::names::out_of_range;
use super::open::DataSet;
use super::{Columns, Extent, Record, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::report::Fallback;

/// An object with the samples of a source that follow one another, as it was when the source was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredShard {
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// When it was modified: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// How many samples it holds.
    pub samples: u64,
}

/// Whether the samples of a data set are the first ones of it as it is now, with the same numbers and classes.
///
/// Shards are compared as such, where both have some ([`Source::shards`]); anything else key by key.
///
/// # Errors
/// `Changed`, by the first difference; those of the sources.
pub(crate) fn check_grown(before: &dyn Source, now: &dyn Source) -> Result<()> {
    let (known, found) = (before.shards(), now.shards());
    if known.is_empty() || found.is_empty() {
        check_keys(before, now)?;
    } else {
        check_shards(&known, &found)?;
    }
    let mut classes = before.classes().iter().zip(now.classes()).zip(0u64..);
    if let Some(((then, now), label)) = classes.find(|((then, now), _)| then != now) {
        return Err(changed(format!("label {label} was the class {then} and is the class {now}"), BEHIND));
    }
    if now.classes().len() < before.classes().len() {
        let gone = &before.classes()[now.classes().len()];
        return Err(changed(format!("the class {gone} is gone"), UNTOUCHED));
    }
    Ok(())
}

/// Whether paths name the very shards that are known, unchanged, so that nothing has to be opened to see that.
///
/// # Errors
/// Those of looking for them.
pub(crate) fn has_same_shards(paths: &[PathBuf], known: &[StoredShard]) -> Result<bool> {
    let mut known = known.iter();
    for path in paths {
        let DataSet::Shards(shards) = DataSet::find(path)? else { return Ok(false) };
        for path in shards {
            let now = std::fs::metadata(&path).ok().map(|now| (now.len(), modified(&now)));
            let then = known.next().filter(|then| then.path == path);
            if now.is_none() || now != then.map(|then| (then.size_bytes, then.modified)) {
                return Ok(false);
            }
        }
    }
    Ok(known.next().is_none())
}

const BEHIND: &str = "let what is new sort behind what was there: shards, files and class folders by name, lines at the end \
                      of a list; of several data sets, only the last can grow. Or build another loader";
const UNTOUCHED: &str = "leave what was loaded as it is and put new samples into new shards, files or lines, or build \
                         another loader";

fn check_shards(known: &[StoredShard], found: &[StoredShard]) -> Result<()> {
    for (number, then) in known.iter().enumerate() {
        let path = then.path.display();
        let Some(now) = found.get(number) else {
            return Err(changed(format!("shard {path} is gone"), UNTOUCHED));
        };
        if now == then {
            continue;
        }
        if now.path != then.path {
            let (other, place) = (now.path.display(), number + 1);
            let is_gone = !found.iter().any(|found| found.path == then.path);
            let (what, remedy) = if is_gone { (" is gone, and", UNTOUCHED) } else { ("", BEHIND) };
            let cause = format!("shard {path}{what} was number {place}, where {other} is now");
            return Err(changed(cause, remedy));
        }
        let facts = |shard: &StoredShard| format!("{} bytes with {} samples", shard.size_bytes, shard.samples);
        let (was, is) = (facts(then), facts(now));
        let what = if was == is { "was written anew".to_owned() } else { format!("had {was} and has {is}") };
        return Err(changed(format!("shard {path} {what}"), UNTOUCHED));
    }
    Ok(())
}

fn check_keys(before: &dyn Source, now: &dyn Source) -> Result<()> {
    let (mut then_key, mut now_key) = (String::new(), String::new());
    for sample in 0..before.len() {
        before.key(sample, &mut then_key)?;
        if sample >= now.len() {
            return Err(changed(format!("sample {sample}, {then_key}, is gone"), UNTOUCHED));
        }
        now.key(sample, &mut now_key)?;
        if then_key != now_key {
            return Err(changed(format!("sample {sample} was {then_key} and is {now_key}"), BEHIND));
        }
    }
    Ok(())
}

fn changed(cause: String, remedy: &str) -> Error {
    Error::new(ErrorKind::Changed, format!("the data set did not only grow: {cause}")).with_remedy(remedy)
}

/// The first samples of a source: those of a data set that were taken on, of all that it has by now.
pub(crate) struct First {
    source: Arc<dyn Source>,
    samples: u64,
    notes: Vec<String>,
}

impl First {
    /// So many of them, or the source itself if it has no more.
    pub(crate) fn of(source: Arc<dyn Source>, samples: u64) -> Arc<dyn Source> {
        let len = source.len();
        if samples >= len {
            return source;
        }
        let mut notes = source.notes().to_vec();
        notes.push(format!("samples not taken on yet: the last {} of {len}", len - samples));
        Arc::new(Self { source, samples, notes })
    }

    fn check(&self, sample: u64) -> Result<u64> {
        if sample < self.samples { Ok(sample) } else { Err(out_of_range(sample, self.samples)) }
    }
}

impl Source for First {
    fn len(&self) -> u64 {
        self.samples
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        self.source.extent(self.check(sample)?)
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.source.object_path(object, path)
    }

    fn label(&self, sample: u64) -> Result<i64> {
        self.source.label(self.check(sample)?)
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        self.source.key(self.check(sample)?, key)
    }

    fn is_headerless(&self, sample: u64) -> Result<bool> {
        self.source.is_headerless(self.check(sample)?)
    }

    fn record(&self, sample: u64) -> Result<Option<Record<'_>>> {
        self.source.record(self.check(sample)?)
    }

    fn columns(&self, sample: u64) -> Result<Option<Columns<'_>>> {
        self.source.columns(self.check(sample)?)
    }

    fn classes(&self) -> &[String] {
        self.source.classes()
    }

    fn shards(&self) -> Vec<StoredShard> {
        let mut shards = self.source.shards();
        let mut samples = 0;
        shards.retain(|shard| {
            let is_of_it = samples < self.samples;
            samples += if is_of_it { shard.samples } else { 0 };
            is_of_it
        });
        shards
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn index_fallbacks(&self) -> &[Fallback] {
        self.source.index_fallbacks()
    }
}
