#!/usr/bin/env python3
"""What ptxas makes of the kernels, held to what is recorded in registers.tsv.

    registers.py tabulate TOOLKIT ARCH < SAID    turns what `ptxas -v` says into lines of a table
    registers.py check TABLE                     compares a table with the one that is recorded
    registers.py update TABLE                    records a table

A kernel that spills, uses local memory, or takes more registers or shared memory than is recorded is an error.
"""
import os
import re
import sys

RECORDED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "registers.tsv")
HEAD = "kernel\tarchitecture\ttoolkit\tregisters\tshared memory, bytes\n"
KERNEL = re.compile(
    r"entry function '(?P<kernel>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?:.*?(?P<shared>\d+) bytes smem)?[^\n]*",
    re.DOTALL,
)


def tabulate(toolkit, arch, said):
    # A kernel's figures end where the next one's begin, so that none borrows its neighbour's.
    for part in re.split(r"(?=Compiling entry function)", said)[1:]:
        found = KERNEL.search(part)
        if not found:
            sys.exit(f"ptxas {toolkit} says something else than expected:\n{part}")
        wasted = int(found["stack"]) + int(found["stores"]) + int(found["loads"])
        if wasted:
            sys.exit(f"{found['kernel']} spills or uses local memory on sm_{arch} (ptxas {toolkit}):\n{part}")
        print(found["kernel"], arch, toolkit, found["registers"], found["shared"] or 0, sep="\t")


def read(path):
    with open(path) as file:
        lines = [line.split("\t") for line in file if line.startswith("forebay_")]
    return {tuple(line[:3]): (int(line[3]), int(line[4])) for line in lines}


def compare(found, recorded):
    for key, figures in found.items():
        allowed = recorded.get(key)
        if allowed is None:
            yield f"{key} is not recorded"
        elif figures[0] > allowed[0] or figures[1] > allowed[1]:
            yield f"{key} takes (registers, shared memory) {figures}, {allowed} are recorded"
    yield from (f"{key} is recorded, but not there" for key in recorded.keys() - found.keys())


def check(table):
    wrong = list(compare(read(table), read(RECORDED)))
    if wrong:
        sys.exit("\n".join(wrong + ["If that is as it should be: .ci/kernels update"]))


def update(table):
    lines = sorted("\t".join(map(str, key + figures)) + "\n" for key, figures in read(table).items())
    with open(RECORDED, "w") as file:
        file.writelines([HEAD] + lines)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["tabulate", toolkit, arch]:
            tabulate(toolkit, arch, sys.stdin.read())
        case ["check", table]:
            check(table)
        case ["update", table]:
            update(table)
        case _:
            sys.exit(__doc__)
