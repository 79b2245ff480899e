//! What listing saw and left out, counted by reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts things left out by reason, with one example each. The example is the least name, so that it
/// does not depend on which thread came first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen(BTreeMap<Cow<'static, str>, Tally>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tally {
    count: u64,
    example: Vec<u8>,
}

impl Seen {
    /// Counts `name` under `reason`, a phrase such as "links left out".
    pub fn add(&mut self, reason: &'static str, name: &[u8]) {
        self.count(Cow::Borrowed(reason), 1, || name.to_vec(), |example| name < example);
    }

    /// Whether anything was counted under a reason.
    pub fn has(&self, reason: &str) -> bool {
        self.0.contains_key(reason)
    }

    /// Adds all that `other` counted, its names prefixed by `folder`.
    pub fn merge(&mut self, other: Self, folder: &[u8]) {
        for (reason, tally) in other.0 {
            let name = [folder, &tally.example].concat();
            self.count(reason, tally.count, || name.clone(), |example| name.as_slice() < example);
        }
    }

    fn count(
        &mut self,
        reason: Cow<'static, str>,
        count: u64,
        name: impl Fn() -> Vec<u8>,
        is_less: impl Fn(&[u8]) -> bool,
    ) {
        let tally = self.0.entry(reason).or_insert_with(|| Tally { count: 0, example: name() });
        // An index may declare any number.
        tally.count = tally.count.saturating_add(count);
        if is_less(&tally.example) {
            tally.example = name();
        }
    }

    /// A line for each reason, in alphabetical order.
    pub fn lines(&self) -> Vec<String> {
        let line = |(reason, tally): (&Cow<'_, str>, &Tally)| {
            format!("{reason}: {}, such as {}", tally.count, String::from_utf8_lossy(&tally.example))
        };
        self.0.iter().map(line).collect()
    }
}
