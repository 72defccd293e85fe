"""The 19 questions of the book's additional experiments, asked of any base; what was published for GPT-2 beside it.

    python benchmarks/book_table.py --base minilm --data SMSSpamCollection              # all rows, 3 seeds
    python benchmarks/book_table.py --base gpt2 --data SMSSpamCollection --rows 1,2,5
    python benchmarks/book_table.py --base gpt2 --tokenizer FOLDER --data SMSSpamCollection --rows 10  # no weights
    python benchmarks/book_table.py --base gpt2 --tokenizer FOLDER --data SMSSpamCollection --steps 20  # times alone
    python benchmarks/book_table.py --table

Which token is pooled, what trains, random weights, padding, the mask: each row changes that in the recipe of row 1
(`book_rows.py`; rows with a letter are ours). Five epochs, AdamW at 5e-5, weight decay 0.1, batches of 8, the last
epoch's weights. A row and seed is written when it ends: the same command again does only what is missing. A row that
the base does not support is refused with the reason. The result holds row numbers and digests, never a message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import script
from book_page import table
from book_rows import LIBRARY, SIZES, Row, rows_named, sizes_named, twin
from kept_runs import tested_on
from paired import RESULTS, provenance, read_json, write_json

if TYPE_CHECKING:
    from book_training import Recipe

    from lora_clf.base.base import Base
    from lora_clf.data.dataset import Dataset

__all__ = ["main", "table"]
OUT = RESULTS / "book_table.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, or print the table; the exit status."""
    flags = parsed(arguments)
    return script.run(flags, lambda folder: measured(flags, folder), table)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = script.parser(__doc__, "data", "base", "device", "quick", "table", out=OUT)
    parser.add_argument("--size", action="append", default=[], metavar="SIZE=BASE",
                        help=f"a larger relative ({', '.join(SIZES[1:])}); gpt2 knows its own")  # fmt: skip
    parser.add_argument("--rows", default="all", help="all, book (the numbered ones), or names as 1,2,A")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning-rate", default="book", choices=("book", "strategy"),
                        help="5e-5 for every row as in the book, or each strategy's default")  # fmt: skip
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16; the book's is fp32")
    parser.add_argument(
        "--steps", type=int, help="take times alone, of so many batches a row; the weights do not matter"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="GPT-2's vocab.json and merges.txt, where its weights are not here"
    )
    flags = parser.parse_args(arguments)
    if flags.seeds < 1 or (flags.steps is not None and flags.steps < 1):
        parser.error("--seeds and --steps: expected at least 1.")
    return flags


def measured(flags: argparse.Namespace, folder: Path) -> int:
    """Ask every row of the base, writing the file after each run; 1 where no row could be asked."""
    from book_bases import Bases, Refused
    from book_model import Kept
    from book_training import Recipe

    from lora_clf.base.base import pick_device
    from lora_clf.data.dataset import load_data
    from lora_clf.inference.precision import resolve_precision

    rows, names = rows_named(flags.rows), sizes_named(flags.size, flags.base)
    recipe = Recipe(
        epochs=1 if flags.quick else Recipe.epochs,
        learning_rate=Recipe.learning_rate if flags.learning_rate == "book" else None,
        precision=resolve_precision(flags.precision, pick_device(flags.device)),
    )
    if flags.quick:
        from quick import quick_base, quick_data

        kind = "gpt2" if flags.base.startswith("gpt2") else "bert"
        quick_base(kind, folder)
        data, names = quick_data(), {"small": str(folder / f"tiny-{kind}")}
    else:
        data = load_data(flags.data, protocol="book")
    bases = Bases(names, flags.device, flags.tokenizer)
    found = kept_result(flags.out, data, recipe)
    entry = found["bases"].setdefault(bases.label, {"runs": {}, "times": {}, "refused": {}, "failed": {}, "twins": {}})
    states, asked = Kept(), 0
    for row in rows:
        try:
            base = bases.of(row, timing=flags.steps is not None)
            if flags.steps is not None and row.recipe == LIBRARY:
                raise Refused("lora_clf's own loop is timed by speed_training.py")
        except Refused as refusal:
            advice = f" ({refusal.todo})" if refusal.todo else ""
            print(f"Row {row.name}, {row.question}, refused: {refusal.reason}{advice}", file=sys.stderr)
            if not has_runs(entry, row) and flags.steps is None:
                entry["refused"][row.name] = {"reason": refusal.reason, "todo": refusal.todo}
                write_json(flags.out, found)
            continue
        asked += 1
        if flags.steps is None:
            entry["refused"].pop(row.name, None)
        if row.size == "small":
            entry |= facts(base)
        if (same := twin(row, base.architecture.causal)) is not None:
            entry["twins"][row.name] = same.name
            print(f"Row {row.name} is the same computation as row {same.name} on {base.name}.", file=sys.stderr)
            row = same
        if flags.steps is not None:
            take_time(flags, found, entry, base, data, row, recipe, trained=bases.trained)
        else:
            for seed in range(flags.seeds):
                ask(flags, found, entry, base, data, row, recipe, seed, states)
    write_json(flags.out, found)
    print(table(found))
    return 1 if entry["failed"] or not asked else 0


def kept_result(out: Path, data: Dataset, recipe: Recipe) -> dict[str, Any]:
    """What was run before on the same data with the same recipe; else an empty result.

    Raises:
        UsageError: the file holds a result of other data or another recipe.
    """
    from lora_clf.errors import UsageError

    about = {
        **tested_on(data),
        "epochs": recipe.epochs,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
    }
    before = read_json(out)
    if before and before.get("about") != about:
        other = before.get("about", {})
        odd = [name for name in about if other.get(name) != about[name]] or ["format"]
        raise UsageError(f"{out.name} holds a result with other {', '.join(odd)}. Give another --out, or remove it.")
    return before or {"about": about, "bases": {}}


def facts(base: Base) -> dict[str, Any]:
    """What the table says of a base."""
    return {
        "base": base.name,
        "architecture": base.architecture.model_type,
        "causal": base.architecture.causal,
        "parameters": base.total_parameters,
        "provenance": provenance(base.device),
    }


def has_runs(entry: dict[str, Any], row: Row) -> bool:
    """Whether a row has a run of its own."""
    return any(name.split("/")[0] == row.name for name in entry["runs"])


def fingerprint(base: Base, row: Row, recipe: Recipe) -> str:
    """Whether a kept run is the one that is asked for: its settings, recipe and weights, as a digest."""
    from book_bases import identity

    settings = {**row.computation(base.architecture.causal), **asdict(recipe), "weights": identity(base, row)}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def ask(
    flags: argparse.Namespace,
    found: dict[str, Any],
    entry: dict[str, Any],
    base: Base,
    data: Dataset,
    row: Row,
    recipe: Recipe,
    seed: int,
    states: Any,
) -> None:
    """Train a row with a seed, unless that was done."""
    from book_training import trained

    from lora_clf.errors import LoraClfError

    key, of = f"{row.name}/{seed}", fingerprint(base, row, recipe)
    if entry["runs"].get(key, {}).get("of") == of:
        return

    def told(words: str) -> None:
        print(f"{base.name}, row {row.name}, seed {seed}: {words}", file=sys.stderr, flush=True)

    try:
        run = trained(base, data, row, seed, recipe, states, told)
    except LoraClfError as error:
        entry["failed"][key] = f"{type(error).__name__}: {error}"
        told(entry["failed"][key])
    else:
        entry["failed"].pop(key, None)
        entry["runs"][key] = {
            "of": of,
            "base": base.name,
            "base_digest": base.digest if row.weights == "pretrained" else None,
            "precision": recipe.precision,
            **run,
        }
        told(f"test {run['test']:.4f}, {run['training_seconds'] + run['prefix_seconds']:.1f} s")
    write_json(flags.out, found)


def take_time(
    flags: argparse.Namespace,
    found: dict[str, Any],
    entry: dict[str, Any],
    base: Base,
    data: Dataset,
    row: Row,
    recipe: Recipe,
    *,
    trained: bool,
) -> None:
    """Time some batches of a row, unless that was done."""
    from book_training import timed

    of = fingerprint(base, row, recipe)
    if entry["times"].get(row.name, {}).get("of") == of:
        return
    run = timed(base, data, row, 0, recipe, flags.steps)
    entry["times"][row.name] = {
        "of": of,
        "base": base.name,
        "trained": trained,
        "precision": recipe.precision,
        **run,
    }
    write_json(flags.out, found)
    seconds = run["training_seconds"] + run["prefix_seconds"]
    print(
        f"{base.name}, row {row.name}: {seconds:.1f} s from {run['timed_batches']} batches", file=sys.stderr, flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
