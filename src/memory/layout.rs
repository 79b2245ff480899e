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

    /// How the samples `kept` of a batch come to follow each other, as a batch of their own: what is to be moved where, in
    /// an order in which nothing is overwritten that is still to be moved. All of it moves down, by less than its own length
    /// too.
    pub(crate) fn moves(&self, kept: &[usize], samples: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        let places = (0..self.views()).flat_map(move |view| {
            let of_sample = move |(to, &from): (usize, &usize)| (view, from, to);
            kept.iter().enumerate().map(of_sample)
        });
        let moves = places.map(move |(view, from, to)| {
            let (from, to) = (self.place(view, from, samples), self.place(view, to, kept.len()));
            (from, to.start)
        });
        moves.filter(|(from, to)| from.start != *to)
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

    #[test]
    fn what_is_kept_of_a_batch_becomes_one_of_its_own() {
        let layout = ViewLayout::new([(2, 75), (3, 8), (1, 1000)]);
        for samples in 1..6_usize {
            for mask in 0..1_u32 << samples {
                let kept: Vec<_> = (0..samples).filter(|index| mask >> index & 1 == 1).collect();
                let fill = |view: usize, index: usize| (view * samples + index + 1) as u8;
                let mut bytes = vec![0; layout.len_bytes(samples).unwrap()];
                for (view, index) in (0..6).flat_map(|view| (0..samples).map(move |index| (view, index))) {
                    bytes[layout.place(view, index, samples)].fill(fill(view, index));
                }
                for (from, to) in layout.moves(&kept, samples) {
                    assert!(to < from.start);
                    bytes.copy_within(from, to);
                }
                for (view, (index, &place)) in (0..6).flat_map(|view| kept.iter().enumerate().map(move |it| (view, it)))
                {
                    let moved = &bytes[layout.place(view, index, kept.len())];
                    assert!(moved.iter().all(|byte| *byte == fill(view, place)), "view {view} of {place} in {kept:?}");
                }
            }
        }
    }
}
