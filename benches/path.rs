//! The whole path: a folder of JPEGs to augmented batches, images a second.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::{Augment, Loader};

const SAMPLES: usize = 256;

fn path(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("folder");
    let samples = common::samples(SAMPLES, 4);
    let folder = common::folder(root.path(), &samples).display().to_string();
    let shards = common::shards(root.path(), &samples, 64);
    let mut group = criterion.benchmark_group("path");
    group.throughput(Throughput::Elements(SAMPLES as u64)).sample_size(20);
    for (name, data_set) in [("folder", &folder), ("shards", &shards)] {
        let augment = Augment::imagenet_train(224).build().expect("augmentation");
        let builder = Loader::open(data_set).augment(augment).batch_size(32);
        let mut loader = builder.build().expect("loader");
        let mut epoch = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for batch in loader.epoch(epoch) {
                    black_box(batch.expect("batch").labels());
                }
                epoch += 1;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, path);
criterion_main!(benches);
