//! The error policy: what becomes of bad samples, who is told, and that nothing else changes.

mod common;
mod loader_index_support;
mod policy_support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay::batch::{BadSample, Digest, Verdict};
use forebay::engine::{EngineKind, SimFault, SimFaults, SimOptions};
use forebay::jpeg::Grain;
use forebay::order::{LastBatch, Order, Shuffle, Weights};
use forebay::source::index::{BuildOptions, Part, build};
use forebay::source::{self, Extent, IndexMode, IndexOptions, Source};
use forebay::{
    Augment, Batch, DType, Error, ErrorBudget, ErrorKind, Geometry, Layout, Loader, LoaderBuilder, OnError, Report,
    Result, Shard, State,
};
use policy_support::{Samples, list, spoil};
use serde_json::Value;

const SAMPLES: usize = 120;
const BATCH: u64 = 8;
const SEED: u64 = 3;

/// 5 % of the samples, two of them neighbours.
fn is_bad(number: usize) -> bool {
    [3, 4, 40, 77, 90, 118].contains(&number)
}

fn open(data_set: impl AsRef<Path>) -> LoaderBuilder {
    let augment = Augment::imagenet_train(24).build().expect("augmentation");
    let builder = Loader::open(data_set).augment(augment).batch_size(BATCH).seed(SEED);
    builder.threads(2).arena_bytes(1 << 20).held_timeout(Duration::from_secs(60))
}

/// With a policy that never ends the run.
fn under(policy: OnError, builder: LoaderBuilder) -> LoaderBuilder {
    builder.on_error(policy).error_budget(ErrorBudget::count(u64::MAX))
}

/// What was delivered at a place: the sample and its tensor.
type Made = BTreeMap<(u64, u64), (u64, Vec<u8>)>;

#[derive(Default)]
struct Run {
    made: Made,
    digest: Digest,
    /// By epoch and position: what it was, and what stands in for it.
    bad: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    batch_lens: Vec<usize>,
    report: Option<Report>,
}

impl Run {
    fn add(&mut self, batch: &Batch) {
        self.digest.update(batch).expect("on the host");
        self.batch_lens.push(batch.len());
        assert_eq!((batch.labels().len(), batch.positions().len()), (batch.len(), batch.len()));
        for (index, position) in batch.positions().enumerate() {
            let image = batch.image(index).expect("on the host");
            let made = (batch.samples()[index], image.bytes.to_vec());
            assert!(self.made.insert((batch.epoch(), position), made).is_none(), "a place comes twice");
        }
        for bad in batch.verdicts().filter_map(bad) {
            let by = bad.replacement.as_ref().map(|by| by.sample);
            assert!(self.bad.insert((bad.epoch, bad.position), (bad.sample, by)).is_none(), "it is named twice");
        }
    }

    fn report(&self) -> &Report {
        self.report.as_ref().expect("a report")
    }
}

fn bad(verdict: Verdict<'_>) -> Option<&BadSample> {
    match verdict {
        Verdict::Delivered { .. } => None,
        Verdict::Replaced { bad, .. } | Verdict::Skipped { bad } => Some(bad),
    }
}

/// Two epochs, or what there is of them before an error.
fn run(builder: LoaderBuilder) -> (Run, Option<Error>) {
    let mut loader = builder.build().expect("loader");
    let mut run = Run::default();
    let mut error = None;
    for batch in loader.epochs(0..2) {
        match batch {
            Ok(batch) => run.add(&batch),
            Err(failed) => error = Some(failed),
        }
    }
    run.report = Some(loader.report());
    (run, error)
}

fn complete(builder: LoaderBuilder) -> Run {
    match run(builder) {
        (run, None) => run,
        (_, Some(error)) => panic!("{error}"),
    }
}

fn digest(builder: LoaderBuilder) -> String {
    complete(builder).digest.hex()
}

fn engines() -> Vec<EngineKind> {
    let arena = forebay::memory::Arena::new(1 << 20).expect("arena");
    let has_uring = forebay::engine::Engine::new(EngineKind::Uring, &arena, 4, Default::default()).is_ok();
    if !has_uring {
        println!("skipped: io_uring is refused here");
    }
    [EngineKind::Pread, EngineKind::Sim].into_iter().chain(has_uring.then_some(EngineKind::Uring)).collect()
}

fn bad_samples(root: &Path) -> (Samples, PathBuf) {
    let sound = common::samples(SAMPLES, 3);
    let folder = common::folder(root, &spoil(&sound, is_bad));
    (sound, folder)
}

/// The next sound sample of the order behind a position.
fn stand_in(epoch: u64, position: u64, samples: u64, is_bad: impl Fn(usize) -> bool) -> u64 {
    let order = Order::new(samples, SEED, Shuffle::Full).expect("order");
    let behind = (1..samples).map(|distance| order.at(epoch, (position + distance) % samples));
    behind.into_iter().find(|&sample| !is_bad(sample as usize)).expect("a sound sample")
}

#[test]
fn by_default_the_first_bad_sample_ends_the_run() {
    let root = tempfile::tempdir().expect("folder");
    let (_, folder) = bad_samples(root.path());
    let (run, error) = run(open(&folder));
    let error = error.expect("an error");
    assert!(error.sample().is_some_and(|sample| sample.contains("class")), "{error}");
    assert!(run.bad.is_empty() && run.report().bad.is_empty());
    // What would say nothing is refused.
    let file = root.path().join("bad.jsonl");
    for builder in [open(&folder).error_budget(ErrorBudget::count(1)), open(&folder).bad_samples_file(&file)] {
        let error = builder.build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(error.to_string().contains("on_error"), "{error}");
    }
    assert!(!file.exists());
}

#[test]
fn bad_samples_are_replaced_or_skipped_and_every_other_place_is_as_it_was() {
    let root = tempfile::tempdir().expect("folder");
    let (sound, folder) = bad_samples(root.path());
    let clean = common::folder(&root.path().join("clean"), &sound);
    let clean = complete(open(&clean));
    for policy in [OnError::Replace, OnError::Skip] {
        let run = complete(under(policy, open(&folder)));
        assert_eq!(run.bad.len(), 2 * 6, "{policy}");
        for ((epoch, position), (sample, by)) in &run.bad {
            assert!(is_bad(*sample as usize), "{policy}: {sample}");
            let expected = stand_in(*epoch, *position, SAMPLES as u64, is_bad);
            assert_eq!(*by, (policy == OnError::Replace).then_some(expected), "{policy}");
        }
        for (place, (sample, tensor)) in &clean.made {
            match (run.bad.get(place), run.made.get(place)) {
                (None, Some(made)) => assert!(*made == (*sample, tensor.clone()), "{policy}: {place:?} has changed"),
                (Some((_, Some(by))), Some((made, made_tensor))) => {
                    assert_eq!(made, by);
                    let own = clean.made.iter().find(|((epoch, _), (sample, _))| *epoch == place.0 && sample == by);
                    let (_, (_, own_tensor)) = own.expect("it has a place of its own");
                    assert!(made_tensor != own_tensor, "{by} is augmented as at its own place");
                }
                (Some((_, None)), None) => {}
                (bad, made) => panic!("{policy}: {place:?} is {bad:?}, delivered: {}", made.is_some()),
            }
        }
        let all: usize = run.batch_lens.iter().sum();
        match policy {
            OnError::Skip => assert_eq!(all, 2 * (SAMPLES - 6)),
            _ => assert!(run.batch_lens.iter().all(|len| *len == BATCH as usize)),
        }
        assert_eq!(run.batch_lens.len(), clean.batch_lens.len(), "{policy}: as many steps");
    }
}

#[test]
fn labels_keys_and_verdicts_are_those_of_what_is_there() {
    let root = tempfile::tempdir().expect("folder");
    let (sound, folder) = bad_samples(root.path());
    for policy in [OnError::Replace, OnError::Skip] {
        let mut loader = under(policy, open(&folder)).build().expect("loader");
        for batch in loader.epochs(0..2) {
            let batch = batch.expect("batch");
            assert_eq!(batch.verdicts().len(), BATCH as usize);
            let mut index = 0;
            for verdict in batch.verdicts() {
                let there = match verdict {
                    Verdict::Delivered { sample } => Some(sample),
                    Verdict::Replaced { by, .. } => {
                        let (key, label, _) = &sound[by.sample as usize];
                        assert_eq!((&by.key, by.label), (key, *label as i64));
                        Some(by.sample)
                    }
                    Verdict::Skipped { .. } => None,
                };
                if let Some(bad) = bad(verdict) {
                    let (key, ..) = &sound[bad.sample as usize];
                    assert_eq!(&bad.key, key);
                    assert_eq!(bad.path, Some(folder.join(key).with_extension("jpg")));
                    assert!(bad.error.sample().is_some_and(|sample| sample.contains(key)), "{}", bad.error);
                }
                let Some(sample) = there else { continue };
                let (key, label, _) = &sound[sample as usize];
                assert_eq!(batch.samples()[index], sample);
                assert_eq!((batch.key(index), batch.labels()[index]), (key.as_str(), *label as i64));
                index += 1;
            }
            assert_eq!(index, batch.len());
            let images = batch.images().expect("one size");
            assert_eq!(images.shape, [batch.len(), 3, 24, 24]);
            assert_eq!(images.bytes.len(), batch.len() * 3 * 24 * 24 * 4);
        }
    }
}

#[test]
fn every_bad_sample_is_named_once_in_report_and_file() {
    let root = tempfile::tempdir().expect("folder");
    let sound = common::samples(SAMPLES, 3);
    // Two are missing, 6 more are spoilt in each of the ways.
    let list = list(root.path(), &spoil(&sound, is_bad), |number| [10, 11].contains(&number));
    let shards = common::shards(root.path(), &spoil(&sound, is_bad), 50);
    let listed = list.display().to_string();
    for (number, (data_set, bad)) in [(&listed, 8), (&shards, 6)].into_iter().enumerate() {
        for policy in [OnError::Replace, OnError::Skip] {
            let file = root.path().join(format!("bad-{number}-{policy}.jsonl"));
            let run = complete(under(policy, open(data_set)).bad_samples_file(&file));
            let report = run.report();
            assert_eq!(run.bad.len(), 2 * bad);
            assert_eq!(report.bad.iter().map(|(_, count)| count).sum::<u64>(), 2 * bad as u64);
            let [replaced, skipped] = if policy == OnError::Skip { [0, 2 * bad] } else { [2 * bad, 0] };
            assert_eq!((report.replaced, report.skipped), (replaced as u64, skipped as u64));
            let kinds: BTreeSet<_> = report.bad.iter().map(|(kind, _)| kind.name()).collect();
            assert!(["NotAnImage", "LimitExceeded"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
            assert_eq!(kinds.contains("NotFound"), number == 0, "{kinds:?}");
            assert_eq!(report.bad_samples.len(), (2 * bad).min(16));
            let said = report.to_string();
            assert!(said.contains(&format!("bad samples   {}", 2 * bad)), "{said}");

            let text = std::fs::read_to_string(&file).expect("a file");
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let number_of = |line: &Value, key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} in {line}"));
            let named = lines.iter().map(|line| {
                assert!(!line["kind"].is_null() && !line["cause"].is_null() && !line["path"].is_null(), "{line}");
                assert_eq!(line["offset"].is_null(), number == 0, "{line}");
                assert_eq!(line["action"], if policy == OnError::Skip { "skipped" } else { "replaced" });
                let key = line["key"].as_str().expect("a key");
                assert!(key.ends_with(&sound[number_of(line, "sample") as usize].0), "{line}");
                let place = (number_of(line, "epoch"), number_of(line, "position"));
                (place, (number_of(line, "sample"), line["replacement"]["sample"].as_u64()))
            });
            assert_eq!(named.clone().collect::<BTreeMap<_, _>>(), run.bad);
            assert_eq!(named.count(), run.bad.len());
        }
    }
}

#[test]
fn what_is_delivered_depends_on_data_and_seed_alone() {
    let root = tempfile::tempdir().expect("folder");
    let mut samples = spoil(&common::samples(SAMPLES, 3), is_bad);
    // Whether these are bad depends on the crop.
    for number in [20, 21, 22, 60, 100] {
        let len = samples[number].2.len();
        samples[number].2.truncate(len * 2 / 3);
    }
    let folder = common::folder(root.path(), &samples);
    let shards = common::shards(root.path(), &samples, 50);
    let options = BuildOptions { grain: Grain::Bits(400), part: Part::WHOLE, dir: None, threads: 1, force: false };
    build(&shards, &options, &|_, _| {}).expect("index");
    for policy in [OnError::Replace, OnError::Skip] {
        let load = |data_set: &dyn AsRef<Path>| under(policy, open(data_set.as_ref()));
        let expected = digest(load(&folder).threads(1));
        assert_ne!(expected, digest(load(&folder).seed(9)), "another seed");
        for threads in [1, 4] {
            for engine in engines() {
                let by = |builder: LoaderBuilder| digest(builder.engine(engine).threads(threads));
                assert_eq!(by(load(&folder)), expected, "{policy}, {engine}, {threads} threads");
                let indexed = by(load(&shards).index(IndexMode::Auto));
                assert_eq!(indexed, expected, "{policy}, {engine}, {threads} threads, indexed shards");
            }
        }
        assert_eq!(digest(load(&shards).index(IndexMode::Off)), expected, "{policy}, without the index");
        let one = load(&folder).depth(1).slots(2).engine(EngineKind::Pread);
        assert_eq!(digest(one), expected, "{policy}, one at a time");
        for ranks in [2, 3, 5] {
            let mut sum = Digest::default();
            for rank in 0..ranks {
                let shard = Shard::new(rank, ranks).expect("a rank");
                sum += complete(load(&folder).global_batch_size(30).shard(shard)).digest;
            }
            assert_eq!(sum.hex(), digest(load(&folder).global_batch_size(30)), "{policy}, {ranks} ranks");
        }
        for steps in [1, 7, 15, 21] {
            let (mut part, state) = take(load(&folder), steps);
            let rest = complete(load(&shards).resume(state));
            part += rest.digest;
            assert_eq!(part.hex(), expected, "{policy}, resumed after {steps} steps");
        }
    }
}

fn take(builder: LoaderBuilder, steps: usize) -> (Digest, State) {
    let mut loader = builder.build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epochs(0..2).take(steps) {
        digest.update(&batch.expect("batch")).expect("on the host");
    }
    (digest, loader.state())
}

#[test]
fn a_run_ends_at_the_same_batch_on_any_number_of_threads() {
    let root = tempfile::tempdir().expect("folder");
    let (_, folder) = bad_samples(root.path());
    for policy in [OnError::Replace, OnError::Skip] {
        let reached = |budget: ErrorBudget, threads| {
            let builder = open(&folder).on_error(policy).error_budget(budget).threads(threads);
            let (run, error) = run(builder);
            (run.batch_lens.len(), error, run.report().bad.iter().map(|(_, count)| count).sum::<u64>())
        };
        let all = complete(under(policy, open(&folder)));
        let epoch: Vec<u64> = all.bad.keys().filter(|(epoch, _)| *epoch == 0).map(|(_, position)| *position).collect();
        for allowed in 0..=6 {
            let [one, four] = [1, 4].map(|threads| reached(ErrorBudget::count(allowed), threads));
            assert_eq!((one.0, one.2), (four.0, four.2), "{policy}, {allowed} allowed");
            let Some(position) = epoch.get(allowed as usize) else {
                assert!(one.1.is_none() && four.1.is_none(), "{policy}: {allowed} an epoch are enough");
                continue;
            };
            assert_eq!(one.0 as u64, position / BATCH, "{policy}, {allowed} allowed");
            let error = one.1.expect("an error");
            assert_eq!(error.kind(), ErrorKind::BudgetExceeded);
            let (text, taken) = (error.to_string(), (one.0 as u64 + 1) * BATCH);
            let last = Order::new(SAMPLES as u64, SEED, Shuffle::Full).expect("order").at(0, *position);
            assert!(text.contains(&format!("of the {taken} samples")), "{text}");
            assert!(text.contains(&format!("{last:05}.jpg")) && error.remedy().is_some(), "{text}");
            assert_eq!(four.1.map(|error| error.to_string()), Some(text));
        }
        // 6 of 120 are 5 %, and fewer than 1 % of a thousand.
        assert!(reached(ErrorBudget::default(), 2).1.is_none(), "{policy}");
        assert!(reached("0.5%".parse().expect("a budget"), 2).1.is_some(), "{policy}");
    }
}

#[test]
fn a_data_set_without_a_sound_sample_ends_or_is_empty() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&common::samples(40, 2), |_| true));
    for threads in [1, 4] {
        let (none, error) = run(under(OnError::Replace, open(&folder)).threads(threads));
        let error = error.expect("an error");
        assert_eq!((none.batch_lens.len(), error.kind()), (0, ErrorKind::BudgetExceeded), "{error}");
        assert!(error.to_string().contains("no other sample"), "{error}");
        // The batch in vain counts nothing as replaced.
        assert_eq!((none.report().replaced, none.report().skipped), (0, 0));
        let skipped = complete(under(OnError::Skip, open(&folder)).threads(threads));
        assert_eq!(skipped.batch_lens, [0; 10]);
        assert_eq!((skipped.report().images, skipped.report().skipped), (0, 80));
    }
    // By default so many are never allowed; and a run of them is seen before all of a data set is read.
    let (_, error) = run(open(&folder).on_error(OnError::Skip));
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::BudgetExceeded));
    let (none, error) = run(open(&folder).on_error(OnError::Replace));
    assert!(error.is_some_and(|error| error.to_string().contains("more than 10 samples behind it are bad")));
    assert!(none.batch_lens.is_empty());
    let mut loader = under(OnError::Skip, open(&folder)).build().expect("loader");
    let batch = loader.epoch(0).next().expect("a batch").expect("batch");
    assert!(batch.is_empty() && batch.verdicts().len() == 8);
    let images = batch.images().expect("one size");
    assert_eq!((images.shape, images.bytes.len()), ([0, 3, 24, 24], 0));
    assert!(batch.into_tensor().is_ok());
}

#[test]
fn one_sound_sample_stands_in_for_all() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&common::samples(64, 2), |number| number != 17));
    for threads in [1, 4] {
        let run = complete(under(OnError::Replace, open(&folder)).threads(threads));
        assert_eq!(run.bad.len(), 2 * 63);
        assert!(run.made.values().all(|(sample, _)| *sample == 17));
        for epoch in 0..2 {
            let made = |is_own: bool| {
                let of = run.made.iter().filter(|((of, _), _)| *of == epoch);
                let of = of.filter(|(place, _)| run.bad.contains_key(place) != is_own);
                of.map(|(_, (_, tensor))| tensor).collect::<BTreeSet<_>>()
            };
            // All of them one view, and its own another.
            assert_eq!((made(true).len(), made(false).len()), (1, 1));
            assert!(made(true).is_disjoint(&made(false)));
        }
    }
}

#[test]
fn a_long_run_of_bad_samples_is_read_a_few_times_each() {
    const LONG: usize = 600;
    let root = tempfile::tempdir().expect("folder");
    let one = common::samples(1, 1).remove(0).2;
    let samples: Samples = (0..LONG).map(|number| (format!("class0/{number:05}"), 0, one.clone())).collect();
    let is_bad = |number: usize| (50..550).contains(&number);
    // Not empty files, which take no read.
    let samples = samples.into_iter().enumerate().map(|(number, (name, label, bytes))| {
        (name, label, if is_bad(number) { policy_support::spoilt(&bytes, 3) } else { bytes })
    });
    let folder = common::folder(root.path(), &samples.collect::<Vec<_>>());
    for threads in [1, 4] {
        let mut loader = under(OnError::Replace, open(&folder).shuffle(Shuffle::Sequential).threads(threads))
            .build()
            .expect("loader");
        let mut places = 0;
        for batch in loader.epoch(0) {
            let batch = batch.expect("batch");
            for (position, &sample) in batch.positions().zip(batch.samples()) {
                assert_eq!(sample, if is_bad(position as usize) { 550 } else { position });
                places += 1;
            }
        }
        assert_eq!(places, LONG);
        let reads = loader.report().reads;
        // All of them once, the bad ones once more as stand-ins, and the sound one for each.
        assert_eq!(reads, (LONG + 499 + 500) as u64);
    }
}

#[test]
fn the_end_of_the_epoch_leads_to_its_beginning() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&common::samples(20, 1), |number| !(2..=16).contains(&number)));
    let sequential =
        || under(OnError::Replace, open(&folder).shuffle(Shuffle::Sequential).last_batch(LastBatch::Partial));
    let run = complete(sequential());
    let by: Vec<_> =
        run.bad.iter().filter(|((epoch, _), _)| *epoch == 0).map(|(_, (sample, by))| (*sample, *by)).collect();
    assert_eq!(by, [0, 1, 17, 18, 19].map(|sample| (sample, Some(2))));
    // What is dropped at the end stands in too.
    let folder = common::folder(&root.path().join("dropped"), &spoil(&common::samples(20, 1), |number| number == 15));
    let run = complete(under(OnError::Replace, open(&folder).shuffle(Shuffle::Sequential)));
    assert_eq!(run.bad.get(&(0, 15)), Some(&(15, Some(16))));
}

#[test]
fn padded_partial_and_drawn_batches_keep_their_promises() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&common::samples(21, 1), |number| [0, 5, 20].contains(&number)));
    for policy in [OnError::Replace, OnError::Skip] {
        let load = || under(policy, open(&folder).shuffle(Shuffle::Sequential));
        let lens = |last| complete(load().last_batch(last)).batch_lens[..3].to_vec();
        match policy {
            OnError::Replace => {
                assert_eq!(lens(LastBatch::Pad), [8, 8, 8]);
                assert_eq!(lens(LastBatch::Partial), [8, 8, 5]);
            }
            _ => {
                // Of the padding, 0 is bad once more.
                assert_eq!(lens(LastBatch::Pad), [6, 8, 6]);
                assert_eq!(lens(LastBatch::Partial), [6, 8, 4]);
            }
        }
        let mut loader = load().last_batch(LastBatch::Pad).build().expect("loader");
        let repeats: Vec<_> = loader.epoch(0).map(|batch| batch.expect("batch").repeats()).collect();
        assert_eq!(repeats, [0, 0, if policy == OnError::Skip { 2 } else { 3 }], "{policy}");
        // Drawn with replacement, a bad one comes as often as it is drawn.
        let weights = || Weights::new(&[1.0; 21]).and_then(|weights| weights.with_draws(64)).expect("weights");
        let drawn = |threads| complete(under(policy, open(&folder).weights(weights())).threads(threads));
        let (one, four) = (drawn(1), drawn(4));
        assert_eq!(one.digest, four.digest, "{policy}");
        let order = Order::weighted(weights(), SEED);
        let is_bad = |sample: u64| [0, 5, 20].contains(&sample);
        let bad = (0..64).filter(|&position| is_bad(order.at(0, position)));
        assert!(one.bad.keys().filter(|(epoch, _)| *epoch == 0).map(|(_, position)| *position).eq(bad));
        for ((epoch, position), (_, by)) in &one.bad {
            let mut behind = (1..64).map(|distance| order.at(*epoch, (position + distance) % 64));
            let expected = behind.find(|&sample| !is_bad(sample));
            assert_eq!(*by, expected.filter(|_| policy == OnError::Replace));
        }
    }
}

#[test]
fn images_of_their_own_size_are_replaced_and_skipped() {
    let root = tempfile::tempdir().expect("folder");
    let (sound, folder) = bad_samples(root.path());
    let augment = Augment::builder(Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build().expect("augmentation");
    for policy in [OnError::Replace, OnError::Skip] {
        let load = || under(policy, open(&folder).augment(augment).ragged_slot_bytes(1 << 20));
        let run = complete(load());
        assert_eq!(run.bad.len(), 12);
        for (sample, pixels) in run.made.values() {
            let number = *sample as usize;
            assert_eq!(pixels.len(), 3 * (90 + number % 40) * (70 + number % 23));
        }
        assert_eq!(run.digest.hex(), digest(load().threads(4)));
        let mut loader = load().build().expect("loader");
        for batch in loader.epoch(0) {
            let batch = batch.expect("batch");
            for (index, &sample) in batch.samples().iter().enumerate() {
                let image = batch.image(index).expect("on the host");
                let size = (90 + sample as usize % 40, 70 + sample as usize % 23);
                assert_eq!((image.width as usize, image.height as usize), size);
                let original = common::pixels(sample as usize, size.0, size.1);
                let difference: u64 = image.bytes.iter().zip(&original).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                assert!(difference < 12 * original.len() as u64, "{}", sound[sample as usize].0);
            }
        }
    }
    // A batch that does not fit is no fault of a sample.
    let (_, error) = run(under(OnError::Skip, open(&folder).augment(augment).ragged_slot_bytes(100_000)));
    assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::LimitExceeded));
}

#[test]
fn an_index_is_built_around_bad_samples() {
    let root = tempfile::tempdir().expect("folder");
    let samples = spoil(&common::samples(SAMPLES, 3), is_bad);
    for policy in [OnError::Replace, OnError::Skip] {
        let root = root.path().join(policy.name());
        std::fs::create_dir(&root).expect("folder");
        let shards = common::shards(&root, &samples, 50);
        for path in std::fs::read_dir(&root).expect("folder") {
            let file = std::fs::File::open(path.expect("entry").path()).expect("shard");
            file.set_modified(std::time::UNIX_EPOCH).expect("a time");
        }
        let expected = digest(under(policy, open(&shards)).index(IndexMode::Off));
        let built = complete(under(policy, open(&shards)).index(IndexMode::Build));
        assert_eq!(built.digest.hex(), expected);
        assert!(built.report().fallbacks.is_empty(), "{}", built.report());
        // Images as small as these have no entry points: the index describes them, bad ones too, and they are read whole.
        let source = source::open_with(&shards, &IndexOptions::default()).expect("data set");
        assert!((0..SAMPLES as u64).all(|sample| matches!(source.columns(sample), Ok(Some(_)))), "no index was built");
        let indexed = complete(under(policy, open(&shards)).index(IndexMode::Auto));
        assert_eq!(indexed.digest.hex(), expected);
    }
}

#[test]
fn fault_24_a_run_with_bad_samples_can_be_left_at_any_time() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &spoil(&common::samples(48, 2), |number| number % 3 != 0));
    for policy in [OnError::Replace, OnError::Skip] {
        let mut loader = under(policy, open(&folder)).build().expect("loader");
        for batches in 0..12 {
            assert_eq!(loader.epochs(0..2).take(batches).filter(Result::is_ok).count(), batches);
            assert_eq!(loader.bytes_in_flight(), 0, "{policy}, {batches} batches");
        }
    }
    // Other tests of this binary run loaders beside this one.
    for _ in 0..2400 {
        if common::loader_threads().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("left behind: {:?}", common::loader_threads());
}

#[test]
fn a_file_that_cannot_be_written_is_a_fallback() {
    let root = tempfile::tempdir().expect("folder");
    let (_, folder) = bad_samples(root.path());
    for file in [Path::new("/dev/full"), &root.path().join("not/there.jsonl")] {
        let run = complete(under(OnError::Skip, open(&folder)).bad_samples_file(file));
        let fallback = run.report().fallbacks.iter().find(|fallback| fallback.what == "file of bad samples");
        let fallback = fallback.unwrap_or_else(|| panic!("{}", run.report()));
        assert!(fallback.cause.contains(&file.display().to_string()) && !fallback.remedy.is_empty(), "{fallback}");
        assert_eq!(run.report().skipped, 12);
    }
}

/// A source that does not know everything of its samples.
struct Forgetful(Arc<dyn Source>);

impl Source for Forgetful {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn extent(&self, sample: u64) -> Result<Extent> {
        if sample == 30 { Err(forgotten()) } else { self.0.extent(sample) }
    }

    fn object_path(&self, object: u64, path: &mut PathBuf) -> Result<()> {
        self.0.object_path(object, path)
    }

    fn label(&self, sample: u64) -> Result<i64> {
        if sample == 10 { Err(forgotten()) } else { self.0.label(sample) }
    }

    fn key(&self, sample: u64, key: &mut String) -> Result<()> {
        if sample == 9 { Err(forgotten()) } else { self.0.key(sample, key) }
    }
}

fn forgotten() -> Error {
    Error::new(ErrorKind::Corrupt, "a row is damaged")
}

#[test]
fn what_a_source_cannot_say_is_an_error_of_its_sample() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(40, 1));
    let load = || {
        let source = Arc::new(Forgetful(source::open(&folder).expect("source")));
        let augment = Augment::imagenet_val(24).build().expect("augmentation");
        Loader::of(source).augment(augment).batch_size(BATCH).shuffle(Shuffle::Sequential).threads(2)
    };
    let (failed, error) = run(load());
    assert_eq!(failed.batch_lens.len(), 1, "the first batch is sound");
    assert!(error.is_some_and(|error| error.sample().is_some_and(|sample| sample.starts_with("number 9 "))));
    for policy in [OnError::Replace, OnError::Skip] {
        let run = complete(under(policy, load()));
        let bad: Vec<_> = run.bad.iter().map(|((_, position), (_, by))| (*position, *by)).take(3).collect();
        let by = |sample| (policy == OnError::Replace).then_some(sample);
        assert_eq!(bad, [(9, by(11)), (10, by(11)), (30, by(31))]);
    }
}

#[test]
fn storage_that_fails_is_passed_over_where_it_is_one_sample_and_ends_the_run_where_it_is_all() {
    let root = tempfile::tempdir().expect("folder");
    let shards = common::shards(root.path(), &common::samples(SAMPLES, 3), 50);
    let load = |policy, one_in| {
        let sim = SimOptions { seed: 1, faults: SimFaults::NONE.with(SimFault::EioSticky), one_in };
        under(policy, open(&shards).engine(EngineKind::Sim).sim(sim))
    };
    let replaced = complete(load(OnError::Replace, 12));
    assert!(!replaced.bad.is_empty() && replaced.batch_lens.iter().all(|len| *len == BATCH as usize));
    let skipped = complete(load(OnError::Skip, 12));
    assert!(skipped.report().bad.iter().all(|(kind, _)| *kind == ErrorKind::Io), "{}", skipped.report());
    let (_, error) = run(load(OnError::Replace, 1));
    let error = error.expect("an error");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("storage fails for others too"), "{error}");
    assert!(complete(load(OnError::Skip, 1)).made.is_empty());
}

/// What bad samples cost: `cargo test --release --test loader_policy -- --ignored --nocapture what_5`.
#[test]
#[ignore = "it measures, and takes a minute"]
fn what_5_percent_of_bad_samples_cost() {
    const ROUNDS: usize = 15;
    let root = tempfile::tempdir().expect("folder");
    let sound = loader_index_support::photos(640, (500, 375), false);
    let clean = common::shards(root.path(), &sound, 640);
    std::fs::create_dir(root.path().join("bad")).expect("folder");
    let bad = common::shards(&root.path().join("bad"), &spoil(&sound, |number| number % 20 == 7), 640);
    let loader = |data_set: &str, policy| {
        let augment = Augment::imagenet_train(224).build().expect("augmentation");
        let builder = Loader::open(data_set).augment(augment).batch_size(64).threads(2).on_error(policy);
        let builder = if policy == OnError::Fail { builder } else { builder.error_budget(ErrorBudget::count(32)) };
        builder.build().expect("loader")
    };
    let mut loaders = [loader(&clean, OnError::Fail), loader(&bad, OnError::Replace), loader(&bad, OnError::Skip)];
    let mut ratios = [vec![], vec![]];
    for round in 0..=ROUNDS as u64 {
        let rates = loaders.each_mut().map(|loader| {
            let started = std::time::Instant::now();
            let images: usize = loader.epoch(round).map(|batch| batch.expect("batch").len()).sum();
            images as f64 / started.elapsed().as_secs_f64()
        });
        // The first round warms up.
        if round > 0 {
            println!("clean {:.0}, replace {:.0}, skip {:.0} images/s", rates[0], rates[1], rates[2]);
            ratios.iter_mut().zip(&rates[1..]).for_each(|(ratios, rate)| ratios.push(rate / rates[0]));
        }
    }
    for (policy, mut ratios) in ["replace", "skip"].into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ROUNDS / 2];
        println!("{policy}: {median:.3} of the clean data set's images/s (median of {ROUNDS})");
        assert!(median > 0.9, "{policy}: {median}");
    }
}
