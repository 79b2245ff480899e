//! What is refused, and with which words.

use super::*;

/// The error of a body; its first line is line 23.
fn refused(body: &str) -> String {
    Module::parse(&kernel(body)).err().unwrap_or_else(|| panic!("parsed: {body}"))
}

#[test]
fn what_is_unknown_is_named_with_its_line() {
    for (body, expected) in [
        ("frobnicate.u32 %r1, %r2;", "line 23: the instruction frobnicate.u32 is not supported"),
        ("ex2.approx.f32 %f1, %f2;", "line 23: the instruction ex2.approx.f32 is not supported"),
        ("add.ftz.f32 %f1, %f2, %f3;", "line 23: the instruction add.ftz.f32 is not supported"),
        ("\ndiv.full.f32 %f1, %f2, %f3;", "line 24: the instruction div.full.f32 is not supported"),
        ("add.s32 %r1, %r2;", "line 23: 3 operands, found 2"),
        ("add.s32 %r1, %r2, %rd3;", "line 23: %rd3 is a register of 64 bits, not a register of up to 32 bits"),
        ("add.s32 %r1, %r2, %r32;", "line 23: %r32 is not declared"),
        ("add.s32 5, %r2, %r3;", "line 23: a result is not a register"),
        ("bra nowhere;", "line 23: there is no label nowhere"),
        ("twice: twice: ret;", "line 23: the label twice is there twice"),
        ("call.uni f, (%r1);", "line 23: calls are not supported: mark the function __forceinline__"),
        ("ld.global.v3.u32 %r1, [%rd0];", "line 23: the instruction ld.global.v3.u32 is not supported"),
        ("ld.global.v2.u32 %r1, [%rd0];", "line 23: 1 registers for 2 elements"),
        ("ld.global.u64 %r1, [%rd0];", "line 23: a register is too narrow for the type"),
        ("add.s32 %r1, %r2, %r3", "line 24: expected ';', found 'ret'"),
        (".reg .b128 %q<2>;", "line 23: registers of type .b128 are not supported"),
        ("mov.u32 %r1, 12ab;", "line 23: no number: 12ab"),
        ("mov.u32 %r1, #;", "line 23: unexpected Some('#')"),
        ("atom.global.add.f16x2 %r1, [%rd0], %r2;", "line 23: the instruction atom.global.add.f16x2 is not supported"),
        ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [t, {%f5, %f6}];", "line 23: "),
    ] {
        let found = refused(body);
        assert!(found.starts_with(expected), "{body}: {found}");
    }
}

#[test]
fn texts_that_are_no_modules() {
    for (text, expected) in [
        ("", "line 1: no PTX: it does not begin with .version"),
        ("\u{7f}ELF", "line 1: unexpected"),
        (".version 8.0\n.visible .entry k(.param .u64 a)\n{", "line 3: the text ends inside a function"),
        (".version 8.0\n.entry k(.param .u64 a", "line 2: expected ')'"),
        (".version 8.0\n.extern .global .u32 there;", "line 2: there is defined in another module"),
        (".version 8.0\n.global .u64 p = q;", "line 2: a variable whose value is no number"),
        (".version 8.0\n.tex .u64 t;", "line 2: the directive .tex is not supported"),
        (".version 8.0\n.global .align 3 .u32 x;", "line 2: x is aligned to 3 bytes"),
        (".version 8.0\n.global .u32 x[2] = {1, 2, 3};", "line 2: x has more values than room"),
        (".version 8.0\n/* no end", "line 2: a comment without an end"),
    ] {
        let found = Module::parse(text).err().unwrap_or_else(|| panic!("parsed: {text}"));
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn what_debuggers_need_is_passed_over() {
    let text = ".version 8.0
        .target sm_80, debug
        .address_size 64
        // .globl k
        .extern .func (.param .b32 r) elsewhere ( .param .b32 a );
        .func helper(.param .b32 a) { .reg .b32 %r<2>; nonsense.here %r1; ret; }
        .visible .entry k ( )
        .maxntid 128, 1, 1
        .minnctapersm 2
        {
        .loc 1 5 3
        .reg .b32 %r<2>;
        .pragma \"nounroll\";
        .loc 1 6 0, function_name $L__info_string0, inlined_at 1 5 3
        mov.u32 %r1, 0b101; mov.u32 %r1, 0x1FU; mov.u32 %r1, 017;
        ret;
        $L__func_end0:
        }
        .file 1 \"k.cu\"
        .section .debug_str { $L__info_string0: .b8 107 .b8 0 }
        ";
    let module = Module::parse(text).unwrap();
    assert_eq!(module.kernels().len(), 1);
    assert_eq!(module.kernel("k").unwrap().max_threads(), 128);
    assert!(module.kernel("helper").is_none());
}
