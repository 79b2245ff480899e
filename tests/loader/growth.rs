//! Promises of data sets that grow while they are loaded: what was there keeps its numbers, what is new joins between
//! epochs, on all ranks alike, and anything else is refused by what differs.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::jpeg::Grain;
use forebay::order::{LastBatch, Weights};
use forebay::source::index::{BuildOptions, Part, build};
use forebay::source::{self, IndexMode, Subset};
use forebay::{Augment, Batch, Error, ErrorKind, Loader, LoaderBuilder, Refreshed, Shard, State};

use crate::common;

const BATCH: u64 = 4;

/// Shards of 10 samples each, by a pattern.
struct Shards(tempfile::TempDir);

impl Shards {
    fn new(shards: usize) -> Self {
        let this = Self(tempfile::tempdir().expect("folder"));
        (0..shards).for_each(|number| this.add(number));
        this
    }

    /// Writes a shard, as a whole or not at all.
    fn add(&self, number: usize) {
        self.write(&format!("train-{number:03}.tar"), &common::samples(40, 2)[number * 10..][..10]);
    }

    fn write(&self, name: &str, samples: &[(String, usize, Vec<u8>)]) {
        let beside = tempfile::tempdir_in(self.0.path()).expect("folder");
        common::shards(beside.path(), samples, samples.len());
        fs::rename(beside.path().join("train-000.tar"), self.0.path().join(name)).expect("shard");
    }

    fn path(&self, number: usize) -> PathBuf {
        self.0.path().join(format!("train-{number:03}.tar"))
    }

    fn open(&self) -> LoaderBuilder {
        asked(Loader::open(self.0.path().join("train-*.tar")))
    }
}

fn asked(builder: LoaderBuilder) -> LoaderBuilder {
    let augment = Augment::imagenet_train(16).build().expect("augmentation");
    let builder = builder.augment(augment).batch_size(BATCH).seed(5).threads(2).arena_bytes(1 << 20);
    builder.last_batch(LastBatch::Partial)
}

/// Epoch, position, number and digest of the tensor.
type Delivered = (u64, u64, u64, u128);

fn delivered(batch: &Batch) -> Vec<Delivered> {
    let of = |(index, position)| {
        let tensor = xxhash_rust::xxh3::xxh3_128(batch.image(index).expect("on the host").bytes);
        (batch.epoch(), position, batch.samples()[index], tensor)
    };
    (0..batch.len()).zip(batch.position()..).map(of).collect()
}

fn epoch(loader: &mut Loader, epoch: u64) -> Vec<Delivered> {
    loader.epoch(epoch).flat_map(|batch| delivered(&batch.expect("batch"))).collect()
}

fn refused(loader: &mut Loader, words: &[&str]) -> Error {
    let before = (loader.source().len(), loader.state());
    let error = loader.refresh().expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert!(error.remedy().is_some());
    assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    assert_eq!((loader.source().len(), loader.state()), before, "the loader is as it was");
    error
}

#[test]
fn shards_that_are_added_join_between_epochs() {
    let shards = Shards::new(2);
    let mut loader = shards.open().slots(4).build().expect("loader");
    let memory = loader.memory();
    assert_eq!(loader.refresh().expect("nothing new"), Refreshed { before: 20, now: 20 });
    assert_eq!(epoch(&mut loader, 0), epoch(&mut shards.open().build().expect("loader"), 0));
    // What the consumer still holds is of the data set as it was.
    let mut held: Vec<_> = loader.epoch(1).map(|batch| batch.expect("batch")).take(2).collect();
    let first = held.remove(0);
    let as_it_was = (delivered(&first), first.key(0).to_owned(), first.labels().to_vec());
    drop(held);
    shards.add(2);
    assert_eq!(loader.refresh().expect("grown"), Refreshed { before: 20, now: 30 });
    assert_eq!((loader.source().len(), loader.steps_per_epoch()), (30, 8));
    assert_eq!((loader.state().epoch(), loader.state().position()), (2, 0), "the rest of epoch 1 is given up");
    // From here on it is a loader that was built of all of it.
    let mut whole = shards.open().build().expect("loader");
    assert_eq!(epoch(&mut loader, 2), epoch(&mut whole, 2));
    assert_eq!((delivered(&first), first.key(0).to_owned(), first.labels().to_vec()), as_it_was);
    drop(first);
    assert_eq!(loader.state(), whole.state());
    assert_eq!((loader.memory(), loader.report().images), (memory, 20 + 8 + 30));
    // The order is by how many there are.
    let numbers = |of: &[Delivered]| of.iter().map(|sample| sample.2).collect::<Vec<_>>();
    shards.add(3);
    loader.refresh().expect("grown");
    assert_ne!(numbers(&epoch(&mut loader, 2))[..8], numbers(&epoch(&mut whole, 2))[..8]);
}

#[test]
fn an_index_beside_a_new_shard_is_used() {
    let shards = Shards::new(2);
    let options = BuildOptions { grain: Grain::Bits(400), part: Part::WHOLE, dir: None, threads: 1, force: false };
    let build = || build(shards.0.path(), &options, &|_, _| {}).expect("index");
    build();
    let mut loader = shards.open().index(IndexMode::Required).build().expect("loader");
    shards.add(2);
    assert_ne!(loader.refresh().expect_err("no index").kind(), ErrorKind::Changed);
    assert_eq!(epoch(&mut loader, 0).len(), 20, "the loader is as it was");
    build();
    assert_eq!(loader.refresh().expect("grown").now, 30);
    assert_eq!(epoch(&mut loader, 1), epoch(&mut shards.open().index(IndexMode::Off).build().expect("loader"), 1));
    assert!(loader.source().columns(29).expect("columns").is_some());
}

#[test]
fn lines_that_are_added_join() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(12, 2));
    let list = root.path().join("list.txt");
    let lines: Vec<_> =
        (0..12).map(|n| format!("{}/class{}/{n:05}.jpg\t{}\n", folder.display(), n / 6, n / 6)).collect();
    fs::write(&list, lines[..7].concat()).expect("list");
    let mut loader = asked(Loader::open(&list)).build().expect("loader");
    fs::write(&list, lines.concat()).expect("list");
    assert_eq!(loader.refresh().expect("grown"), Refreshed { before: 7, now: 12 });
    assert_eq!(epoch(&mut loader, 0), epoch(&mut asked(Loader::open(&list)).build().expect("loader"), 0));
    fs::write(&list, lines[1..].concat()).expect("list");
    refused(&mut loader, &["sample 0 was", "00000 and is", "00001"]);
    fs::write(&list, lines[..11].concat()).expect("list");
    refused(&mut loader, &["sample 11,", "00011, is gone", "leave what was loaded as it is"]);
}

#[test]
fn files_join_behind_the_others_and_nowhere_else() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(12, 2));
    let mut loader = asked(Loader::open(&folder)).build().expect("loader");
    fs::write(folder.join("class1/x.jpg"), common::jpeg(1)).expect("sample");
    fs::create_dir(folder.join("class2")).expect("class");
    fs::write(folder.join("class2/y.jpg"), common::jpeg(2)).expect("sample");
    assert_eq!(loader.refresh().expect("grown"), Refreshed { before: 12, now: 14 });
    assert_eq!(loader.source().classes(), ["class0", "class1", "class2"]);
    fs::write(folder.join("class0/x.jpg"), common::jpeg(1)).expect("sample");
    refused(&mut loader, &["sample 6 was class1/00006 and is class0/x", "sort behind"]);
    assert_eq!(epoch(&mut loader, 3).len(), 14, "and goes on with what it has");
    fs::remove_file(folder.join("class0/x.jpg")).expect("sample");
    // No sample has another number, but classes have.
    fs::create_dir(folder.join("class1a")).expect("class");
    fs::create_dir(folder.join("class1b")).expect("class");
    refused(&mut loader, &["label 2 was the class class2 and is the class class1a"]);
}

#[test]
fn shards_that_are_others_are_refused_by_name() {
    let shards = Shards::new(2);
    let mut loader = shards.open().build().expect("loader");
    let [first, second] = [0, 1].map(|number| shards.path(number).display().to_string());
    let early = shards.0.path().join("train-000a.tar");
    fs::copy(shards.path(0), &early).expect("shard");
    let error = refused(&mut loader, &[&second, "was number 2", "train-000a.tar is now", "sort behind"]);
    assert!(!error.to_string().contains("is gone"), "{error}");
    fs::remove_file(&early).expect("shard");
    // As many samples, as many bytes, written anew.
    let good = fs::read(shards.path(1)).expect("shard");
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(shards.path(1), &good).expect("shard");
    refused(&mut loader, &[&second, "was written anew"]);
    shards.write("train-001.tar", &common::samples(40, 2)[10..17]);
    refused(&mut loader, &[&second, "with 10 samples and has", "with 7 samples", "new shards"]);
    fs::remove_file(shards.path(1)).expect("shard");
    refused(&mut loader, &[&second, "is gone"]);
    shards.add(2);
    refused(&mut loader, &[&second, "is gone, and was number 2", "train-002.tar is now"]);
    fs::rename(shards.path(0), shards.path(3)).expect("shard");
    refused(&mut loader, &[&first, "is gone, and was number 1"]);
}

#[test]
fn of_several_data_sets_the_last_grows() {
    let (one, other) = (Shards::new(1), Shards::new(1));
    let parts = [&one, &other].map(|shards| shards.0.path().to_owned());
    let mut loader = asked(Loader::open_all(&parts)).build().expect("loader");
    other.add(1);
    assert_eq!(loader.refresh().expect("grown"), Refreshed { before: 20, now: 30 });
    one.add(1);
    refused(&mut loader, &["was number 2", "only the last can grow"]);
}

/// The loop of a training that looks for new samples before every epoch, until it has taken some steps.
fn train(builder: LoaderBuilder, epochs: u64, steps: usize) -> (Vec<Delivered>, State) {
    let mut loader = builder.build().expect("loader");
    let (mut taken, mut left) = (vec![], steps);
    for epoch in 0..epochs {
        loader.refresh().expect("grown");
        for batch in loader.epoch(epoch).take(left) {
            taken.extend(delivered(&batch.expect("batch")));
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    (taken, loader.state())
}

#[test]
fn a_run_is_resumed_with_the_samples_that_it_had() {
    let shards = Shards::new(2);
    let (undisturbed, _) = train(shards.open(), 2, usize::MAX);
    let states: Vec<_> = (0..=10).map(|steps| train(shards.open(), 2, steps)).collect();
    shards.add(2);
    let whole = epoch(&mut shards.open().build().expect("loader"), 2);
    for (steps, (taken, state)) in states.into_iter().enumerate() {
        assert_eq!(state.data_set_samples(), 20);
        // All at once: as if nothing had been added.
        let mut loader = shards.open().resume(state).build().expect("loader");
        assert_eq!((loader.source().len(), loader.state()), (20, state));
        assert!(loader.source().notes().iter().any(|note| note.contains("the last 10 of 30")));
        let rest: Vec<_> = loader.epochs(0..2).flat_map(|batch| delivered(&batch.expect("batch"))).collect();
        assert!([taken.clone(), rest].concat() == undisturbed, "after {steps} steps");
        // With a look before every epoch: the epoch that was begun with the samples that it had.
        let (rest, end) = train(shards.open().resume(state), 3, usize::MAX);
        let begun = undisturbed.iter().filter(|sample| sample.0 == state.epoch() && state.position() > 0);
        assert!(
            rest.iter().filter(|sample| sample.0 == state.epoch()).eq(begun.skip(taken.len() % 20)) || steps % 5 == 0
        );
        assert!(rest.iter().filter(|sample| sample.0 == 2).eq(&whole), "after {steps} steps");
        assert_eq!(end.data_set_samples(), 30);
        // A loader that has taken all of them on goes back to that.
        let mut loader = shards.open().build().expect("loader");
        loader.resume(state).expect("the same run");
        assert_eq!((loader.source().len(), loader.state()), (20, state));
        let rest: Vec<_> = loader.epochs(0..2).flat_map(|batch| delivered(&batch.expect("batch"))).collect();
        assert!([taken, rest].concat() == undisturbed, "after {steps} steps");
        assert_eq!(loader.refresh().expect("grown").now, 30);
    }
    // Not where its first samples are others.
    let (_, state) = train(shards.open(), 1, 3);
    fs::rename(shards.path(0), shards.path(3)).expect("shard");
    let error = shards.open().resume(state).build().err().expect("refused");
    assert!(error.to_string().contains("other keys"), "{error}");
    fs::remove_file(shards.path(3)).expect("shard");
    let error = shards.open().resume(state).build().err().expect("refused");
    assert!(error.to_string().contains("samples was 30 and is 20"), "{error}");
}

#[test]
fn ranks_take_on_what_one_of_them_saw() {
    let shards = Shards::new(2);
    let open = |rank| shards.open().shard(Shard::new(rank, 2).expect("a rank")).build().expect("loader");
    let mut ranks = [open(0), open(1)];
    ranks.iter_mut().for_each(|rank| assert_eq!(epoch(rank, 0).len(), 10));
    shards.add(2);
    let seen = ranks[0].refresh().expect("grown").now;
    assert_eq!(seen, 30);
    // The other comes later, and sees more.
    shards.add(3);
    assert_eq!(ranks[1].refresh_to(seen).expect("grown"), Refreshed { before: 20, now: 30 });
    assert_eq!(ranks[0].state().data_set_samples(), ranks[1].state().data_set_samples());
    let mut numbers = HashSet::new();
    for rank in &mut ranks {
        epoch(rank, 1).into_iter().for_each(|sample| assert!(numbers.insert(sample.2), "sample {} twice", sample.2));
    }
    assert_eq!(numbers.len(), 30);
    assert_eq!(ranks[0].state(), ranks[1].state());
    // Nor is there any way back, or beyond what is there.
    let error = ranks[1].refresh_to(29).expect_err("fewer");
    assert!(error.kind() == ErrorKind::InvalidParameter && error.to_string().contains("30 samples"), "{error}");
    let error = ranks[1].refresh_to(41).expect_err("more");
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("41 samples, and 40"), "{error}");
    assert_eq!(ranks[1].refresh_to(30).expect("as it is").now, 30);
    ranks.iter_mut().for_each(|rank| assert_eq!(rank.refresh_to(35).expect("a part of a shard").now, 35));
    assert_eq!(epoch(&mut ranks[0], 2).len() + epoch(&mut ranks[1], 2).len(), 35);
    ranks.iter_mut().for_each(|rank| assert_eq!(rank.refresh().expect("the rest").now, 40));
}

#[test]
fn a_map_is_made_anew_and_what_it_makes_has_to_grow() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &common::samples(12, 2));
    let seconds = || {
        let second = |source| Ok(Arc::new(Subset::matching(source, &"label = 1".parse()?)?) as Arc<dyn source::Source>);
        asked(Loader::open(&folder)).map_source(second)
    };
    let mut loader = seconds().build().expect("loader");
    fs::write(folder.join("class0/x.jpg"), common::jpeg(1)).expect("sample");
    assert_eq!(loader.refresh().expect("nothing of it"), Refreshed { before: 6, now: 6 });
    fs::write(folder.join("class1/x.jpg"), common::jpeg(1)).expect("sample");
    assert_eq!(loader.refresh().expect("grown"), Refreshed { before: 6, now: 7 });
    assert_eq!(epoch(&mut loader, 0), epoch(&mut seconds().build().expect("loader"), 0));
    fs::write(folder.join("class1/00000.jpg"), common::jpeg(1)).expect("sample");
    refused(&mut loader, &["sample 0 was class1/00006 and is class1/00000"]);
}

#[test]
fn weights_of_classes_are_made_anew_and_others_cannot_be() {
    let shards = Shards::new(3);
    let mut loader = shards.open().balanced().build().expect("loader");
    shards.add(3);
    assert_eq!(loader.refresh().expect("grown").now, 40);
    assert_eq!(epoch(&mut loader, 1), epoch(&mut shards.open().balanced().build().expect("loader"), 1));
    let weights = || Weights::new(&[1.0; 40]).expect("weights").with_draws(10).expect("draws");
    let mut loader = shards.open().weights(weights()).build().expect("loader");
    let before = epoch(&mut loader, 0);
    let (state, samples) = (loader.state(), common::samples(5, 2));
    assert_eq!((state.samples(), state.data_set_samples()), (10, 40));
    shards.write("train-004.tar", &samples);
    let error = loader.refresh().expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert!(error.to_string().contains("weights is of 40 samples") && error.to_string().contains("45"), "{error}");
    assert_eq!(epoch(&mut loader, 0), before, "the loader is as it was");
    // What they are of is there still.
    let mut resumed = shards.open().weights(weights()).resume(state).build().expect("loader");
    assert_eq!(epoch(&mut resumed, 1), epoch(&mut loader, 1));
}

#[test]
fn a_source_of_ones_own_is_given_anew() {
    let shards = Shards::new(2);
    let open = |path: &Path| source::open(path).expect("data set");
    let mut loader = asked(Loader::of(open(shards.0.path()))).build().expect("loader");
    let error = loader.refresh().expect_err("refused");
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("refresh_with"), "{error}");
    shards.add(2);
    assert_eq!(loader.refresh_with(open(shards.0.path())).expect("grown").now, 30);
    assert_eq!(epoch(&mut loader, 1), epoch(&mut shards.open().build().expect("loader"), 1));
    let other = Shards::new(1);
    assert_eq!(loader.refresh_with(open(other.0.path())).expect_err("another").kind(), ErrorKind::Changed);
    let mut opened = shards.open().build().expect("loader");
    assert_eq!(opened.refresh_with(open(shards.0.path())).expect_err("refused").kind(), ErrorKind::Unsupported);
}

/// What its threads share must not change under them.
#[test]
fn a_run_that_was_forgotten_keeps_its_samples() {
    let shards = Shards::new(1);
    // Fewer than the batches of an epoch, so that it never ends.
    let mut loader = shards.open().slots(2).build().expect("loader");
    std::mem::forget(loader.epoch(0));
    shards.add(1);
    assert_eq!(loader.refresh().expect_err("refused").kind(), ErrorKind::Unsupported);
    assert_eq!(loader.source().len(), 10);
}
