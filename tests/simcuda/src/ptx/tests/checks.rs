//! Each check, by a kernel that commits the fault and one that nearly does.

use super::*;

/// Asserts that a body faults with these words, in one block of so many threads.
fn faults(threads: u32, body: &str, words: &[&str]) {
    let fault = fault(threads, body);
    for word in words {
        assert!(fault.contains(word), "{fault}\nhas no {word:?}");
    }
}

/// Asserts that it does not.
fn passes(threads: u32, body: &str) {
    if let Err(fault) = run(threads, body) {
        panic!("{fault}");
    }
}

#[test]
fn a_fault_says_where_and_who() {
    // The number counts x only: thread 10 of the second block.
    let module = Module::parse(&kernel("setp.eq.u32 %p0, %r0, 30;\n@%p0  trap;")).unwrap();
    let mut ram = Ram::zeroed(600);
    let params = params(&[BASE]);
    let launch = Launch { grid: [2, 1, 1], block: [20, 2, 1], shared_bytes: 0, params: &params };
    let fault = module.kernels()[0].launch(launch, &mut ram).unwrap_err();
    let expected = "kernel k, PTX line 24 `@%p0 trap;`, thread (10, 0, 0) of block (1, 0, 0): trap";
    assert_eq!(fault.to_string(), expected);
}

#[test]
fn alignment() {
    passes(32, "ld.global.u16 %r1, [%rd1+2];");
    faults(32, "ld.global.u16 %r1, [%rd1+1];", &["misaligned: 2 bytes at 0x700000000001", "thread (0, 0, 0)"]);
    faults(32, "st.global.u64 [%rd1], %rd0;", &["misaligned: 8 bytes at 0x700000000004", "thread (1, 0, 0)"]);
    faults(1, "ld.shared.v2.u32 {%r1, %r2}, [buffer+4];", &["misaligned: 8 bytes at 0x4"]);
    faults(1, "atom.shared.add.u32 %r1, [buffer+2], 1;", &["misaligned: 4 bytes"]);
}

#[test]
fn bounds() {
    passes(32, "ld.global.u32 %r1, [%rd1];");
    faults(32, "ld.global.u32 %r1, [%rd1+4];", &["thread (31, 0, 0)", "4 bytes at 0x700000000080 are not allocated"]);
    faults(32, "st.global.u32 [%rd1+-4], %r0;", &["thread (0, 0, 0)", "0x6ffffffffffc"]);
    passes(1, "st.shared.u32 [buffer+1020], %r0;");
    faults(1, "st.shared.u32 [buffer+1024], %r0;", &["4 bytes at 0x400 of shared memory, of which the block has 1024"]);
    faults(1, "mov.u32 %r1, buffer; ld.shared.u32 %r2, [%r1+-4];", &["0xfffffffc of shared memory"]);
    faults(1, "ld.param.u32 %r1, [k_out+8];", &["4 bytes at 0x8 of the parameters, which are 8 bytes"]);
    let local = ".local .align 4 .b8 depot[8]; mov.u64 %rd2, depot; st.local.u32 [%rd2+4], %r0;";
    passes(40, local);
    faults(40, &local.replace("+4", "+8"), &["4 bytes at 0x8 of local memory, of which the thread has 8"]);
    // A generic address past the end of shared memory is not one of global memory.
    let generic = "mov.u64 %rd2, buffer; cvta.shared.u64 %rd2, %rd2; st.u32 [%rd2+1020], %r0;";
    passes(1, generic);
    faults(1, &generic.replace("1020", "1024"), &["of shared memory, of which"]);
}

#[test]
fn dynamic_shared_memory_has_the_size_of_the_launch() {
    let body = "mov.u32 %r1, dynamic; st.shared.u32 [%r1+60], %r0;";
    assert!(run_grid([1; 3], [1; 3], 64, body).is_ok());
    let fault = run_grid([1; 3], [1; 3], 63, body).unwrap_err();
    assert!(fault.contains("of shared memory, of which the block has 1087 bytes"), "{fault}");
}

#[test]
fn values_never_written_decide_nothing() {
    // They may be copied, and combined with what hides them.
    passes(1, "mov.u32 %r2, %r1; add.u32 %r3, %r2, 1; st.shared.u32 [buffer], %r3; ld.shared.u32 %r4, [buffer];");
    faults(32, "st.global.u32 [%rd1], %r1;", &["stores a value that was never written"]);
    faults(32, "add.u32 %r2, %r1, 1; st.global.u32 [%rd1], %r2;", &["stores a value that was never written"]);
    faults(32, "st.global.v2.u32 [%rd0], {%r0, %r1};", &["stores a value that was never written"]);
    faults(32, "ld.global.u32 %r1, [%rd2];", &["the address hangs on a value that was never written"]);
    faults(
        32,
        "setp.eq.u32 %p1, %r1, 0; @%p1 bra out; out:",
        &["the predicate hangs on a value that was never written"],
    );
    faults(32, "@%p1 mov.u32 %r1, 0;", &["the predicate hangs on"]);
    faults(32, "bar.warp.sync %r1;", &["the mask hangs on"]);
    faults(32, "atom.global.add.u32 %r1, [%rd0], %r2;", &["stores a value that was never written"]);
}

#[test]
fn definedness_is_each_lanes_own() {
    let body = "setp.lt.u32 %p0, %r0, 16;
        @%p0 mov.u32 %r1, 5;
        @%p0 st.global.u32 [%rd1], %r1;";
    passes(32, body);
    faults(32, &body.replace("@%p0 st", "st"), &["thread (16, 0, 0)", "stores a value that was never written"]);
    // The lane that a shuffle reads from has none.
    let body = "setp.lt.u32 %p0, %r0, 31; @%p0 mov.u32 %r1, 5; shfl.sync.idx.b32 %r2, %r1, 30, 31, -1;
        st.global.u32 [%rd1], %r2;";
    passes(32, body);
    faults(32, &body.replace("30, 31", "31, 31"), &["stores a value that was never written"]);
}

#[test]
fn what_is_hidden_from_the_result_need_not_be_written() {
    passes(32, "and.b32 %r2, %r1, 0; st.global.u32 [%rd1], %r2;");
    passes(32, "mov.u32 %r3, 0; and.b32 %r2, %r3, %r1; st.global.u32 [%rd1], %r2;");
    passes(32, "or.b32 %r2, %r1, -1; st.global.u32 [%rd1], %r2;");
    faults(32, "and.b32 %r2, %r1, 1; st.global.u32 [%rd1], %r2;", &["never written"]);
    passes(32, "setp.eq.u32 %p0, %r0, 99; and.pred %p2, %p1, %p0; @%p2 trap;");
    passes(32, "setp.ne.and.u32 %p2, %r0, %r0, %p1; @%p2 trap;");
    passes(32, "setp.eq.or.u32 %p2, %r0, %r0, %p1; @!%p2 trap;");
    faults(32, "setp.eq.and.u32 %p2, %r0, %r0, %p1; @!%p2 trap;", &["never written"]);
    passes(32, "setp.eq.u32 %p0, %r0, %r0; selp.u32 %r2, 7, %r1, %p0; st.global.u32 [%rd1], %r2;");
    passes(32, "selp.u32 %r2, 7, 7, %p1; st.global.u32 [%rd1], %r2;");
    faults(32, "selp.u32 %r2, 7, 8, %p1; st.global.u32 [%rd1], %r2;", &["never written"]);
}

#[test]
fn memory_never_written() {
    let body = "st.shared.u8 [buffer], 1; st.shared.u8 [buffer+1], 1;
        ld.shared.u16 %r1, [buffer]; st.global.u32 [%rd1], %r1;";
    passes(1, body);
    faults(1, &body.replace("buffer+1", "buffer+2"), &["stores a value that was never written"]);
    let body = ".local .b8 depot[8]; mov.u64 %rd2, depot; st.local.u8 [%rd2+4], 1;
        ld.local.u8 %r1, [%rd2+4]; st.global.u32 [%rd1], %r1;";
    passes(40, body);
    faults(40, &body.replace("ld.local.u8 %r1, [%rd2+4]", "ld.local.u8 %r1, [%rd2+5]"), &["never written"]);
    faults(1, "atom.shared.add.u32 %r1, [buffer], 1;", &["4 bytes at 0x0 of shared memory that were never written"]);
    // What a block wrote is gone for the next.
    let body = "setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.u32 [buffer], 7;
        ld.shared.u32 %r1, [buffer]; st.global.u32 [%rd1], %r1;";
    passes(1, body);
    let fault = run_grid([2, 1, 1], [1; 3], 0, body).unwrap_err();
    assert!(fault.contains("block (1, 0, 0)") && fault.contains("never written"), "{fault}");
}

#[test]
fn barriers_that_part_of_the_block_never_reaches() {
    // Those who have exited are not waited for.
    passes(96, "setp.lt.u32 %p0, %r0, 40; @%p0 exit; bar.sync 0;");
    faults(
        96,
        "setp.lt.u32 %p0, %r0, 32; @%p0 bra other; bar.sync 0; ret; other: bar.sync 1;",
        &["barrier divergence", "waits at line"],
    );
    // Within a warp: the other lanes are at another barrier.
    faults(
        32,
        "setp.lt.u32 %p0, %r0, 16; @%p0 bra other; bar.sync 0; ret; other: bar.sync 0;",
        &["barrier divergence: other threads of the warp wait at the barrier in line"],
    );
    passes(32, "setp.lt.u32 %p0, %r0, 16; @%p0 bra other; other: bar.sync 0;");
    faults(
        64,
        "setp.lt.u32 %p0, %r0, 32; @%p0 bar.sync 1, 64;",
        &["barrier divergence", "nobody else waits, 32 threads"],
    );
    // Half a warp at a barrier does not count as a warp.
    faults(
        64,
        "setp.ge.u32 %p0, %r0, 48; @%p0 bra other; bar.sync 1, 64; ret; other: bar.sync 2, 32;",
        &["barrier divergence"],
    );
    faults(64, "bar.sync 1, 48;", &["a barrier for 48 threads"]);
    faults(64, "bar.sync 16;", &["barrier 16 of 16"]);
}

#[test]
fn lanes_that_never_come_to_their_mask() {
    let body = "setp.lt.u32 %p0, %r0, 16;
        @%p0 bra out;
        vote.sync.any.pred %p1, 1, 0xffff0000;
        out: bar.sync 0;";
    passes(32, body);
    faults(32, &body.replace("0xffff0000", "-1"), &["lanes of its mask never come", "thread (0, 0, 0) waits at line"]);
    faults(
        32,
        &body.replace("0xffff0000", "0xfffe0000"),
        &["thread (16, 0, 0)", "the lane is not in its mask 0xfffe0000"],
    );
}

/// Threads write their word of shared memory, then read another's.
fn exchange(between: &str, distance: u32) -> String {
    format!(
        "mov.u32 %r9, buffer;
        shl.b32 %r1, %r0, 2;
        add.u32 %r1, %r1, %r9;
        st.shared.u32 [%r1], 77;
        bar.sync 0;
        st.shared.u32 [%r1], %r0;
        {between}
        xor.b32 %r2, %r0, {distance};
        shl.b32 %r2, %r2, 2;
        add.u32 %r2, %r2, %r9;
        ld.shared.u32 %r3, [%r2];
        st.global.u32 [%rd1], %r3;"
    )
}

#[test]
fn reads_race_with_writes() {
    passes(64, &exchange("", 0));
    passes(64, &exchange("bar.sync 0;", 32));
    // The first warp reads before the second writes.
    let found = ["race: writes byte", "thread (32, 0, 0)", "read by thread (0, 0, 0) with no barrier between"];
    faults(64, &exchange("", 32), &found);
    faults(64, &exchange("membar.cta;", 32), &["race:"]);
    // Within a warp it takes a barrier too, of the warp.
    passes(64, &exchange("bar.warp.sync -1;", 1));
    faults(64, &exchange("", 1), &["race: reads byte", "written by thread (1, 0, 0)"]);
    faults(64, &exchange("bar.warp.sync -1;", 32), &["race:"]);
    // A part of the warp that syncs: pairs within it see each other, others do not.
    let half = "setp.lt.u32 %p0, %r0, 16; @%p0 bar.warp.sync 0xffff; @!%p0 bar.warp.sync 0xffff0000;";
    passes(32, &exchange(half, 1));
    faults(32, &exchange(half, 16), &["race: reads byte"]);
}

#[test]
fn writes_race_with_reads() {
    let body = |between: &str| {
        let write = "xor.b32 %r4, %r0, 32; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r9; st.shared.u32 [%r4], 5;";
        format!("{}\n{between}\n{write}", exchange("bar.sync 0;", 0))
    };
    passes(64, &body("bar.sync 0;"));
    faults(64, &body(""), &["race: reads byte", "written by thread (0, 0, 0)"]);
    // Many have read; one who has not waited for all of them writes.
    let body = |between: &str| {
        format!(
            "setp.eq.u32 %p0, %r0, 0;
            @%p0 st.shared.u32 [buffer], 1;
            bar.sync 0;
            ld.shared.u32 %r1, [buffer];
            {between}
            @%p0 st.shared.u32 [buffer], 2;"
        )
    };
    passes(96, &body("bar.sync 0;"));
    passes(32, &body("bar.warp.sync -1;"));
    faults(32, &body(""), &["race: writes byte 0x0", "read by thread (1, 0, 0)"]);
    let late = "setp.eq.u32 %p0, %r0, 95;";
    faults(96, &body(late), &["race: writes byte 0x0", "read by thread (0, 0, 0)"]);
    faults(96, &body(&format!("{late} bar.warp.sync -1;")), &["race: writes byte 0x0", "read by thread (0, 0, 0)"]);
}

#[test]
fn writes_race_with_writes_of_other_values() {
    passes(64, "st.shared.u32 [buffer], 7;");
    faults(
        64,
        "st.shared.u32 [buffer], %r0;",
        &["race: writes byte 0x0", "thread (1, 0, 0)", "written by thread (0, 0, 0)"],
    );
    passes(64, "setp.eq.u32 %p0, %r0, 5; @%p0 st.shared.u32 [buffer], %r0;");
    faults(64, "shr.u32 %r1, %r0, 5; st.shared.u32 [buffer], %r1;", &["thread (32, 0, 0)"]);
    passes(
        64,
        "shr.u32 %r1, %r0, 5; setp.eq.u32 %p0, %r1, 0; @%p0 st.shared.u32 [buffer], 1; bar.sync 0;
        @!%p0 st.shared.u32 [buffer], 2;",
    );
    // Bytes side by side are not one another's.
    passes(64, "mov.u32 %r1, buffer; add.u32 %r1, %r1, %r0; st.shared.u8 [%r1], %r0;");
}

#[test]
fn what_is_meant_to_be_concurrent_does_not_race() {
    let body = "setp.eq.u32 %p0, %r0, 0;
        @%p0 st.shared.u32 [buffer], 0;
        bar.sync 0;
        atom.shared.add.u32 %r1, [buffer], 1;
        ld.volatile.shared.u32 %r2, [buffer];";
    passes(64, body);
    faults(64, &body.replace("ld.volatile", "ld"), &["race: reads byte 0x0"]);
    faults(64, &format!("{body} st.shared.u32 [buffer], %r0;"), &["race: writes byte 0x0"]);
    passes(64, "st.volatile.shared.u32 [buffer], %r0; ld.relaxed.cta.shared.u32 %r1, [buffer];");
}

#[test]
fn a_missing_barrier_in_a_real_kernel_is_found() {
    let text = include_str!("texts/reduce.ptx");
    let barriers: Vec<usize> = text.match_indices("bar.sync").map(|found| found.0).collect();
    assert!(barriers.len() >= 3);
    // But for the last, behind which another barrier comes before what it guards is read.
    for at in &barriers[..barriers.len() - 1] {
        let (before, after) = text.split_at(*at);
        let rest = after.split_once(';').unwrap().1;
        let module = Module::parse(&format!("{before}{rest}")).unwrap();
        let mut ram = Ram::words(&(0..1040).map(|at| (at as f32).to_bits()).collect::<Vec<_>>());
        let params = params(&[BASE, BASE + 4096]);
        let launch = Launch { grid: [4, 1, 1], block: [256, 1, 1], shared_bytes: 1024, params: &params };
        let fault = module.kernels()[0].launch(launch, &mut ram).unwrap_err();
        assert!(fault.message.contains("race") || fault.message.contains("never written"), "{fault}");
    }
}
