"""What do the canaries cost? Loading an adapter onto a base that is there, with and without computing them again.

    python benchmarks/canary_cost.py --adapter runs/sms/adapters/lora      # as often as you like

Both loads check the digest; one then computes the seven fixed sentences, one text at a time, in fp32. The sides run in
turn, in shuffled order. An adapter adds or replaces its own entry of the result.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, action="append", help="a folder; as often as you like")
    parser.add_argument("--base", help="the adapters' base; their own by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--quick", action="store_true", help="a tiny base and two blocks: to see that it runs")
    parser.add_argument("--out", type=Path, default=OUT)
    flags = parser.parse_args(arguments)
    from lora_clf.cli.quiet import quiet_third_parties
    from lora_clf.errors import LoraClfError, UsageError

    quiet_third_parties()
    if flags.quick and flags.out.resolve().is_relative_to(RESULTS):
        flags.out = Path("runs") / "quick" / OUT.name
    try:
        with tempfile.TemporaryDirectory() as folder:
            if flags.quick:
                jobs = [_quick(Path(folder))]
            elif not flags.adapter:
                raise UsageError("Give --adapter, or --quick.")
            else:
                jobs = [(place, _base(place, flags)) for place in flags.adapter]
            for place, base in jobs:
                found = measured(place, base, 2 if flags.quick else flags.blocks)
                merge_result(flags.out, place.name, found)
                print(f"{place.name}: the canaries take {1000 * found['canary_seconds']:.0f} ms on {base.name}")
    except LoraClfError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _base(place: Path, flags: argparse.Namespace) -> Base:
    from lora_clf.adapters.adapter import read_header
    from lora_clf.adapters.base_search import find_base
    from lora_clf.base.base import load_base

    return (
        load_base(flags.base, device=flags.device) if flags.base else find_base(read_header(place), device=flags.device)
    )


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
