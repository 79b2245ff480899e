//! What is counted of bad samples where batches are taken: the budget, the report, and the file of bad samples.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Shared;
use super::tray::Filled;
use crate::batch::BadSample;
use crate::error::{Error, ErrorKind, Result};
use crate::report::lock;

/// Bad samples that an error about too many of them names: the last.
const NAMED: usize = 3;

/// The bad samples of a run so far, in the order of its batches.
#[derive(Default)]
pub(super) struct Judge {
    epoch: u64,
    /// Samples of the epoch that batches were to hold, and the bad ones of them.
    taken: u64,
    bad: u64,
    last: VecDeque<Arc<BadSample>>,
}

impl Judge {
    /// Counts a batch that is taken.
    ///
    /// # Errors
    /// The failure that the batch came with; `BudgetExceeded` where it has more bad samples than are still allowed.
    pub(super) fn take(&mut self, shared: &Shared, filled: &Filled) -> Result<()> {
        let epoch = filled.tray.step.epoch();
        if epoch != self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
        self.taken += filled.tray.samples.len() as u64;
        let bad = filled.delivered.as_ref().map_or(&[][..], |delivered| &delivered.bad);
        if !bad.is_empty() {
            self.count(shared, bad);
        }
        match filled.tray.take_failure() {
            Some(failure) => Err(failure),
            None if bad.is_empty() || self.bad <= shared.budget.allows(self.taken) => Ok(()),
            None => Err(self.exceeded(shared)),
        }
    }

    fn count(&mut self, shared: &Shared, bad: &[(usize, Arc<BadSample>)]) {
        self.bad += bad.len() as u64;
        for (_, bad) in bad {
            if self.last.len() == NAMED {
                self.last.pop_front();
            }
            self.last.push_back(Arc::clone(bad));
        }
        shared.counters.count_bad(bad.iter().map(|(_, bad)| bad));
        if let Some(file) = &shared.bad_samples_file {
            file.write(shared, bad.iter().map(|(_, bad)| &**bad));
        }
    }

    fn exceeded(&self, shared: &Shared) -> Error {
        let Self { epoch, taken, bad, last } = self;
        let budget = shared.budget;
        let causes: Vec<_> = last.iter().map(|bad| bad.error.cause()).collect();
        let message = format!(
            "{bad} of the {taken} samples taken of epoch {epoch} were bad, and the error budget {budget} allows {}; the \
             last of them: {}",
            budget.allows(*taken),
            causes.join("; "),
        );
        Error::new(ErrorKind::BudgetExceeded, message)
            .with_remedy("mend or leave out such samples, or raise the error budget (--error-budget)")
    }
}

/// The file that bad samples are written to, a line of JSON each.
pub(super) struct BadSamplesFile {
    path: PathBuf,
    /// None once it could not be opened or written.
    file: Mutex<Option<File>>,
}

impl BadSamplesFile {
    /// Opens it for appending, and makes it where it is not.
    pub(super) fn open(path: &Path) -> (Self, Option<Error>) {
        let (file, error) = match File::options().append(true).create(true).open(path) {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some(cannot_write(path, error))),
        };
        (Self { path: path.to_owned(), file: Mutex::new(file) }, error)
    }

    /// Writes the bad samples of a batch at once, past any buffer of this process. What cannot be written is a fallback.
    fn write<'a>(&self, shared: &Shared, bad: impl Iterator<Item = &'a BadSample>) {
        let mut file = lock(&self.file);
        let Some(to) = &mut *file else { return };
        let mut lines = String::new();
        for bad in bad {
            lines += &bad.json().to_string();
            lines.push('\n');
        }
        if let Err(error) = to.write_all(lines.as_bytes()) {
            *file = None;
            shared.count_unwritten(|| cannot_write(&self.path, error));
        }
    }
}

impl Shared {
    /// Counts that bad samples are not written where that was asked for.
    pub(super) fn count_unwritten(&self, why: impl FnOnce() -> Error) {
        self.counters.count_fallback("file of bad samples", "the report alone", why);
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), error)
        .with_remedy("make room and give this user the rights to write there, or name another file")
}
