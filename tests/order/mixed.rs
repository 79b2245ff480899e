//! Promises of mixtures: every part by its weight, in every block exactly and nearly in every batch; every part gone through
//! pass after pass; by seed and place alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use forebay::ErrorKind;
use forebay::order::{Cursor, EpochSteps, Shard};
use forebay::order::{LastBatch, Mixture, Order, Shuffle};

const BLOCK: u64 = 1 << 16;

fn mixture(parts: &[(u64, f64)]) -> Mixture {
    Mixture::new(parts).expect("a mixture")
}

/// The samples of a run of positions, through epochs.
fn run(order: &Order, places: std::ops::Range<u64>) -> Vec<u64> {
    places.map(|place| order.at(place / order.samples(), place % order.samples())).collect()
}

fn counts(mixture: &Mixture, samples: &[u64]) -> Vec<u64> {
    let mut counts = vec![0; mixture.parts()];
    samples.iter().for_each(|&sample| counts[mixture.part_of(sample)] += 1);
    counts
}

#[test]
fn every_block_has_exactly_its_places_and_every_window_nearly() {
    for parts in
        [&[(1000, 0.7), (77, 0.3)][..], &[(5, 1.0), (1 << 40, 1.0)], &[(9, 0.5), (8, 0.3), (7, 0.2), (1, 0.01)]]
    {
        let mixture = mixture(parts);
        // Epochs that divide no block.
        let order = Order::mixed(mixture.clone().with_samples(12_345).expect("samples"), 3);
        let samples = run(&order, 0..2 * BLOCK);
        let shares: Vec<f64> = (0..parts.len()).map(|part| mixture.share(part)).collect();
        for block in samples.chunks_exact(BLOCK as usize) {
            for (count, share) in counts(&mixture, block).into_iter().zip(&shares) {
                assert_eq!(count as f64, share * BLOCK as f64);
            }
        }
        for bits in 6..16 {
            for window in samples.chunks_exact(1 << bits) {
                for (count, share) in counts(&mixture, window).into_iter().zip(&shares) {
                    assert!((count as f64 - share * f64::from(1 << bits)).abs() < 1.0, "{count} of {}", 1 << bits);
                }
            }
        }
        // Windows anywhere, of any length: what the strata at their ends make of chance, and a little of those between.
        for (start, len) in [(1u64, 100), (31, 256), (4097, 1000), (60_000, 12_345)] {
            let window = &samples[start as usize..][..len];
            for (count, share) in counts(&mixture, window).into_iter().zip(&shares) {
                assert!((count as f64 - share * len as f64).abs() < 16.0, "{count} of {len} at {start}, {share}");
            }
        }
    }
}

#[test]
fn every_pass_through_a_part_is_each_of_its_samples_once() {
    for shuffle in [Shuffle::Full, Shuffle::Sequential, Shuffle::Block { samples_per_block: 10 }] {
        let parts = [(1000, 0.6), (77, 0.3), (3, 0.1)];
        let mixture = mixture(&parts).with_shuffle(shuffle).expect("a shuffle");
        let order = Order::mixed(mixture.clone(), 11);
        let mut passes: Vec<Vec<Vec<u64>>> = vec![vec![]; 3];
        // In the order of positions: a pass is over before the next begins.
        for (place, sample) in run(&order, 0..5000).into_iter().enumerate() {
            let (epoch, position) = (place as u64 / order.samples(), place as u64 % order.samples());
            let part = mixture.part_of(sample);
            let pass = order.view(epoch, position) as usize;
            assert!(pass + 1 >= passes[part].len(), "pass {pass} after {}", passes[part].len());
            passes[part].resize(pass + 1, vec![]);
            passes[part][pass].push(sample);
        }
        for (part, (passes, first)) in passes.iter().zip([0, 1000, 1077]).enumerate() {
            let (_, whole) = passes.split_last().expect("a pass");
            assert!(whole.len() > 1, "part {part}: {} passes", whole.len());
            for pass in whole {
                let mut sorted = pass.clone();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(first..first + parts[part].0), "part {part} by {shuffle}");
            }
            if part < 2 {
                assert_eq!(whole[0] == whole[1], shuffle == Shuffle::Sequential, "shuffled anew in every pass");
            }
        }
    }
}

#[test]
fn what_comes_again_in_an_epoch_is_another_view() {
    let order = Order::mixed(mixture(&[(500, 0.5), (7, 0.5)]), 1);
    for epoch in [0, 1, 9] {
        let mut seen = std::collections::HashSet::new();
        for position in 0..order.samples() {
            assert!(seen.insert((order.at(epoch, position), order.view(epoch, position))));
        }
    }
}

#[test]
fn the_shares_of_ranks_are_the_epoch_however_many_there_are() {
    let order = Order::mixed(mixture(&[(500, 0.8), (7, 0.2)]), 1);
    let expected: Vec<_> = (0..order.samples()).map(|position| order.at(2, position)).collect();
    for ranks in [1, 2, 3, 7] {
        let mut taken = vec![];
        for rank in 0..ranks {
            let shard = Shard::new(rank, ranks).expect("a rank");
            let steps = EpochSteps::of_rank(order.samples(), 13, LastBatch::Partial, shard).expect("steps");
            for step in steps.run(Cursor::start_of(2), 3) {
                taken.extend(step.positions().map(|position| (position, order.epoch(2).at(position))));
            }
        }
        taken.sort_unstable();
        assert!(taken.into_iter().map(|(_, sample)| sample).eq(expected.iter().copied()), "{ranks} ranks");
    }
}

/// Within a stratum neighbours are two of those that are due, without replacement; across a border they are independent.
#[test]
fn which_part_follows_which_is_chance() {
    let weights = [0.5, 0.25, 0.25];
    let mixture = mixture(&weights.map(|weight| (100, weight)));
    let order = Order::mixed(mixture.clone(), 77);
    let samples = run(&order, 0..64 * 20_000);
    let parts: Vec<usize> = samples.iter().map(|&sample| mixture.part_of(sample)).collect();
    let strata: Vec<&[usize]> = parts.chunks_exact(64).collect();
    let due = weights.map(|weight| weight * 64.0);
    let check = |name: &str, pairs: Vec<(usize, usize)>, expected: &dyn Fn(usize, usize) -> f64| {
        let mut counts = HashMap::<_, u64>::new();
        pairs.iter().for_each(|pair| *counts.entry(*pair).or_default() += 1);
        let mut chi_square = 0.0;
        for (a, b) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
            let expected = expected(a, b) * pairs.len() as f64;
            chi_square += (counts.get(&(a, b)).copied().unwrap_or(0) as f64 - expected).powi(2) / expected;
        }
        // 8 degrees of freedom: mean + 5 standard deviations.
        assert!(chi_square < 8.0 + 5.0 * 4.0, "{name}: {chi_square}");
    };
    let without = |a: usize, b: usize| due[a] / 64.0 * (due[b] - f64::from(u8::from(a == b))) / 63.0;
    for place in [0, 1, 31, 62] {
        let pairs = strata.iter().map(|stratum| (stratum[place], stratum[place + 1])).collect();
        check(&format!("places {place} and the next"), pairs, &without);
    }
    check("the ends of a stratum", strata.iter().map(|stratum| (stratum[0], stratum[63])).collect(), &without);
    let independent = |a: usize, b: usize| weights[a] * weights[b];
    check("across a border", strata.windows(2).map(|pair| (pair[0][63], pair[1][0])).collect(), &independent);
    check(
        "the same place of neighbours",
        strata.windows(2).map(|pair| (pair[0][5], pair[1][5])).collect(),
        &independent,
    );
}

#[test]
fn seed_and_place_alone_decide() {
    let of =
        |seed, samples| Order::mixed(mixture(&[(100, 0.6), (40, 0.4)]).with_samples(samples).expect("samples"), seed);
    assert_eq!(run(&of(1, 140), 0..2000), run(&of(1, 140), 0..2000));
    assert_eq!(run(&of(1, 140), 0..2000), run(&of(1, 33), 0..2000), "where epochs end is another matter");
    assert_ne!(run(&of(1, 140), 0..2000), run(&of(2, 140), 0..2000));
    let whole = run(&of(1, 140), 0..2000);
    assert!((0..2000).rev().all(|place| of(1, 140).at(place / 140, place % 140) == whole[place as usize]));
    let parts = mixture(&[(100, 0.5), (100, 0.5)]);
    let order = Order::mixed(parts.clone(), 1);
    let of_part = |part| {
        let samples = run(&order, 0..150).into_iter().filter(|&sample| parts.part_of(sample) == part);
        samples.map(|sample| sample % 100).take(50).collect::<Vec<_>>()
    };
    assert_ne!(of_part(0), of_part(1), "each part has an order of its own");
    // Changing this is changing every run's order.
    assert_eq!(&whole[..7], FIRST_SEVEN);
}

const FIRST_SEVEN: [u64; 7] = [82, 87, 111, 103, 99, 100, 20];

#[test]
fn parts_of_a_billion_samples_take_no_time() {
    let parts: Vec<_> = (1..=4).map(|part| (1_000_000_000, f64::from(part))).collect();
    let fastest = (0..20).map(|_| {
        let started = Instant::now();
        let order = Order::mixed(mixture(&parts), 5);
        assert!(order.at(1_000_000, 3_999_999_999) < 4_000_000_000);
        started.elapsed()
    });
    let fastest = fastest.min().expect("a run");
    assert!(fastest < Duration::from_millis(1), "{fastest:?}");
}

#[test]
fn weights_that_cannot_be_kept_are_refused_with_their_numbers() {
    let refused = |parts: &[(u64, f64)], words: &[&str]| {
        let error = Mixture::new(parts).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.remedy().is_some(), "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    };
    refused(&[(10, 1.0), (10, 1e-4)], &["part 1 is 0.0001", "7 of 65536 places", "6.8 % off", "0.15 % or more"]);
    refused(&[(10, 1e-9), (10, 1.0)], &["part 0", "0 of 65536 places", "100.0 % off"]);
    for (weight, word) in [(0.0, "0"), (-1.0, "-1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        refused(&[(10, 1.0), (10, weight)], &["the weight of part 1", word]);
    }
    refused(&[], &["parts is 0"]);
    refused(&vec![(1, 1.0); 1025], &["1025"]);
    assert_eq!(Mixture::new(&[(1, 1.0), (0, 1.0)]).expect_err("empty").kind(), ErrorKind::EmptyDataset);
    assert_eq!(Mixture::new(&[(u64::MAX, 1.0), (1, 1.0)]).expect_err("many").kind(), ErrorKind::LimitExceeded);
    // What is small and exact is kept, and so are very large and very small numbers.
    assert_eq!(mixture(&[(1, 1.0), (1, 65_535.0)]).share(0) * 65_536.0, 1.0);
    assert_eq!(mixture(&[(1, 1e300), (1, 1e300)]).share(0), 0.5);
    assert_eq!(mixture(&vec![(1, 1e-300); 1024]).share(5), 1.0 / 1024.0);
    assert!(mixture(&[(1, 1.0)]).with_samples(0).is_err());
    let named = mixture(&[(1, 1.0)]).shuffle();
    assert!(matches!(named, Shuffle::Mixed { samples: 1, .. }));
    assert_eq!(Order::new(1, 0, named).expect_err("a name").kind(), ErrorKind::InvalidParameter);
    assert!(mixture(&[(1, 1.0)]).with_shuffle(named).is_err());
}

#[test]
fn other_mixtures_have_other_names() {
    let of = |parts: &[(u64, f64)]| mixture(parts).shuffle();
    assert_eq!(of(&[(10, 1.0), (20, 3.0)]), of(&[(10, 0.25), (20, 0.75)]));
    assert_ne!(of(&[(10, 1.0), (20, 3.0)]), of(&[(10, 1.0), (20, 2.0)]));
    assert_ne!(of(&[(10, 1.0), (20, 3.0)]), of(&[(20, 1.0), (10, 3.0)]));
    assert_ne!(of(&[(10, 1.0)]), mixture(&[(10, 1.0)]).with_shuffle(Shuffle::Sequential).expect("shuffle").shuffle());
}

#[test]
#[should_panic(expected = "is not below 2")]
fn a_position_outside_the_epoch_panics() {
    Order::mixed(mixture(&[(1, 1.0), (1, 1.0)]), 0).at(0, 2);
}
