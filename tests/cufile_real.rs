//! NVIDIA's own libcufile, in its compatibility mode on the simulated CUDA driver: what it does is what our code takes
//! it to do. `.ci/real-libraries` fetches the library and names its folder by `FOREBAY_CUFILE_LIB_DIR`; without that
//! there is nothing to test.

mod cuda_support;
mod cufile_machine;

use std::ffi::c_void;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use cuda_support::{Simulator, simulator};
use cudarc::driver::{CudaContext, result};
use cufile_machine::stage::{BUFFER_BYTES, Batch, CUFILE_COMPLETE, FILE_BYTES, Handle, Stage, bytes, open};
use cufile_machine::{Machine, machine};
use cufile_sys::sys::*;
use cufile_sys::{BatchReads, Error, GpuReads, Library, bytes_read};

const SCENE: &str = "FOREBAY_CUFILE_SCENE";
const DATA: &str = "FOREBAY_CUFILE_DATA";
/// The scene in which the library's settings forbid what the machine is up to.
const REFUSED: &str = "no compatibility";
/// Long enough for a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(60);
/// So long the library is given to show that it does not return.
const FOREVER: Duration = Duration::from_secs(3);

/// What it is run for: the driver's reports are to be none.
fn plays(machine: &Machine, simulator: &Simulator, scene: &str) {
    let (ended, said) = run(machine, Some(simulator), scene, LIMIT);
    assert!(ended == Some(true), "{scene}: {said}");
    assert_eq!(simulator.reports(), Vec::<String>::new(), "{scene}");
}

/// Runs a scene: whether it ended well, if it ended, and what it said.
fn run(machine: &Machine, simulator: Option<&Simulator>, scene: &str, limit: Duration) -> (Option<bool>, String) {
    let mut command = machine.command(&std::env::current_exe().unwrap(), simulator);
    command.args(["scene", "--exact", "--ignored", "--nocapture"]).env(SCENE, scene).env(DATA, data(machine));
    if scene != REFUSED {
        // Otherwise libraries up to 1.15 try a device's memory as they open, and free it after its context.
        command.env("CUFILE_FORCE_COMPAT_MODE", "true");
    }
    ended(command, machine, limit)
}

fn ended(mut command: Command, machine: &Machine, limit: Duration) -> (Option<bool>, String) {
    let said = machine.folder.path().join("said");
    let output = File::create(&said).unwrap();
    let mut child = command.stdout(output.try_clone().unwrap()).stderr(output).stdin(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status.success()),
            None if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(10)),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
        }
    };
    (status, std::fs::read_to_string(said).unwrap())
}

fn data(machine: &Machine) -> PathBuf {
    let path = machine.folder.path().join("data");
    if !path.exists() {
        File::create(&path).unwrap().write_all(&bytes()).unwrap();
    }
    path
}

#[test]
fn reads_and_batches_give_the_files_bytes_and_are_counted() {
    let Some(machine) = machine() else { return };
    for seed in 1..=3 {
        // After an asynchronous read the library frees memory from a host function, which CUDA forbids.
        let simulator = simulator().seed(seed).set("IGNORE", "callback");
        plays(&machine, &simulator, "reads");
        plays(&machine, &simulator, "batches");
    }
    plays(&machine, &simulator().set("IGNORE", "callback"), "asynchronous");
}

#[test]
fn one_handle_and_one_buffer_serve_threads() {
    let Some(machine) = machine() else { return };
    plays(&machine, &simulator(), "threads");
}

#[test]
fn batches_lose_events_as_we_take_them_to() {
    let Some(machine) = machine() else { return };
    plays(&machine, &simulator(), "pitfalls");
}

#[test]
fn without_udev_no_file_is_taken() {
    let Some(machine) = machine() else { return };
    plays(&machine.without_udev(), &simulator(), "no udev");
}

#[test]
fn without_compatibility_mode_it_does_not_open() {
    let Some(machine) = machine() else { return };
    let (ended, said) = run(&machine, Some(&simulator()), REFUSED, LIMIT);
    assert!(ended == Some(true), "{said}");
}

#[test]
fn without_a_device_opening_says_little() {
    let Some(machine) = machine() else { return };
    plays(&machine, &simulator().set("DEVICES", 0), "no device");
    let (ended, said) = run(&machine, None, "no device", LIMIT);
    assert!(ended == Some(true), "{said}");
}

/// What the guard before opening is for. Should a version return, the guard can be relaxed for it.
#[test]
fn without_proc_modules_opening_never_returns() {
    let Some(machine) = machine() else { return };
    let (ended, said) = run(&machine.without_modules(), Some(&simulator()), "no modules", FOREVER);
    assert!(ended.is_none() && said.contains("opening"), "{ended:?}: {said}");
}

/// A scene: not a test, but run by those above in a process of its own.
#[test]
#[ignore = "run by the other tests of this file"]
fn scene() {
    let (scene, data) = (std::env::var(SCENE).unwrap(), PathBuf::from(std::env::var_os(DATA).unwrap()));
    let library = Library::open().unwrap_or_else(|error| panic!("{error}"));
    let version = library.version().unwrap();
    println!("{scene}: libcufile {version}");
    // SAFETY: no other thread of this process looks at the environment.
    unsafe { std::env::set_var("CUFILE_ENV_PATH_JSON", settings(&scene, &data)) };
    match scene.as_str() {
        "no device" => no_device(library, version, &data),
        REFUSED => {
            // SAFETY: `/proc/modules` is there, and no other thread is.
            let opened = unsafe { library.cuFileDriverOpen() };
            assert_eq!(code(opened), Some(CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED));
        }
        "no modules" => {
            println!("opening");
            // SAFETY: it never returns, which the test above expects.
            let opened = unsafe { library.cuFileDriverOpen() };
            println!("{opened:?}");
        }
        _ => opened(library, version, &scene, &data),
    }
}

/// The library's settings: it reads no file of the machine's then.
fn settings(scene: &str, data: &Path) -> PathBuf {
    let path = data.with_extension("json");
    let compatible = scene != REFUSED;
    std::fs::write(&path, format!(r#"{{"properties": {{"allow_compat_mode": {compatible}}}}}"#)).unwrap();
    path
}

/// Up to 1.15 it wants a driver and a device; later ones open with neither, so that being open says nothing of a GPU.
fn no_device(library: &'static Library, version: i32, data: &Path) {
    // SAFETY: `/proc/modules` is there, and no other thread is.
    let opened = unsafe { library.cuFileDriverOpen() };
    if version >= 1160 {
        assert_eq!(opened, Ok(()));
        drop(Handle::register(library, &open(data, 0)).unwrap());
        return;
    }
    match opened {
        Err(Error::Failed { code: CUfileOpError::CU_FILE_CUDA_DRIVER_ERROR, cuda: 100, .. }) => {}
        Err(Error::Failed { code: CUfileOpError::CU_FILE_NVFS_SETUP_ERROR, .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn opened(library: &'static Library, version: i32, scene: &str, data: &Path) {
    let context = CudaContext::new(0).unwrap();
    // SAFETY: `/proc/modules` is there, and no other thread is.
    unsafe { library.cuFileDriverOpen() }.unwrap();
    let properties = library.properties().unwrap();
    assert_eq!(properties.nvfs.dcontrolflags & (1 << CUfileDriverControlFlags::CU_FILE_ALLOW_COMPAT_MODE.0), 2);
    assert_eq!((properties.nvfs.dstatusflags, properties.max_batch_io_size), (0, 128));
    match scene {
        "no udev" => {
            let refused = code(Handle::register(library, &open(data, 0)));
            let known = [CUfileOpError::CU_FILE_INTERNAL_ERROR, CUfileOpError::CU_FILE_HANDLE_NOT_REGISTERED];
            assert!(refused.is_some_and(|code| known.contains(&code)), "{refused:?}");
        }
        "reads" => reads(&Stage::new(library, version, &context, data)),
        "batches" => batches(&Stage::new(library, version, &context, data)),
        "asynchronous" => asynchronous(&Stage::new(library, version, &context, data)),
        "threads" => threads(&Stage::new(library, version, &context, data)),
        "pitfalls" => pitfalls(&Stage::new(library, version, &context, data)),
        _ => panic!("no scene {scene}"),
    }
    // SAFETY: the call asks for nothing.
    assert_eq!(unsafe { library.cuFileUseCount() }, Ok(1));
    // SAFETY: nothing that the library gave is left.
    unsafe { library.cuFileDriverClose_v2() }.unwrap();
    // SAFETY: likewise.
    let again = unsafe { library.cuFileDriverClose_v2() };
    assert_eq!(code(again), Some(CUfileOpError::CU_FILE_DRIVER_NOT_INITIALIZED));
}

fn code<T>(result: Result<T, Error>) -> Option<CUfileOpError> {
    result.err().and_then(Error::code)
}

/// Reads of any alignment, from descriptors that bypass the page cache and that do not.
fn reads(stage: &Stage) {
    let file = stage.file.handle;
    let buffered = open(&stage.path, 0);
    let other = Handle::register(stage.library, &buffered).unwrap();
    assert_eq!(stage.read(file, 65536, 4096, 8192), Ok(65536));
    assert_eq!(stage.read(other.handle, 65536, 4096, 8192), Ok(65536));
    assert_eq!(stage.read(file, 1001, 777, 333), Ok(1001));
    assert_eq!(stage.read(file, 65536, FILE_BYTES - 1000, 0), Ok(1000));
    assert_eq!(stage.read(file, 4096, FILE_BYTES + 4096, 0), Ok(0));
    assert!(stage.read(file, 4096, 0, BUFFER_BYTES).is_err());
    stage.counted(|| {
        let reads = stage.library.gpu_reads().unwrap();
        let [gpu] = reads.as_slice() else { panic!("{reads:?}") };
        // Bytes are counted as they were asked for.
        let bytes = 3 * 65536 + 1001 + 4096;
        let expected =
            GpuReads { uuid: stage.uuid, bytes, total: 5, posix: 5, unaligned: 3, errors: 1, ..Default::default() };
        assert_eq!(*gpu, expected);
        assert_eq!(stage.library.batch_reads(), Ok(BatchReads::default()));
    });
    // What is registered is registered once, the file by the number of its descriptor.
    assert_eq!(
        code(Handle::register(stage.library, &buffered)),
        Some(CUfileOpError::CU_FILE_HANDLE_ALREADY_REGISTERED)
    );
    // SAFETY: the memory lives on.
    let again = unsafe { stage.library.cuFileBufRegister(stage.base(), BUFFER_BYTES, 0) };
    assert_eq!(code(again), Some(CUfileOpError::CU_FILE_MEMORY_ALREADY_REGISTERED));
}

/// Entries of any alignment, the last over the end of the file, and then as many that keep the rules for the direct
/// path.
fn batches(stage: &Stage) {
    let count = 24;
    let entries: Vec<[usize; 3]> = (0..count).map(|i| [1000 + 97 * i, 50_000 * i + 13 * i, 40_000 * i + 7]).collect();
    let entries: Vec<[usize; 3]> = entries.into_iter().chain([[65536, FILE_BYTES - 999, 983_040]]).collect();
    let aligned: Vec<[usize; 3]> = (0..count).map(|i| [4096 + 4096 * (i % 3), 20480 * i, 40960 * i]).collect();
    let batch = Batch::new(stage, 32);
    for entries in [&entries, &aligned] {
        batch.submit(entries).unwrap();
        let mut events = batch.events(entries.len());
        events.sort_unstable();
        let expected =
            entries.iter().enumerate().map(|(i, entry)| (i, CUFILE_COMPLETE, entry[0].min(FILE_BYTES - entry[1])));
        assert_eq!(events, expected.collect::<Vec<_>>());
        for &[len, from, to] in entries {
            stage.expect(len.min(FILE_BYTES - from), from, to);
        }
    }
    drop(batch);
    stage.counted(|| {
        let all = entries.iter().chain(&aligned);
        let bytes = all.clone().map(|[len, from, _]| (*len).min(FILE_BYTES - from) as u64).sum();
        let (total, mixed) = (all.count() as u64, entries.len() as u64);
        let expected = BatchReads { bytes, total, posix: total, mixed, ..BatchReads::default() };
        assert_eq!(stage.library.batch_reads(), Ok(expected));
        assert_eq!(stage.library.gpu_reads().map(|gpus| gpus[0].total), Ok(0));
    });
}

/// Into registered memory of the host it is right since 1.16. Otherwise the library runs a kernel by private functions
/// of the driver, which are not simulated: it says so where the bytes are counted, and the call itself succeeds.
fn asynchronous(stage: &Stage) {
    let stream = stage.context.new_stream().unwrap();
    let raw = stream.cu_stream().cast();
    // SAFETY: the stream lives, and its context is current.
    unsafe { stage.library.cuFileStreamRegister(raw, 0) }.unwrap();
    // SAFETY: a context is current.
    let host = unsafe { result::malloc_host(BUFFER_BYTES, 0) }.unwrap();
    // SAFETY: the memory was just made, and is given back when all is read.
    unsafe { stage.library.cuFileBufRegister(host, BUFFER_BYTES, 0) }.unwrap();
    let without_kernel = if stage.version >= 1160 { Ok(65000) } else { Err(libc::EIO) };
    for (base, expected) in [(host, without_kernel), (stage.base(), Err(libc::EIO))] {
        let (mut size, mut from, mut to, mut read) = (65000, 4097, 3, -1);
        // SAFETY: the handle is registered, the buffer is long enough, and the stream is waited for before the numbers
        // go.
        unsafe {
            let (library, file) = (stage.library, stage.file.handle);
            library.cuFileReadAsync(file, base, &mut size, &mut from, &mut to, &mut read, raw).unwrap();
        }
        stream.synchronize().unwrap();
        match bytes_read("cuFileReadAsync", read) {
            Err(Error::Os { errno, .. }) => assert_eq!(Err(errno), expected),
            other => assert_eq!(other.map_err(|_| 0), expected),
        }
    }
    // SAFETY: the memory is as long, and the read is over.
    let there = unsafe { std::slice::from_raw_parts(host.cast::<u8>().add(3), 65000) };
    assert_eq!(there == &stage.bytes[4097..4097 + 65000], without_kernel.is_ok());
    // SAFETY: nobody has the memory any more, and nothing is queued in the stream.
    unsafe {
        stage.library.cuFileBufDeregister(host).unwrap();
        result::free_host(host).unwrap();
        stage.library.cuFileStreamDeregister(raw).unwrap();
    }
}

/// Nothing is made current on the threads.
fn threads(stage: &Stage) {
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (library, file, base) = (stage.library, stage.file.handle as usize, stage.base() as usize);
            scope.spawn(move || {
                for i in 0..50 {
                    let (from, to) = (4096 * ((i * 7 + part) % 400), part * 65536);
                    // SAFETY: the handle is registered, and the part of the buffer is this thread's.
                    let read = unsafe {
                        library.cuFileRead(
                            file as CUfileHandle_t,
                            base as *mut c_void,
                            65536,
                            from as off_t,
                            to as off_t,
                        )
                    };
                    assert_eq!(read, Ok(65536));
                }
            });
        }
    });
    for part in 0..4 {
        stage.expect(65536, 4096 * ((49 * 7 + part) % 400), part * 65536);
    }
}

/// What an engine has to know, since it would wait for ever.
fn pitfalls(stage: &Stage) {
    let entry = |i: usize| [4096, 8192 * i, 4096 * i];
    // A submission that fails takes what was submitted before with it.
    let batch = Batch::new(stage, 8);
    batch.submit(&(0..8).map(entry).collect::<Vec<_>>()).unwrap();
    assert!(batch.submit(&[entry(8)]).is_err());
    assert_eq!(batch.events(8), []);
    // So does cancelling, and the batch goes on.
    batch.submit(&[entry(0), entry(1)]).unwrap();
    batch.cancel();
    assert_eq!(batch.events(2), []);
    // Nothing comes of no bytes.
    batch.submit(&[[0, 0, 0], entry(1)]).unwrap();
    assert_eq!(batch.events(2), [(1, CUFILE_COMPLETE, 4096)]);
    drop(batch);
    // A batch is no larger than the properties say; the oldest library does not check.
    let mut none = ptr::null_mut();
    // SAFETY: the pointer is valid for a write.
    let made = unsafe { stage.library.cuFileBatchIOSetUp(&mut none, 129) };
    assert_eq!(made.is_err(), stage.version >= 1130);
    if made.is_ok() {
        // SAFETY: the batch is live and empty.
        unsafe { stage.library.cuFileBatchIODestroy(none) }.unwrap();
    }
}
