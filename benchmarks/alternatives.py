"""Which ways of doing the same are faster here? The log of what did not help, as pairs that anybody can time again.

    python benchmarks/alternatives.py            # writes results/alternatives.json
    python benchmarks/alternatives.py --table    # prints what is there and measures nothing

Where a pair says nothing else it does the same work at the sizes of a training step on MiniLM: 16 texts of 40 tokens,
384 wide, 12 heads. The ratio is what the way not taken costs beside the one taken: above 1 the engine is right.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import script
from paired import RESULTS, interleave, provenance, ratio, write_json

if TYPE_CHECKING:
    from lora_clf.base.base import Base

OUT = RESULTS / "alternatives.json"
TEXTS, TOKENS, WIDTH, HEADS, RANK = 16, 40, 384, 12, 16
Work = Callable[[], object]


class Pair(NamedTuple):
    """Two ways of doing the same.

    Attributes:
        taken, other: what the engine does, and what it might do instead, in words.
        one, two: the same as work.
        why: the reason for the way taken, where it is not its speed.
    """

    taken: str
    other: str
    one: Work
    two: Work
    why: str = ""


def parts() -> dict[str, Pair]:
    """Parts of a block."""
    import torch
    from torch.nn import functional as F

    from lora_clf.inference.encoder_block import _softmax
    from lora_clf.inference.products import linear, onednn, packed

    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    rows = TEXTS * TOKENS
    inner, scores = drawn(rows, 4 * WIDTH), drawn(TEXTS * HEADS, TOKENS, TOKENS)
    long = drawn(4 * HEADS, 6 * TOKENS, 6 * TOKENS)
    q, k, v = (drawn(TEXTS, HEADS, TOKENS, WIDTH // HEADS) for _ in range(3))
    x, dy, thin = drawn(rows, WIDTH), drawn(rows, 4 * WIDTH), drawn(rows, RANK)
    weights = [drawn(WIDTH, WIDTH) for _ in range(3)]
    joined = torch.cat(weights)
    scale = (WIDTH // HEADS) ** -0.5
    a, up = drawn(RANK, WIDTH), drawn(4 * WIDTH, WIDTH)
    stacked, bias = torch.cat([up, a]), drawn(4 * WIDTH)
    whole = tuple(each.float() for each in (x, up, bias))
    found = {
        "softmax": Pair(
            "softmax in fp32, casts included",
            "softmax in bf16",
            lambda: scores.float().softmax(-1).bfloat16(),
            lambda: scores.softmax(-1),
        ),
        "heads": Pair(
            "softmax of 4 texts of 240 tokens, a few heads at a time",
            "all heads at once",
            lambda: _softmax(long.clone()),
            lambda: long.clone().float().softmax(-1).bfloat16(),
            "in fp32 they would be the largest thing in the block: 4 MB in place of 22",
        ),
        "gelu": Pair(
            "gelu by the error function",
            "gelu by tanh",
            lambda: F.gelu(inner),
            lambda: F.gelu(inner, approximate="tanh"),
        ),
        "attention": Pair(
            "attention as two products and a softmax, forward",
            "the fused kernel, forward",
            lambda: ((q @ k.transpose(2, 3)) * scale).float().softmax(-1).bfloat16() @ v,
            lambda: F.scaled_dot_product_attention(q, k, v),
        ),
        "projections": Pair(
            "query, key and value as one product",
            "as three",
            lambda: x @ joined.t(),
            lambda: [x @ weight.t() for weight in weights],
        ),
        "factors": Pair(
            "gradient of B with the thin factor transposed",
            "with the wide one transposed",
            lambda: thin.t() @ dy,
            lambda: dy.t() @ thin,
        ),
        "stacked": Pair(
            "a frozen weight and the thin factor A apart",
            "stacked, as one product",
            lambda: (x @ up.t(), x @ a.t()),
            lambda: x @ stacked.t(),
            "what follows would read rows that do not lie side by side",
        ),
    }
    if onednn() is not None:
        found["fp32"] = Pair(
            "a product of fp32 numbers by oneDNN", "by MKL", lambda: linear(*whole), lambda: F.linear(*whole)
        )
    product = packed(up)
    if product is not None:
        found["packed"] = Pair(
            "a frozen weight laid out for oneDNN beforehand",
            "as it is",
            lambda: product(x, bias),
            lambda: torch.addmm(bias, x, up.t()),
        )
    return found


def steps(base: Base) -> dict[str, Pair]:
    """Whole training passes over the same texts."""
    import torch

    from lora_clf.data.dataset import load_data
    from lora_clf.inference.batches import training_rows
    from lora_clf.inference.runner import Runner
    from lora_clf.tuners.lora_scratch import LoRAScratch

    texts = load_data("demo").train.texts[: 8 * TEXTS]
    tokens = base.encode(texts)

    def side(precision: str, batch_size: int, *, nodes: bool = True, pack: bool = True, strategy: Any = None) -> Work:
        room: Any = import_module("lora_clf.inference.runner")
        kept = room.fuse_blocks

        def fuse(tuned: Any, precision: str, packer: Any, longest: int, *, last: bool) -> int:
            return kept(tuned, precision, packer if pack else None, longest, last=last) if nodes else 0

        room.fuse_blocks = fuse
        try:
            tuned = (strategy or LoRAScratch(rank=RANK)).prepare(base.view(2))
            runner = Runner(base, tuned, precision, {"train": tokens})
        finally:
            room.fuse_blocks = kept
        batches = training_rows(tokens.lengths, batch_size, 0, 0)

        def work() -> None:
            for rows in batches:
                labels = torch.zeros(len(rows), dtype=torch.int64)
                torch.nn.functional.cross_entropy(runner.logits("train", rows, training=True), labels).backward()

        return work

    half = "bf16" if native(base) else "fp32"
    fewer = "the rates were found at 16; a small table has few steps as it is. --batch-size"
    return {
        "nodes": Pair(
            f"LoRA, a block as one autograd node ({half})",
            "the modules' own forward and autograd",
            side(half, 16),
            side(half, 16, nodes=False),
        ),
        "packed-texts": Pair(
            f"LoRA, padding left out ({half})", "computed like any token", side(half, 16), side(half, 16, pack=False)
        ),
        "batch-4": Pair("LoRA, 16 texts a step", "4 texts a step", side(half, 16), side(half, 4)),
        "batch-8": Pair("LoRA, 16 texts a step", "8 texts a step", side(half, 16), side(half, 8)),
        "batch-32": Pair("LoRA, 16 texts a step", "32 texts a step", side(half, 16), side(half, 32), fewer),
        "batch-64": Pair("LoRA, 16 texts a step", "64 texts a step", side(half, 16), side(half, 64), fewer),
    }


def native(base: Base) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    from lora_clf.inference.precision import has_native_bf16

    return has_native_bf16(base.device)


def repeated(work: Work, seconds: float) -> Callable[[], float]:
    """``work`` often enough for ``seconds``, as a side: it returns the seconds of one run."""
    for _ in range(2):
        work()
    started = time.perf_counter()
    work()
    times = max(1, int(seconds / max(time.perf_counter() - started, 1e-6)))

    def side() -> float:
        begun = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begun) / times

    return side


def table(value: dict[str, Any]) -> str:
    """The file as a table."""
    from lora_clf.reports.table import markdown_table

    rows = [
        (
            pair["taken"],
            pair["other"],
            f"{1e3 * pair['seconds']:.3g}",
            f"{pair['ratio']:.2f}",
            f"{pair['low']:.2f} to {pair['high']:.2f}",
            pair["why"],
        )
        for pair in value["pairs"].values()
    ]
    machine = value["provenance"]["machine"]
    where = f"{machine['threads']} threads, {machine['instruction_set']}" if "threads" in machine else ""
    head = ("taken", "instead", "taken, ms", "instead costs", "95 % interval", "why not, where it is faster")
    return markdown_table(head, rows, [True, True, False, False, False, True]) + f"\n{where}.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Time every pair; the exit status."""
    parser = script.parser(__doc__, "quick", "table", out=OUT)
    parser.add_argument("--blocks", type=int, default=7)
    flags = parser.parse_args(arguments)
    return script.run(flags, lambda folder: measure(flags, folder), table)


def measure(flags: argparse.Namespace, folder: Path) -> None:
    """Time every pair, write the result and print it."""
    from quick import quick_base

    from lora_clf.base.base import load_base

    base = quick_base("bert", folder) if flags.quick else load_base("minilm", device="cpu")
    seconds = 0.01 if flags.quick else 0.5
    found: dict[str, Any] = {}
    for name, pair in {**parts(), **steps(base)}.items():
        blocks = interleave({"taken": repeated(pair.one, seconds), "other": repeated(pair.two, seconds)}, flags.blocks)
        costs = ratio([block["other"] for block in blocks], [block["taken"] for block in blocks])
        found[name] = {
            "taken": pair.taken,
            "other": pair.other,
            "why": pair.why,
            "seconds": median(block["taken"] for block in blocks),
            "ratio": costs.median,
            "low": costs.low,
            "high": costs.high,
        }
        print(f"{pair.taken} | {pair.other}: {costs.median:.2f}", file=sys.stderr)
    value = {"pairs": found, "provenance": provenance(base.device)}
    write_json(flags.out, value)
    print(table(value))


if __name__ == "__main__":
    sys.exit(main())
