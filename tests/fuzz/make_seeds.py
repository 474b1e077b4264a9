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

# Settings of runs, and models of each architecture, of which some are as large as is possible.
RUNS = [
    """[model]
name = "mobile_vmoe_small_image_32"
[model.moe]
superclasses = "random"
[data.augment]
policy = "rand-m9-mstd0.5-inc1"
cutmix_share = 0.5
[optim]
name = "sgd"
lr = 1e-3
[train]
epochs = 0.5
seed = 9223372036854775807
""",
    """model.name = "swin_small_image_32"
model.moe = {blocks = "every-2", experts = 1024, k = 16, router = "token"}
ewa = {share_rate = 0.0, schedule = "linear", ramp = 1}
train.device = "cuda:1"
""",
    """[model]
architecture = "cait"
image_size = 255
patch = 1
depth = 1024
dim = 8192
heads = 128
head_dim = 256
mlp_ratio = 4.0
[model.moe]
blocks = "every-1"
experts = 1024
k = 16
router = "token"
""",
]
SMALL = {"image_size": 8, "channels": 1, "classes": 2, "patch": 4, "depth": 1, "dim": 4, "heads": 1}
STAGES = {**SMALL, "depth": 0, "heads": 0, "depths": "1,1", "dim": 2}
MODELS = [
    {**SMALL, "architecture": "vit", "stem.strides": "2,1", "stem.channels": 2, "stem.kernel": 3, "distilled": True},
    {**SMALL, "architecture": "t2t"},
    {**SMALL, "architecture": "cait", "head_dim": 3, "widen.blocks": "0", "widen.times": 2},
    {**SMALL, "architecture": "mobile_vmoe", "depth": 2, "moe.blocks": "final-1", "moe.router": "image",
     "moe.groups": "0,1", "moe.superclasses": "file.toml"},
    {**STAGES, "architecture": "pit", "stage_heads": "1,1"},
    {**STAGES, "architecture": "swin", "stage_heads": "1,1", "window": 2, "patch": 2},
    {**STAGES, "architecture": "rep_vgg", "branches": "3x3,1x1,identity", "patch": 1},
    {**SMALL, "architecture": "point_transformer", "image_size": 1, "patch": 1, "points.count": 16, "points.groups": 4,
     "points.group_size": 4, "points.width": 4},
]


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
        "fuzz_config": [run.encode() for run in RUNS],
        "fuzz_metadata": [json.dumps(model).encode() for model in MODELS],
    }


def main():
    for target, files in seeds().items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(files):
            (folder / f"seed{i}").write_bytes(data)


if __name__ == "__main__":
    main()
