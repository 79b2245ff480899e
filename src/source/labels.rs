//! A compact list of labels.

use super::UNLABELLED;

/// Stored for a label that is there but cannot be read.
const UNREADABLE: i32 = i32::MIN;

/// One label a sample: nothing while no sample has one, 4 bytes a sample while all of them fit, 8
/// bytes from the first that does not.
#[derive(Default)]
pub(super) struct Labels {
    /// Samples before the first that had a label; the lists below begin after them.
    unlabelled: u64,
    narrow: Vec<i32>,
    /// In place of `narrow` once it is not empty.
    wide: Vec<i64>,
}

/// What is known of a sample's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// The sample has none.
    Missing,
    Is(i64),
    /// There is one and it makes no sense: an error of that sample, kept until it is asked for.
    Unreadable,
}

impl Labels {
    pub fn push(&mut self, label: Label) {
        if label == Label::Missing && self.narrow.is_empty() && self.wide.is_empty() {
            self.unlabelled += 1;
            return;
        }
        let value = match label {
            Label::Missing => UNLABELLED,
            Label::Is(value) => value,
            Label::Unreadable => i64::from(UNREADABLE),
        };
        match i32::try_from(value) {
            // A true label of i32::MIN would read as unreadable.
            Ok(value) if self.wide.is_empty() && (value != UNREADABLE || label == Label::Unreadable) => {
                self.narrow.push(value);
            }
            _ => {
                let narrow = std::mem::take(&mut self.narrow);
                self.wide.extend(narrow.into_iter().map(widen));
                self.wide.push(if label == Label::Unreadable { i64::MIN } else { value });
            }
        }
    }

    pub fn shrink(&mut self) {
        self.narrow.shrink_to_fit();
        self.wide.shrink_to_fit();
    }

    /// The label of a sample, or `None` where it is unreadable. Samples never pushed have no label.
    pub fn label(&self, sample: u64) -> Option<i64> {
        let Some(at) = sample.checked_sub(self.unlabelled) else { return Some(UNLABELLED) };
        let value = match self.wide.get(at as usize) {
            Some(&value) => value,
            None => self.narrow.get(at as usize).map_or(UNLABELLED, |&value| widen(value)),
        };
        (value != i64::MIN).then_some(value)
    }
}

fn widen(value: i32) -> i64 {
    if value == UNREADABLE { i64::MIN } else { i64::from(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_label_comes_back_in_every_width() {
        let list = [
            (Label::Missing, Some(UNLABELLED)),
            (Label::Missing, Some(UNLABELLED)),
            (Label::Is(7), Some(7)),
            (Label::Missing, Some(UNLABELLED)),
            (Label::Unreadable, None),
            (Label::Is(i64::from(i32::MIN)), Some(i64::from(i32::MIN))),
            (Label::Unreadable, None),
            (Label::Is(i64::MAX), Some(i64::MAX)),
            (Label::Is(-3), Some(-3)),
            (Label::Missing, Some(UNLABELLED)),
        ];
        for len in 0..=list.len() {
            let mut labels = Labels::default();
            list[..len].iter().for_each(|(label, _)| labels.push(*label));
            labels.shrink();
            for (sample, (_, expected)) in list[..len].iter().enumerate() {
                assert_eq!(labels.label(sample as u64), *expected, "sample {sample} of {len}");
            }
        }
    }

    #[test]
    fn no_labels_take_no_memory() {
        let mut labels = Labels::default();
        (0..1000).for_each(|_| labels.push(Label::Missing));
        assert_eq!(labels.narrow.capacity() + labels.wide.capacity(), 0);
        assert_eq!(labels.label(999), Some(UNLABELLED));
    }
}
