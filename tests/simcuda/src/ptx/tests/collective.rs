//! What the lanes of a warp do together.

use super::*;

/// The results of the lanes of a warp after a body that leaves them in `%r1`.
fn warp(body: &str) -> Vec<u32> {
    run(32, &format!("{body}\nst.global.u32 [%rd1], %r1;")).unwrap()
}

fn lanes(f: impl Fn(u32) -> u32) -> Vec<u32> {
    (0..32).map(f).collect()
}

#[test]
fn shuffles() {
    let shuffle = |mode: &str, lane: &str, clamp: u32| {
        warp(&format!("mul.lo.u32 %r2, %r0, 10; shfl.sync.{mode}.b32 %r1, %r2, {lane}, {clamp}, -1;"))
    };
    assert_eq!(shuffle("down", "4", 31), lanes(|lane| if lane < 28 { 10 * lane + 40 } else { 10 * lane }));
    assert_eq!(shuffle("up", "3", 0), lanes(|lane| if lane >= 3 { 10 * lane - 30 } else { 10 * lane }));
    assert_eq!(shuffle("bfly", "5", 31), lanes(|lane| 10 * (lane ^ 5)));
    assert_eq!(shuffle("idx", "7", 31), lanes(|_| 70));
    assert_eq!(shuffle("idx", "%r0", 31), lanes(|lane| 10 * lane));
    // In segments of eight lanes: the upper bits of the clamp.
    let eight = 0x1800;
    assert_eq!(shuffle("down", "3", eight | 31), lanes(|lane| 10 * if lane % 8 < 5 { lane + 3 } else { lane }));
    assert_eq!(shuffle("up", "2", eight), lanes(|lane| 10 * if lane % 8 >= 2 { lane - 2 } else { lane }));
    assert_eq!(shuffle("idx", "9", eight | 31), lanes(|lane| 10 * (lane / 8 * 8 + 1)));
}

#[test]
fn a_shuffle_says_whether_the_lane_was_in_range() {
    let found = warp("shfl.sync.down.b32 %r2|%p0, %r0, 8, 31, -1; selp.u32 %r1, 1, 0, %p0;");
    assert_eq!(found, lanes(|lane| u32::from(lane < 24)));
}

#[test]
fn votes() {
    let third = "rem.u32 %r2, %r0, 3; setp.eq.u32 %p0, %r2, 0;";
    let mask = (0..32).filter(|lane| lane % 3 == 0).fold(0, |mask: u32, lane| mask | 1 << lane);
    assert_eq!(warp(&format!("{third} vote.sync.ballot.b32 %r1, %p0, -1;")), lanes(|_| mask));
    assert_eq!(warp(&format!("{third} vote.sync.ballot.b32 %r1, !%p0, -1;")), lanes(|_| !mask));
    for (mode, predicate, expected) in [
        ("any", "%p0", 1),
        ("all", "%p0", 0),
        ("uni", "%p0", 0),
        ("all", "%p1", 1),
        ("uni", "!%p1", 1),
        ("any", "!%p1", 0),
    ] {
        let body = format!(
            "{third} setp.lt.u32 %p1, %r0, 99; vote.sync.{mode}.pred %p2, {predicate}, -1; selp.u32 %r1, 1, 0, %p2;"
        );
        assert_eq!(warp(&body), lanes(|_| expected), "{mode} {predicate}");
    }
}

#[test]
fn votes_of_some_lanes() {
    let body = "setp.ge.u32 %p0, %r0, 16;
        mov.u32 %r1, 0;
        @%p0 bra out;
        and.b32 %r2, %r0, 1;
        setp.eq.u32 %p1, %r2, 1;
        vote.sync.ballot.b32 %r1, %p1, 65535;
        out:";
    assert_eq!(warp(body), lanes(|lane| if lane < 16 { 0xaaaa } else { 0 }));
}

#[test]
fn matches_and_reductions() {
    let groups = "rem.u32 %r2, %r0, 5;";
    let group = |lane: u32| (0..32).filter(|other| other % 5 == lane % 5).fold(0, |mask: u32, other| mask | 1 << other);
    assert_eq!(warp(&format!("{groups} match.any.sync.b32 %r1, %r2, -1;")), lanes(group));
    assert_eq!(warp("match.all.sync.b32 %r1|%p0, 7, -1; @!%p0 mov.u32 %r1, 1;"), lanes(|_| u32::MAX));
    assert_eq!(
        warp(&format!("{groups} match.all.sync.b32 %r1|%p0, %r2, -1; @!%p0 add.u32 %r1, %r1, 1;")),
        lanes(|_| 1)
    );
    // Each group reduces for itself, by masks of its own.
    let sum = |lane: u32| (0..32).filter(|other| other % 5 == lane % 5).sum::<u32>();
    let body = format!("{groups} match.any.sync.b32 %r3, %r2, -1; redux.sync.add.u32 %r1, %r0, %r3;");
    assert_eq!(warp(&body), lanes(sum));
    assert_eq!(warp("sub.u32 %r2, 5, %r0; redux.sync.min.s32 %r1, %r2, -1;"), lanes(|_| -26_i32 as u32));
    assert_eq!(warp("sub.u32 %r2, 5, %r0; redux.sync.max.u32 %r1, %r2, -1;"), lanes(|_| u32::MAX));
    assert_eq!(warp("redux.sync.xor.b32 %r1, %r0, -1;"), lanes(|_| 0));
}

#[test]
fn one_lane_is_elected() {
    assert_eq!(warp("elect.sync %r1|%p0, -1; @%p0 mov.u32 %r1, 99;"), lanes(|lane| if lane == 0 { 99 } else { 0 }));
}

#[test]
fn lanes_come_to_a_shuffle_one_after_another() {
    // Lanes get there by different ways, and at different times; each waits for all of its mask.
    let body = "mov.u32 %r3, 0;
        again: setp.ge.u32 %p0, %r3, %r0;
        @%p0 bra out;
        add.u32 %r3, %r3, 1;
        bra again;
        out: shfl.sync.bfly.b32 %r1, %r3, 1, 31, -1;";
    assert_eq!(warp(body), lanes(|lane| lane ^ 1));
    // A loop with a shuffle in it that lanes leave at different times names who is left.
    let body = "mov.u32 %r1, 0;
        again: activemask.b32 %r4;
        vote.sync.ballot.b32 %r5, 1, %r4;
        popc.b32 %r5, %r5;
        add.u32 %r1, %r1, %r5;
        add.u32 %r6, %r6, 0;
        setp.lt.u32 %p0, %r5, 0;
        add.u32 %r3, %r3, 1;
        setp.lt.u32 %p0, %r3, %r0;
        @%p0 bra again;";
    let body = format!("mov.u32 %r3, 0; mov.u32 %r6, 0; {body}");
    // Rounds of lane n: one, or n; in round k the lanes beyond k - 1 are there, and lane 0 in the first.
    let expected = |lane: u32| 32 + (2..=lane).map(|round| 32 - round).sum::<u32>();
    assert_eq!(warp(&body), lanes(expected));
}

#[test]
fn lanes_that_have_exited_are_not_waited_for() {
    let body = "mov.u32 %r2, 1;
        st.global.u32 [%rd1], %r2;
        setp.lt.u32 %p0, %r0, 10;
        @%p0 exit;
        vote.sync.ballot.b32 %r1, 1, -1;";
    assert_eq!(warp(body), lanes(|lane| if lane < 10 { 1 } else { !0x3ff }));
}

#[test]
fn lanes_that_exit_while_others_wait_let_them_go() {
    let body = "setp.lt.u32 %p0, %r0, 10;
        @%p0 bra late;
        vote.sync.ballot.b32 %r1, 1, -1;
        bra.uni out;
        late: exit;
        out:";
    assert_eq!(warp(body), lanes(|lane| if lane < 10 { 0 } else { !0x3ff }));
}

#[test]
fn warp_barriers_in_two_places_meet() {
    let body = "mov.u32 %r2, buffer;
        shl.b32 %r3, %r0, 2;
        add.u32 %r3, %r3, %r2;
        setp.lt.u32 %p0, %r0, 16;
        @%p0 bra low;
        st.shared.u32 [%r3], %r0;
        bar.warp.sync -1;
        bra join;
        low: st.shared.u32 [%r3], %r0;
        bar.warp.sync -1;
        join: xor.b32 %r4, %r0, 16;
        shl.b32 %r4, %r4, 2;
        add.u32 %r4, %r4, %r2;
        ld.shared.u32 %r1, [%r4];";
    assert_eq!(warp(body), lanes(|lane| lane ^ 16));
}
