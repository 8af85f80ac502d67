"""Ours beside PyTorch on the same shapes, in one run: prints a table and writes it to a file.

    python bench/peers/compare.py --rounds 5 --seconds 4
    python bench/peers/compare.py --work nano-dmp --rounds 2 --seconds 1 --out target/peers.md
    python bench/peers/compare.py --device cuda:0 --rounds 3 --out bench/RESULTS-cuda.md
"""

import argparse
import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import rounds
import work as works
from bars import BARS, MEMORY

ROOT = Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", action="append", choices=list(BARS), help="repeat for several [default: those worth timing on the device]")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of ours and of each peer (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="least length of a round (default: 4)")
    parser.add_argument("--runner", type=Path, default=ROOT / "target/release/runner")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/RESULTS.md")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N, for ours and for the peers (default: cpu)")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if not options.runner.exists():
        parser.error(f"no runner at {options.runner}; `cargo build --release --package runner` makes one")
    load = os.getloadavg()[0]
    results = []
    for work in options.work or usual(options.device):
        results.append(rounds.compare(options.runner, work, options.rounds, options.seconds, options.device))
    text = page(results, options, load)
    options.out.write_text(text)
    print(text)


def usual(device: str) -> list[str]:
    """What `runner bench` times there where nobody asks for a work by name."""
    small = ("s2-", "frechet")
    paper = ("b2-", "l2-", "xl2-")
    return [work for work in BARS if not work.startswith(paper if device == "cpu" else small)]


def page(results: list[rounds.Comparison], options, load: float) -> str:
    parts = [
        "# Ours beside PyTorch\n",
        f"Written by `{'just bench-peers' if options.device == 'cpu' else '.ci/gpu peers'}`; how it is measured: "
        "[peers/README.md](peers/README.md).\n",
        machine(options, load) + "\n",
        table(results),
    ]
    titles = [f"- `{r.work}`: {r.ours[0]['title']}" for r in results]
    parts += ["\n".join(titles) + "\n", memory(results)]
    return "\n".join(part for part in parts if part)


def machine(options, load: float) -> str:
    """What was measured, on what, when. No names of machines."""
    version = lambda package: f"{package} {importlib.metadata.version(package)}"  # noqa: E731
    said = lambda *command: subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()  # noqa: E731
    dirty = ", with changes" if said("git", "status", "--porcelain", "crates") else ""
    lines = [
        f"- {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"load before the run {load:.1f}",
        f"- {said(options.runner, '--version')} at {said('git', 'rev-parse', '--short', 'HEAD')}{dirty}, "
        f"{said('rustc', '--version')}",
        f"- Python {platform.python_version()}, {version('torch')}, {version('numpy')}, {version('scipy')}",
        *([f"- {torch.cuda.get_device_name(options.device)}, CUDA {torch.version.cuda}; ours in bf16, strong peers under "
           "autocast to bf16, as released in f32 with TF32"] if options.device != "cpu" else []),
        f"- medians over {options.rounds} rounds of at least {options.seconds:g} s each, ours and all peers alternating; "
        "milliseconds of a step, of a batch of samples, of a distance",
    ]
    return "\n".join(lines)


def processor() -> str:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def table(results: list[rounds.Comparison]) -> str:
    """One row a work and peer; the strongest peer's ratio is the one that counts."""
    lines = [
        "| work | program | ms | ratio | share of peak | bar | |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for r in results:
        share, strongest, bar = r.middle("share_of_peak"), r.strongest(), BARS[r.work]
        met = bar.met(r.ratio(strongest), share, r.middle("step_ms") / 1e3)
        floor = f"floor {number(r.middle('floor_ms'))}"
        lines.append(f"| `{r.work}` | **ours** ({floor}) | {number(r.middle('step_ms'))} | | {share:.1%} | {bar} | "
                     f"{'met' if met else 'not met'} |")
        for variant, title in works.variants(r.work).items():
            mark = "**" if variant == strongest else ""
            lines.append(f"| | {title} | {number(r.peer(variant))} | {mark}{r.ratio(variant):.2f}x{mark} | "
                         f"{share / r.ratio(variant):.1%} | | |")
    return "\n".join(lines) + "\n"


def memory(results: list[rounds.Comparison]) -> str:
    lines = []
    for r in results:
        step, counted = r.ours[0]["step_bytes"], r.ours[0]["activation_bytes"]
        if step and counted:
            share = step / counted
            lines.append(f"- `{r.work}` takes {step / 1e6:.0f} MB a step, {share:.2f} of the {counted / 1e6:.0f} MB of "
                         f"activations counted for it (bar: <= {MEMORY}, {'met' if share <= MEMORY else 'not met'})")
    return "\n".join(lines) + "\n" if lines else ""


def number(ms: float) -> str:
    return f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


if __name__ == "__main__":
    main()
