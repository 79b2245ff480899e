//! Promises of subsets and class maps: the samples asked for, in a stable order, and everything else as it was.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::common;
use crate::index_support::{self, index, record, required, said_of, samples};
use forebay::batch::Digest;
use forebay::order::{LastBatch, Shard, Shuffle, Weights};
use forebay::source::{self, ClassMap, Filter, IndexMode, Source, Subset, UNLABELLED};
use forebay::{Augment, ErrorKind, Loader, LoaderBuilder, Result};
use proptest::prelude::*;

fn folder(root: &Path) -> Arc<dyn Source> {
    source::open(common::folder(root, &common::samples(12, 3))).expect("folder")
}

fn keys(source: &dyn Source) -> Vec<String> {
    let mut key = String::new();
    (0..source.len()).map(|sample| source.key(sample, &mut key).map(|()| key.clone()).expect("key")).collect()
}

fn matching(source: &Arc<dyn Source>, text: &str) -> Result<Subset> {
    Subset::matching(Arc::clone(source), &text.parse()?)
}

/// The numbers in the whole that a filter chooses.
fn chosen(source: &Arc<dyn Source>, text: &str) -> Vec<u64> {
    let subset = matching(source, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    (0..subset.len()).map(|sample| subset.number(sample).expect("number")).collect()
}

#[test]
fn filters_choose_by_label_class_key_and_number() {
    let root = tempfile::tempdir().expect("folder");
    let source = folder(root.path());
    for (text, expected) in [
        ("label in 0,2", vec![0, 1, 2, 3, 8, 9, 10, 11]),
        ("label = 1", vec![4, 5, 6, 7]),
        ("label != 1", vec![0, 1, 2, 3, 8, 9, 10, 11]),
        ("label < 1", vec![0, 1, 2, 3]),
        ("label not in 0,1", vec![8, 9, 10, 11]),
        ("class = class1", vec![4, 5, 6, 7]),
        ("class not in class1,class2", vec![0, 1, 2, 3]),
        ("key = class2/*", vec![8, 9, 10, 11]),
        ("key = *1", vec![1, 11]),
        ("key = class{0,2}/0000?", vec![0, 1, 2, 3, 8, 9]),
        ("key in class0/00002,class1/00007", vec![2, 7]),
        ("key != class*", vec![]),
        ("number >= 9", vec![9, 10, 11]),
        ("number in 3,1", vec![1, 3]),
    ] {
        if expected.is_empty() {
            let error = matching(&source, text).err().expect("nothing");
            assert_eq!(error.kind(), ErrorKind::EmptyDataset, "{text}");
            assert!(error.to_string().contains(text) && error.remedy().is_some(), "{error}");
        } else {
            assert_eq!(chosen(&source, text), expected, "{text}");
        }
    }
    let filter = Filter::labels([0]).or(Filter::key_prefix("class2/")).and(!Filter::keys(["class0/00000"]));
    let subset = Subset::matching(Arc::clone(&source), &filter).expect("subset");
    let numbers: Vec<u64> = (0..subset.len()).map(|sample| subset.number(sample).unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 8, 9, 10, 11], "{filter}");
    assert!(subset.notes().iter().any(|note| note.contains("7 of 12") && note.contains("label in 0")), "{filter}");
}

#[test]
fn a_class_that_is_not_there_is_named_and_so_are_those_that_are() {
    let root = tempfile::tempdir().expect("folder");
    let error = matching(&folder(root.path()), "class in class0,clas1").err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    assert!(error.to_string().contains("clas1") && !error.to_string().contains("named class0"), "{error}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains("class1")), "{error}");
}

#[test]
fn columns_of_the_index_choose_and_say_what_they_do_not_know() {
    let root = tempfile::tempdir().expect("folder");
    let mut set = samples(20, 2);
    set.push(("class1/z".to_owned(), 1, b"no picture".to_vec()));
    let folder = common::folder(root.path(), &set);
    let unindexed = source::open(&folder).expect("folder");
    let error = matching(&unindexed, "width >= 100").err().expect("an error");
    assert!(
        error.kind() == ErrorKind::NotFound && error.remedy().is_some_and(|remedy| remedy.contains("forebay index"))
    );
    forebay::source::index::build(&folder, &index_support::options(), &|_, _| {}).expect("index");
    let source = required(&folder);
    // Sample n is 90 + n wide and 70 + n high; every fifth is in several scans.
    assert_eq!(chosen(&source, "width >= 105"), (15..20).collect::<Vec<_>>());
    assert_eq!(chosen(&source, "height < 72"), [0, 1]);
    assert_eq!(chosen(&source, "sampling = 221111"), chosen(&source, "number in 0,8,12,16"));
    assert_eq!(chosen(&source, "format in UNKNOWN,PNG"), [20]);
    // What is not known decides nothing, and what else decides need not know it.
    assert_eq!(chosen(&source, "label = 1"), (10..21).collect::<Vec<_>>());
    let of = |filter: Filter| Subset::matching(Arc::clone(&source), &filter).expect("subset").len();
    assert_eq!(of(Filter::labels([1]).and("width > 0".parse().unwrap())), 10);
    assert_eq!(of(Filter::labels([1]).or("width > 0".parse().unwrap())), 21);
    // Of what is no image nothing is known, so it is neither narrow nor wide.
    for text in ["width >= 0", "width < 0 "] {
        let filter: Filter = text.parse().unwrap();
        let filter = if text.contains('<') { !filter } else { filter };
        let subset = Subset::matching(Arc::clone(&source), &filter).expect("subset");
        assert_eq!(subset.len(), 20, "{filter}");
        assert!(
            subset.notes().iter().any(|note| note.contains("does not know") && note.contains("1, such as class1/z"))
        );
    }
}

#[test]
fn shards_choose_by_length_without_an_index() {
    let root = tempfile::tempdir().expect("folder");
    let set = common::samples(6, 2);
    let source = source::open(common::shards(root.path(), &set, 4)).expect("shards");
    let middle = set[3].2.len();
    let expected: Vec<u64> = (0..6).filter(|&sample| set[sample as usize].2.len() >= middle).collect();
    assert_eq!(chosen(&source, &format!("length >= {middle}")), expected);
}

#[test]
fn everything_but_the_number_is_as_it_was() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(20, 2));
    index(&folder);
    let whole = required(&folder);
    let part = matching(&whole, "number in 1,4,17").expect("subset");
    let of_part = Subset::matching(Arc::new(part), &"label = 1".parse().unwrap()).expect("subset of a subset");
    assert_eq!((of_part.len(), of_part.number(0).unwrap()), (1, 2));
    assert_eq!(said_of(&of_part, 0), said_of(&*whole, 17));
    assert_eq!(record(&of_part, 0).unwrap(), record(&*whole, 17).unwrap());
    assert_eq!(of_part.columns(0).unwrap(), whole.columns(17).unwrap());
    assert_eq!(of_part.classes(), whole.classes());
    for error in [of_part.extent(1).unwrap_err(), of_part.label(1).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }
}

#[test]
fn the_first_error_of_a_predicate_is_that_of_the_subset() {
    let root = tempfile::tempdir().expect("folder");
    let refuse = |sample: &source::Candidate<'_>| match sample.number() {
        number @ (5 | 9) => Err(forebay::Error::new(ErrorKind::Corrupt, format!("sample {number}"))),
        _ => Ok(true),
    };
    let error = Subset::new(folder(root.path()), refuse).err().expect("an error");
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Corrupt, "sample 5"));
}

#[test]
fn numbers_are_taken_as_listed() {
    let root = tempfile::tempdir().expect("folder");
    let source = folder(root.path());
    let subset = Subset::of_numbers(Arc::clone(&source), [7, 2, 2]).expect("subset");
    let all = keys(&*source);
    assert_eq!(keys(&subset), [&all[7], &all[2], &all[2]].map(Clone::clone));
    assert_eq!(Subset::of_numbers(Arc::clone(&source), [12]).err().unwrap().kind(), ErrorKind::InvalidParameter);
    assert_eq!(Subset::of_numbers(source, []).err().unwrap().kind(), ErrorKind::EmptyDataset);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_subset_of_a_subset_is_what_both_choose(first in prop::collection::hash_set(0u64..300, 1..300), second in prop::collection::hash_set(0u64..300, 1..300)) {
        thread_local! {
            static SET: (tempfile::TempDir, Arc<dyn Source>) = {
                let root = tempfile::tempdir().expect("folder");
                let list: String = (0..300).map(|number| format!("{number}.jpg {number}\n")).collect();
                std::fs::write(root.path().join("list.txt"), list).expect("list");
                let source = source::open(root.path().join("list.txt")).expect("list");
                (root, source)
            };
        }
        let source = SET.with(|(_, source)| Arc::clone(source));
        let of = |source: Arc<dyn Source>, labels: &HashSet<u64>| {
            Subset::new(source, |sample| Ok(labels.contains(&(sample.label()? as u64))))
        };
        let mut expected: Vec<i64> = first.intersection(&second).map(|&label| label as i64).collect();
        expected.sort_unstable();
        match of(Arc::new(of(source, &first).unwrap()), &second) {
            Ok(both) => {
                let labels: Vec<i64> = (0..both.len()).map(|sample| both.label(sample).unwrap()).collect();
                prop_assert_eq!(labels, expected);
            }
            Err(error) => prop_assert!(error.kind() == ErrorKind::EmptyDataset && expected.is_empty()),
        }
    }
}

fn loader(builder: LoaderBuilder) -> LoaderBuilder {
    builder
        .augment(Augment::imagenet_train(32).build().expect("augment"))
        .batch_size(3)
        .last_batch(LastBatch::Partial)
        .seed(3)
}

fn digest(builder: LoaderBuilder) -> (String, u64) {
    let mut loader = loader(builder).build().expect("loader");
    let mut digest = Digest::default();
    for batch in loader.epochs(0..2) {
        digest.update(&batch.expect("batch")).expect("digest");
    }
    (digest.hex(), loader.report().bytes_skipped)
}

/// The same samples, chosen by a filter and listed by hand, whole and with an index: the same tensors in the same order.
#[test]
fn a_filtered_loader_loads_what_is_listed_by_hand() {
    let root = tempfile::tempdir().expect("folder");
    let set = samples(20, 2);
    let folder = common::folder(root.path(), &set);
    let names: String = set
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 3 == 1)
        .map(|(_, (key, label, _))| format!("{key}.jpg {label}\n"))
        .collect();
    let list = folder.join("by-hand.txt");
    std::fs::write(&list, names).expect("list");
    let (by_hand, _) = digest(Loader::open(&list).index(IndexMode::Off));
    let filtered = || {
        Loader::open(&folder)
            .map_source(|source| Ok(Arc::new(Subset::new(source, |sample| Ok(sample.number() % 3 == 1))?)))
    };
    assert_eq!(digest(filtered().threads(1)).0, by_hand);
    index(&folder);
    let (indexed, skipped) = digest(filtered().index(IndexMode::Required));
    assert!(indexed == by_hand && skipped > 0, "{indexed} {by_hand} {skipped}");
}

#[test]
fn classes_are_renamed_merged_and_dropped() {
    let root = tempfile::tempdir().expect("folder");
    let source = folder(root.path());
    let labels = |source: &dyn Source| (0..source.len()).map(|n| source.label(n).unwrap()).collect::<Vec<_>>();
    let map = ClassMap::new().rename("class0", "cat");
    let renamed = map.apply(Arc::clone(&source)).expect("renamed");
    assert_eq!(renamed.classes(), ["cat", "class1", "class2"]);
    assert_eq!(labels(&renamed), labels(&*source));
    let merged = ClassMap::new().merge(["class0", "class2"], "pet").apply(Arc::clone(&source)).expect("merged");
    assert_eq!(merged.classes(), ["pet", "class1"]);
    assert_eq!(labels(&merged), [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]);
    let dropped =
        ClassMap::new().drop(["class0"]).rename("class2", "class1").apply(Arc::clone(&source)).expect("dropped");
    assert_eq!((dropped.classes(), labels(&dropped)), (&["class1".to_owned()][..], vec![0; 8]));
    assert_eq!(keys(&dropped), keys(&*source)[4..]);
    let kept = ClassMap::new().rename("class1", "only").drop_others().apply(Arc::clone(&source)).expect("kept");
    assert_eq!((kept.classes(), labels(&kept)), (&["only".to_owned()][..], vec![0; 4]));
    let numbered = ClassMap::new().relabel(0, 7).drop_label(1).apply(Arc::clone(&source)).expect("numbered");
    assert_eq!((numbered.classes().len(), labels(&numbered)), (0, vec![7, 7, 7, 7, 2, 2, 2, 2]));
    let refused = |map: ClassMap, words: &[&str]| {
        let error = map.apply(Arc::clone(&source)).err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)) && error.remedy().is_some(), "{error}");
    };
    refused(ClassMap::new().rename("class3", "x").drop(["class9"]), &["class3, class9", "class0, class1, class2"]);
    refused(ClassMap::new().rename("class1", "x").drop(["class1"]), &["twice", "class1"]);
    refused(ClassMap::new().relabel(1, 2).relabel(1, 3), &["twice", "label 1"]);
    refused(ClassMap::new().relabel(1, 2).rename("class1", "x"), &["names", "labels"]);
    let nothing = ClassMap::new().drop_label(0).drop_label(1).drop_label(2).apply(Arc::clone(&source)).err().unwrap();
    assert_eq!(nothing.kind(), ErrorKind::EmptyDataset);
}

/// A sample that is drawn again in an epoch is augmented anew; who draws, threads or index, changes nothing.
#[test]
fn weighted_epochs_are_the_same_on_any_path_and_repeat_no_crop() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(6, 2));
    let only_one = || Weights::new(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).unwrap().with_draws(9).unwrap();
    let mut repeated = loader(Loader::open(&folder).weights(only_one())).build().expect("loader");
    assert_eq!(repeated.steps_per_epoch(), 3);
    let mut images = HashSet::new();
    for batch in repeated.epoch(0) {
        let batch = batch.expect("batch");
        assert!((0..batch.len()).all(|index| batch.key(index) == "class0/00002"));
        images.extend((0..batch.len()).map(|index| batch.image(index).expect("host").bytes.to_vec()));
    }
    assert_eq!(images.len(), 9, "every draw is a crop of its own");
    let balanced = |threads| Loader::open(&folder).threads(threads).balanced();
    let (expected, _) = digest(balanced(1));
    assert_eq!(digest(balanced(3)).0, expected);
    assert_ne!(digest(Loader::open(&folder)).0, expected);
    // What is said last counts.
    assert_eq!(digest(balanced(1).shuffle(Shuffle::Full)).0, digest(Loader::open(&folder)).0);
    index(&folder);
    assert_eq!(digest(balanced(2).index(IndexMode::Required)).0, expected);
}

/// A run that draws by weights goes on where it was left, on more ranks too, and not by other weights.
#[test]
fn draws_by_weights_are_resumed_on_other_ranks() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(6, 2));
    let run = |heavy: f64| {
        let weights = Weights::new(&[1.0, 1.0, heavy, 1.0, 1.0, 1.0]).unwrap().with_draws(12).unwrap();
        loader(Loader::open(&folder).weights(weights)).global_batch_size(4)
    };
    let sum = |loader: &mut Loader, steps| {
        let (mut digest, mut state) = (Digest::default(), None);
        for batch in loader.epoch(0).take(steps) {
            let batch = batch.expect("batch");
            digest.update(&batch).expect("on the host");
            state = Some(batch.state());
        }
        (digest, state.expect("a batch"))
    };
    let (whole, _) = sum(&mut run(3.0).build().expect("loader"), usize::MAX);
    let (begun, state) = sum(&mut run(3.0).build().expect("loader"), 1);
    let rest = (0..2).map(|rank| {
        let shard = Shard::new(rank, 2).expect("shard");
        sum(&mut run(3.0).shard(shard).resume(state).build().expect("the same run"), usize::MAX).0
    });
    assert_eq!(rest.fold(begun, |sum, digest| sum + digest), whole);
    let error = run(4.0).resume(state).build().err().expect("another run");
    assert!(error.to_string().contains("drawn by other weights"), "{error}");
}

#[test]
fn weights_of_another_data_set_are_refused() {
    let root = tempfile::tempdir().expect("folder");
    let folder = common::folder(root.path(), &samples(6, 2));
    let error =
        loader(Loader::open(&folder).weights(Weights::new(&[1.0; 5]).unwrap())).build().err().expect("an error");
    assert!(error.kind() == ErrorKind::InvalidParameter && error.to_string().contains('5'), "{error}");
    assert!(error.remedy().is_some_and(|remedy| remedy.contains('6')), "{error}");
    // Nothing to balance.
    let list = root.path().join("list.txt");
    std::fs::write(&list, "a.jpg\nb.jpg\n").expect("list");
    assert_eq!(source::open(&list).unwrap().label(0).unwrap(), UNLABELLED);
    assert_eq!(loader(Loader::open(&list).balanced()).build().err().unwrap().kind(), ErrorKind::InvalidParameter);
}
