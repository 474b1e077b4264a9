"""PyTorch's side of the benchmark: the same models and steps, as well as PyTorch does them.

    python3 bench/torch_step.py --model vit32 --mode train --batch 128 --threads 2 --steps 10

prints one JSON line. With --serve it builds and warms up once, then answers each line of stdin with one line:
"step" the milliseconds of one step, "rss" the peak memory in MB, "info" the settings as JSON; end of file ends it. So a
benchmark of another program can interleave its own steps with these.

A training step is forward, label-smoothed cross-entropy, backward and AdamW on one fixed batch, without dropout or
drop-path; --moe makes experts of the MLPs of every second block, under a random uniform partition of the token rows,
and averages them after each step.
Inference is the forward pass alone. Runs with PyTorch 1.13 and with today's, and uses what each offers: from 2.0 on
scaled_dot_product_attention, and the optimizer's fused loop where the device has one. On a card (--device cuda) --dtype
bf16 is autocast, images lie channels last, and compiled steps are CUDA graphs (mode "reduce-overhead").
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time

MODELS = {
    "vit32": dict(image=32, patch=4, dim=192, depth=9, heads=12, mlp_ratio=2, classes=100, qkv_bias=False),
    "vit_tiny_224": dict(image=224, patch=16, dim=192, depth=12, heads=3, mlp_ratio=4, classes=1000, qkv_bias=True),
    "vit_small_224": dict(image=224, patch=16, dim=384, depth=12, heads=6, mlp_ratio=4, classes=1000, qkv_bias=True),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description="Times PyTorch's training or inference step of a ViT.")
    parser.add_argument("--model", choices=MODELS, default="vit32")
    parser.add_argument("--mode", choices=("train", "infer"), default="train")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("f32", "tf32", "bf16"), default="f32", help="of a card's products")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument(
        "--burst", type=int, help="runs per timed step (default 10 on a card or to infer one image, else 1)"
    )
    parser.add_argument("--moe", action="store_true", help="experts in every second block, averaged after each step")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--compile", action="store_true", help="torch.compile (PyTorch 2; needs a C++ compiler)")
    parser.add_argument("--serve", action="store_true", help="answer commands on stdin instead of running --steps")
    args = parser.parse_args()
    if args.moe and args.mode == "infer":
        parser.error("--moe trains only: averaged, the model is the plain ViT; time that")
    if args.moe and args.experts < 2:
        parser.error("--moe needs at least two experts")
    tokens = (MODELS[args.model]["image"] // MODELS[args.model]["patch"]) ** 2 + 1
    if args.moe and args.batch * tokens % args.experts:
        parser.error(f"--moe: {args.batch} x {tokens} token rows do not divide by {args.experts} experts")
    if args.burst is None:
        args.burst = 10 if args.device == "cuda" or args.mode == "infer" and args.batch == 1 else 1
    if args.device == "cpu" and args.dtype != "f32":
        parser.error("--dtype is for a card; the CPU's steps are f32")
    return args


ARGS = parse_arguments()
# The BLAS under PyTorch may have a thread pool of its own, which reads its size when it is loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(ARGS.threads)

import torch
import torch.nn.functional as F
from torch import nn

SHARE_RATE = 0.3
LABEL_SMOOTHING = 0.1
HAS_SDPA = hasattr(F, "scaled_dot_product_attention")


class Attention(nn.Module):
    def __init__(self, dim, heads, qkv_bias):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if HAS_SDPA:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class RandomPartitionMoe(nn.Module):
    """A fresh permutation of all B*N rows, one part per expert; stacked weights, one batched GEMM a layer."""

    def __init__(self, dim, hidden, experts):
        super().__init__()
        mlps = [Mlp(dim, hidden) for _ in range(experts)]
        self.fc1_weight = nn.Parameter(torch.stack([mlp.fc1.weight.data for mlp in mlps]))
        self.fc1_bias = nn.Parameter(torch.stack([mlp.fc1.bias.data for mlp in mlps]))
        self.fc2_weight = nn.Parameter(torch.stack([mlp.fc2.weight.data for mlp in mlps]))
        self.fc2_bias = nn.Parameter(torch.stack([mlp.fc2.bias.data for mlp in mlps]))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        experts = len(self.fc1_weight)
        order = torch.randperm(len(rows), device=x.device)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(rows), device=x.device)
        parts = rows[order].view(experts, -1, x.shape[-1])
        hidden = F.gelu(torch.baddbmm(self.fc1_bias.unsqueeze(1), parts, self.fc1_weight.transpose(1, 2)))
        out = torch.baddbmm(self.fc2_bias.unsqueeze(1), hidden, self.fc2_weight.transpose(1, 2))
        return out.view(rows.shape)[inverse].view(x.shape)

    @torch.no_grad()
    def average(self, share_rate):
        """(1-b) W_i + b/(E-1) sum_{j != i} W_j = W_i + g (mean - W_i), g = b E/(E-1)."""
        for weight in self.parameters():
            experts = len(weight)
            weight.lerp_(weight.mean(0, keepdim=True), share_rate * experts / (experts - 1))


class Block(nn.Module):
    def __init__(self, dim, heads, hidden, qkv_bias, experts):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, qkv_bias)
        self.mlp = RandomPartitionMoe(dim, hidden, experts) if experts else Mlp(dim, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, image, patch, dim, depth, heads, mlp_ratio, classes, qkv_bias, experts=0):
        super().__init__()
        tokens = (image // patch) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.blocks = nn.Sequential(
            *[Block(dim, heads, dim * mlp_ratio, qkv_bias, experts if i % 2 == 1 else 0) for i in range(depth)]
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x)[:, 0]))


def adamw(model):
    """timm's groups. Returns the optimizer and the name of its loop."""
    decayed, plain = [], []
    for name, p in model.named_parameters():
        no_decay = p.dim() <= 1 or name.endswith("bias") or name in ("cls_token", "pos_embed")
        (plain if no_decay else decayed).append(p)
    for loop in ("fused", "foreach"):
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        try:
            return torch.optim.AdamW(groups, lr=1e-3, **{loop: True}), loop
        except (TypeError, RuntimeError):
            continue
    sys.exit("torch_step: this PyTorch's AdamW has neither a fused nor a foreach loop; use 1.12 or later")


def make_step(args):
    """A function that runs one step, and what it was made of."""
    model = Vit(**MODELS[args.model], experts=args.experts if args.moe else 0).to(args.device)
    shape = (args.batch, 3, MODELS[args.model]["image"], MODELS[args.model]["image"])
    images = torch.randn(shape, device=args.device)
    labels = torch.randint(MODELS[args.model]["classes"], (args.batch,), device=args.device)
    notes = {"attention": "sdpa" if HAS_SDPA else "matmul+softmax", "compiled": args.compile}
    precision = contextlib.nullcontext
    if args.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.dtype != "f32"
        model, images = (x.to(memory_format=torch.channels_last) for x in (model, images))
        if args.dtype == "bf16":
            precision = lambda: torch.autocast("cuda", torch.bfloat16)
    forward = model
    if args.compile:
        forward = torch.compile(model, mode="reduce-overhead" if args.device == "cuda" else None)

    if args.mode == "infer":
        model.eval()

        def infer():
            with torch.inference_mode(), precision():
                forward(images)

        return infer, notes

    optimizer, notes["adamw"] = adamw(model)
    moes = [module for module in model.modules() if isinstance(module, RandomPartitionMoe)]

    def train():
        optimizer.zero_grad(set_to_none=True)
        with precision():
            loss = F.cross_entropy(forward(images), labels, label_smoothing=LABEL_SMOOTHING)
        loss.backward()
        optimizer.step()
        for moe in moes:
            moe.average(SHARE_RATE)

    return train, notes


def blas():
    """The library that multiplies the matrices, as far as it can be told."""
    if torch.backends.mkl.is_available():
        return "mkl"
    with open("/proc/self/maps") as maps:
        loaded = maps.read()
    for name in ("openblas", "blis", "atlas"):
        if name in loaded:
            return name
    return "reference" if "/libblas.so" in loaded else "built in"


def timed(step, burst):
    """Milliseconds of one step, the mean of `burst` in a row."""
    start = time.perf_counter()
    for _ in range(burst):
        step()
    if ARGS.device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3 / burst


def peak_rss_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(step, burst, info):
    for line in sys.stdin:
        command = line.strip()
        if command == "step":
            print(f"{timed(step, burst):.4f}", flush=True)
        elif command == "rss":
            print(f"{peak_rss_mb():.1f}", flush=True)
        elif command == "info":
            print(json.dumps(info), flush=True)
        else:
            sys.exit(f"torch_step: unknown command {command!r}; use step, rss or info")


def main():
    args = ARGS
    torch.set_num_threads(args.threads)
    if args.device == "cpu" and blas() == "reference":
        sys.exit(
            "torch_step: this PyTorch runs on the reference BLAS, many times slower than it could be, and a "
            "comparison with it would be worthless; install OpenBLAS (Debian: libopenblas0-openmp)"
        )
    torch.manual_seed(0)
    step, notes = make_step(args)
    for _ in range(args.warmup):
        timed(step, args.burst)
    info = {"torch": torch.__version__, "model": args.model, "mode": args.mode, "batch": args.batch}
    info.update(blas="cublas" if args.device == "cuda" else blas(), device=args.device, dtype=args.dtype)
    info.update(threads=args.threads, experts=args.experts if args.moe else 0, burst=args.burst, **notes)
    if args.serve:
        return serve(step, args.burst, info)
    ms = [timed(step, args.burst) for _ in range(args.steps)]
    info.update(ms=[round(value, 3) for value in ms], images_per_s=round(args.batch * 1e3 / statistics.median(ms), 2))
    print(json.dumps({**info, "peak_rss_mb": round(peak_rss_mb(), 1)}))


if __name__ == "__main__":
    main()
