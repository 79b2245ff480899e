#!/usr/bin/env python3
"""Makes tests/fixtures/jpeg: small synthetic JPEGs and the digests of libjpeg-turbo's pixels.

Needs cjpeg and djpeg of libjpeg-turbo (2.1.5 made what is checked in) and the xxhash module.

    tests/tools/make_jpeg_fixtures.py                         fixtures and their digests
    tests/tools/make_jpeg_fixtures.py --digest DIR STEM       digests of the JPEGs in another folder

A line of a digest file: file name, width, height, XXH3-128 of the rows of interleaved RGB that djpeg
writes with its defaults. Files that djpeg refuses, warns about or decodes from anything but sequential
data are left out. The digests of an image scaled to 1/N by djpeg are in a file of their own, _1_N.
"""
import math
import pathlib
import random
import subprocess
import sys

import xxhash

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "jpeg"

SAMPLINGS = {
    "444": "1x1,1x1,1x1",
    "422": "2x1,1x1,1x1",
    "420": "2x2,1x1,1x1",
    "440": "1x2,1x1,1x1",
    "411": "4x1,1x1,1x1",
    "410": "4x2,1x1,1x1",
    "141": "1x4,1x1,1x1",
    "311": "3x1,1x1,1x1",
    "mixed_h": "4x1,2x1,1x1",
    "mixed_v": "1x4,1x2,1x1",
    "mixed_hv": "2x2,2x1,1x2",
    "mixed_lone": "2x2,1x2,1x1",
    "coarse_luma": "1x1,2x2,1x1",
    "crossed": "2x1,1x2,1x1",
}
SIZES = [(1, 1), (2, 2), (3, 2), (5, 9), (17, 16), (33, 31), (131, 97)]


def scene(width, height, seed, noise=8):
    """A picture with edges, gradients, texture and saturated colours."""
    rng = random.Random(seed)
    pixels = bytearray()
    for y in range(height):
        for x in range(width):
            wave = 40 * math.sin(x * 0.31 + seed) * math.cos(y * 0.17)
            disc = (x - width * 0.6) ** 2 + (y - height * 0.4) ** 2 < (min(width, height) * 0.3) ** 2
            stripe = (x + 2 * y) // 7 % 5 == 0
            base = (255, 30, 20) if disc else (20, 60, 230) if stripe else (2 * x % 256, 3 * y % 256, (x + y) % 256)
            pixels.extend(max(0, min(255, int(c + wave + rng.uniform(-noise, noise)))) for c in base)
    return f"P6 {width} {height} 255\n".encode() + bytes(pixels)


def encode(name, picture, *options):
    jpeg = subprocess.run(["cjpeg", *options], input=picture, capture_output=True, check=True).stdout
    (FIXTURES / f"{name}.jpg").write_bytes(jpeg)


def make():
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for old in FIXTURES.glob("*.jpg"):
        old.unlink()
    for number, (sampling, factors) in enumerate(SAMPLINGS.items()):
        for width, height in SIZES:
            tables = ["-optimize"] if (width + number) % 2 else []
            quality = str([50, 75, 90, 97][(number + width) % 4])
            picture = scene(width, height, number)
            encode(f"{sampling}_{width}x{height}", picture, "-quality", quality, "-sample", factors, *tables)
    tall = scene(45, 61, 1)
    for sampling in ("444", "422", "420", "440", "411"):
        encode(f"restart_blocks_{sampling}", tall, "-sample", SAMPLINGS[sampling], "-restart", "3B")
        encode(f"restart_rows_{sampling}", tall, "-sample", SAMPLINGS[sampling], "-restart", "1", "-optimize")
        scans = FIXTURES / "scans.txt"
        for kind, text in (("single", "0;\n1;\n2;\n"), ("paired", "0;\n1 2;\n"), ("late_luma", "2;\n0 1;\n")):
            scans.write_text(text)
            encode(f"scans_{kind}_{sampling}", tall, "-sample", SAMPLINGS[sampling], "-scans", str(scans))
            encode(f"scans_{kind}_restart_{sampling}", tall, "-sample", SAMPLINGS[sampling], "-scans", str(scans),
                   "-restart", "4B")
        scans.unlink()
    encode("restart_every_mcu", tall, "-restart", "1B")
    for quality in (1, 10, 100):
        encode(f"quality_{quality}", scene(70, 50, 2, noise=90), "-quality", str(quality), "-sample", "1x1")
        encode(f"quality_{quality}_420", scene(70, 50, 3, noise=90), "-quality", str(quality), "-optimize")
    for width, height in SIZES:
        encode(f"grey_{width}x{height}", scene(width, height, 4), "-grayscale")
        encode(f"rgb_{width}x{height}", scene(width, height, 5), "-rgb", "-quality", "92")
    encode("grey_2x2_factors", scene(45, 61, 6), "-grayscale", "-sample", "2x2", "-restart", "2B")
    encode("rgb_subsampled", scene(45, 61, 7), "-rgb", "-sample", "2x2,1x1,1x1")
    encode("flat", b"P6 200 150 255\n" + bytes([200, 30, 90]) * 30000)
    encode("wide", scene(700, 20, 8), "-quality", "80")
    for quality in (10, 90):
        for sampling in ("444", "420"):
            wild = f"wild_{quality}_{sampling}"
            encode(wild, scene(70, 50, 9, noise=90), "-quality", str(quality), "-sample", SAMPLINGS[sampling])
            overflow(FIXTURES / f"{wild}.jpg")
    digest(FIXTURES, str(FIXTURES / "digests"), ".txt")


def overflow(path):
    """Makes the divisors so large that what they multiply leaves the range of samples, and that of 16 bits."""
    data = bytearray(path.read_bytes())
    rng = random.Random(path.name)
    position = 2
    while data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == 0xDB:
            for at in range(position + 5, position + 2 + length):
                data[at] = rng.choice([1, 20, 100, 255])
        position += 2 + length
    path.write_bytes(data)


def digest(folder, stem, extension):
    for denominator in (1, 2, 4, 8):
        name = stem + (f"_1_{denominator}" if denominator > 1 else "") + extension
        digest_scaled(folder, denominator, pathlib.Path(name))


def digest_scaled(folder, denominator, output):
    lines = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".jpg", ".jpeg") or not is_sequential(path.read_bytes()):
            continue
        run = subprocess.run(["djpeg", "-rgb", "-ppm", "-scale", f"1/{denominator}", str(path)], capture_output=True)
        if run.returncode or run.stderr:
            print(f"left out {path.name}: {run.stderr.decode().strip()}", file=sys.stderr)
            continue
        _, size, _, pixels = run.stdout.split(b"\n", 3)
        width, height = size.split()
        lines.append(f"{path.name} {int(width)} {int(height)} {xxhash.xxh3_128_hexdigest(pixels)}\n")
    output.write_text("".join(lines))


def is_sequential(data):
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] in (0, 0xFF):
            position += 1
            continue
        code = data[position + 1]
        if code in (0xC0, 0xC1):
            return data[position + 4] == 8 and data[position + 9] in (1, 3)
        if 0xC2 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            return False
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--digest":
        digest(pathlib.Path(sys.argv[2]), sys.argv[3], ".digests")
    else:
        make()
