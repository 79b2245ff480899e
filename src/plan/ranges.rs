//! From the byte ranges that a region needs to the reads that fetch them.

use std::ops::Range;

/// A gap shorter than this is read rather than jumped.
///
/// A read costs about as much as moving this many bytes: 1 to 2 us of system time against 5 to 8 GB/s of copying from
/// the page cache, and a millionth of a second of an NVMe device of a million reads and 7 GB a second.
pub(crate) const GAP_BYTES: u64 = 8 << 10;

/// The most reads of one sample; beyond it, longer gaps are read as well. Each takes a region of the arena, whose
/// number is bounded, and a large photo has an order fewer.
pub(crate) const READS_MAX: usize = 1024;

/// Puts ranges in ascending order and makes those one that touch or overlap.
pub(crate) fn unite(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, united| {
        let touches = next.start <= united.end;
        if touches {
            united.end = united.end.max(next.end);
        }
        touches
    });
}

/// Merges `ranges`, which ascend and do not overlap, where the gap between two is short.
///
/// Gaps of `align_bytes` or more stay at least where they are longer than [`GAP_BYTES`], so that ranges rounded
/// outward to that alignment never overlap: reads take no more bytes than one of all of them would.
pub(crate) fn merge(ranges: &mut Vec<Range<u64>>, align_bytes: u64) {
    let mut gap_bytes = GAP_BYTES.max(align_bytes);
    loop {
        ranges.dedup_by(|next, merged| {
            let is_near = next.start < merged.end.saturating_add(gap_bytes);
            if is_near {
                merged.end = merged.end.max(next.end);
            }
            is_near
        });
        if ranges.len() <= READS_MAX {
            return;
        }
        gap_bytes = gap_bytes.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(ranges: &[Range<u64>], align_bytes: u64) -> Vec<Range<u64>> {
        let mut ranges = ranges.to_vec();
        merge(&mut ranges, align_bytes);
        ranges
    }

    #[test]
    fn a_gap_is_read_if_it_is_shorter_than_a_read_costs() {
        let (short, long) = (10..20, 20 + GAP_BYTES..30 + GAP_BYTES);
        assert_eq!(merged(&[short.clone(), long.clone()], 1), [short.clone(), long.clone()]);
        let all = 10..long.end;
        assert_eq!(merged(&[short.clone(), long.start - 1..long.end], 1), std::slice::from_ref(&all));
        assert_eq!(merged(&[short, long], GAP_BYTES + 1), std::slice::from_ref(&all));
        assert!(merged(&[], 1).is_empty());
    }

    #[test]
    fn ranges_of_several_views_become_ascending_ones() {
        let mut ranges = vec![40..50, 10..20, 45..47, 20..30, 31..35, 12..15];
        unite(&mut ranges);
        assert_eq!(ranges, [10..30, 31..35, 40..50]);
    }

    #[test]
    fn the_number_of_reads_is_bounded() {
        let far_apart: Vec<_> = (0..10_000_u64).map(|n| n.pow(3)..n.pow(3) + 1).collect();
        let merged = merged(&far_apart, 1);
        assert!((2..=READS_MAX).contains(&merged.len()), "{}", merged.len());
        assert_eq!((merged[0].start, merged[merged.len() - 1].end), (0, 9_999_u64.pow(3) + 1));
    }

    proptest! {
        #[test]
        fn every_byte_stays_and_rounded_reads_never_overlap(
            steps in proptest::collection::vec((0_u64..40_000, 1_u64..30_000), 1..60),
            align in (0_u32..17).prop_map(|shift| 1_u64 << shift),
        ) {
            let mut end = 0;
            let ranges: Vec<_> = steps.iter().map(|(gap, len)| {
                let start = end + gap;
                end = start + len;
                start..end
            }).collect();
            let merged = merged(&ranges, align);
            for range in &ranges {
                prop_assert!(merged.iter().any(|read| read.start <= range.start && range.end <= read.end));
            }
            // Nothing is read but the ranges and gaps shorter than the bound.
            let gaps: u64 = steps[1..].iter().map(|(gap, _)| *gap).filter(|gap| *gap < GAP_BYTES.max(align)).sum();
            let needed: u64 = steps.iter().map(|(_, len)| *len).sum();
            prop_assert_eq!(merged.iter().map(|read| read.end - read.start).sum::<u64>(), needed + gaps);
            for pair in merged.windows(2) {
                prop_assert!(pair[0].end.next_multiple_of(align) <= pair[1].start / align * align);
            }
        }
    }
}
