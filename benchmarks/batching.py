"""How far may texts be sorted by length into batches? Padding against the mix of labels, and what it does to training.

    python benchmarks/batching.py --data SMSSpamCollection     # goes on where it stopped; --budget SECONDS
    python benchmarks/batching.py --table

Texts are shuffled, sorted by length inside windows of so many batches, and the batches shuffled. A larger window pads
less, but spam is twice as long as ham, so batches come to hold one label alone. For each window: computed positions for
each token, with padding and where blocks leave it out, and the share of one-label batches (means over seeds and
epochs); and the validation part's accuracy and loss after training on the book's split with each seed. The default
window (`lora_clf.inference.batches.WINDOW`) is chosen from this table. Copies of a text stand together and are
computed once; "20 apart" is the default window with every row where the shuffle has it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import script
from kept_runs import subject
from paired import RESULTS, Budget, provenance, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

OUT = RESULTS / "batching.json"
APART = " apart"  # copies of a text where the shuffle has them
WINDOWS = ("1", "2", "5", "10", "20", f"20{APART}", "40", "all")
EPOCHS, BATCH, SEEDS = 3, 16, 5
STRATEGY = "last-block"
DASH = "–"


def window_of(name: str) -> int:
    """Batches of the window called ``name``; "all" is larger than any data."""
    return 2**40 if name == "all" else int(name.removesuffix(APART))


def layout(
    lengths: NDArray[np.int64],
    labels: NDArray[np.int64],
    window: int,
    seeds: int,
    firsts: NDArray[np.int64] | None = None,
    *,
    apart: bool = False,
) -> dict[str, float]:
    """Computed positions for each token of the texts, and the share of batches of several texts that hold one label.

    Computed are all positions of a padded batch, or where a block leaves padding out those that it packs.

    Args:
        lengths: tokens of each training text (N,).
        labels: its class (N,).
        window: batches that are sorted together.
        seeds: how many are averaged over, all epochs of each.
        firsts: the first row with the same text as each (N,), where copies are computed once.
        apart: leave copies where the shuffle has them; those that meet are still computed once.
    """
    from lora_clf.inference.batches import padded_lengths, training_rows
    from lora_clf.inference.padding import packed_rows
    from lora_clf.inference.runner import PACKED_WIDTHS, WIDTHS

    computed = packed = alike = batches = 0
    for seed in range(seeds):
        for epoch in range(EPOCHS):
            for batch in training_rows(lengths, BATCH, seed, epoch, window, firsts=None if apart else firsts):
                rows = batch if firsts is None else np.unique(firsts[batch])
                padded, nodes = (
                    int(padded_lengths(lengths[rows], multiple, sys.maxsize).max())
                    for multiple in (WIDTHS, PACKED_WIDTHS)
                )
                computed += padded * len(rows)
                filled = len(batch) - len(rows)  # texts of one token
                packed += packed_rows(int(lengths[rows].sum()) + filled, nodes * len(batch))
                if len(batch) > 1:
                    batches += 1
                    alike += len(set(labels[batch].tolist())) == 1
    tokens = int(lengths.sum()) * seeds * EPOCHS
    return {
        "computed_over_real": computed / tokens,
        "packed_over_real": packed / tokens,
        "one_label": alike / batches,
    }


def trained(base: Base, data: Dataset, name: str, seed: int) -> dict[str, Any]:
    """The validation part's accuracy and loss after training in batches of that window: best epoch and last."""
    from lora_clf.inference.batches import training_rows
    from lora_clf.inference.runner import Runner
    from lora_clf.training import loop, run
    from lora_clf.training.settings import TrainSettings
    from lora_clf.tuners import create

    firsts = None if name.endswith(APART) else Runner.firsts
    windowed = partial(training_rows, window=window_of(name))
    with patch.object(run, "training_rows", windowed), patch.object(Runner, "firsts", firsts):
        settings = TrainSettings(epochs=EPOCHS, batch_size=BATCH, seed=seed)
        result = loop.train(base, data, create(STRATEGY), settings)
    last = result.history[-1]["validation"]
    best = result.history[result.best_epoch - 1]["validation"]
    return {
        "seed": seed,
        "accuracy": best["accuracy"],
        "loss": best["loss"],
        "last_accuracy": last["accuracy"],
        "last_loss": last["loss"],
    }


def summary(runs: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the loss relative to the plain shuffle's with the same seed, with its 95 % interval."""
    from lora_clf.evaluation.intervals import mean_spread

    accuracy = mean_spread([run["accuracy"] for run in runs])
    found: dict[str, Any] = {
        "accuracy": accuracy.mean,
        "accuracy_sd": accuracy.sd,
        "loss": mean_spread([run["loss"] for run in runs]).mean,
    }
    by_seed = {run["seed"]: run["loss"] for run in plain}
    pairs = [run["loss"] - by_seed[run["seed"]] for run in runs if run["seed"] in by_seed]
    if pairs:
        gap = mean_spread(pairs)
        found["loss_gap"] = gap.mean
        found["loss_gap_interval"] = None if gap.interval is None else [gap.interval.low, gap.interval.high]
    return found


def table(value: dict[str, Any]) -> str:
    """The file as a table."""
    from lora_clf.reports.table import markdown_table

    lines = []
    for name, row in sorted(value["windows"].items(), key=lambda item: (window_of(item[0]), item[0])):
        cells = [DASH] * 3
        if runs := row["runs"]:
            found = summary(runs, value["windows"].get("1", row)["runs"])
            sd, between = found["accuracy_sd"], found.get("loss_gap_interval")
            cells[0] = f"{found['accuracy'] * 100:.2f}" + ("" if sd is None else f" ± {sd * 100:.2f}")
            cells[1] = f"{found['loss']:.4f}"
            if between is not None and name != "1":
                cells[2] = f"{found['loss_gap']:+.4f} ({between[0]:+.4f} to {between[1]:+.4f})"
        shares = (row["computed_over_real"], row["packed_over_real"])
        padding, alike = [f"{share:.2f}" for share in shares], f"{row['one_label'] * 100:.1f}"
        lines.append([name, *padding, alike, *cells, str(len(runs))])
    headings = ["window, batches", "computed for each token", "padding left out", "one-label batches %",
                "validation accuracy %", "validation loss", "loss against window 1", "seeds"]  # fmt: skip
    return markdown_table(headings, lines, [False] * len(headings))


def measure(flags: argparse.Namespace, base: Base, data: Dataset) -> None:
    """Lay out and train every window with every seed, writing the file after each run."""
    from lora_clf.inference.batches import WINDOW

    budget = Budget(flags.budget)
    tokens = base.encode(data.train.texts)
    labels = data.label_ids(data.train)
    about = {"base": base.name, "base_digest": base.digest, "data": data.name, "data_digest": data.digest,
             "strategy": STRATEGY, "epochs": EPOCHS, "batch_size": BATCH, "precision": "auto"}  # fmt: skip
    before = read_json(flags.out)
    same = before.get("about") == about and before["provenance"]["code_digest"] == provenance()["code_digest"]
    kept: dict[str, Any] = before["windows"] if same else {}
    for seed in range(flags.seeds):  # all windows with one seed first: what is there is complete
        for name in flags.windows:
            row = kept.setdefault(name, {"runs": []})
            apart = name.endswith(APART)
            row |= layout(tokens.lengths, labels, window_of(name), flags.seeds, tokens.firsts, apart=apart)
            if any(run["seed"] == seed for run in row["runs"]):
                continue
            if not budget.allows_more():
                print(f"Seed {seed}, window {name}: the budget is used up; the same command goes on.")
                return
            row["runs"].append(trained(base, data, name, seed))
            value = {"about": about, "default": WINDOW, "windows": kept, "provenance": provenance(base.device)}
            write_json(flags.out, value)
            print(f"window {name}, seed {seed}: {json.dumps(row['runs'][-1])}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print the table; the exit status."""
    parser = script.parser(__doc__, "data", "base", "device", "budget", "quick", "table", out=OUT)
    parser.add_argument("--windows", nargs="+", default=WINDOWS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    flags = parser.parse_args(arguments)

    def work(folder: Path) -> None:
        measure(flags, *subject(flags, folder, protocol="book"))
        print(table(read_json(flags.out)))
        print(f"Written: {os.path.relpath(flags.out)}")

    return script.run(flags, work, table)


if __name__ == "__main__":
    sys.exit(main())
