//! A program of its own process, on a driver that is told by the environment what to do.

mod program;

use cudarc::driver::CudaContext;
use program::{IOTA, Simulator, allocate, free, kernel, pinned, simulator};

/// The program: not a test, but run by those below in a process of its own.
#[test]
#[ignore = "run by the other tests of this file"]
fn program() {
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    let (at, memory) = (allocate(&stream, 400), pinned(&context, 400));
    kernel(IOTA, "iota").launch(&stream, 4, 32, at, 100).unwrap();
    memory.download(&stream, at);
    stream.synchronize().unwrap();
    println!("the sum is {}", memory.bytes().iter().map(|byte| u32::from(*byte)).sum::<u32>());
    free(&stream, at);
}

/// Runs it; what it printed, if it ended well.
fn run(simulator: &Simulator) -> Option<String> {
    let mut command = simulator.command(std::env::current_exe().unwrap());
    let output = command.args(["program", "--exact", "--ignored", "--nocapture"]).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_program_gets_its_result_and_no_report() {
    for seed in 1..=5 {
        let simulator = simulator().seed(seed);
        assert!(run(&simulator).unwrap().contains("the sum is 4950"));
        assert_eq!(simulator.reports(), Vec::<String>::new());
        let [launches, instructions, warp_instructions] = simulator.stats()["iota"];
        // 128 threads execute up to the branch, 100 of them the rest; one warp of four takes both ways.
        assert!(launches == 1 && (1000..3000).contains(&instructions), "{instructions}");
        assert!((instructions / 32..instructions / 16).contains(&warp_instructions), "{warp_instructions}");
    }
}

#[test]
fn planted_faults_happen_in_the_process() {
    let edited = simulator().ptx_edit("setp.ge.u32=>setp.gt.u32");
    assert!(run(&edited).is_none() && edited.reports()[0].contains("in no allocation"), "{:?}", edited.reports());
    let leaking = simulator().drop("cuMemFreeAsync#1");
    assert!(run(&leaking).is_some() && leaking.reports()[0].starts_with("leak: memory"), "{:?}", leaking.reports());
    let failing = simulator().fail("cuMemAllocAsync#1:2");
    assert!(run(&failing).is_none() && failing.reports().is_empty(), "{:?}", failing.reports());
    let broken = simulator().sticky("cuLaunchKernel#1:719");
    assert!(run(&broken).is_none() && broken.reports().is_empty(), "{:?}", broken.reports());
}

#[test]
fn a_setting_that_makes_no_sense_is_said() {
    let simulator = simulator().set("SPEED", 9);
    run(&simulator);
    assert!(std::panic::catch_unwind(|| simulator.reports()).is_err());
}
