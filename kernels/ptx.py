#!/usr/bin/env python3
"""Compiles forebay.cu to PTX with NVRTC: no driver, no toolkit, no GPU.

    ptx.py LIBNVRTC > ptx/forebay.ptx

LIBNVRTC is libnvrtc.so.12 of CUDA 12.0, whose PTX every CUDA 12 and 13 driver accepts; .ci/kernels gets it from PyPI.
"""
import ctypes
import os
import re
import sys

ARGUMENTS = ["--gpu-architecture=compute_75", "--std=c++17", "--fmad=false"]


def check(library, code, what):
    if code:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        sys.exit(f"{what}: {library.nvrtcGetErrorString(code).decode()}")


def text_of(library, program, name):
    size = ctypes.c_size_t()
    check(library, getattr(library, f"nvrtcGet{name}Size")(program, ctypes.byref(size)), name)
    buffer = ctypes.create_string_buffer(size.value)
    check(library, getattr(library, f"nvrtcGet{name}")(program, buffer), name)
    return buffer.value.decode()


def compile_ptx(library, folder):
    sources = read_sources(folder)
    main = sources["forebay.cu"]
    names = [name for name in sources if name.endswith(".cuh")]
    headers = (ctypes.c_char_p * len(names))(*(sources[name] for name in names))
    included = (ctypes.c_char_p * len(names))(*(name.encode() for name in names))
    program = ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), main, b"forebay.cu", len(names), headers, included)
    check(library, created, "nvrtcCreateProgram")
    arguments = (ctypes.c_char_p * len(ARGUMENTS))(*(argument.encode() for argument in ARGUMENTS))
    failed = library.nvrtcCompileProgram(program, len(ARGUMENTS), arguments)
    sys.stderr.write(text_of(library, program, "ProgramLog"))
    check(library, failed, "nvrtcCompileProgram")
    head = f"// The kernels of forebay, made by kernels/ptx.py of sources {fingerprint(sources):016x}.\n"
    return head + without_noise(text_of(library, program, "PTX"))


def read_sources(folder):
    names = sorted(name for name in os.listdir(folder) if name.endswith((".cu", ".cuh")))
    sources = {}
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            sources[name] = file.read()
    return sources


def fingerprint(sources):
    """FNV-1a of the sources in the order of their names. A test compares it, so that the text cannot grow old unseen."""
    value = 0xCBF29CE484222325
    for byte in b"".join(sources.values()):
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


def without_noise(ptx):
    """Drops the constants of <nv/target>, which NVRTC includes by itself, and remarks about shared variables."""
    noise = re.compile(r"\.global .*_INTERNAL_.*nv6target|// \w+ has been demoted|\t// demoted variable")
    return "".join(line for line in ptx.splitlines(keepends=True) if not noise.match(line))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.write(compile_ptx(ctypes.CDLL(sys.argv[1]), os.path.dirname(os.path.abspath(__file__))))
