//! Branches, reconvergence and barriers.

use super::*;

#[test]
fn lanes_part_and_meet_again() {
    // After the branch the lanes are one warp again: the mask of those active says so.
    let body = "and.b32 %r1, %r0, 3;
        setp.eq.u32 %p0, %r1, 0;
        @%p0 bra one;
        setp.eq.u32 %p1, %r1, 1;
        @%p1 bra two;
        mov.u32 %r2, 30;
        bra.uni join;
        one: mov.u32 %r2, 10;
        activemask.b32 %r3;
        bra.uni join;
        two: mov.u32 %r2, 20;
        join: activemask.b32 %r4;
        popc.b32 %r4, %r4;
        add.u32 %r2, %r2, %r4;
        @%p0 popc.b32 %r3, %r3;
        @%p0 mad.lo.u32 %r2, %r3, 1000, %r2;
        st.global.u32 [%rd1], %r2;";
    let expected: Vec<u32> = (0..64).map(|at| [8042, 52, 62, 62][at % 4]).collect();
    assert_eq!(run(64, body).unwrap(), expected);
}

#[test]
fn loops_of_different_lengths() {
    // Each lane goes round as often as its number; then all are together.
    let body = "mov.u32 %r1, 0;
        mov.u32 %r2, 0;
        again: setp.ge.u32 %p0, %r1, %r0;
        @%p0 bra out;
        add.u32 %r1, %r1, 1;
        add.u32 %r2, %r2, %r1;
        bra.uni again;
        out: activemask.b32 %r3;
        popc.b32 %r3, %r3;
        mad.lo.u32 %r2, %r3, 10000, %r2;
        st.global.u32 [%rd1], %r2;";
    let expected: Vec<u32> = (0..32).map(|at| 320_000 + at * (at + 1) / 2).collect();
    assert_eq!(run(32, body).unwrap(), expected);
}

#[test]
fn nested_loops_and_early_exits() {
    let body = "mov.u32 %r1, 0;
        mov.u32 %r5, 0;
        outer: mov.u32 %r2, 0;
        inner: add.u32 %r5, %r5, 1;
        setp.gt.u32 %p0, %r5, %r0;
        @%p0 bra done;
        add.u32 %r2, %r2, 1;
        setp.lt.u32 %p1, %r2, 3;
        @%p1 bra inner;
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p2, %r1, 4;
        @%p2 bra outer;
        ret;
        done: st.global.u32 [%rd1], %r5;";
    let expected: Vec<u32> = (0..32).map(|at| if at < 12 { at + 1 } else { 0 }).collect();
    assert_eq!(run(32, body).unwrap(), expected);
}

#[test]
fn a_table_of_targets() {
    let body = "ts: .branchtargets zero, one, two;
        rem.u32 %r1, %r0, 3;
        brx.idx %r1, ts;
        zero: mov.u32 %r2, 5; bra.uni join;
        one: mov.u32 %r2, 6; bra.uni join;
        two: mov.u32 %r2, 7;
        join: st.global.u32 [%rd1], %r2;";
    assert_eq!(run(7, body).unwrap(), [5, 6, 7, 5, 6, 7, 5]);
    let fault = fault(7, &body.replace("rem.u32 %r1, %r0, 3;", "mov.u32 %r1, %r0;"));
    assert!(fault.contains("target 3 of 3") && fault.contains("thread (3, 0, 0)"), "{fault}");
}

#[test]
fn names_belong_to_their_scope() {
    let body = "mov.u32 %r1, 1;
        { .reg .b32 t; mov.u32 t, 10; add.u32 %r1, %r1, t; bra end; end: }
        { .reg .b32 t; mov.u32 t, 20; add.u32 %r1, %r1, t; bra end; end: }
        st.global.u32 [%rd1], %r1;";
    assert_eq!(run(1, body).unwrap(), [31]);
}

#[test]
fn special_registers() {
    let body = "mov.u32 %r1, %tid.y;
        mov.u32 %r2, %ntid.x;
        mov.u32 %r3, %tid.x;
        mad.lo.u32 %r1, %r1, %r2, %r3;
        mov.u32 %r4, %ctaid.y;
        mov.u32 %r5, %nctaid.x;
        mov.u32 %r6, %ctaid.x;
        mad.lo.u32 %r4, %r4, %r5, %r6;
        mad.lo.u32 %r7, %r4, 6, %r1;
        mul.wide.u32 %rd2, %r7, 4;
        add.u64 %rd2, %rd0, %rd2;
        mov.u32 %r8, %laneid;
        mov.u32 %r9, %lanemask_lt;
        popc.b32 %r9, %r9;
        setp.ne.u32 %p0, %r8, %r9;
        @%p0 trap;
        mov.u32 %r10, %warpid;
        mad.lo.u32 %r8, %r10, 100, %r8;
        mad.lo.u32 %r8, %r4, 1000, %r8;
        st.global.u32 [%rd2], %r8;";
    let (words, stats) = run_grid([2, 2, 1], [3, 2, 1], 0, body).unwrap();
    let expected: Vec<u32> = (0..24).map(|at| at / 6 * 1000 + at % 6).collect();
    assert_eq!(words, expected);
    // Lanes that a guard excludes do not count: the trap, in each of four blocks.
    assert_eq!(stats.instructions, 6 * (stats.warp_instructions - 4));
}

#[test]
fn what_executes_is_counted() {
    let (_, stats) = run_grid([2, 1, 1], [40, 1, 1], 0, "setp.lt.u32 %p0, %r0, 8; @%p0 mov.u32 %r1, 0;").unwrap();
    // Seven before the body and a return behind it.
    assert_eq!(stats.warp_instructions, 2 * 2 * 10);
    assert_eq!(stats.instructions, 2 * 40 * 9 + 8);
}

#[test]
fn a_barrier_shows_what_other_warps_wrote() {
    let body = "mov.u32 %r1, buffer;
        mad.lo.u32 %r2, %r0, 4, %r1;
        st.shared.u32 [%r2], %r0;
        bar.sync 0;
        xor.b32 %r3, %r0, 127;
        mad.lo.u32 %r2, %r3, 4, %r1;
        ld.shared.u32 %r4, [%r2];
        st.global.u32 [%rd1], %r4;";
    assert_eq!(run(128, body).unwrap(), (0..128).rev().collect::<Vec<u32>>());
}

#[test]
fn barriers_that_reduce() {
    let body = "setp.lt.u32 %p0, %r0, 40;
        bar.red.popc.u32 %r1, 0, %p0;
        bar.red.and.pred %p1, 0, %p0;
        bar.red.or.pred %p2, 0, !%p0;
        @%p1 add.u32 %r1, %r1, 1000;
        @%p2 add.u32 %r1, %r1, 2000;
        st.global.u32 [%rd1], %r1;";
    assert_eq!(run(96, body).unwrap(), [2040; 96]);
}

#[test]
fn a_barrier_of_some_warps_and_one_that_does_not_wait() {
    // Warps 0 and 1 meet at barrier 1; warp 2 tells barrier 2 that its word is there, and warp 3 waits for it.
    let body = "mov.u32 %r1, buffer;
        shl.b32 %r2, %r0, 2;
        add.u32 %r2, %r2, %r1;
        add.u32 %r3, %r0, 7;
        st.shared.u32 [%r2], %r3;
        shr.u32 %r4, %r0, 5;
        setp.lt.u32 %p0, %r4, 2;
        @%p0 bra first;
        setp.eq.u32 %p1, %r4, 2;
        @%p1 bar.arrive 2, 64;
        @%p1 bra out;
        bar.sync 2, 64;
        bra read;
        first: bar.sync 1, 64;
        read: xor.b32 %r5, %r0, 32;
        shl.b32 %r5, %r5, 2;
        add.u32 %r5, %r5, %r1;
        ld.shared.u32 %r6, [%r5];
        st.global.u32 [%rd1], %r6;
        out:";
    let expected: Vec<u32> = (0..128).map(|at: u32| if at / 32 == 2 { 0 } else { (at ^ 32) + 7 }).collect();
    assert_eq!(run(128, body).unwrap(), expected);
}

#[test]
fn a_lane_that_spins_lets_the_others_on() {
    // A lock within a warp: only one lane at a time is between, though the one that spins is first in the text.
    let body = "setp.ne.u32 %p5, %r0, 0;
        mov.u32 %r9, 0;
        @!%p5 st.shared.v2.u32 [buffer], {%r9, %r9};
        bar.sync 0;
        mov.u32 %r3, 0;
        spin: atom.shared.cas.b32 %r1, [buffer], 0, 1;
        setp.ne.u32 %p0, %r1, 0;
        @%p0 bra spin;
        ld.volatile.shared.u32 %r2, [buffer+4];
        add.u32 %r2, %r2, 1;
        st.volatile.shared.u32 [buffer+4], %r2;
        atom.shared.exch.b32 %r1, [buffer], 0;
        bar.sync 0;
        ld.shared.u32 %r2, [buffer+4];
        st.global.u32 [%rd1], %r2;";
    assert_eq!(run(3, body).unwrap(), [3; 3]);
}

#[test]
fn what_runs_for_ever_is_stopped() {
    let fault = fault(32, "again: bra again;");
    assert!(fault.contains("for ever") && fault.contains("`bra again;`"), "{fault}");
}
