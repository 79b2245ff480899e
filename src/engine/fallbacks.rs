//! What the engine could not do as asked: logged once a device, counted for the report.

use std::sync::{Mutex, PoisonError};

use crate::report::Fallback;

/// The fallbacks taken so far. Shared by the threads of an engine; touched only when one is taken.
#[derive(Default)]
pub(super) struct Fallbacks {
    taken: Mutex<Vec<(Option<u64>, Fallback)>>,
}

impl Fallbacks {
    /// Counts one. The first of its kind on a device (`None`: of the run) is described by `describe` as
    /// (cause, remedy) and logged.
    pub(super) fn take(
        &self,
        what: &'static str,
        instead: &'static str,
        device: Option<u64>,
        describe: impl FnOnce() -> (String, String),
    ) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = taken.iter_mut().find(|(on, known)| *on == device && known.what == what) {
            known.count += 1;
            return;
        }
        let (cause, remedy) = describe();
        let fallback = Fallback { what, instead, cause, remedy, count: 1 };
        log::warn!("{fallback}");
        taken.push((device, fallback));
    }

    pub(super) fn snapshot(&self) -> Vec<Fallback> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().map(|(_, fallback)| fallback.clone()).collect()
    }
}
