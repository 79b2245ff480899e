//! Promises of ranks and of resuming, of the order alone: disjoint, complete, the same steps, from any place on.

use forebay::ErrorKind;
use forebay::order::{Cursor, EpochSteps, LastBatch, Order, Shard, Shuffle, Step};
use proptest::prelude::*;

const LASTS: [LastBatch; 3] = [LastBatch::Drop, LastBatch::Pad, LastBatch::Partial];

fn rank(samples: u64, batch: u64, last: LastBatch, rank: u64, ranks: u64) -> EpochSteps {
    EpochSteps::of_rank(samples, batch, last, Shard::new(rank, ranks).unwrap()).unwrap()
}

/// The steps of all ranks, where the parameters are none that are refused.
fn world(samples: u64, batch: u64, last: LastBatch, ranks: u64) -> Option<Vec<EpochSteps>> {
    let of = |rank| EpochSteps::of_rank(samples, batch, last, Shard::new(rank, ranks).unwrap());
    let all: Result<Vec<_>, _> = (0..ranks).map(of).collect();
    match all {
        Ok(all) => Some(all),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            assert!(match last {
                LastBatch::Drop => batch * ranks > samples,
                LastBatch::Partial => ranks > samples,
                LastBatch::Pad => false,
            });
            None
        }
    }
}

/// What ranks take together from a place on, step by step as they run beside each other, in the order of ranks: epoch and
/// position of each sample. Ends after `steps` steps, or with the last epoch; also where the run then is, by rank 0.
fn interleaved(ranks: &[EpochSteps], from: Cursor, end: u64, steps: usize) -> (Vec<(u64, u64)>, Cursor) {
    let mut runs: Vec<_> = ranks.iter().map(|rank| rank.run(from, end).peekable()).collect();
    let (mut taken, mut at) = (vec![], from);
    for _ in 0..steps {
        let Some(first) = runs[0].peek().copied() else { break };
        at = first.next();
        for run in &mut runs {
            // A rank that gets nothing of a last batch is a step behind in that epoch, and waits there.
            let Some(step) = run.next_if(|step| (step.epoch(), step.number()) == (first.epoch(), first.number()))
            else {
                continue;
            };
            assert_eq!(step.next(), at, "all ranks are at the same place after a step");
            taken.extend(step.positions().map(|position| (step.epoch(), position)));
        }
    }
    (taken, at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_union_of_ranks_is_the_epoch(
        samples in 1u64..3000, batch in 1u64..40, ranks in 1u64..20, number in 0u64..u64::MAX - 1,
    ) {
        for last in LASTS {
            let Some(all) = world(samples, batch, last, ranks) else { continue };
            let steps: Vec<Vec<Step>> =
                all.iter().map(|rank| rank.run(Cursor::start_of(number), number + 1).collect()).collect();
            let (global, mut seen) = (batch * ranks, vec![]);
            for (rank, steps) in all.iter().zip(&steps) {
                prop_assert_eq!(steps.len() as u64, rank.steps());
                prop_assert!(steps.iter().all(|step| step.epoch() == number));
                let fresh = |step: &Step| step.positions().take((step.len() - step.repeats()) as usize);
                seen.extend(steps.iter().flat_map(fresh));
            }
            seen.sort_unstable();
            let counts: Vec<_> = steps.iter().map(Vec::len).collect();
            match last {
                LastBatch::Drop => prop_assert!(seen.into_iter().eq(0..samples / global * global)),
                _ => prop_assert!(seen.into_iter().eq(0..samples)),
            }
            if last == LastBatch::Partial {
                prop_assert!(counts.iter().all(|&count| count == counts[0] || count + 1 == counts[0]));
                prop_assert!(counts.is_sorted_by(|a, b| a >= b));
                let ends: Vec<u64> =
                    steps.iter().filter_map(|steps| steps.get(counts[0] - 1)).map(Step::len).collect();
                prop_assert!(ends.iter().max().unwrap() - ends.iter().min().unwrap() <= 1);
            } else {
                prop_assert!(counts.iter().all(|&count| count == counts[0]), "equal steps: {counts:?}");
                prop_assert!(steps.iter().flatten().all(|step| step.len() == batch), "equal shapes");
            }
        }
    }

    #[test]
    fn the_union_of_a_step_does_not_depend_on_how_many_share_it(
        samples in 1u64..2000, share in 1u64..12, ranks in prop::sample::select(vec![1u64, 2, 3, 4, 6, 12]),
    ) {
        let global = 12 * share;
        for last in LASTS {
            let (Some(one), Some(all)) =
                (world(samples, global, last, 1), world(samples, global / ranks, last, ranks)) else { continue };
            let run = |all: &[EpochSteps]| interleaved(all, Cursor::default(), 2, usize::MAX);
            prop_assert_eq!(run(&one), run(&all));
        }
    }

    #[test]
    fn a_run_is_resumed_at_any_step_on_any_number_of_ranks(
        samples in 30u64..2000, share in 1u64..3, stop in 0usize..200, seed: u64,
        before in prop::sample::select(vec![1u64, 2, 3, 4, 6, 12]),
        after in prop::sample::select(vec![1u64, 2, 3, 4, 6, 12]),
    ) {
        let global = 12 * share;
        let order = Order::new(samples, seed, Shuffle::Full).unwrap();
        let ids = |taken: &[(u64, u64)]| taken.iter().map(|&(epoch, at)| order.at(epoch, at)).collect::<Vec<_>>();
        for last in LASTS {
            let (Some(one), Some(then), Some(now)) = (
                world(samples, global, last, 1),
                world(samples, global / before, last, before),
                world(samples, global / after, last, after),
            ) else { continue };
            let (undisturbed, _) = interleaved(&one, Cursor::default(), 3, usize::MAX);
            let (mut taken, at) = interleaved(&then, Cursor::default(), 3, stop);
            taken.extend(interleaved(&now, at, 3, usize::MAX).0);
            prop_assert_eq!(ids(&taken), ids(&undisturbed));
        }
    }

    /// Batches of another size go on with the next sample: nothing comes twice, nothing is left out.
    #[test]
    fn another_global_batch_goes_on_with_the_next_sample(
        samples in 50u64..2000, batch in 1u64..5, other in 1u64..5, before in 1u64..8, after in 1u64..8,
        stop in 0usize..100,
    ) {
        let last = LastBatch::Partial;
        let (Some(then), Some(now)) = (world(samples, batch, last, before), world(samples, other, last, after)) else {
            return Ok(());
        };
        let (mut taken, at) = interleaved(&then, Cursor::default(), 2, stop);
        taken.extend(interleaved(&now, at, 2, usize::MAX).0);
        let every = (0..2).flat_map(|epoch| (0..samples).map(move |position| (epoch, position)));
        prop_assert!(taken.into_iter().eq(every));
    }

    /// Wherever a damaged or odd place says to begin: no panic, no endless loop, no position outside the epoch.
    #[test]
    fn any_place_can_be_begun_at(
        samples in 1u64.., batch in 1u64..1 << 40, ranks in 1u64..1000, epoch: u64, position: u64,
    ) {
        for last in LASTS {
            let Ok(steps) = EpochSteps::of_rank(samples, batch, last, Shard::new(ranks - 1, ranks).unwrap()) else {
                continue;
            };
            let from = Cursor { epoch, position };
            for step in steps.run(from, u64::MAX).take(3) {
                prop_assert!(step.epoch() >= epoch && step.len() <= batch && step.next() > from);
                prop_assert!(step.positions().take(3).all(|position| position < samples));
            }
            if let Some(step) = steps.step(from) {
                prop_assert_eq!((step.epoch(), step.len() >= 1), (epoch, true));
            }
        }
    }
}

#[test]
fn a_rank_behind_the_left_over_samples_has_one_step_fewer() {
    let steps = [0, 1, 2].map(|number| rank(14, 4, LastBatch::Partial, number, 3).steps());
    assert_eq!(steps, [2, 2, 1]);
    let steps = [0, 1, 2].map(|number| rank(14, 4, LastBatch::Pad, number, 3).steps());
    assert_eq!(steps, [2, 2, 2]);
}
