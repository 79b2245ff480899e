//! The rule, on a clock of its own; and the locks, under threads.

use super::super::{Pool, PoolOptions};
use super::*;

const MS: u64 = 1_000_000;

/// Threads of a loader that always have a sample to decode, for some time.
#[derive(Clone, Copy)]
struct Load {
    loader: usize,
    threads: usize,
    sample_ms: u64,
    ms: (u64, u64),
}

enum Doing {
    NotYet,
    Waiting,
    /// Until when, and until when the turn is not another's.
    Working(u64, u64),
    Over,
}

struct Thread {
    load: Load,
    waiter: Arc<Waiter>,
    since_ns: u64,
    doing: Doing,
}

/// What part of the work that was done from a moment to another, in milliseconds, was each loader's.
fn shares(turns: usize, weights: &[u32], loads: &[Load], (from_ms, to_ms): (u64, u64)) -> Vec<f64> {
    let mut state = State { free: turns, clock_ns: 0, members: Vec::new() };
    let members: Vec<_> = weights.iter().map(|weight| state.join(*weight)).collect();
    let waiter = || Arc::new(Waiter { since_ns: AtomicU64::new(NO_TURN), changed: Condvar::new() });
    let mut threads: Vec<_> = loads
        .iter()
        .flat_map(|load| vec![*load; load.threads])
        .map(|load| Thread { load, waiter: waiter(), since_ns: 0, doing: Doing::NotYet })
        .collect();
    let mut done = vec![0.0; weights.len()];
    for now_ns in (0..to_ms).map(|ms| ms * MS) {
        for thread in &mut threads {
            let number = members[thread.load.loader];
            match thread.doing {
                Doing::NotYet if now_ns >= thread.load.ms.0 * MS => {
                    state.enqueue(number, Arc::clone(&thread.waiter), now_ns);
                    thread.doing = Doing::Waiting;
                }
                Doing::Working(done_ns, until_ns) if now_ns >= done_ns => {
                    let next_ns = now_ns + thread.load.sample_ms * MS;
                    if now_ns >= thread.load.ms.1 * MS {
                        state.end(number, thread.since_ns, now_ns);
                        thread.doing = Doing::Over;
                    } else if now_ns < until_ns {
                        thread.doing = Doing::Working(next_ns, until_ns);
                    } else if !state.goes_on(number, now_ns) {
                        state.end(number, thread.since_ns, now_ns);
                        state.enqueue(number, Arc::clone(&thread.waiter), now_ns);
                        thread.doing = Doing::Waiting;
                    } else {
                        thread.doing = Doing::Working(next_ns, now_ns + QUANTUM.as_nanos() as u64);
                    }
                }
                _ => {}
            }
        }
        while let Some(granted) = state.grant(now_ns) {
            let thread = threads.iter_mut().find(|thread| Arc::ptr_eq(&thread.waiter, &granted)).unwrap();
            thread.since_ns = now_ns;
            thread.doing = Doing::Working(now_ns + thread.load.sample_ms * MS, now_ns + QUANTUM.as_nanos() as u64);
        }
        if now_ns >= from_ms * MS {
            let working = threads.iter().filter(|thread| matches!(thread.doing, Doing::Working(..)));
            working.for_each(|thread| done[thread.load.loader] += 1.0);
        }
    }
    let all: f64 = done.iter().sum();
    done.iter().map(|done| done / all).collect()
}

const ALWAYS: (u64, u64) = (0, u64::MAX / MS);

fn load(loader: usize, threads: usize, sample_ms: u64, ms: (u64, u64)) -> Load {
    Load { loader, threads, sample_ms, ms }
}

#[track_caller]
fn assert_near(shares: &[f64], expected: &[f64]) {
    let is_near = shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() <= 0.03);
    assert!(is_near && shares.len() == expected.len(), "{shares:?} instead of {expected:?}");
}

#[test]
fn time_is_shared_evenly_however_large_the_samples_are() {
    for turns in [1, 2, 3, 8] {
        for sample_ms in [1, 7, 60] {
            let loads = [load(0, turns, 1, ALWAYS), load(1, turns, sample_ms, ALWAYS)];
            assert_near(&shares(turns, &[1, 1], &loads, (0, 20_000)), &[0.5, 0.5]);
        }
    }
    // However many threads one has.
    let loads = [load(0, 2, 2, ALWAYS), load(1, 16, 3, ALWAYS)];
    assert_near(&shares(2, &[1, 1], &loads, (0, 20_000)), &[0.5, 0.5]);
}

#[test]
fn time_is_shared_by_weight() {
    let loads = [load(0, 4, 3, ALWAYS), load(1, 4, 20, ALWAYS), load(2, 4, 1, ALWAYS)];
    assert_near(&shares(4, &[3, 2, 1], &loads, (0, 30_000)), &[0.5, 1.0 / 3.0, 1.0 / 6.0]);
}

#[test]
fn what_one_does_not_use_is_the_others() {
    let loads = [load(0, 2, 1, ALWAYS), load(1, 2, 4, ALWAYS), load(2, 2, 2, (0, 5_000))];
    assert_near(&shares(2, &[1, 1, 1], &loads, (0, 5_000)), &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
    assert_near(&shares(2, &[1, 1, 1], &loads, (5_100, 10_000)), &[0.5, 0.5, 0.0]);
    // One thread of eight is all that the second can use.
    let loads = [load(0, 8, 2, ALWAYS), load(1, 1, 2, ALWAYS)];
    assert_near(&shares(8, &[1, 1], &loads, (0, 5_000)), &[0.875, 0.125]);
}

#[test]
fn time_that_was_not_wanted_is_no_claim_on_later() {
    // Idle for ten seconds.
    let loads = [load(0, 4, 2, ALWAYS), load(1, 4, 2, (10_000, u64::MAX / MS))];
    assert_near(&shares(4, &[1, 1], &loads, (10_000, 11_000)), &[0.5, 0.5]);
    // Ten seconds with one thread of eight, and then with eight.
    let loads = [load(0, 8, 2, ALWAYS), load(1, 1, 2, ALWAYS), load(1, 7, 2, (10_000, u64::MAX / MS))];
    assert_near(&shares(8, &[1, 1], &loads, (10_000, 11_000)), &[0.5, 0.5]);
    // Nor does who had everything meanwhile wait for it to be made up by one that is new.
    let loads = [load(0, 2, 2, ALWAYS), load(1, 2, 2, (0, 10)), load(2, 2, 2, (10_000, u64::MAX / MS))];
    assert_near(&shares(2, &[1, 1, 1], &loads, (10_000, 11_000)), &[0.5, 0.0, 0.5]);
    // The first has had a second for one sample, which the second makes up for; the third has no part in that.
    let loads = [load(0, 1, 1000, ALWAYS), load(1, 1, 1, ALWAYS), load(2, 1, 1, (1900, u64::MAX / MS))];
    assert_near(&shares(1, &[1, 1, 1], &loads, (1900, 2000)), &[0.0, 0.5, 0.5]);
}

/// A run of some threads, each with samples that take no time.
fn stress(pool: &Pool, samples: u32, threads: usize, most: &AtomicUsize, working: &AtomicUsize) {
    let share = pool.join(1).unwrap();
    let (is_over, clock) = (AtomicBool::new(false), StageClock::default());
    std::thread::scope(|scope| {
        for number in 0..threads {
            let (share, is_over, clock) = (&share, &is_over, &clock);
            scope.spawn(move || {
                let turn = Turn::new(Some(share), is_over, clock);
                for sample in 0..samples {
                    turn.begin();
                    if is_over.load(Relaxed) {
                        break;
                    }
                    most.fetch_max(working.fetch_add(1, Relaxed) + 1, Relaxed);
                    std::hint::spin_loop();
                    working.fetch_sub(1, Relaxed);
                    match sample % 5 {
                        0 => turn.end(),
                        1 => turn.pause(std::thread::yield_now),
                        // As if the quantum were over.
                        2 => {
                            turn.0.as_ref().unwrap().until_ns.set(0);
                            turn.goes_on();
                        }
                        _ => {}
                    }
                    if number == 0 && sample == samples / 2 && samples.is_multiple_of(2) {
                        is_over.store(true, Relaxed);
                        share.wake();
                    }
                }
            });
        }
    });
}

#[test]
fn no_thread_is_forgotten_and_never_are_more_at_work_than_turns() {
    for turns in [1, 2, 3] {
        let pool = Pool::new(PoolOptions { threads: turns, depth: 1 }).unwrap();
        let (most, working) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for loader in 0..3 {
                let (pool, most, working) = (&pool, &most, &working);
                // Some end by themselves, some are ended.
                scope.spawn(move || (0..150).for_each(|run| stress(pool, 7 + (run + loader) % 6, 3, most, working)));
            }
        });
        assert!(most.load(Relaxed) <= turns, "{} at work of {turns}", most.load(Relaxed));
        let left = pool.in_use();
        assert_eq!((left.loaders, left.threads, left.threads_waiting), (0, 0, 0));
        assert_eq!(pool.0.turns.waiting.load(Relaxed), 0);
    }
}

#[test]
fn a_panic_and_a_wait_leave_their_turn_to_others() {
    let pool = Pool::new(PoolOptions { threads: 1, depth: 1 }).unwrap();
    let (share, other) = (pool.join(1).unwrap(), pool.join(1).unwrap());
    let (is_over, clock) = (AtomicBool::new(false), StageClock::default());
    std::thread::scope(|scope| {
        let panics = scope.spawn(|| {
            let turn = Turn::new(Some(&share), &is_over, &clock);
            turn.begin();
            panic!("as a defect of ours would");
        });
        assert!(panics.join().is_err());
    });
    assert_eq!(pool.in_use().threads, 0);
    let turn = Turn::new(Some(&share), &is_over, &clock);
    turn.begin();
    turn.pause(|| {
        let of_other = Turn::new(Some(&other), &is_over, &clock);
        of_other.begin();
        assert_eq!(pool.in_use().threads, 1, "what waits for storage has no turn");
    });
    assert_eq!(pool.in_use().threads, 1);
    drop(turn);
    // Of a run that is over nobody waits, though there is no turn to be had.
    let turn = Turn::new(Some(&share), &is_over, &clock);
    turn.begin();
    std::thread::scope(|scope| {
        let (sender, ended) = std::sync::mpsc::channel();
        let (other, is_over, clock) = (&other, &is_over, &clock);
        scope.spawn(move || {
            Turn::new(Some(other), is_over, clock).begin();
            sender.send(())
        });
        while pool.in_use().threads_waiting == 0 {
            std::thread::yield_now();
        }
        is_over.store(true, Relaxed);
        other.wake();
        let ended = ended.recv_timeout(Duration::from_secs(20));
        drop(turn);
        ended.expect("it was woken");
    });
    assert_eq!((pool.in_use().threads, pool.in_use().threads_waiting), (0, 0));
}
