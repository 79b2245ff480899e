//! What builds the indexes of several data sets that are loaded as one.

use super::build::{BuildOptions, Built};
use super::describe::Described;
use super::recorder::{Origin, Recorder};
use crate::error::Result;
use crate::source::open::Opened;

/// A recorder for each data set, in the order of their samples.
pub(crate) struct Recorders {
    /// With the number of its first sample.
    parts: Vec<(u64, Recorder)>,
}

impl Recorders {
    pub(crate) fn new(opened: &[Opened], options: &BuildOptions) -> Self {
        let mut start = 0;
        let parts = opened.iter().map(|opened| {
            let first = start;
            start += opened.source.len();
            (first, Recorder::new(opened.path.clone(), options.clone(), opened.source.len()))
        });
        Self { parts: parts.collect() }
    }

    /// As [`Recorder::wants`].
    pub(crate) fn wants(&self, sample: u64) -> bool {
        self.find(sample).is_some_and(|(recorder, sample)| recorder.wants(sample))
    }

    /// As [`Recorder::record`].
    pub(crate) fn record(&self, sample: u64, origin: &Origin<'_>, described: &Described) {
        if let Some((recorder, _)) = self.find(sample) {
            recorder.record(origin, described);
        }
    }

    /// As [`Recorder::write_index`], of all of them. One that cannot be written does not keep others from being.
    ///
    /// # Errors
    /// The first.
    pub(crate) fn write_index(&self) -> Result<Option<Built>> {
        let (mut all, mut first_error) = (None::<Built>, None);
        for (_, recorder) in &self.parts {
            match recorder.write_index() {
                Ok(Some(built)) => {
                    let all = all.get_or_insert_default();
                    all.samples += built.samples;
                    all.files += built.files;
                }
                Ok(None) => {}
                Err(error) => _ = first_error.get_or_insert(error),
            }
        }
        first_error.map_or(Ok(all), Err)
    }

    fn find(&self, sample: u64) -> Option<(&Recorder, u64)> {
        let number = self.parts.partition_point(|(start, _)| *start <= sample).checked_sub(1)?;
        let (start, recorder) = self.parts.get(number)?;
        Some((recorder, sample - start))
    }
}
