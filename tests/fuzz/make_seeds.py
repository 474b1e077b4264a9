"""Writes seeds for the fuzz targets: small good files, with which they get past headers, checksums and compression.

    python3 tests/fuzz/make_seeds.py FOLDER

makes FOLDER/TARGET/* for each target. Only the standard library and, for JPEG, cjpeg (libjpeg-turbo-progs).
"""

import gzip
import json
import pathlib
import struct
import subprocess
import sys
import zlib

HEIGHT, WIDTH = 9, 14


def pixels(channels):
    return bytes((40 + 5 * x + (3 + c) * y + 30 * c) % 256
                 for y in range(HEIGHT) for x in range(WIDTH) for c in range(channels))


def pnm(channels):
    return b"P%d %d %d 255\n" % (5 if channels == 1 else 6, WIDTH, HEIGHT) + pixels(channels)


def png(color_type, channels, depth=8, palette=b""):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    stride = WIDTH * channels * depth // 8
    rows = pixels(channels * depth // 8)
    data = b"".join(bytes([y % 5]) + rows[y * stride:(y + 1) * stride] for y in range(HEIGHT))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"PLTE", palette) if palette else b"")
            + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def jpeg(channels, *options):
    return subprocess.run(["cjpeg", "-quality", "90", *options], input=pnm(channels), stdout=subprocess.PIPE,
                          check=True).stdout


def idx(*dims):
    size = 1
    for dim in dims:
        size *= dim
    return struct.pack(">HBB", 0, 8, len(dims)) + struct.pack(">%dI" % len(dims), *dims) + bytes(i % 10 for i in range(size))


def npy(descr, shape, data):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def safetensors(metadata, **tensors):
    header, offset, data = {"__metadata__": metadata}, 0, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(raw)]}
        offset, data = offset + len(raw), data + raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def seeds():
    picture = pixels(3)[:3] * 1024
    return {
        "fuzz_image": [pnm(1), pnm(3), png(0, 1), png(2, 3), png(6, 4), png(2, 3, depth=16),
                       png(3, 1, palette=pixels(3)[:3] * 256), jpeg(3), jpeg(3, "-progressive"), jpeg(1),
                       jpeg(3, "-restart", "1B"), jpeg(3, "-sample", "1x1", "-arithmetic")],
        "fuzz_idx": [idx(2, 3, 4), idx(5), gzip.compress(idx(2, 3, 4)), gzip.compress(idx(5))],
        "fuzz_cifar": [b"\x07" + picture, b"\x13\x63" + picture, (b"\x07" + picture) * 2],
        "fuzz_npy": [npy("<f4", (2, 3, 3), bytes(72)), npy(">f8", (1, 2, 3), bytes(48)),
                     npy("<f2", (1, 1, 3), bytes(6)), npy("|u1", (5,), bytes(5)), npy(">i8", (2,), bytes(16))],
        "fuzz_safetensors": [
            safetensors({"format": "pt"}, a=("F32", [2, 3], bytes(24)), b=("I64", [], bytes(8))),
            safetensors({}, half=("F16", [3], bytes(6)), brain=("BF16", [1, 1], bytes(2)), none=("F64", [0], b"")),
        ],
    }


def main():
    for target, files in seeds().items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(files):
            (folder / f"seed{i}").write_bytes(data)


if __name__ == "__main__":
    main()
