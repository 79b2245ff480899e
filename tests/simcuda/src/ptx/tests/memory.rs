//! Loads, stores and atomics in every space.

use super::*;

#[test]
fn elements_of_every_width() {
    let body = "mov.u32 %r1, 0x8081fffe;
        st.shared.u32 [buffer], %r1;
        ld.shared.u8 %rs1, [buffer];
        ld.shared.s8 %r2, [buffer+1];
        ld.shared.s16 %r3, [buffer+2];
        ld.shared.u16 %r4, [buffer];
        ld.shared.s16 %rs2, [buffer+2];
        cvt.u32.u16 %r5, %rs1;
        cvt.s32.s16 %r6, %rs2;
        ld.shared.s32 %rd2, [buffer];
        shr.u64 %rd2, %rd2, 32;
        cvt.u32.u64 %r7, %rd2;
        setp.ne.u32 %p0, %r5, 254; @%p0 trap;
        setp.ne.s32 %p0, %r2, -1; @%p0 trap;
        setp.ne.s32 %p0, %r3, -32639; @%p0 trap;
        setp.ne.s32 %p0, %r4, 65534; @%p0 trap;
        setp.ne.s32 %p0, %r6, -32639; @%p0 trap;
        setp.ne.s32 %p0, %r7, -1; @%p0 trap;
        st.shared.u8 [buffer+3], 7;
        st.shared.u16 [buffer], %r6;
        ld.shared.u32 %r1, [buffer];
        st.global.u32 [%rd1], %r1;";
    assert_eq!(run(1, body).unwrap(), [0x0781_8081]);
}

#[test]
fn vectors() {
    let body = "shl.b32 %r1, %r0, 4;
        mov.u32 %r2, dynamic;
        add.u32 %r1, %r1, %r2;
        add.u32 %r3, %r0, 100;
        st.shared.v4.u32 [%r1], {%r0, %r3, 5, %r0};
        ld.shared.v2.u64 {%rd2, %rd3}, [%r1];
        mov.b64 {%r4, %r5}, %rd2;
        mov.b64 {%r6, %r7}, %rd3;
        add.u32 %r4, %r4, %r5;
        add.u32 %r6, %r6, %r7;
        mad.lo.u32 %r4, %r4, 1000, %r6;
        ld.shared.v4.u8 {%rs1, %rs2, _, %rs4}, [%r1+4];
        cvt.u32.u16 %r5, %rs1;
        add.u32 %r4, %r4, %r5;
        st.global.u32 [%rd1], %r4;";
    let (words, _) = run_grid([1, 1, 1], [40, 1, 1], 640, body).unwrap();
    let expected: Vec<u32> = (0..40).map(|at| (2 * at + 100) * 1000 + 5 + at + 100 + at).collect();
    assert_eq!(words, expected);
}

#[test]
fn dynamic_shared_memory_comes_aligned_behind_the_static() {
    let body = "{ .shared .b8 odd[5]; mov.u32 %r1, odd; } mov.u32 %r2, dynamic; mad.lo.u32 %r1, %r1, 10000, %r2;
        st.global.u32 [%rd1], %r1;";
    assert_eq!(run(1, body).unwrap(), [1024 * 10000 + 1040]);
}

#[test]
fn generic_addresses_of_every_space() {
    // Half of the lanes load from shared memory, half from global memory, by the same instruction.
    let body = "st.global.u32 [%rd1], %r0;
        add.u32 %r1, %r0, 500;
        shl.b32 %r2, %r0, 2;
        mov.u32 %r3, buffer;
        add.u32 %r2, %r2, %r3;
        st.shared.u32 [%r2], %r1;
        cvt.u64.u32 %rd2, %r2;
        cvta.shared.u64 %rd2, %rd2;
        isspacep.shared %p1, %rd2;
        isspacep.global %p2, %rd1;
        isspacep.global %p3, %rd2;
        and.pred %p1, %p1, %p2;
        not.pred %p3, %p3;
        and.pred %p1, %p1, %p3;
        @!%p1 trap;
        and.b32 %r4, %r0, 1;
        setp.eq.u32 %p0, %r4, 1;
        selp.u64 %rd3, %rd2, %rd1, %p0;
        ld.u32 %r5, [%rd3];
        add.u32 %r5, %r5, 1;
        st.u32 [%rd3], %r5;
        cvta.to.shared.u64 %rd4, %rd2;
        ld.shared.u32 %r6, [%rd4];
        @%p0 st.global.u32 [%rd1], %r6;";
    let expected: Vec<u32> = (0..48).map(|at| if at % 2 == 1 { at + 501 } else { at + 1 }).collect();
    assert_eq!(run(48, body).unwrap(), expected);
}

#[test]
fn local_memory_is_each_threads_own() {
    let body = ".local .align 8 .b8 depot[64];
        mov.u64 %rd2, depot;
        cvta.local.u64 %rd3, %rd2;
        and.b32 %r1, %r0, 7;
        mul.wide.u32 %rd4, %r1, 8;
        add.u64 %rd5, %rd3, %rd4;
        st.u32 [%rd5+4], %r0;
        add.u64 %rd6, %rd2, %rd4;
        ld.local.u32 %r2, [%rd6+4];
        st.global.u32 [%rd1], %r2;";
    assert_eq!(run(40, body).unwrap(), (0..40).collect::<Vec<u32>>());
}

#[test]
fn parameters_of_every_kind() {
    let text = ".version 8.0
        .visible .entry k(.param .u64 out, .param .align 4 .b8 pair[12], .param .u8 small, .param .f64 wide)
        {
        .reg .b64 %rd<9>; .reg .b32 %r<9>; .reg .b16 %rs<9>;
        ld.param.u64 %rd1, [out];
        mov.b64 %rd2, pair;
        mov.u32 %r1, %tid.x;
        mul.wide.u32 %rd3, %r1, 4;
        add.u64 %rd4, %rd2, %rd3;
        ld.param.u32 %r2, [%rd4];
        ld.param.u8 %rs1, [small];
        cvt.u32.u16 %r3, %rs1;
        add.u32 %r2, %r2, %r3;
        ld.param.u32 %r4, [wide+4];
        add.u32 %r2, %r2, %r4;
        add.u64 %rd1, %rd1, %rd3;
        st.global.u32 [%rd1], %r2;
        ret;
        }";
    let module = Module::parse(text).unwrap();
    let kernel = module.kernel("k").unwrap();
    let offsets: Vec<_> = kernel.params().iter().map(|param| (param.offset, param.bytes)).collect();
    assert_eq!(offsets, [(0, 8), (8, 12), (20, 1), (24, 8)]);
    assert_eq!(kernel.params_bytes(), 32);
    let mut params = params(&[BASE]);
    params.extend([10_u32, 20, 30].iter().flat_map(|value| value.to_le_bytes()));
    params.extend([200, 0, 0, 0]);
    params.extend((7_u64 << 32).to_le_bytes());
    let mut ram = Ram::zeroed(3);
    let launch = Launch { grid: [1; 3], block: [3, 1, 1], shared_bytes: 0, params: &params };
    kernel.launch(launch, &mut ram).unwrap();
    assert_eq!(ram.words_at(0, 3), [217, 227, 237]);
    let fault = kernel.launch(Launch { params: &params[..31], ..launch }, &mut ram).unwrap_err();
    assert!(fault.message.contains("31 bytes of parameters; it takes 32"), "{fault}");
    let fault = kernel.launch(Launch { block: [7, 1, 1], ..launch }, &mut ram).unwrap_err();
    assert!(
        fault.message.contains("bytes at 0x20 of the parameters") || fault.message.contains("not allocated"),
        "{fault}"
    );
}

#[test]
fn variables_of_the_module() {
    let text = ".version 8.0
        .const .align 4 .b8 table[8] = {1, 0, 0, 0, 2};
        .visible .global .align 8 .u64 large = 0x100000002;
        .global .f32 half = 0f3F000000;
        .global .align 4 .u16 grid[2][2] = {{1, 2}, {3, -1}};
        .global .align 4 .b8 empty[16];
        .visible .entry k(.param .u64 out)
        {
        .reg .b64 %rd<9>; .reg .b32 %r<9>;
        ld.param.u64 %rd1, [out];
        ld.const.u32 %r1, [table+4];
        ld.global.u32 %r2, [large+4];
        mov.u64 %rd2, grid;
        ld.global.s16 %r3, [%rd2+6];
        add.u32 %r1, %r1, %r2;
        add.u32 %r1, %r1, %r3;
        st.global.u32 [%rd1], %r1;
        ret;
        }";
    let (module, mut ram) = loaded(text);
    let found: Vec<_> =
        module.variables().iter().map(|v| (&v.name[..], v.align, v.initial.len(), v.constant)).collect();
    assert_eq!(
        found,
        [
            ("table", 4, 8, true),
            ("large", 8, 8, false),
            ("half", 4, 4, false),
            ("grid", 4, 8, false),
            ("empty", 4, 16, false)
        ]
    );
    assert_eq!(module.variables()[2].initial, 0.5_f32.to_le_bytes());
    let out = ram.0.len();
    ram.0.extend([0; 4]);
    let params = params(&[BASE + out as u64]);
    let launch = Launch { grid: [1; 3], block: [1; 3], shared_bytes: 0, params: &params };
    module.kernels()[0].launch(launch, &mut ram).unwrap();
    assert_eq!(ram.words_at(out / 4, 1), [2]);
}

#[test]
fn atomics() {
    let atomic = |operation: &str, first: u32| {
        let body = format!(
            "setp.eq.u32 %p0, %r0, 0;
            @%p0 st.shared.u32 [buffer], {first};
            bar.sync 0;
            {operation}
            bar.sync 0;
            ld.shared.u32 %r2, [buffer];
            st.global.u32 [%rd1], %r2;"
        );
        run(64, &body).unwrap()[63]
    };
    assert_eq!(atomic("atom.shared.add.u32 %r1, [buffer], %r0;", 5), 5 + 63 * 32);
    assert_eq!(atomic("red.shared.add.s32 [buffer], -1;", 5), 5_u32.wrapping_sub(64));
    assert_eq!(atomic("atom.shared.max.u32 %r1, [buffer], %r0;", 5), 63);
    assert_eq!(atomic("neg.s32 %r3, %r0; atom.shared.min.s32 %r1, [buffer], %r3;", 5), -63_i32 as u32);
    assert_eq!(atomic("atom.shared.or.b32 %r1, [buffer], %r0;", 256), 256 + 63);
    assert_eq!(atomic("not.b32 %r3, %r0; atom.shared.and.b32 %r1, [buffer], %r3;", 0xff), 0xc0);
    assert_eq!(atomic("atom.shared.xor.b32 %r1, [buffer], 1;", 6), 6);
    assert_eq!(atomic("atom.shared.inc.u32 %r1, [buffer], 9;", 0), 4);
    assert_eq!(atomic("atom.shared.dec.u32 %r1, [buffer], 9;", 3), 9);
    assert_eq!(atomic("atom.shared.cas.b32 %r1, [buffer], %r0, 777;", 40), 777);
    assert_eq!(atomic("add.u32 %r3, %r0, 9; atom.shared.exch.b32 %r1, [buffer], %r3;", 40), 72);
    assert_eq!(atomic("cvt.rn.f32.u32 %f1, %r0; atom.shared.add.f32 %f2, [buffer], %f1;", 0), 2016.0_f32.to_bits());
}

#[test]
fn an_atomic_gives_what_was_there() {
    let body = "mov.u64 %rd2, 0;
        atom.global.add.u32 %r1, [%rd0], 2;
        mul.wide.u32 %rd3, %r1, 2;
        add.u64 %rd3, %rd3, %rd0;
        setp.ne.u32 %p0, %r1, 0;
        @%p0 st.global.u32 [%rd3], %r1;
        atom.global.add.u64 %rd4, [%rd0+248], 1;";
    let words = run(64, body).unwrap();
    assert_eq!(words[0], 128);
    assert_eq!(words[1..62], (1..62).map(|at| 2 * at).collect::<Vec<u32>>());
}
