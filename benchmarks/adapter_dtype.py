"""What does saving an adapter in bf16 change? Every text of a table, labelled with the fp32 file and with the bf16 one.

    python benchmarks/adapter_dtype.py --adapter runs/sms/adapters/lora --data SMSSpamCollection

Each adapter is saved again in bf16, loaded from there, and asked the same texts in fp32. Counted are the texts whose
label changes, from right to wrong and from wrong to right; the difference of both is the net change. Predictions are
computed in fp32 either way, so the file is all that differs. An adapter adds or replaces its own entry of the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import script
from paired import RESULTS, merge_result, provenance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.adapters.adapter import Adapter
    from lora_clf.data.corpus import Part

OUT = RESULTS / "adapter_dtype.json"


def compared(adapter: Adapter, part: Part, folder: Path) -> dict[str, Any]:
    """The flips between ``adapter`` and itself in bf16, saved under ``folder``, over the texts of ``part``.

    Raises:
        UsageError: the adapter is in bf16 already.
    """
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.adapters.file import MODEL
    from lora_clf.errors import UsageError

    if {entry.dtype for entry in adapter.header.tensors} - {"F32"}:
        raise UsageError("The adapter is not in fp32: give the one that was trained, without --adapter-dtype bf16.")
    numbers = {label: number for number, label in enumerate(adapter.labels)}
    truth = np.array([numbers[label] for label in part.labels])
    before = (adapter.save(folder / "fp32") / MODEL).stat().st_size
    shares = [_shares(adapter, part)]
    after = (adapter.save(folder / "bf16", dtype="bf16") / MODEL).stat().st_size
    shares.append(_shares(load_adapter(folder / "bf16", adapter.base, verify=True), part))
    labels = [share.argmax(axis=1) for share in shares]
    right = [found == truth for found in labels]
    lost, won = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    return {
        "strategy": adapter.header.strategy,
        "settings": dict(adapter.header.settings),
        "base": adapter.base.name,
        "texts": len(truth),
        "flips": int((labels[0] != labels[1]).sum()),
        "right_to_wrong": lost,
        "wrong_to_right": won,
        "net_share": abs(lost - won) / len(truth),
        "accuracy": {"fp32": float(right[0].mean()), "bf16": float(right[1].mean())},
        "largest_change_of_a_probability": float(np.abs(shares[0] - shares[1]).max()),
        "flipped_rows": [int(part.rows[row]) for row in np.flatnonzero(labels[0] != labels[1])],
        "bytes": {"fp32": before, "bf16": after},
        "size_ratio": after / before,
    }


def _shares(adapter: Adapter, part: Part) -> NDArray[np.float64]:
    """The probabilities of every text: (N, C)."""
    return np.array(
        [[answer.probabilities[label] for label in adapter.labels] for answer in adapter.predict(part.texts)]
    )


def table(value: dict[str, Any]) -> str:
    """The file as a table."""
    from lora_clf.reports.table import markdown_table, size_text

    rows = [
        [
            name,
            f"{each['texts']:,}",
            size_text(each["bytes"]["fp32"]),
            size_text(each["bytes"]["bf16"]),
            str(each["right_to_wrong"]),
            str(each["wrong_to_right"]),
            f"{100 * each['net_share']:.3f}",
            f"{each['largest_change_of_a_probability']:.4f}",
        ]
        for name, each in sorted(value.items())
    ]
    headings = ["adapter", "texts", "fp32", "bf16", "right to wrong", "wrong to right", "net %", "largest change"]
    return markdown_table(headings, rows, [True] + [False] * (len(headings) - 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the adapters that the flags name; the exit status."""
    parser = script.parser(__doc__, "adapter", "device", "quick", out=OUT, device="cpu")
    parser.add_argument("--data", help="sms-spam, or the path of a table; every row of it is labelled")
    parser.add_argument("--base", help="the adapters' base; their own by default")
    flags = parser.parse_args(arguments)
    return script.run(flags, lambda folder: measure(flags, folder))


def measure(flags: argparse.Namespace, folder: Path) -> None:
    """Compare each adapter with itself and put it into the result.

    Raises:
        UsageError: an adapter or data is missing.
    """
    from lora_clf.errors import UsageError

    if flags.quick:
        measured = {"quick": _quick(folder)}
    elif not (flags.adapter and flags.data):
        raise UsageError("Give --adapter and --data, or --quick.")
    else:
        measured = {place.name: _measured(place, flags, folder / str(n)) for n, place in enumerate(flags.adapter)}
    for name, found in measured.items():
        merge_result(flags.out, name, {**found, "provenance": provenance(flags.device)})
        print(
            f"{name}: {found['flips']} of {found['texts']:,} labels change, net {100 * found['net_share']:.3f} %, "
            f"{found['size_ratio']:.2f} of the size"
        )


def _measured(place: Path, flags: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.data.dataset import load_table

    adapter = load_adapter(place, script.base_of(place, flags), verify=True)
    return {**compared(adapter, load_table(flags.data), folder), "adapter_digest": adapter.header.digest}


def _quick(folder: Path) -> dict[str, Any]:
    from quick import quick_base, quick_data

    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    data = quick_data(train=64, validation=16)
    base = quick_base("bert", folder)
    result = train(base, data, create("lora-scratch", rank=2), TrainSettings(epochs=1, precision="fp32"))
    return compared(result.adapter, data.train, folder)


if __name__ == "__main__":
    sys.exit(main())
