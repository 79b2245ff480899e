//! The augmentation allocates nothing once it has seen the largest image.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::augment::Resizer;
use forebay::pixels::RowSink;
use forebay::plan::{Augment, DType, Geometry, Layout, Orientation, SampleKey};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Memory) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Memory) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test in this binary, so that no other thread allocates while it counts.
#[test]
fn steady_state_allocates_nothing() {
    for (dtype, layout) in [(DType::F32, Layout::Nchw), (DType::F16, Layout::Nhwc), (DType::U8, Layout::Nhwc)] {
        for geometry in [Geometry::random_resized_crop(64), Geometry::Resize { size: 64.into() }] {
            let augment = Augment::builder(geometry).horizontal_flip(0.5).dtype(dtype).layout(layout).build().unwrap();
            let mut resizer = Resizer::new(&augment);
            let mut output = vec![0f32; 64 * 64 * 3];
            let output = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut output)[..augment.output_bytes().unwrap()];
            let mut epoch = |epoch| {
                for sample in 0..300 {
                    let key = SampleKey { seed: 1, epoch, sample, view: 0 };
                    let (width, height) = (20 + sample as u32, 320 - sample as u32);
                    let exif = 1 + (sample % 8) as u16;
                    let plan = augment.plan(key, width, height, Orientation::from_exif(exif)).unwrap();
                    let mut rows = resizer.begin(&plan, output).unwrap();
                    for _ in 0..plan.region().height {
                        rows.row().into_iter().for_each(|plane| plane.fill(1));
                        rows.commit();
                    }
                    rows.finish().unwrap();
                }
            };
            epoch(0);
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            epoch(0);
            assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{geometry:?} {dtype:?}");
        }
    }
}
