"""How fast are this machine's matrix products in each precision? The table from which --precision auto decides.

    python benchmarks/precision.py            # adds this machine to results/precision.json
    python benchmarks/precision.py --table    # prints what is there and measures nothing

The shapes are those of the jobs: 128 to 2,048 rows of tokens through the linear layers of MiniLM (384 wide) and of
GPT-2 small (768 wide). On a CPU the same is done with oneDNN held to older instruction sets: what a processor would do
that has no native bf16. Every number is the best of several runs, in GFLOP/s.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import script
from paired import RESULTS, in_child, merge_result, provenance, short, synchronise

if TYPE_CHECKING:
    import torch
    from flops import Shape

OUT = RESULTS / "precision.json"
ROWS = (128, 512, 2048)
LAYERS = ((384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768))
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# What oneDNN may use at most; None is all that there is.
CAPS = (None, "AVX512_CORE", "AVX2")
SECONDS = 0.2  # of runs a shape and precision
SLOWEST = 5.0  # seconds after which one run is enough


def rate(
    rows: int,
    inputs: int,
    outputs: int,
    precision: str,
    device: torch.device | str = "cpu",
    seconds: float = SECONDS,
    slowest: float = SLOWEST,
) -> float:
    """FLOP/s of (rows, inputs) times (inputs, outputs) as the engine multiplies them, the best of several runs."""
    import torch

    from lora_clf.inference.products import linear

    where = torch.device(device)
    dtype = getattr(torch, DTYPES[precision])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator).to(where, dtype)
    weight = torch.randn(outputs, inputs, generator=generator).to(where, dtype)
    taken: list[float] = []
    with torch.inference_mode():
        # The first run builds kernels; it counts only where it is so slow that another would tell nothing.
        while len(taken) < 4 or sum(taken[1:]) < seconds:
            synchronise(where)
            started = time.perf_counter()
            linear(x, weight, None)
            synchronise(where)
            taken.append(time.perf_counter() - started)
            if taken[-1] > slowest:
                break
    return 2 * rows * inputs * outputs / min(taken[1:] or taken)


def best_rate(shape: Shape, precision: str, device: torch.device) -> float:
    """FLOP/s of the fastest of a base's linear layers, over 1,024 tokens."""
    width, inner = shape.width, shape.inner
    return max(rate(1024, *sides, precision, device) for sides in ((width, width), (width, inner), (inner, width)))


def measured(device: str, rows: Sequence[int] = ROWS, seconds: float = SECONDS) -> dict[str, Any]:
    """GFLOP/s of every shape in every precision, and what fp32 takes relative to each, over all shapes alike."""
    shapes = []
    for inputs, outputs in LAYERS:
        for count in rows:
            found = {name: rate(count, inputs, outputs, name, device, seconds) / 1e9 for name in DTYPES}
            shapes.append(
                {"rows": count, "inputs": inputs, "outputs": outputs} | {k: short(v, 3) for k, v in found.items()}
            )
    over = {
        name: short(math.exp(sum(math.log(s[name] / s["fp32"]) for s in shapes) / len(shapes)), 3)
        for name in DTYPES
        if name != "fp32"
    }
    return {"gflops": shapes, "times_fp32": over, "flags": flags()}


def flags() -> list[str]:
    """What this CPU can do, by the names of `torch.cpu`."""
    import torch

    asked = ("avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_fp16")
    return [name for name in asked if getattr(torch.cpu, f"_is_{name}_supported", bool)()]


def key_of(facts: dict[str, Any], cap: str | None) -> str:
    """What a machine is called in the file: its kind, never its name."""
    machine = facts["machine"]
    kind = machine.get("accelerator") or f"{platform.machine()} {' '.join(flags())}".strip()
    return f"{kind}, {machine['threads']} threads" + (f", oneDNN up to {cap}" if cap else "")


def table(results: dict[str, Any]) -> str:
    """The file as a table: GFLOP/s of the largest number of rows, and times fp32 over all shapes."""
    from lora_clf.reports.table import markdown_table

    lines = []
    for name, value in sorted(results.items()):
        shapes = [s for s in value["gflops"] if s["rows"] == max(s["rows"] for s in value["gflops"])]
        for width in (384, 768):
            chosen = [s for s in shapes if min(s["inputs"], s["outputs"]) == width]
            if chosen:
                cells = [f"{min(s[p] for s in chosen):,.0f} to {max(s[p] for s in chosen):,.0f}" for p in DTYPES]
                over = value["times_fp32"]
                lines.append([name, str(width), *cells, f"{over['bf16']:g}", f"{over['fp16']:g}"])
    headings = ["machine", "width", *(f"{p} GFLOP/s" for p in DTYPES), "bf16 over fp32", "fp16 over fp32"]
    return markdown_table(headings, lines, [True] + [False] * (len(headings) - 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure this machine, or print the table; the exit status."""
    parser = script.parser(__doc__, "device", "quick", "table", out=OUT)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    return script.run(parsed, lambda folder: measure(parsed), table)


def measure(parsed: argparse.Namespace) -> None:
    """Measure in children, one for each of `CAPS`, and add each to the result; or be such a child."""
    from lora_clf.base.base import pick_device

    device = pick_device(parsed.device)
    rows, seconds = ((8,), 0.0) if parsed.quick else (ROWS, SECONDS)
    if parsed.child:
        print(json.dumps(measured(device.type, rows, seconds)))
        return
    facts = provenance(device)
    found = {}
    # Other chips have no such instruction sets, and an accelerator does not ask the CPU.
    caps = CAPS if device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64") else (None,)
    for cap in caps:
        environment = {"ONEDNN_MAX_CPU_ISA": cap} if cap else {}
        flags_of_child = ["--child", "--device", device.type, *(["--quick"] if parsed.quick else [])]
        value = in_child(Path(__file__), flags_of_child, environment=environment)
        found[key_of(facts, cap)] = {**value, "onednn_cap": cap, "provenance": facts}
        print(f"{key_of(facts, cap)}: bf16 {value['times_fp32']['bf16']:g} times fp32", file=sys.stderr, flush=True)
    print(table(found))
    for name, value in found.items():
        merge_result(parsed.out, name, value)
    print(f"Written: {os.path.relpath(parsed.out)}")


if __name__ == "__main__":
    sys.exit(main())
