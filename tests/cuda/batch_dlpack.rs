//! A batch as a DLPack tensor, read by a consumer in C that knows the specification and not this crate.

use std::ffi::{CString, c_int, c_void};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forebay::plan::{DType, Layout};
use forebay::{Augment, Batch, Loader};

use crate::common;

/// The consumer: structures as dlpack.h gives them, elements found by the strides, the deleter called from a
/// thread of its own.
const CONSUMER: &str = r#"
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint32_t major, minor; } DLPackVersion;
typedef struct { int32_t device_type, device_id; } DLDevice;
typedef struct { uint8_t code, bits; uint16_t lanes; } DLDataType;
typedef struct {
    void *data; DLDevice device; int32_t ndim; DLDataType dtype; int64_t *shape, *strides; uint64_t byte_offset;
} DLTensor;
typedef struct DLManagedTensor {
    DLTensor dl_tensor; void *manager_ctx; void (*deleter)(struct DLManagedTensor *self);
} DLManagedTensor;
typedef struct DLManagedTensorVersioned {
    DLPackVersion version; void *manager_ctx; void (*deleter)(struct DLManagedTensorVersioned *self);
    uint64_t flags; DLTensor dl_tensor;
} DLManagedTensorVersioned;

typedef struct {
    int64_t shape[4]; int32_t device_type, device_id, code, bits, lanes, major; uint64_t flags;
} Seen;

static void look(const DLTensor *tensor, Seen *seen, uint8_t *bytes) {
    size_t size = tensor->dtype.bits / 8, at = 0;
    memcpy(seen->shape, tensor->shape, sizeof seen->shape);
    seen->device_type = tensor->device.device_type;
    seen->device_id = tensor->device.device_id;
    seen->code = tensor->dtype.code;
    seen->bits = tensor->dtype.bits;
    seen->lanes = tensor->dtype.lanes;
    const char *data = (const char *)tensor->data + tensor->byte_offset;
    for (int64_t i = 0; i < tensor->shape[0]; i++)
        for (int64_t j = 0; j < tensor->shape[1]; j++)
            for (int64_t k = 0; k < tensor->shape[2]; k++)
                for (int64_t l = 0; l < tensor->shape[3]; l++, at += size) {
                    const int64_t *by = tensor->strides;
                    memcpy(bytes + at, data + size * (i * by[0] + j * by[1] + k * by[2] + l * by[3]), size);
                }
}

static void *delete_versioned(void *tensor) {
    ((DLManagedTensorVersioned *)tensor)->deleter(tensor);
    return NULL;
}
static void *delete_legacy(void *tensor) {
    ((DLManagedTensor *)tensor)->deleter(tensor);
    return NULL;
}
static int elsewhere(void *(*body)(void *), void *tensor) {
    pthread_t thread;
    return pthread_create(&thread, NULL, body, tensor) || pthread_join(thread, NULL);
}

int consume_versioned(DLManagedTensorVersioned *tensor, Seen *seen, uint8_t *bytes) {
    seen->major = tensor->version.major;
    seen->flags = tensor->flags;
    if (tensor->dl_tensor.ndim != 4) return 1;
    look(&tensor->dl_tensor, seen, bytes);
    return elsewhere(delete_versioned, tensor);
}
int consume_legacy(DLManagedTensor *tensor, Seen *seen, uint8_t *bytes) {
    if (tensor->dl_tensor.ndim != 4) return 1;
    look(&tensor->dl_tensor, seen, bytes);
    return elsewhere(delete_legacy, tensor);
}
"#;

#[derive(Debug, Default)]
#[repr(C)]
struct Seen {
    shape: [i64; 4],
    device_type: i32,
    device_id: i32,
    code: i32,
    bits: i32,
    lanes: i32,
    major: i32,
    flags: u64,
}

type Consume = unsafe extern "C" fn(*mut c_void, *mut Seen, *mut u8) -> c_int;

/// The consumer's functions: of the versioned tensor, and of the legacy one.
fn consumer(dir: &Path) -> [Consume; 2] {
    let (source, library) = (dir.join("consumer.c"), dir.join("consumer.so"));
    std::fs::write(&source, CONSUMER).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().expect("a C compiler").success());
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: the library just made, which has no initialisers.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    [c"consume_versioned", c"consume_legacy"].map(|name| {
        // SAFETY: the library is open and stays so.
        let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
        assert!(!function.is_null());
        // SAFETY: both have this signature.
        unsafe { std::mem::transmute::<*mut c_void, Consume>(function) }
    })
}

fn give(batch: Batch, consumer: &[Consume; 2], versioned: bool) -> (Seen, Vec<u8>) {
    let (mut seen, mut bytes) = (Seen::default(), vec![0; batch.images().unwrap().bytes.len()]);
    let tensor = batch.into_dlpack(None).unwrap();
    let (consume, tensor) = match versioned {
        true => (consumer[0], tensor.into_versioned().as_ptr().cast()),
        false => (consumer[1], tensor.into_legacy().as_ptr().cast()),
    };
    // SAFETY: the tensor is what the function takes; both others are as large as it needs.
    assert_eq!(unsafe { consume(tensor, &mut seen, bytes.as_mut_ptr()) }, 0);
    (seen, bytes)
}

#[test]
fn a_consumer_in_c_reads_every_type_and_layout_and_gives_the_slot_back() {
    let root = tempfile::tempdir().unwrap();
    let consumer = consumer(root.path());
    let folder = common::folder(root.path(), &common::samples(24, 2));
    let (uint, float, bfloat) = (1, 2, 4);
    for (dtype, code, bits) in
        [(DType::U8, uint, 8), (DType::F16, float, 16), (DType::BF16, bfloat, 16), (DType::F32, float, 32)]
    {
        for (layout, shape) in [(Layout::Nchw, [4, 3, 20, 20]), (Layout::Nhwc, [4, 20, 20, 3])] {
            let augment = Augment::imagenet_train(20).without_normalize().dtype(dtype).layout(layout).build().unwrap();
            let builder = Loader::open(&folder).augment(augment).batch_size(4).threads(1);
            // More batches than slots: each is only there since the deleters before gave theirs back.
            let mut loader = builder.slots(2).held_timeout(Duration::from_secs(5)).build().unwrap();
            let mut batches = 0;
            for (number, batch) in loader.epoch(0).enumerate() {
                let batch = batch.unwrap();
                let expected = batch.images().unwrap().bytes.to_vec();
                let versioned = number % 2 == 0;
                let (seen, bytes) = give(batch, &consumer, versioned);
                assert!(bytes == expected, "{dtype:?} {layout:?}");
                assert_eq!(seen.shape, shape);
                assert_eq!((seen.code, seen.bits, seen.lanes), (code, bits, 1), "{dtype:?}");
                assert_eq!((seen.device_type, seen.device_id), (1, 0), "kDLCPU");
                assert_eq!((seen.major, seen.flags), (i32::from(versioned), 0));
                batches += 1;
            }
            assert_eq!(batches, 6);
        }
    }
}

#[test]
fn a_tensor_keeps_its_memory_until_its_deleter_is_called() {
    let root = tempfile::tempdir().unwrap();
    let consumer = consumer(root.path());
    let folder = common::folder(root.path(), &common::samples(12, 2));
    let augment = Augment::imagenet_train(20).build().unwrap();
    let mut loader = Loader::open(&folder).augment(augment).batch_size(4).threads(1).slots(2).build().unwrap();
    let mut batches = loader.epoch(0);
    let first = batches.next().unwrap().unwrap();
    let expected = first.images().unwrap().bytes.to_vec();
    let tensor = first.into_dlpack(None).unwrap().into_versioned();
    // The other slot goes round, and then the loader itself.
    drop(batches.next().unwrap().unwrap());
    drop(batches.next().unwrap().unwrap());
    drop(batches);
    drop(loader);
    let (mut seen, mut bytes) = (Seen::default(), vec![0; expected.len()]);
    // SAFETY: as in `give`.
    assert_eq!(unsafe { consumer[0](tensor.as_ptr().cast(), &mut seen, bytes.as_mut_ptr()) }, 0);
    assert!(bytes == expected);
}

#[test]
fn images_of_various_sizes_are_refused_and_their_slot_goes_back() {
    let root = tempfile::tempdir().unwrap();
    let folder = common::folder(root.path(), &common::samples(12, 2));
    let augment = Augment::builder(forebay::Geometry::None).dtype(DType::U8).layout(Layout::Nhwc).build().unwrap();
    let builder = Loader::open(&folder).augment(augment).batch_size(2).threads(1).ragged_slot_bytes(1 << 20);
    let mut loader = builder.slots(2).held_timeout(Duration::from_secs(5)).build().unwrap();
    let refused = loader.epoch(0).map(|batch| batch.unwrap().into_dlpack(None).err().unwrap());
    let kinds: Vec<_> = refused.map(|error| (error.kind(), error.remedy().is_some())).collect();
    assert_eq!(kinds, [(forebay::ErrorKind::Unsupported, true); 6]);
}
