//! Work on several threads whose results are taken in order, so that they do not depend on how many there are.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use forebay::{Error, ErrorKind, Result};

/// Makes something of each number on `threads` threads, each with a worker of its own, and hands the results to `take` on
/// this thread, in the order of the numbers. A panic is a result too.
///
/// Some four numbers a thread are under way at once, which bounds the memory and how far ahead a fast thread gets.
pub fn in_order<W, T: Send>(
    numbers: impl Iterator<Item = u64> + Clone,
    threads: usize,
    worker: impl Fn() -> W + Sync,
    make: impl Fn(&mut W, u64) -> Result<T> + Sync,
    take: impl FnMut(u64, Result<T>) -> Result<()>,
) -> Result<()> {
    let cancelled = AtomicBool::new(false);
    let (ask, asked) = crossbeam_channel::bounded(4 * threads);
    let (give, given) = crossbeam_channel::unbounded();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (asked, give, cancelled, worker, make) = (asked.clone(), give.clone(), &cancelled, &worker, &make);
            scope.spawn(move || {
                let mut own = worker();
                for number in asked {
                    // A panic must reach the taker as an answer, or it would wait for ever.
                    let made = catch_unwind(AssertUnwindSafe(|| make(&mut own, number))).unwrap_or_else(|_| {
                        // The worker may be half changed.
                        own = worker();
                        Err(Error::new(ErrorKind::Internal, format!("working on number {number} panicked")))
                    });
                    if cancelled.load(Ordering::Relaxed) || give.send((number, made)).is_err() {
                        break;
                    }
                }
            });
        }
        drop((asked, give));
        let taken = take_in_order(numbers, ask, given, take);
        cancelled.store(taken.is_err(), Ordering::Relaxed);
        taken
    })
}

/// Asks for `numbers`, takes the answers as they come and passes them on in the order of asking.
fn take_in_order<T>(
    numbers: impl Iterator<Item = u64> + Clone,
    ask: Sender<u64>,
    given: Receiver<(u64, Result<T>)>,
    mut take: impl FnMut(u64, Result<T>) -> Result<()>,
) -> Result<()> {
    let window = ask.capacity().unwrap_or(1);
    let mut early = BTreeMap::new();
    let mut to_ask = numbers.clone();
    // Sending fails only when every worker has gone, which the answers that never come will show.
    let mut ask_for = |count| to_ask.by_ref().take(count).for_each(|number| ask.send(number).unwrap_or(()));
    ask_for(window);
    for number in numbers {
        while !early.contains_key(&number) {
            let Ok((other, answer)) = given.recv() else {
                return Err(Error::new(ErrorKind::Internal, "a thread has died"));
            };
            early.insert(other, answer);
        }
        if let Some(answer) = early.remove(&number) {
            take(number, answer)?;
        }
        ask_for(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_panic_is_one_of_them() {
        for threads in [1, 3, 8] {
            let mut taken = vec![];
            let make = |worker: &mut u64, number: u64| {
                assert_ne!(number, 50);
                *worker += 1;
                std::thread::sleep(std::time::Duration::from_micros(number * 7919 % 300));
                Ok(number * 2)
            };
            in_order(
                (0..100).filter(|number| number % 10 != 3),
                threads,
                || 0,
                make,
                |number, made| {
                    taken.push((number, made.ok()));
                    Ok(())
                },
            )
            .unwrap();
            let expected = (0..100).filter(|number| number % 10 != 3);
            let expected: Vec<_> = expected.map(|number| (number, (number != 50).then_some(number * 2))).collect();
            assert_eq!(taken, expected, "{threads} threads");
        }
    }

    #[test]
    fn the_taker_ends_it() {
        let made = std::sync::atomic::AtomicU64::new(0);
        let stop = |number, _: Result<()>| {
            if number < 5 { Ok(()) } else { Err(Error::new(ErrorKind::Io, "full")) }
        };
        let count = |_: &mut (), _| {
            made.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        assert!(in_order(0..u64::MAX, 2, || (), count, stop).is_err());
        assert!(made.into_inner() < 40);
    }
}
