"""This engine against PyTorch, on the same threads, interleaved in one run.

    python3 bench/compare.py                                  # Debian's PyTorch
    python3 bench/compare.py --torch ~/venv/bin/python3       # another one; may be given several times
    python3 bench/compare.py --device cuda --tessera build-cuda/tessera --torch ~/venv/bin/python3

Both sides build the same model and batch and then answer "step" on a pipe with the milliseconds of one step
(`tessera bench --serve`, torch_step.py --serve). Each round takes one step of every side, in turns forwards and
backwards, so that whatever else the machine does meets all sides alike. Reported are medians, the ratio of medians, and
the quartiles of the rounds' own ratios. Prints Markdown, and writes every single time to a JSON file.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = "tessera"
# Model here, model in torch_step.py, mode, batch.
CPU_CASES = {
    "train-32": ("vit_small_image_32", "vit32", "train", 128),
    "train-224": ("vit_tiny_patch16_224", "vit_tiny_224", "train", 32),
    "infer-32-1": ("vit_small_image_32", "vit32", "infer", 1),
    "infer-32-128": ("vit_small_image_32", "vit32", "infer", 128),
    "infer-224-1": ("vit_tiny_patch16_224", "vit_tiny_224", "infer", 1),
    "infer-224-128": ("vit_tiny_patch16_224", "vit_tiny_224", "infer", 128),
}
CARD_CASES = {
    f"{mode}-{name}-{batch}": (model, torch_model, mode, batch)
    for mode in ("train", "infer")
    for name, model, torch_model, batch in (
        ("32", "vit_small_image_32", "vit32", 128),
        ("32", "vit_small_image_32", "vit32", 1024),
        ("tiny-224", "vit_tiny_patch16_224", "vit_tiny_224", 128),
        ("small-224", "vit_small_patch16_224", "vit_small_224", 128),
    )
}
CASES = CPU_CASES | CARD_CASES
MOE = " RUP+EWA"
SETTLE_SECONDS = 0.05  # threads that wait for more work go to sleep before the next side's turn


def parse_arguments():
    parser = argparse.ArgumentParser(description="Compares training and inference steps with PyTorch's.")
    parser.add_argument("--torch", action="append", metavar="PYTHON", help="interpreter that has PyTorch; repeatable")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile too (PyTorch 2; needs a C++ compiler); on a card always"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("f32", "tf32", "bf16"), help="of a card's products (default bf16)")
    parser.add_argument("--tessera", default=ROOT / "build" / "tessera", type=pathlib.Path, help="the program")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: all of the device")
    parser.add_argument("--json", default=ROOT / "build" / "bench.json", type=pathlib.Path, help="file of all times")
    args = parser.parse_args()
    args.torch = args.torch or ["/usr/bin/python3"]
    on_card = args.device == "cuda"
    args.cases = args.cases or list(CARD_CASES if on_card else CPU_CASES)
    args.compile = args.compile or on_card
    args.dtype = args.dtype or ("bf16" if on_card else "f32")
    return args


class Side:
    """A process that has warmed up and waits for commands."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ms = []
        self.info = json.loads(self.ask("info"))

    def ask(self, question):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"compare: {' '.join(map(str, self.process.args))} ended with {self.process.wait()}")
        return answer

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def torches_of(args):
    """The words that start each PyTorch by its name in the tables: eager and, where wanted, compiled."""
    torches = {}
    for python in args.torch:
        name, command = torch_name(python), [python, ROOT / "bench" / "torch_step.py"]
        torches[name] = command
        if args.compile:
            torches[name + " compiled"] = [*command, "--compile"]
    return torches


def torch_name(python):
    """A name for the table; ends the program where there is no PyTorch."""
    found = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"compare: {python} has no PyTorch (Debian: python3-torch; or name another interpreter by --torch)")
    return "PyTorch " + found.stdout.strip()


def commands(case, args, torches):
    """The command of each side by its name."""
    model, torch_model, mode, batch = CASES[case]
    common = ["--mode", mode, "--batch", batch, "--threads", args.threads, "--device", args.device, "--serve"]
    if args.device == "cuda":
        common += ["--burst", 10, "--warmup", 5]
    sides = {OURS: [args.tessera, "bench", "--model", model, *common, "--set", f"train.dtype={args.dtype}"]}
    for name, command in torches.items():
        sides[name] = [*command, "--model", torch_model, *common, "--dtype", args.dtype]
    if mode == "train":
        dense = dict(sides)
        for name, command in dense.items():
            sides[name + MOE] = [*command, "--moe", *(["every-2"] if name == OURS else [])]
    return sides


def measure(case, args, torches):
    sides = {}
    for name, command in commands(case, args, torches).items():
        sides[name] = Side(command)
    busy_while_idle = stepping = 0.0
    for number in range(args.rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            time.sleep(SETTLE_SECONDS)
            idle = [side for other, side in sides.items() if other != name]
            before, start = sum(side.cpu_seconds() for side in idle), time.perf_counter()
            sides[name].ms.append(float(sides[name].ask("step")))
            stepping += time.perf_counter() - start
            busy_while_idle += sum(side.cpu_seconds() for side in idle) - before
    result = {
        "case": case,
        "sides": {n: {"info": s.info, "ms": s.ms, "peak_rss_mb": float(s.ask("rss"))} for n, s in sides.items()},
        "idle_cpu_share": busy_while_idle / stepping,
    }
    for side in sides.values():
        side.close()
    return result


def start_up(args, torches, rounds=9):
    """Seconds from nothing to a help text, and to an imported PyTorch."""
    sides = {OURS: [args.tessera, "--help"]}
    sides.update({name: [command[0], "-c", "import torch"] for name, command in torches.items()})
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, command in sides.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(over, under):
    """Ratio of medians, with the quartiles of the ratios pair by pair."""
    pairs = sorted(a / b for a, b in zip(over, under))
    low, high = pairs[len(pairs) // 4], pairs[(3 * len(pairs)) // 4]
    return statistics.median(over) / statistics.median(under), low, high


def times_text(over, under):
    return "{:.2f}x ({:.2f} to {:.2f})".format(*ratio(over, under))


def table(head, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|:--" + "|--:" * (len(head) - 1) + "|", *lines[1:]]) + "\n"


def label(case):
    model, _, mode, batch = CASES[case]
    return f"{'training' if mode == 'train' else 'inference'}, {model}, batch {batch}"


def report(result, torches):
    steps, memory, averaging = [], [], []
    for measured in result["cases"]:
        sides, what = measured["sides"], label(measured["case"])
        ms = {name: side["ms"] for name, side in sides.items()}
        cells = [what, f"{statistics.median(ms[OURS]):.1f} ms"]
        for name in torches:
            cells += [f"{statistics.median(ms[name]):.1f} ms", times_text(ms[name], ms[OURS])]
        steps.append(cells)
        if OURS + MOE not in sides:
            continue
        own = sides[OURS]["peak_rss_mb"]
        cells = [what, f"{own:.0f} MB"]
        for name in torches:
            peak = sides[name]["peak_rss_mb"]
            cells += [f"{peak:.0f} MB", f"{peak / own:.1f}x"]
        memory.append(cells)
        over_dense = [ratio(ms[name + MOE], ms[name]) for name in (OURS, *torches)]
        averaging.append(
            [what, *("{:+.1f} % ({:+.1f} to {:+.1f})".format(*((r - 1) * 100 for r in rs)) for rs in over_dense)]
        )
    against = [word for name in torches for word in (name, "ratio")]
    seconds = result["start_up"]
    own = statistics.median(seconds[OURS])
    started = ["`tessera --help`, `import torch`", f"{own * 1e3:.0f} ms"]
    for name in torches:
        other = statistics.median(seconds[name])
        started += [f"{other * 1e3:.0f} ms", f"{other / own:.0f}x"]

    m = result["machine"]
    print(f"{m['date']}, commit {m['commit']}, {m['processor']}, {m['threads']} threads, load {m['load']:.1f} before.")
    if m["device"] != "cpu":
        print(f"Steps on {m['device']}, {m['dtype']}.")
    for name, side in result["cases"][0]["sides"].items():
        if name in torches:
            info = side["info"]
            print(f"{name}: BLAS {info['blas']}, attention {info['attention']}, compiled {info['compiled']}.")
    print(f"Medians of {result['rounds']} interleaved rounds; in brackets the quartiles of the rounds' own ratios.\n")
    print(table(["a step", OURS, *against], steps))
    if memory:
        if m["device"] == "cpu":  # a process's memory, where that of a card does not count
            print(table(["peak memory", OURS, *against], memory))
        print(table(["4 experts in every second block, averaged, over dense", OURS, *torches], averaging))
    print(table(["start-up", OURS, *against], [started]))
    idle = max(measured["idle_cpu_share"] for measured in result["cases"])
    if idle > 0.02:
        print(f"Doubtful: sides that should have slept used {idle:.0%} of a core while another was measured.")


def card(args):
    """The first card, as the program describes it."""
    listed = subprocess.run([args.tessera, "list", "devices"], capture_output=True, text=True, check=True).stdout
    return next((line for line in listed.splitlines() if "cuda:0" in line), "no card").strip()


def machine(args):
    git = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10"], capture_output=True, text=True
    )
    models = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "commit": git.stdout.strip() or "unknown",
        "processor": models[0].partition(":")[2].strip() if models else "unknown processor",
        "threads": args.threads,
        "device": args.device if args.device == "cpu" else card(args),
        "dtype": args.dtype,
        "load": os.getloadavg()[0],
    }


def main():
    args = parse_arguments()
    if not args.tessera.exists():
        sys.exit(f"compare: {args.tessera} is not built; `./run build` builds it")
    torches = torches_of(args)
    result = {"machine": machine(args), "rounds": args.rounds, "cases": []}
    for case in args.cases:
        print(f"compare: {label(case)}", file=sys.stderr, flush=True)
        result["cases"].append(measure(case, args, torches))
    result["start_up"] = start_up(args, torches)
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    report(result, torches)


if __name__ == "__main__":
    main()
