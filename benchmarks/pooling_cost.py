"""What does a family head cost in accuracy against a free one? That is the price of `adapters export` and of PEFT.

    python benchmarks/pooling_cost.py --data SMSSpamCollection          # the book's split, LoRA, 3 seeds
    python benchmarks/pooling_cost.py --quick                           # tiny base, a few messages: that it runs

Each pooling is trained with each seed on the same split and scored on the same test rows; the difference is paired,
with an interval over messages (near copies count as one) and seeds. A run is kept in the result as it ends, and the
same command again does only what is missing. The result holds row numbers and digests, never a message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import script
from kept_runs import kept, runs_of, subject
from paired import RESULTS, write_json

if TYPE_CHECKING:
    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

OUT = RESULTS / "pooling_cost.json"
POOLINGS = ("mean", "family")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; the exit status."""
    parser = script.parser(__doc__, "data", "base", "device", "quick", out=OUT)
    parser.add_argument("--protocol", default="book", help="book, near-copy-free or random")
    parser.add_argument("--strategy", default="lora")
    parser.add_argument("--poolings", default=",".join(POOLINGS), help="the last is compared with the first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="by default as in `lora-clf train`")
    flags = parser.parse_args(arguments)
    return script.run(flags, lambda folder: measure(flags, folder))


def measure(flags: argparse.Namespace, folder: Path) -> None:
    """Run what is missing, write the result after each run, and print it."""
    from lora_clf.tuners import create

    base, data = subject(flags, folder, protocol=flags.protocol)
    settings = {
        "strategy": flags.strategy,
        "lr": create(flags.strategy).learning_rate,
        "epochs": epochs_of(flags),
        "quick": flags.quick,
    }
    found = kept(flags.out, base, data, settings)
    for pooling in flags.poolings.split(","):
        for seed in range(flags.seeds):
            name = f"{pooling}/{seed}"
            if name not in found["runs"]:
                found["runs"][name] = run(base, data, flags, pooling, seed)
                write_json(flags.out, found)
            print(f"{name}: {found['runs'][name]['accuracy']:.4f}", file=sys.stderr, flush=True)
    found["difference"] = difference(found)
    write_json(flags.out, found)
    print(table(found))


def epochs_of(flags: argparse.Namespace) -> int:
    """How often the training part is gone through."""
    from lora_clf.training.settings import TrainSettings

    return 1 if flags.quick else flags.epochs or TrainSettings().epochs


def run(base: Base, data: Dataset, flags: argparse.Namespace, pooling: str, seed: int) -> dict[str, Any]:
    """Train and score once."""
    from lora_clf.training.loop import train
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    settings = TrainSettings(epochs=epochs_of(flags), seed=seed)
    result = train(base, data, create(flags.strategy), settings, pooling=pooling)
    right = result.test_logits.argmax(axis=1) == data.label_ids(data.test)
    return {
        "accuracy": result.test["accuracy"],
        "macro_f1": result.test["macro_f1"],
        "validation_loss": result.validation["loss"],
        "right": [int(each) for each in right],
        "trainable_parameters": result.trainable_parameters,
        "training_seconds": round(result.training_seconds, 2),
    }


def difference(found: Mapping[str, Any]) -> dict[str, float] | None:
    """The last pooling's accuracy minus the first's, paired, with a 95 % interval; None with one pooling."""
    from lora_clf.evaluation.intervals import paired_difference

    names = poolings_of(found)
    if len(names) < 2:
        return None
    sides = [[each["right"] for each in runs_of(found, name)] for name in (names[-1], names[0])]
    shortest = min(map(len, sides))
    one = paired_difference(sides[0][:shortest], sides[1][:shortest], found["groups"])
    return {"value": one.value, "low": one.low, "high": one.high, "seeds": shortest}


def poolings_of(found: Mapping[str, Any]) -> list[str]:
    """The poolings that were run, in the order of `POOLINGS`, others behind."""
    names = dict.fromkeys(name.split("/")[0] for name in found["runs"])
    return sorted(names, key=lambda name: (POOLINGS.index(name) if name in POOLINGS else 99, name))


def table(found: Mapping[str, Any]) -> str:
    """The result as Markdown: a line a pooling, then the difference in words."""
    from lora_clf.evaluation.intervals import mean_spread
    from lora_clf.reports.table import markdown_table

    lines = []
    for name in poolings_of(found):
        runs = runs_of(found, name)
        accuracy, macro = (mean_spread([each[what] for each in runs]) for what in ("accuracy", "macro_f1"))
        spread = "" if accuracy.sd is None else f" ± {100 * accuracy.sd:.1f}"
        cells = (name, f"{100 * accuracy.mean:.1f}{spread}", f"{100 * macro.mean:.1f}", f"{len(runs)}")
        lines.append((*cells, f"{runs[0]['trainable_parameters']:,}"))
    text = markdown_table(
        ["pooling", "accuracy %", "macro-F1 %", "seeds", "trainable"], lines, [True] + 4 * [False]
    ).rstrip("\n")
    names, gap = poolings_of(found), found.get("difference")
    if gap:
        text += (
            f"\n\n{names[-1]} less {names[0]}: {100 * gap['value']:+.1f} points of accuracy (95 % interval "
            f"{100 * gap['low']:+.1f} to {100 * gap['high']:+.1f}; {gap['seeds']} seeds, {len(found['rows'])} "
            "test rows)."
        )
    facts = f"{found['strategy']} on {found['base']}, data {found['data']}, {found['protocol']}"
    return f"{text}\n\n{facts}; base digest {found['base_digest'][:12]}, data digest {found['data_digest'][:12]}."


if __name__ == "__main__":
    sys.exit(main())
