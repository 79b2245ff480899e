use super::*;

const NOW: Duration = Duration::ZERO;

#[test]
fn slots_go_round() {
    let pool = SlotPool::new(2, 4, 100).unwrap();
    let first = pool.try_acquire(4).unwrap();
    let second = pool.try_acquire(4).unwrap();
    assert!(pool.try_acquire(4).is_none() && pool.acquire(4, NOW).is_none());
    drop(second);
    assert_eq!(pool.free_slots(), 1);
    assert!(pool.acquire(4, NOW).is_some());
    drop(first);
    assert_eq!(pool.free_slots(), 2);
}

#[test]
fn a_sample_is_claimed_once_a_round() {
    let pool = SlotPool::new(1, 2, 10).unwrap();
    let slot = pool.try_acquire(2).unwrap();
    let out = slot.claim(1).unwrap();
    assert!(slot.claim(1).is_none());
    drop((slot, out));
    assert!(pool.try_acquire(2).unwrap().claim(1).is_some());
}

#[test]
fn the_last_sample_finished_gets_the_batch() {
    let pool = SlotPool::new(1, 3, 10).unwrap();
    // A partial batch: two samples of three.
    let slot = pool.try_acquire(2).unwrap();
    let mut first = slot.claim(0).unwrap();
    let mut second = slot.claim(1).unwrap();
    drop(slot);
    first.fill(1);
    second.fill(2);
    assert!(second.finish().is_none());
    let batch = first.finish().unwrap();
    assert_eq!(batch.all().len(), 20);
    assert_eq!((batch.sample(0), batch.sample(1)), (&[1; 10][..], &[2; 10][..]));
    assert_eq!(pool.free_slots(), 0);
    drop(batch);
    assert_eq!(pool.free_slots(), 1);
}

#[test]
fn an_unfinished_sample_keeps_the_batch_from_being_read() {
    let pool = SlotPool::new(1, 2, 10).unwrap();
    let slot = pool.try_acquire(2).unwrap();
    drop(slot.claim(0).unwrap());
    assert!(slot.claim(1).unwrap().finish().is_none());
    drop(slot);
    assert_eq!(pool.free_slots(), 1);
}

#[test]
fn samples_of_various_sizes_share_a_budget() {
    let pool = SlotPool::ragged(1, 4, 1000).unwrap();
    let slot = pool.try_acquire(3).unwrap();
    let mut large = slot.claim_bytes(2, 900).unwrap().unwrap();
    large.fill(3);
    let error = slot.claim_bytes(0, 100).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.to_string().contains("1000") && error.remedy().is_some(), "{error}");
    assert!(slot.claim_bytes(0, usize::MAX).is_err());
    let mut small = slot.claim_bytes(0, 40).unwrap().unwrap();
    small.fill(1);
    assert!(small.finish().is_none() && large.finish().is_none());
    let batch = slot.claim_bytes(1, 0).unwrap().unwrap().finish().unwrap();
    assert_eq!((batch.sample(0), batch.sample(1), batch.sample(2)), (&[1; 40][..], &[][..], &[3; 900][..]));
}

#[test]
fn a_place_that_was_given_up_is_claimed_again() {
    let pool = SlotPool::new(1, 2, 4).unwrap();
    let slot = pool.try_acquire(2).unwrap();
    slot.claim(1).unwrap().give_up();
    let mut again = slot.claim(1).unwrap();
    again.fill(7);
    assert!(slot.claim(1).is_none() && again.finish().is_none());
    assert_eq!(slot.claim(0).unwrap().finish().unwrap().sample(1), [7; 4]);
    // Of various sizes, memory that is large enough is used again.
    let pool = SlotPool::ragged(1, 2, 100).unwrap();
    let slot = pool.try_acquire(2).unwrap();
    slot.claim_bytes(0, 90).unwrap().unwrap().give_up();
    let again = slot.claim_bytes(0, 80).unwrap().unwrap();
    assert_eq!(again.len(), 80);
    again.give_up();
    let error = slot.claim_bytes(0, 99).err().unwrap();
    assert!(!error.is_of_sample(), "{error}: another batch may have room for it");
    assert!(slot.claim_bytes(0, 101).err().unwrap().is_of_sample());
    drop(slot);
    // The next round knows nothing of it.
    assert_eq!(pool.try_acquire(2).unwrap().claim_bytes(0, 99).unwrap().unwrap().len(), 99);
}

#[test]
fn samples_that_are_left_out_leave_no_gap() {
    for ragged in [false, true] {
        let pool = if ragged { SlotPool::ragged(1, 5, 5 * 64) } else { SlotPool::new(1, 5, 3) }.unwrap();
        let slot = pool.try_acquire(5).unwrap();
        let fill = |index: usize| {
            let mut out = if ragged { slot.claim_bytes(index, 3).unwrap() } else { slot.claim(index) }.unwrap();
            out.fill(index as u8);
            out.finish()
        };
        let mut filled = [3, 1, 4, 0, 2].into_iter().filter_map(fill).next().unwrap();
        filled.retain(&[1, 3, 4]);
        assert_eq!(filled.samples(), 3);
        assert_eq!([0, 1, 2].map(|index| filled.sample(index)[2]), [1, 3, 4]);
        if !ragged {
            assert_eq!(filled.all(), [1, 1, 1, 3, 3, 3, 4, 4, 4]);
        }
        filled.retain(&[]);
        assert_eq!(filled.samples(), 0);
    }
}

#[test]
fn a_place_that_is_opened_again_is_all_that_is_filled_again() {
    let pool = SlotPool::new(1, 3, 1).unwrap();
    let slot = pool.try_acquire(3).unwrap();
    let fill = |slot: &Slot, index: usize, byte: u8| {
        let mut out = slot.claim(index).unwrap();
        out.fill(byte);
        out.finish()
    };
    let filled = (0..3).filter_map(|index| fill(&slot, index, 1)).next().unwrap();
    let slot = filled.reopen(&[1]);
    assert!(slot.claim(0).is_none() && slot.claim(2).is_none());
    assert_eq!(fill(&slot, 1, 2).unwrap().all(), [1, 2, 1]);
}

#[test]
fn whoever_waits_is_woken_without_a_slot() {
    let pool = SlotPool::new(1, 1, 1).unwrap();
    let _held = pool.try_acquire(1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.acquire(1, Duration::from_secs(600)).is_none());
        std::thread::sleep(Duration::from_millis(20));
        pool.wake();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn closing_wakes_whoever_waits() {
    let pool = SlotPool::new(1, 1, 1).unwrap();
    let held = pool.try_acquire(1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.acquire(1, Duration::from_secs(600)).is_none());
        std::thread::sleep(Duration::from_millis(20));
        pool.close();
        assert!(waiter.join().unwrap());
    });
    drop(held);
    assert!(pool.try_acquire(1).is_none());
}

/// Six workers fill the batches of one feeder; a consumer checks every byte. A slot returned too early, a
/// sample claimed twice or a batch handed on incomplete would show.
#[test]
fn every_byte_is_its_samples_own_under_many_threads() {
    const ROUNDS: usize = 3000;
    const BATCH: usize = 8;
    for ragged in [false, true] {
        let pool = if ragged { SlotPool::ragged(3, BATCH, BATCH * 128) } else { SlotPool::new(3, BATCH, 128) }.unwrap();
        let (jobs, work) = crossbeam_channel::bounded::<(usize, usize, Slot)>(16);
        let (filled, batches) = crossbeam_channel::unbounded::<FilledSlot>();
        let seen = std::thread::scope(|scope| {
            for _ in 0..6 {
                let (work, filled) = (work.clone(), filled.clone());
                scope.spawn(move || {
                    for (round, index, slot) in work {
                        let claim = || if ragged { slot.claim_bytes(index, 128).unwrap() } else { slot.claim(index) };
                        let mut out = claim().unwrap();
                        assert!(claim().is_none());
                        out.fill((round * 31 + index) as u8);
                        if let Some(batch) = out.finish() {
                            filled.send(batch).unwrap();
                        }
                    }
                });
            }
            drop(filled);
            scope.spawn({
                let pool = pool.clone();
                move || {
                    for round in 0..ROUNDS {
                        let slot = pool.acquire(BATCH, Duration::from_secs(60)).unwrap();
                        (0..BATCH).for_each(|index| jobs.send((round, index, slot.clone())).unwrap());
                    }
                }
            });
            batches
                .iter()
                .map(|batch| {
                    let first = batch.sample(0)[0];
                    for index in 0..BATCH {
                        let expected = first.wrapping_add(index as u8);
                        assert!(batch.sample(index).iter().all(|byte| *byte == expected));
                    }
                })
                .count()
        });
        assert_eq!(seen, ROUNDS);
        assert_eq!(pool.free_slots(), 3);
    }
}
