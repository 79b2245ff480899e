//! Batches on a device, through the loader and on the simulated driver: what a consumer reads is what the host would
//! have given it, whenever its streams get to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::common;
use crate::cuda_support::{Session, session};
use cudarc::driver::sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, result};
use forebay::batch::{Digest, OwnedTensor, dlpack};
use forebay::decode::DecoderKind;
use forebay::device::Device;
use forebay::{Augment, Batch, ErrorKind, Loader, LoaderBuilder};

const SAMPLES: usize = 20;
const BATCH: usize = 4;
const SIDE: usize = 16;
const ELEMENTS: usize = BATCH * 3 * SIDE * SIDE;
const SEEDS: u64 = 12;

/// A data set, and its batches as the host gives them: tensor and labels.
struct Data {
    _root: tempfile::TempDir,
    folder: PathBuf,
    expected: Vec<(Vec<f32>, Vec<i64>)>,
}

impl Data {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = common::folder(root.path(), &common::samples(SAMPLES, 3));
        let mut loader = open(&folder).build().unwrap();
        let tensors = |batch: Batch| (batch.images().unwrap().as_f32().unwrap().to_vec(), batch.labels().to_vec());
        let expected = loader.epoch(0).map(|batch| tensors(batch.unwrap())).collect();
        drop(loader);
        Self { _root: root, folder, expected }
    }

    fn loader(&self) -> Loader {
        on_device(&self.folder).build().unwrap()
    }
}

fn open(folder: &Path) -> LoaderBuilder {
    let augment = Augment::imagenet_train(SIDE as u32).build().unwrap();
    let builder = Loader::open(folder).augment(augment).batch_size(BATCH as u64).threads(1);
    builder.slots(2).arena_bytes(1 << 20).held_timeout(Duration::from_secs(20))
}

/// Decoded by the host: what happens to a batch afterwards is the same for every decoder.
fn on_device(folder: &Path) -> LoaderBuilder {
    open(folder).device(Device::Cuda(0)).decoder(DecoderKind::Host)
}

fn streams<const COUNT: usize>() -> [Arc<CudaStream>; COUNT] {
    let context = CudaContext::new(0).unwrap();
    [(); COUNT].map(|()| context.new_stream().unwrap())
}

fn none_reported(session: &Session, seed: u64) {
    session.finish();
    assert_eq!(session.reports(), [""; 0], "seed {seed}");
}

/// What a consumer of its own stream keeps of a batch, copied whenever the stream gets to it.
struct Kept {
    stream: Arc<CudaStream>,
    images: CudaSlice<f32>,
    labels: CudaSlice<i64>,
}

impl Kept {
    fn of(batch: &Batch, stream: &Arc<CudaStream>) -> Self {
        let (mut images, mut labels) = (stream.alloc_zeros(ELEMENTS).unwrap(), stream.alloc_zeros(BATCH).unwrap());
        let tensor = batch.on(stream).unwrap();
        assert_eq!(tensor.shape, [BATCH, 3, SIDE, SIDE]);
        assert!(tensor.view::<u8>().is_none(), "of another type");
        stream.memcpy_dtod(&tensor.view::<f32>().unwrap(), &mut images).unwrap();
        stream.memcpy_dtod(&batch.labels_on(stream).unwrap(), &mut labels).unwrap();
        Self { stream: Arc::clone(stream), images, labels }
    }

    fn got(self) -> (Vec<f32>, Vec<i64>) {
        (self.stream.clone_dtoh(&self.images).unwrap(), self.stream.clone_dtoh(&self.labels).unwrap())
    }
}

#[test]
fn two_streams_read_every_batch_though_it_is_dropped_before_they_do() {
    let session = session(0);
    let data = Data::new();
    for seed in 0..SEEDS {
        session.restart(seed);
        let streams = streams::<2>();
        let mut loader = data.loader();
        let mut kept = Vec::new();
        for batch in loader.epoch(0) {
            let batch = batch.unwrap();
            assert_eq!(batch.device(), Device::Cuda(0));
            assert!(batch.images().is_none() && batch.image(0).is_none(), "not on the host");
            kept.push(streams.each_ref().map(|stream| Kept::of(&batch, stream)));
            // On a thread that has never seen the context.
            std::thread::spawn(move || drop(batch)).join().unwrap();
        }
        drop(loader);
        for (kept, expected) in kept.into_iter().zip(&data.expected) {
            for kept in kept {
                assert!(kept.got() == *expected, "seed {seed}");
            }
        }
        drop(streams);
        none_reported(&session, seed);
    }
}

#[test]
fn without_the_waits_of_the_streams_a_slot_is_written_too_early() {
    let session = session(0);
    let data = Data::new();
    let is_right = |seed| {
        session.restart(seed);
        let [stream] = streams();
        let mut loader = data.loader();
        let kept: Vec<_> = loader.epoch(0).map(|batch| Kept::of(&batch.unwrap(), &stream)).collect();
        drop(loader);
        let got: Vec<_> = kept.into_iter().map(Kept::got).collect();
        drop(stream);
        session.finish();
        got == data.expected && session.reports().is_empty()
    };
    session.set("drop", "cuStreamWaitEvent#0");
    assert!(!(0..20).all(is_right));
}

#[test]
fn a_tensor_that_left_the_pool_outlives_the_loader() {
    let session = session(0);
    let data = Data::new();
    for seed in 0..SEEDS {
        session.restart(seed);
        let mut loader = data.loader();
        // More than there are slots.
        let owned: Vec<OwnedTensor> = loader.epoch(0).map(|batch| batch.unwrap().into_tensor().unwrap()).collect();
        drop(loader);
        let [stream] = streams();
        for (owned, (expected, _)) in owned.iter().zip(&data.expected) {
            assert_eq!((owned.device(), owned.images().is_none()), (Device::Cuda(0), true));
            let tensor = owned.on(&stream).unwrap();
            assert_eq!(tensor.pointer % 256, 0);
            assert!(stream.clone_dtoh(&tensor.view::<f32>().unwrap()).unwrap() == *expected, "seed {seed}");
        }
        drop((owned, stream));
        none_reported(&session, seed);
    }
}

#[test]
fn another_library_reads_through_dlpack_and_deletes_from_any_thread() {
    let session = session(0);
    let data = Data::new();
    for seed in 0..SEEDS {
        session.restart(seed);
        let [stream] = streams();
        let mut loader = data.loader();
        let mut kept = Vec::new();
        for (number, batch) in loader.epoch(0).enumerate() {
            let tensor = batch.unwrap().into_dlpack(Some(&stream)).unwrap();
            let mut images = stream.alloc_zeros::<f32>(ELEMENTS).unwrap();
            if number % 2 == 0 {
                consume(
                    tensor.into_versioned().as_ptr(),
                    |managed| &managed.dl_tensor,
                    |managed| managed.deleter,
                    &mut images,
                );
            } else {
                consume(
                    tensor.into_legacy().as_ptr(),
                    |managed| &managed.dl_tensor,
                    |managed| managed.deleter,
                    &mut images,
                );
            }
            kept.push(images);
        }
        drop(loader);
        for (images, (expected, _)) in kept.iter().zip(&data.expected) {
            assert!(stream.clone_dtoh(images).unwrap() == *expected, "seed {seed}");
        }
        drop((kept, stream));
        none_reported(&session, seed);
    }
}

type Deleter<M> = Option<unsafe extern "C" fn(*mut M)>;

/// Copies the tensor in the stream's order and deletes it on another thread before the copy was made.
fn consume<M: 'static>(
    managed: *mut M,
    tensor: fn(&M) -> &dlpack::DLTensor,
    deleter: fn(&M) -> Deleter<M>,
    into: &mut CudaSlice<f32>,
) {
    // SAFETY: it was just made and not deleted.
    let (tensor, deleter) = unsafe { (tensor(&*managed), deleter(&*managed).unwrap()) };
    assert_eq!((tensor.device.device_type, tensor.device.device_id), (dlpack::DL_CUDA, 0));
    let stream = Arc::clone(into.stream());
    // SAFETY: the tensor's memory, of which a view lives as long as the copy is enqueued.
    let view = std::mem::ManuallyDrop::new(unsafe { stream.upgrade_device_ptr::<f32>(tensor.data as u64, ELEMENTS) });
    stream.memcpy_dtod(&*view, into).unwrap();
    let address = managed as usize;
    // SAFETY: the first and last call of the deleter, with its own tensor.
    std::thread::spawn(move || unsafe { deleter(address as *mut M) }).join().unwrap();
}

#[test]
fn a_pointer_and_an_event_do_for_who_speaks_to_the_driver() {
    let session = session(0);
    let data = Data::new();
    for seed in 0..SEEDS {
        session.restart(seed);
        let [stream] = streams();
        let mut loader = data.loader();
        let mut kept = Vec::new();
        for batch in loader.epoch(0) {
            let batch = batch.unwrap();
            let raw = batch.raw().unwrap();
            assert_eq!(raw.len_bytes, ELEMENTS * size_of::<f32>());
            let mut images = stream.alloc_zeros::<f32>(ELEMENTS).unwrap();
            // SAFETY: the stream is of the primary context and outlives the batches.
            let tensor = unsafe { batch.on_raw(stream.cu_stream()) }.unwrap();
            assert_eq!(tensor.pointer, raw.pointer);
            // SAFETY: the event is the batch's, which is there.
            unsafe { result::stream::wait_event(stream.cu_stream(), raw.ready, CU_EVENT_WAIT_DEFAULT) }.unwrap();
            stream.memcpy_dtod(&tensor.view::<f32>().unwrap(), &mut images).unwrap();
            kept.push(images);
        }
        drop(loader);
        for (images, (expected, _)) in kept.iter().zip(&data.expected) {
            assert!(stream.clone_dtoh(images).unwrap() == *expected, "seed {seed}");
        }
        drop((kept, stream));
        none_reported(&session, seed);
    }
}

#[test]
fn what_is_copied_back_has_the_hosts_digest() {
    let session = session(0);
    let data = Data::new();
    let digest = |builder: LoaderBuilder| {
        let mut digest = Digest::default();
        builder.build().unwrap().epoch(0).for_each(|batch| digest.update(&batch.unwrap()).unwrap());
        digest.hex()
    };
    assert_eq!(digest(on_device(&data.folder)), digest(open(&data.folder)));
    none_reported(&session, 0);
}

#[test]
fn what_cannot_be_read_on_a_stream_says_why() {
    let session = session(0);
    let data = Data::new();
    let [stream] = streams();
    let mut host = open(&data.folder).build().unwrap();
    let batch = host.epoch(0).next().unwrap().unwrap();
    assert_eq!(batch.on(&stream).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(batch.raw().is_none());
    let owned = batch.into_tensor().unwrap();
    assert!(owned.images().unwrap().as_f32().unwrap() == data.expected[0].0, "a copy of its own");
    assert_eq!(owned.on(&stream).unwrap_err().kind(), ErrorKind::Unsupported);

    let mut loader = data.loader();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    let error = batch.into_dlpack(None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    drop((loader, stream));
    none_reported(&session, 0);
}

#[test]
fn memory_that_runs_out_is_an_error_and_the_loader_goes_on() {
    let session = session(0);
    let data = Data::new();
    session.set("memory_bytes", 64 << 10);
    session.restart(0);
    let error = on_device(&data.folder).build().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert!(error.to_string().contains("are free") && error.remedy().is_some(), "{error}");
    none_reported(&session, 0);

    session.set("memory_bytes", "");
    session.restart(0);
    let mut loader = data.loader();
    let mut batches = loader.epoch(0);
    let first = batches.next().unwrap().unwrap();
    session.set("fail", "cuMemAllocAsync#0:2");
    assert_eq!(first.into_tensor().err().unwrap().kind(), ErrorKind::OutOfMemory);
    session.set("fail", "");
    assert_eq!(batches.by_ref().map(|batch| batch.unwrap().len()).sum::<usize>(), SAMPLES - BATCH);
    drop(batches);
    drop(loader);
    none_reported(&session, 0);
}

#[test]
fn a_lost_device_ends_the_run_once_and_everything_can_be_dropped() {
    let session = session(0);
    let data = Data::new();
    for (rule, seed) in ["cuMemcpyHtoDAsync#2:700", "cuMemcpyHtoDAsync#5:719", "cuEventRecord#3:214"].iter().zip(0..) {
        session.set("sticky", rule);
        session.restart(seed);
        let mut loader = data.loader();
        let mut batches = loader.epoch(0);
        let mut held = Vec::new();
        let error = loop {
            match batches.next() {
                Some(Ok(batch)) => match batch.to_host().map(drop) {
                    Ok(()) => held = vec![batch],
                    Err(error) => break error,
                },
                Some(Err(error)) => break error,
                None => panic!("{rule}: the epoch went through"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::DeviceLost, "{rule}: {error}");
        drop((held, batches));
        drop(loader);
    }
}
