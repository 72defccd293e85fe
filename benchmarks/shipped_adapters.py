"""Trains the adapters that ship in adapters/, by the commands that a user would type.

    python benchmarks/trec_table.py train.label --out runs/trec-train.csv
    python benchmarks/trec_table.py test.label --out runs/trec-test.csv
    python benchmarks/shipped_adapters.py --trec-train runs/trec-train.csv --trec-test runs/trec-test.csv

Each is saved in bf16 where its file then gets the same accuracy on validation and test as in training, else in fp32.
What `full` trained is 90 MB: shipped is the LoRA of rank 16 nearest to it, its scores recorded as its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import script

HOME = Path(__file__).resolve().parents[1] / "adapters"
SMS = ("head-only", "last-block", "full", "lora", "lora-scratch")
TREC = ("head-only", "lora")
EXTRACTED = {"full": 16}


def main() -> None:
    """Train and save each adapter that is not there yet."""
    parser = script.parser(__doc__)
    parser.add_argument("--sms", default="sms-spam", help="the SMS Spam Collection's file, if it is not to be fetched")
    parser.add_argument("--trec-train", required=True)
    parser.add_argument("--trec-test", required=True)
    parser.add_argument("--out", type=Path, default=HOME)
    parser.add_argument("--quick", action="store_true", help="one epoch: to see that it runs")
    flags = parser.parse_args()
    more = ("--epochs", "1") if flags.quick else ()
    if flags.quick and flags.out == HOME:
        flags.out = Path("runs") / "quick" / HOME.name
    sms = ("--data", flags.sms)
    trec = ("--data", flags.trec_train, "--test-file", flags.trec_test)
    for task, strategies, data in (("sms-spam", SMS, sms), ("trec", TREC, trec)):
        for strategy in strategies:
            place = flags.out / f"{task}-{strategy}"
            if not place.exists():
                ship(strategy, data, place, more)


def ship(strategy: str, data: tuple[str, ...], place: Path, more: tuple[str, ...]) -> None:
    """Train one adapter and leave it in ``place``."""
    with tempfile.TemporaryDirectory() as temporary:
        trained = Path(temporary) / place.name
        cli("train", "--strategy", strategy, *data, "--out", str(trained), *more)
        if strategy in EXTRACTED:
            extracted = Path(temporary) / "extracted"
            rank = str(EXTRACTED[strategy])
            cli("adapters", "extract", str(trained), "--rank", rank, *data, "--out", str(extracted))
            trained = extracted
        small = Path(temporary) / "bf16"
        halve(trained, small)
        same = accuracies(small, data) == accuracies(trained, data)
        shutil.copytree(small if same else trained, place)
        print(f"{place.name}: {'bf16' if same else 'fp32'}, {accuracies(place, data)}", file=sys.stderr)


def halve(adapter: Path, out: Path) -> None:
    """The same adapter in bf16."""
    from lora_clf.adapters.adapter import load_adapter
    from lora_clf.base.base import load_base

    load_adapter(adapter, load_base("minilm")).save(out, dtype="bf16")


def accuracies(adapter: Path, data: tuple[str, ...]) -> dict[str, float]:
    """The accuracy on validation and test, computed now."""
    found = cli("evaluate", str(adapter), *data, "--json")
    return {part: found[part]["accuracy"] for part in ("validation", "test")}


def cli(*arguments: str) -> Any:
    """Run a command of lora-clf; what it printed, where that is JSON."""
    done = subprocess.run([sys.executable, "-m", "lora_clf", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if "--json" in arguments else None


if __name__ == "__main__":
    main()
