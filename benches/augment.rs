//! Decoded rows to a finished tensor: imagenet-train 224 from crops of a 500x375 photo, one thread.
//!
//! Rows are copied into the resizer as a decoder would write them; the time of that copy is included.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use forebay::augment::{Isa, Resizer};
use forebay::pixels::RowSink;
use forebay::plan::{Augment, DType, Layout, Orientation, SampleKey, SamplePlan};

const WIDTH: u32 = 500;
const HEIGHT: u32 = 375;
/// Enough crops that their mean size is that of the law.
const CROPS: u64 = 256;

fn augment(criterion: &mut Criterion) {
    let planes: [Vec<u8>; 3] = std::array::from_fn(|channel| {
        (0..WIDTH * HEIGHT).map(|i| (i.wrapping_mul(2_654_435_761 + channel as u32) >> 24) as u8).collect()
    });
    let mut group = criterion.benchmark_group("imagenet-train-224");
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::U8] {
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let name = format!("{}-{}", dtype.name(), layout.name());
            bench(&mut group, &name, dtype, layout, Isa::detect(), &planes);
        }
    }
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        bench(&mut group, &format!("f32-nchw-{isa:?}"), DType::F32, Layout::Nchw, isa, &planes);
    }
    group.finish();
}

fn bench(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    dtype: DType,
    layout: Layout,
    isa: Isa,
    planes: &[Vec<u8>; 3],
) {
    let mut builder = Augment::imagenet_train(224).dtype(dtype).layout(layout);
    if dtype == DType::U8 {
        builder = builder.without_normalize();
    }
    let augment = builder.build().expect("a preset is valid");
    let plans: Vec<SamplePlan> = (0..CROPS)
        .map(|sample| SampleKey { sample, ..SampleKey::default() })
        .map(|key| augment.plan(key, WIDTH, HEIGHT, Orientation::AS_STORED).expect("the image has pixels"))
        .collect();
    let mut resizer = Resizer::with_isa(&augment, isa);
    let mut output = vec![0f32; plans[0].output_bytes() / 4];
    let output = bytemuck::cast_slice_mut::<f32, u8>(&mut output);
    let mut turn = plans.iter().cycle();
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let plan = turn.next().expect("a cycle has no end");
            sample(&mut resizer, plan, planes, output);
            black_box(&output);
        });
    });
}

fn sample(resizer: &mut Resizer, plan: &SamplePlan, planes: &[Vec<u8>; 3], output: &mut [u8]) {
    let region = plan.region();
    let (left, width) = (region.x as usize, region.width as usize);
    let mut rows = resizer.begin(plan, output).expect("the output has the plan's size");
    for y in region.y..region.y + region.height {
        for (row, plane) in rows.row().into_iter().zip(planes) {
            row[..width].copy_from_slice(&plane[y as usize * WIDTH as usize + left..][..width]);
        }
        rows.commit();
    }
    rows.finish().expect("every row was delivered");
}

criterion_group!(benches, augment);
criterion_main!(benches);
