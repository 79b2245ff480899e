//! The stand-in in processes of their own, as programs find it: settings by the environment, reports when the process ends,
//! and many threads at a time.

mod program;

use std::path::Path;
use std::process::Output;

use program::*;

/// Runs the test of this file that is named, on the simulated driver, with these variables; what it said, and the reports.
fn run(folder: &Path, test: &str, variables: &[(&str, &str)]) -> (Output, Vec<String>) {
    let simulator = simulator();
    let mut command = simulator.command(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("FILE", folder.join("file"));
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    (output, simulator.reports())
}

fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

/// A file that `FILE` names, read whole; its bytes are copied to the device too if `COPIES` is set, and nothing is given back
/// if `LEAVES` is.
#[test]
#[ignore = "a program that the other tests run"]
fn reads_a_file() {
    let file = direct(Path::new(&std::env::var_os("FILE").unwrap())).unwrap();
    // Before there is a driver.
    let version = cufile_sys::Library::open().unwrap().version().unwrap();
    let device = open_in_process();
    device.count();
    device.register();
    let handle = device.handle(&file).unwrap();
    let outcome = device.read(handle, 0, PAGES);
    let reads = device.cufile().gpu_reads().map(|gpus| gpus[0].p2p).unwrap_or(0);
    println!("read {outcome:?}, {reads} by p2p, version {version}");
    println!("right {}", device.bytes(0, PAGES) == noise(2));
    if std::env::var_os("COPIES").is_some() {
        device.write(&noise(2));
    }
    if std::env::var_os("LEAVES").is_none() {
        device.forget(handle);
        device.deregister();
        device.close();
    }
    device.free();
}

#[test]
fn settings_come_by_the_environment() {
    let (Some(seen), Some(behind)) = (folder(), folder()) else { return };
    std::fs::write(behind.path().join("file"), noise(2)).unwrap();
    let folders = format!("{}=>{}", seen.path().display(), behind.path().display());
    let variables = [
        ("SIMCUFILE_BEHIND", folders.as_str()),
        ("SIMCUFILE_PATH", "p2p"),
        ("SIMCUFILE_VERSION", "1.17.0"),
        ("SIMCUFILE_WATCH", "1"),
    ];
    let (output, reports) = run(seen.path(), "reads_a_file", &variables);
    succeeded(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("read Ok(32768), 1 by p2p, version 1170") && text.contains("right true"), "{text}");
    assert_eq!(reports, Vec::<String>::new());
    let (_, reports) = run(seen.path(), "reads_a_file", &[&variables[..], &[("COPIES", "1")]].concat());
    assert!(reports.len() == 1 && reports[0].starts_with("host-bytes: cuMemcpyHtoD"), "{reports:?}");
}

#[test]
fn what_is_left_is_reported_when_the_process_ends() {
    let Some(folder) = folder() else { return };
    let (output, reports) = run(folder.path(), "reads_a_file", &[("LEAVES", "1")]);
    succeeded(&output);
    let left = |words: &str| reports.iter().any(|report| report.contains(words));
    assert!(left("file is still registered when the process ended"), "{reports:?}");
    assert!(left("the buffer of 32768 bytes") && left("and its memory is freed"), "{reports:?}");
    assert!(left("was closed while registered") && reports.len() == 3, "{reports:?}");
}

#[test]
fn compatibility_mode_is_forbidden_by_the_environment_or_by_the_configuration_file() {
    let Some(folder) = folder() else { return };
    let json = folder.path().join("cufile.json");
    std::fs::write(&json, "{ \"properties\": { // as shipped, but for this\n \"allow_compat_mode\": false } }")
        .unwrap();
    for variable in [("CUFILE_ALLOW_COMPAT_MODE", "false"), ("CUFILE_ENV_PATH_JSON", json.to_str().unwrap())] {
        let (output, _) = run(folder.path(), "reads_a_file", &[("SIMCUFILE_PATH", "posix"), variable]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains("CU_FILE_DRIVER_NOT_INITIALIZED") || text.contains("code: CUfileOpError(5001)"),
            "{text}"
        );
    }
}

#[test]
fn many_threads_read_at_a_time() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("file");
    for seed in 1..=10 {
        let stand = stand();
        stand.restart(seed);
        let file = direct(&path).unwrap();
        let device = stand.open();
        device.register();
        let handle = device.handle(&file).unwrap().addr();
        std::thread::scope(|scope| {
            for thread in 0..PAGES {
                let device = &device;
                scope.spawn(move || {
                    let handle = std::ptr::with_exposed_provenance_mut(handle);
                    for _ in 0..20 {
                        if thread % 2 == 0 {
                            assert_eq!(device.read(handle, thread, 1), Ok(PAGE));
                        } else {
                            let batch = device.batch(1);
                            device.submit(batch, &mut [device.entry(handle, thread)]).unwrap();
                            assert_eq!(device.all_ends(batch, 1)[0].2, PAGE as isize);
                            device.destroy(batch);
                        }
                    }
                });
            }
        });
        assert_eq!(device.bytes(0, PAGES), noise(1));
        device.forget(std::ptr::with_exposed_provenance_mut(handle));
        device.deregister();
        device.close();
        device.free();
        stand.finish();
        assert_eq!(stand.session.reports(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn a_context_that_breaks_fails_the_reads_of_it() {
    let (Some(folder), stand) = (folder(), stand()) else { return };
    stand.session.set("sticky", "cuMemsetD8Async#1:700");
    let file = direct(&folder.path().join("file")).unwrap();
    let device = stand.open();
    device.register();
    let handle = device.handle(&file).unwrap();
    let batch = device.batch(1);
    device.submit(batch, &mut [device.entry(handle, 0)]).unwrap();
    // SAFETY: the range is within the buffer.
    unsafe { cudarc::driver::result::memset_d8_async(device.base, 0, 1, device.stream.cu_stream()) }.unwrap();
    device.stream.synchronize().unwrap_err();
    // It may have ended before.
    let (_, status, _) = device.all_ends(batch, 1)[0];
    assert!([16, 64].contains(&status.0));
    device.read(handle, 0, 1).unwrap_err();
    stand.session.set("sticky", "");
}
