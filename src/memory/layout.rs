//! Where the views of a batch's samples lie in a slot.

use std::ops::Range;

/// Where groups of views start: on what CUDA's own allocations start on, enough for any element type.
const GROUP_ALIGN_BYTES: usize = 256;

/// The layout of a slot: group behind group, in a group view behind view, of a view the samples back to back. So each
/// group is one tensor `[views * samples, ..]`, and so is each view `[samples, ..]`, in a batch of however few samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ViewLayout {
    /// Views, and bytes of a sample in each.
    groups: Box<[(usize, usize)]>,
}

impl ViewLayout {
    /// Of one view.
    pub(crate) fn of_one(sample_bytes: usize) -> Self {
        Self { groups: Box::new([(1, sample_bytes)]) }
    }

    /// Of groups of so many views, each of so many bytes a sample.
    pub(crate) fn new(groups: impl IntoIterator<Item = (usize, usize)>) -> Self {
        Self { groups: groups.into_iter().collect() }
    }

    /// Views of a sample.
    pub(crate) fn views(&self) -> usize {
        self.groups.iter().map(|(views, _)| views).sum()
    }

    /// Bytes of a batch; `None` where they cannot be addressed.
    pub(crate) fn len_bytes(&self, samples: usize) -> Option<usize> {
        self.groups.iter().try_fold(0_usize, |end, (views, sample_bytes)| {
            let len_bytes = samples.checked_mul(*views)?.checked_mul(*sample_bytes)?;
            end.checked_next_multiple_of(GROUP_ALIGN_BYTES)?.checked_add(len_bytes)
        })
    }

    /// The bytes of a group in a batch of so many samples.
    ///
    /// # Panics
    /// If there is no such group.
    pub(crate) fn group(&self, group: usize, samples: usize) -> Range<usize> {
        let (_, bytes) = self.ranges(samples).nth(group).unwrap_or_else(|| panic!("no group {group}"));
        bytes
    }

    /// The bytes of a sample's view, numbered through all groups, in a batch of so many samples.
    ///
    /// # Panics
    /// If there is no such view.
    pub(crate) fn place(&self, view: usize, index: usize, samples: usize) -> Range<usize> {
        let mut first = 0;
        for (&(views, sample_bytes), (_, bytes)) in self.groups.iter().zip(self.ranges(samples)) {
            if view < first + views {
                let start = bytes.start + ((view - first) * samples + index) * sample_bytes;
                return start..start + sample_bytes;
            }
            first += views;
        }
        panic!("no view {view} of {first}")
    }

    /// Each group's views and bytes. A batch of as many samples as there are places was seen to be addressable.
    fn ranges(&self, samples: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.groups.iter().scan(0_usize, move |end, &(views, sample_bytes)| {
            let start = end.next_multiple_of(GROUP_ALIGN_BYTES);
            *end = start + samples * views * sample_bytes;
            Some((views, start..*end))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_disjoint_and_make_tensors_of_groups_and_views() {
        let layout = ViewLayout::new([(2, 75), (3, 8), (1, 1000)]);
        for samples in 1..6 {
            let mut end = 0;
            for (group, views) in [(0, 0..2), (1, 2..5), (2, 5..6)] {
                let bytes = layout.group(group, samples);
                assert!(bytes.start.is_multiple_of(GROUP_ALIGN_BYTES) && bytes.start >= end && bytes.start - end < 256);
                end = bytes.start;
                for view in views {
                    for index in 0..samples {
                        let place = layout.place(view, index, samples);
                        assert_eq!(place.start, end, "view {view}, sample {index} of {samples}");
                        end = place.end;
                    }
                }
                assert_eq!(end, bytes.end);
            }
            assert_eq!(layout.len_bytes(samples), Some(end));
        }
        assert_eq!((layout.views(), layout.len_bytes(usize::MAX / 100)), (6, None));
        assert_eq!(ViewLayout::of_one(75).len_bytes(3), Some(225));
    }
}
