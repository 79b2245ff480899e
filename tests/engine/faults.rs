//! What can go wrong with storage, by the rows of the fault table, on the simulated engine: each fault strikes reads of a real
//! file, and every one of them gives the file's bytes or the promised error. Rows 3, 7, 8 and 9 are in reads.rs,
//! children.rs and tests/engine_refusals.rs, the loader's part in faults_load.rs.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::engine_common::{Rig, TIMEOUT, content};
use forebay::engine::{
    Completion, Direct, Engine, EngineKind, EngineOptions, OpenFile, Outcome, SimFault, SimFaults, SimOptions,
};
use forebay::memory::{Arena, Region};
use forebay::{Error, ErrorKind, Result};

const FILE_BYTES: usize = 300_001;
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// A file, and reads of it of all sizes, aligned and not, up to the last byte.
struct Data {
    _root: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
    ranges: Vec<(u64, usize)>,
}

impl Data {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("shard.tar");
        let bytes = content(11, FILE_BYTES);
        fs::write(&path, &bytes).unwrap();
        let mut ranges = vec![(0, FILE_BYTES), (0, 1), (4096, 8192), (FILE_BYTES as u64 - 1, 1)];
        ranges.extend((0..80_u64).map(|n| (n * 3701, 1 + (n as usize * 977) % 4000)));
        Self { _root: root, path, bytes, ranges }
    }

    /// The file, opened where nothing goes wrong.
    fn open(&self, direct: Direct) -> Arc<OpenFile> {
        let options = EngineOptions { direct, ..Default::default() };
        Rig::new(EngineKind::Pread, 4096, 1, options).unwrap().engine.open_now(&self.path).unwrap()
    }

    fn of(&self, (offset, len_bytes): (u64, usize)) -> &[u8] {
        &self.bytes[offset as usize..offset as usize + len_bytes]
    }
}

fn options(seed: u64, faults: &[SimFault], one_in: u32, direct: Direct) -> EngineOptions {
    let faults: SimFaults = faults.iter().copied().collect();
    let sim = SimOptions { seed, faults, one_in };
    EngineOptions { sim, direct, read_timeout: READ_TIMEOUT, ..EngineOptions::default() }
}

fn rig(options: EngineOptions) -> Rig {
    Rig::new(EngineKind::Sim, 1 << 20, 64, options).unwrap()
}

/// Reads all ranges with many in flight: what came of each.
fn read_all(rig: &mut Rig, file: &Arc<OpenFile>, data: &Data) -> Vec<Result<Region>> {
    let mut found: Vec<Option<Result<Region>>> = data.ranges.iter().map(|_| None).collect();
    let (mut next, mut completions) = (0, vec![]);
    while found.iter().any(Option::is_none) {
        while let Some(&(offset, len_bytes)) = data.ranges.get(next)
            && rig.engine.room() > 0
        {
            let needed = rig.engine.region_len(file, offset, len_bytes);
            let Some(mut region) = rig.engine.arena().alloc(needed).unwrap() else { break };
            region.as_mut_slice().fill(0xEE);
            rig.engine.read(next as u64, file, offset, len_bytes, region);
            next += 1;
        }
        assert!(rig.engine.in_flight() > 0, "{} of {} are done, and nothing goes on", next, data.ranges.len());
        rig.engine.reap(1, TIMEOUT, &mut completions).unwrap();
        for Completion { token, result } in completions.drain(..) {
            let result = result.map(|outcome| match outcome {
                Outcome::Read(region) => region,
                other => panic!("{other:?}"),
            });
            assert!(found[token as usize].replace(result).is_none(), "a second completion");
        }
    }
    found.into_iter().flatten().collect()
}

/// Whether the bytes are the file's, or the error is of one of these kinds and names file and offset: the errors.
fn check(data: &Data, found: &[Result<Region>], kinds: &[ErrorKind], what: &str) -> Vec<String> {
    let mut errors = vec![];
    for (range, found) in data.ranges.iter().zip(found) {
        match found {
            Ok(region) => assert!(region.as_slice() == data.of(*range), "{what}: {range:?}"),
            Err(error) => {
                assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
                let text = error.to_string();
                assert!(text.contains("shard.tar") && text.contains(&format!("offset {}", range.0)), "{what}: {text}");
                errors.push(text);
            }
        }
    }
    errors
}

const DIRECTS: [Direct; 2] = [Direct::Off, Direct::Preferred];

#[test]
fn fault_01_an_error_that_passes_is_retried_and_one_that_stays_is_named() {
    let data = Data::new();
    for direct in DIRECTS {
        for seed in 0..20 {
            for fault in [SimFault::Eio, SimFault::NoMemory] {
                let mut rig = rig(options(seed, &[fault, SimFault::Short], 1, direct));
                let file = rig.engine.open_now(&data.path).unwrap();
                let found = read_all(&mut rig, &file, &data);
                assert!(check(&data, &found, &[], fault.name()).is_empty());
                assert!(rig.engine.counters().retries > 10, "{:?}", rig.engine.counters());
            }
            let mut rig = rig(options(seed, &[SimFault::EioSticky], 3, direct));
            let file = rig.engine.open_now(&data.path).unwrap();
            let found = read_all(&mut rig, &file, &data);
            let errors = check(&data, &found, &[ErrorKind::Io], "sticky");
            assert!(errors.len() > 5 && errors.len() < 80, "some, and not the others: {}", errors.len());
            assert!(errors.iter().all(|error| error.contains("os error 5")), "{errors:?}");
            assert_eq!(rig.engine.counters().retries, errors.len() as u64, "each once");
        }
    }
}

#[test]
fn fault_02_answers_that_end_anywhere_or_are_interrupted_give_the_bytes() {
    let data = Data::new();
    for direct in DIRECTS {
        for seed in 0..60 {
            let mut rig = rig(options(seed, &[SimFault::Short, SimFault::Interrupted], 1, direct));
            let file = rig.engine.open_now(&data.path).unwrap();
            let found = read_all(&mut rig, &file, &data);
            assert!(check(&data, &found, &[], &format!("seed {seed}, {direct}")).is_empty());
            assert_eq!(rig.engine.counters().retries, 0);
        }
    }
}

#[test]
fn fault_04_a_file_that_ends_early_is_truncated_with_numbers() {
    let data = Data::new();
    let mut errors = 0;
    for direct in DIRECTS {
        for seed in 0..30 {
            let mut rig = rig(options(seed, &[SimFault::Truncated, SimFault::Short], 1, direct));
            let file = rig.engine.open_now(&data.path).unwrap();
            let found = read_all(&mut rig, &file, &data);
            let of_seed = check(&data, &found, &[ErrorKind::Truncated], &format!("seed {seed}, {direct}"));
            assert!(!of_seed.is_empty(), "the last byte is missing");
            assert!(of_seed.iter().all(|error| error.contains("expected") && error.contains("got")), "{of_seed:?}");
            errors += of_seed.len();
        }
    }
    assert!(errors < DIRECTS.len() * 30 * data.ranges.len(), "what lies before the end is read");
}

#[test]
fn fault_05_a_file_that_was_replaced_is_another() {
    let data = Data::new();
    let listed = rig(options(0, &[], 1, Direct::Off)).open(&data.path).unwrap();
    let replaced = rig(options(0, &[SimFault::Replaced], 1, Direct::Off)).open(&data.path).unwrap();
    let error = replaced.expect_identity(&listed.identity()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().contains("shard.tar") && error.remedy().is_some(), "{error}");
}

#[test]
fn fault_06_refused_o_direct_is_the_page_cache_or_an_error() {
    let data = Data::new();
    if !rig(options(0, &[], 1, Direct::Preferred)).open(&data.path).unwrap().is_direct() {
        eprintln!("skipped: no O_DIRECT here");
        return;
    }
    for fault in [SimFault::DirectOpen, SimFault::DirectRead] {
        for seed in 0..4 {
            let mut rig = rig(options(seed, &[fault, SimFault::Short], 1, Direct::Preferred));
            let file = rig.open(&data.path).unwrap();
            let found = read_all(&mut rig, &file, &data);
            assert!(check(&data, &found, &[], fault.name()).is_empty());
            assert!(!file.is_direct());
            let fallbacks = rig.engine.fallbacks();
            assert_eq!(fallbacks.len(), 1, "once a device: {fallbacks:?}");
            assert_eq!((fallbacks[0].what, fallbacks[0].instead), ("O_DIRECT", "the page cache"));
        }
        let mut required = rig(options(1, &[fault], 1, Direct::Required));
        let refused = required.open(&data.path).and_then(|file| required.read(&file, 0, 5000).map(drop));
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}");
        assert!(error.to_string().contains("shard.tar") && error.remedy().is_some(), "{error}");
    }
}

/// What hangs is an error by its deadline. Its memory stays its own: nothing else is ever written there, and what it writes
/// when it is back hits nothing else.
#[test]
fn fault_10_a_read_that_never_completes_is_given_up_and_keeps_its_memory() {
    let data = Data::new();
    let (mut given_up, mut came_back) = (0, 0);
    for seed in 0..40 {
        let options = options(seed, &[SimFault::Hang, SimFault::Short], 8, Direct::Preferred);
        let mut rig = Rig::new(EngineKind::Sim, 4 << 20, 64, options).unwrap();
        let arena = rig.engine.arena().clone();
        let file = data.open(Direct::Preferred);
        let begin = std::time::Instant::now();
        // While the second round waits, what the first gave up comes back.
        let rounds: Vec<_> = (0..3).map(|_| read_all(&mut rig, &file, &data)).collect();
        assert!(begin.elapsed() < Duration::from_secs(20), "no one sleeps");
        let mut errors = vec![];
        for found in &rounds {
            errors.extend(check(&data, found, &[ErrorKind::TimedOut], &format!("seed {seed}")));
        }
        assert!(errors.iter().all(|error| error.contains("2s") && error.contains("--read-timeout")), "{errors:?}");
        assert_eq!(rig.engine.counters().timeouts, errors.len() as u64);
        given_up += errors.len();
        came_back += errors.len() - rig.engine.overdue();
        drop(rounds);
        assert_eq!(arena.used_bytes(), arena.quarantined_bytes(), "nothing else is out");
        assert_eq!(rig.engine.overdue() > 0, arena.quarantined_bytes() > 0);
        drop(rig);
        assert_eq!((arena.used_bytes(), arena.quarantined_bytes()), (0, 0));
    }
    assert!(given_up > 300 && came_back > 100, "{given_up} given up, {came_back} back before the end");
}

/// The arena goes round many times while reads hang in it: what comes later comes to other bytes.
#[test]
fn fault_10_the_arena_goes_round_without_what_hangs() {
    let data = Data::new();
    let (mut came_back, mut quarantined) = (0, 0);
    for seed in 0..10 {
        let options = options(seed, &[SimFault::Hang], 16, Direct::Off);
        let mut rig = Rig::new(EngineKind::Sim, 640 << 10, 64, options).unwrap();
        let arena = rig.engine.arena().clone();
        let file = data.open(Direct::Off);
        // Those that came last are looked at again before they go.
        let mut kept = std::collections::VecDeque::new();
        let mut completions = vec![];
        let mut ranges = (0..6).flat_map(|_| &data.ranges[1..]).peekable();
        let mut waiting = std::collections::HashMap::new();
        while ranges.peek().is_some() || rig.engine.in_flight() > 0 {
            while rig.engine.room() > 0
                && let Some(&&(offset, len_bytes)) = ranges.peek()
                && let Some(mut region) = arena.alloc(rig.engine.region_len(&file, offset, len_bytes)).unwrap()
            {
                region.as_mut_slice().fill(0xEE);
                let token = waiting.len() as u64;
                waiting.insert(token, (offset, len_bytes));
                rig.engine.read(token, &file, offset, len_bytes, region);
                ranges.next();
            }
            if rig.engine.in_flight() == 0 {
                assert!(rig.engine.room() > 0, "seed {seed}: everything hangs");
                // What is kept is all that others can wait for.
                kept.pop_front().expect("nothing holds the arena, and there is no room");
                continue;
            }
            let overdue = rig.engine.overdue();
            rig.engine.reap(1, TIMEOUT, &mut completions).unwrap();
            came_back += overdue.saturating_sub(rig.engine.overdue());
            quarantined = quarantined.max(arena.quarantined_bytes());
            for Completion { token, result } in completions.drain(..) {
                match result {
                    Ok(Outcome::Read(region)) => kept.push_back((waiting[&token], region)),
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                }
            }
            for (range, region) in &kept {
                assert!(region.as_slice() == data.of(*range), "seed {seed}: {range:?}");
            }
            kept.drain(..kept.len().saturating_sub(40));
        }
    }
    assert!(came_back > 20 && quarantined > 16 << 10, "{came_back} back, {quarantined} bytes at most");
}

#[test]
fn fault_10_an_engine_of_which_everything_hangs_says_so_and_ends() {
    let data = Data::new();
    let mut rig = Rig::new(EngineKind::Sim, 32 << 10, 4, options(3, &[SimFault::Hang], 1, Direct::Off)).unwrap();
    let arena = rig.engine.arena().clone();
    // Of a file that is opened while its caller waits it is the same.
    let error = rig.engine.open_now(&data.path).unwrap_err();
    assert_eq!((error.kind(), rig.engine.counters().timeouts), (ErrorKind::TimedOut, 1));
    assert!(error.to_string().contains("shard.tar: opening it has not completed within 2s"), "{error}");
    let file = data.open(Direct::Off);
    for n in 0..4 {
        let region = arena.alloc(4096).unwrap().unwrap();
        rig.engine.read(n, &file, n * 4096, 4096, region);
    }
    let mut completions = vec![];
    rig.engine.reap(4, TIMEOUT, &mut completions).unwrap();
    let errors: Vec<Error> = completions.drain(..).filter_map(|completion| completion.result.err()).collect();
    assert!(
        errors.len() == 4 && errors.iter().all(|error| error.kind() == ErrorKind::TimedOut && error.is_retryable())
    );
    assert_eq!((rig.engine.in_flight(), rig.engine.overdue() + rig.engine.room()), (0, 4));
    // What they hold is missing to the others, who hear of it.
    let held = arena.quarantined_bytes();
    assert!(held > 0 && held == rig.engine.overdue() * 4096);
    let error = arena.alloc(32 << 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let text = error.to_string();
    assert!(text.contains("have not completed") && text.contains(&format!("hold {held}")), "{text}");
    drop(rig);
    assert!(arena.alloc(32 << 10).unwrap().is_some());
}

#[test]
fn fault_10_no_timeout_is_no_timeout_and_zero_is_refused() {
    let arena = Arena::new(4096).unwrap();
    let zero = EngineOptions { read_timeout: Duration::ZERO, ..EngineOptions::default() };
    for kind in [EngineKind::Pread, EngineKind::Sim] {
        assert_eq!(Engine::new(kind, &arena, 4, zero).err().unwrap().kind(), ErrorKind::InvalidParameter);
    }
    let data = Data::new();
    let hang = options(3, &[SimFault::Hang], 1, Direct::Off);
    let mut rig = rig(EngineOptions { read_timeout: Duration::MAX, ..hang });
    rig.engine.open(0, &data.path);
    let mut completions = vec![];
    rig.engine.reap(1, Duration::from_secs(1 << 30), &mut completions).unwrap();
    assert!(completions.is_empty() && rig.engine.in_flight() == 1);
}

/// The same seed, the same answers: with other operations around it, in another order, at another depth.
#[test]
fn a_seed_fails_again_as_it_failed_before() {
    let data = Data::new();
    let outcome = |seed, depth, backwards: bool| -> Vec<String> {
        let options = options(seed, &SimFault::ALL, 6, Direct::Preferred);
        let mut rig = Rig::new(EngineKind::Sim, 2 << 20, depth, options).unwrap();
        let Ok(file) = rig.engine.open_now(&data.path) else { return vec![format!("{seed}: no open")] };
        let mut data = Data { ranges: data.ranges.clone(), ..Data::new() };
        if backwards {
            data.ranges.reverse();
        }
        let found = read_all(&mut rig, &file, &data);
        let mut texts: Vec<_> = data
            .ranges
            .iter()
            .zip(found)
            .map(|(range, found)| match found {
                Ok(region) => format!("{range:?}: {} bytes", region.len()),
                Err(error) => format!("{range:?}: {:?}", error.kind()),
            })
            .collect();
        texts.sort();
        texts
    };
    let mut seen = std::collections::HashSet::new();
    for seed in 0..30 {
        let first = outcome(seed, 96, false);
        assert_eq!(outcome(seed, 96, false), first, "seed {seed}, again");
        assert_eq!(outcome(seed, 90, true), first, "seed {seed}, otherwise");
        seen.insert(first);
    }
    assert!(seen.len() > 20, "seeds differ: {}", seen.len());
}
