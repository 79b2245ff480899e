#!/usr/bin/env python3
"""Writes the list of entry points that the simulated CUDA driver has and does not simulate.

    make_simcuda_stubs.py CUDARC_SOURCE

CUDARC_SOURCE is the folder of the cudarc package (src/driver/sys/mod.rs in it declares every function that the crate can
look up, for all versions of CUDA). What tests/simcuda/src/api/*.rs define is left out; the rest replaces the list at the
end of tests/simcuda/src/api/stubs.rs.
"""

import pathlib
import re
import sys

API = pathlib.Path(__file__).parent.parent / "simcuda" / "src" / "api"
WIDTH = 120


def main():
    declared = (pathlib.Path(sys.argv[1]) / "src" / "driver" / "sys" / "mod.rs").read_text()
    names = set(re.findall(r"pub unsafe fn (cu[A-Z]\w*)\(", declared))
    for file in API.glob("*.rs"):
        if file.name != "stubs.rs":
            names -= set(re.findall(r"^\s+fn (cu[A-Z]\w*)\(", file.read_text(), re.MULTILINE))
    lines = ["   "]
    for name in sorted(names):
        if len(lines[-1]) + 1 + len(name) > WIDTH:
            lines.append("   ")
        lines[-1] += " " + name
    stubs = API / "stubs.rs"
    kept = stubs.read_text().rsplit("stubs! {", 1)[0]
    stubs.write_text(kept + "stubs! {\n" + "\n".join(lines) + "\n}\n")
    print(f"{len(names)} entry points that do nothing")


if __name__ == "__main__":
    main()
