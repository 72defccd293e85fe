"""What do the canaries cost? Loading an adapter onto a base that is there, with and without computing them again.

    python benchmarks/canary_cost.py --adapter runs/sms/adapters/lora      # as often as you like

Both loads check the digest; one then computes the seven fixed sentences, one text at a time, in fp32. The sides run in
turn, in shuffled order. An adapter adds or replaces its own entry of the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import script
from paired import BLOCKS, RESULTS, interleave, merge_result, provenance, ratio, synchronise, timed

if TYPE_CHECKING:
    from lora_clf.base.base import Base

OUT = RESULTS / "canary_cost.json"


def measured(place: Path, base: Base, blocks: int) -> dict[str, Any]:
    """Seconds of both loads of the adapter in ``place``, and what the canaries are made of."""
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.canary import SENTENCES

    def load(verify: bool) -> None:
        load_adapter(place, base, verify=verify)
        synchronise(base.device)

    header = load_adapter(place, base, verify=True).header  # warm
    found = interleave({"plain": timed(lambda: load(False)), "verified": timed(lambda: load(True))}, blocks)
    plain, verified = ([block[side] for block in found] for side in ("plain", "verified"))
    tokens = base.tokenizer.encode(list(SENTENCES.values()), header.max_length).lengths
    return {
        "base": base.name,
        "strategy": header.strategy,
        "sentences": len(tokens),
        "tokens": int(tokens.sum()),
        "seconds": {"plain": median(plain), "verified": median(verified)},
        "canary_seconds": median(b - a for a, b in zip(plain, verified, strict=True)),
        "ratio": ratio(verified, plain).as_dict(),
        "provenance": provenance(base.device),
    }


def table(value: dict[str, Any]) -> str:
    """The file as a table."""
    from lora_clf.reports.table import markdown_table

    rows = [
        [
            name,
            each["base"],
            str(each["tokens"]),
            f"{1000 * each['seconds']['plain']:.1f}",
            f"{1000 * each['seconds']['verified']:.1f}",
            f"{1000 * each['canary_seconds']:.0f}",
        ]
        for name, each in sorted(value.items())
    ]
    headings = ["adapter", "base", "tokens of the canaries", "load, ms", "load and canaries, ms", "canaries, ms"]
    return markdown_table(headings, rows, [True, True] + [False] * (len(headings) - 2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the adapters that the flags name; the exit status."""
    parser = script.parser(__doc__, "adapter", "device", "quick", out=OUT, device="cpu")
    parser.add_argument("--base", help="the adapters' base; their own by default")
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    flags = parser.parse_args(arguments)
    return script.run(flags, lambda folder: measure(flags, folder))


def measure(flags: argparse.Namespace, folder: Path) -> None:
    """Time each adapter and put it into the result.

    Raises:
        UsageError: no adapter is named.
    """
    from lora_clf.errors import UsageError

    if flags.quick:
        jobs = [_quick(folder)]
    elif not flags.adapter:
        raise UsageError("Give --adapter, or --quick.")
    else:
        jobs = [(place, script.base_of(place, flags)) for place in flags.adapter]
    for place, base in jobs:
        found = measured(place, base, 2 if flags.quick else flags.blocks)
        merge_result(flags.out, place.name, found)
        print(f"{place.name}: the canaries take {1000 * found['canary_seconds']:.0f} ms on {base.name}")


def _quick(folder: Path) -> tuple[Path, Base]:
    from quick import quick_base, quick_data

    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    base = quick_base("bert", folder)
    result = train(base, quick_data(train=32, validation=8), create("head-only"), TrainSettings(precision="fp32"))
    return result.save(folder / "quick"), base


if __name__ == "__main__":
    sys.exit(main())
