"""Writes the tables of README.md and benchmarks/README.md from the result files.

    python benchmarks/tables.py            # rewrite what stands between <!-- begin NAME --> and <!-- end NAME -->
    python benchmarks/tables.py --check    # exit 1 where something else stands there

NAME is a file of benchmarks/results without its ending, "results", the short form of all of `SHORT`, or a section of
`SEVERAL` files.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import script

from lora_clf.comparison.curve import who_beats
from lora_clf.reports.table import count_text, markdown_table, seconds_text, size_text

HERE = Path(__file__).resolve().parent
PAGES = (HERE.parent / "README.md", HERE / "README.md")
SHORT = {
    "sms-default": "SMS spam at its natural 13 %, no near copy on two sides",
    "sms-book": "SMS spam as in the book: its 300 test messages, balanced, some with copies in training",
    "trec": "TREC, six classes of questions",
}
# Sections whose table is made by the module that measures it, by its function `table`.
OWN = {
    "speed_training": "speed_table",
    "speed_training-avx2": "speed_table",
    "speed_predict": "predict_table",
    "speed-summary": "speed_summary",
    "scale": "scale",
    "scale-fp32": "scale",
    "batching": "batching",
    "precision": "precision",
    "alternatives": "alternatives",
    "speed_pool": "pool_table",
    "adapter_dtype": "adapter_dtype",
    "canary_cost": "canary_cost",
    "pooling_cost": "pooling_cost",
    "skewed_classes": "skewed_classes",
    "family_error": "family_error",
    "tasks-sst5": "task_page",
    "tasks-questions": "task_page",
    "book_table": "book_table",
    "kills": "kills",
    "contract_counts": "contract_counts",
    "learning_rates_family": "learning_rates",
    "long_documents": "long_documents",
}
SEVERAL = {"speed-summary": ("speed_training", "speed_predict")}
SECTION = re.compile(r"(<!-- begin ([\w-]+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)
DASH = "–"
ABSENT = "Not run yet"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the pages; the exit status."""
    parser = script.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a table is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for page in PAGES:
        if not page.is_file():
            continue
        before = page.read_text(encoding="utf-8")
        after = rewritten(before, HERE / "results")
        if before != after:
            stale.append(page.name if page.parent == HERE.parent else f"{page.parent.name}/{page.name}")
            if not check:
                page.write_text(after, encoding="utf-8", newline="\n")
    if stale:
        print(f"{'Out of date' if check else 'Rewritten'}: {', '.join(stale)}.")
        if check:
            print("Run: python benchmarks/tables.py")
    return 1 if check and stale else 0


def rewritten(text: str, results: Path) -> str:
    """``text`` with every section that has a result file, or is the short form, written anew."""

    def section(found: re.Match[str]) -> str:
        begin, name, old, end = found.groups()
        files = [results / f"{one}.json" for one in SEVERAL.get(name, (name,))]
        if name == "results":
            parts = [short(title, loaded) for key, title in SHORT.items() if (loaded := load(results, key))]
            body = "\n".join(parts) if parts else "No result file yet.\n"
        elif value := load(results, name):
            body = table(value)
        elif name in OWN and all(file.is_file() for file in files):
            values = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            made: str = importlib.import_module(OWN[name]).table(*values)
            body = made.rstrip("\n") + "\n"
        elif old.startswith(ABSENT) or not old.strip():
            body = f"{ABSENT}: there is no benchmarks/results/{name}.json.\n"
        else:
            return found.group()  # the section of another script
        return f"{begin}{body}{end}"

    return SECTION.sub(section, text)


def load(results: Path, name: str) -> dict[str, Any] | None:
    """The result of a comparison, or None where there is none of that name."""
    try:
        value: dict[str, Any] = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return value if "verdict" in value and "rows" in value else None


def short(title: str, value: dict[str, Any]) -> str:
    """A table of the main figures, with its title and the answer."""
    rows = [
        [
            row["label"],
            _share(row["accuracy"]),
            _interval(row["accuracy"]),
            *_without_copies(row, value),
            *_found_and_lost(row, value),
            *_costs(row),
        ]
        for row in value["rows"]
    ]
    headings = ["strategy", "accuracy %", "95 % interval", *_copies(value), *_kinds(value)]
    headings += ["trainable", "adapter", "training s"]
    return f"**{title}** ({_runs(value)})\n\n{_table(headings, rows)}\n{_verdict(value)}\n"


def table(value: dict[str, Any]) -> str:
    """The whole table of one result file: errors with intervals, what is found and lost, costs, the answer.

    Of a learning curve its levels.
    """
    if "curve" in value:
        return curve_table(value)
    positive = value["positive_label"]
    headings = ["strategy", "error %", "95 % interval", "macro-F1 %"]
    headings += (
        [f"{positive} found %", "95 % interval", f"others lost to {positive} %", "95 % interval"] if positive else []
    )
    headings += [f"{words}, error %" for words in _copies(value)]
    headings += ["against TF-IDF + LR, points", "trainable", "adapter", "training s", "peak memory"]
    rows = []
    for row in value["rows"]:
        accuracy = row["accuracy"]
        wrong = {
            "mean": 1 - accuracy["mean"],
            "sd": accuracy["sd"],
            "low": 1 - accuracy["high"],
            "high": 1 - accuracy["low"],
        }
        cells = [row["label"], _share(wrong, 2), _interval(wrong, 2), _share(row["macro_f1"])]
        if positive:
            cells += [_share(row["recall"]), _interval(row["recall"])]
            cells += [_share(row["false_positives"], 2), _interval(row["false_positives"], 2)]
        cells += [f"{(1 - value['without_copies'][row['label']]['exact']['mean']) * 100:.2f}" for _ in _copies(value)]
        rows.append([*cells, _gap(row["to_baseline"]), *_costs(row), size_text(row["peak_memory_bytes"])])
    facts = value["facts"]
    base, data = facts["base"], facts["data"]
    versions, machine = facts["environment"]["versions"], facts["environment"]["machine"]
    made = (
        f"Base {base['name']} ({base['digest'][:12]}), data {data['name']} ({data['splits'][0]['digest'][:12]}), "
        f"{_runs(value)}; torch {versions['torch']}, transformers {versions['transformers']}, "
        f"{machine['instruction_set']}, {machine['threads']} threads."
    )
    failed = [f"\nFailed: {failure['cell']}: {failure['message']}" for failure in value["failures"]]
    return f"{_table(headings, rows)}\n{_verdict(value)}\n\n{made}\n" + "".join(failed)


def curve_table(value: dict[str, Any]) -> str:
    """A learning curve: test accuracy with its interval over draws, a size a column; who beats TF-IDF from where."""
    curve = value["curve"]
    sizes = list(dict.fromkeys(point["k"] for point in curve["points"]))
    rows: dict[str, list[str]] = {}
    for point in curve["points"]:
        cells = rows.setdefault(point["label"], [DASH] * len(sizes))
        level = point["accuracy"]
        interval = "" if not level["sd"] else f" ({level['low'] * 100:.1f} to {level['high'] * 100:.1f})"
        cells[sizes.index(point["k"])] = f"{level['mean'] * 100:.1f}{interval}"
    headings = ["strategy", *("all rows" if k is None else f"{k} of each" for k in sizes)]
    draws = ", ".join(f"{one['draws']} of {one['k']}" for one in curve["sizes"])
    note = f"Test accuracy, %, with the 95 % interval over draws ({draws}), on the same {_rows(value):,} test rows."
    beats: dict[str, list[int | None]] = {}
    for point in curve["points"]:
        if (gap := point.get("to_rival")) is not None:
            beats.setdefault(point["label"], []).extend([point["k"]] if (gap["low"] or 0) > 0 else [])
    table = _table(headings, [[label, *cells] for label, cells in rows.items()])
    return f"{table}\n{who_beats(beats, sizes)}\n\n{note}\n"


def _verdict(value: dict[str, Any]) -> str:
    """The answer, with what to take in bold."""
    return re.sub(r"^(Take [^:,]+|This data cannot decide which strategy to take)", r"**\1**", value["verdict"])


def _rows(value: dict[str, Any]) -> int:
    return int(value["facts"]["data"]["splits"][0]["rows"]["test"])


def _copies(value: dict[str, Any]) -> list[str]:
    """The heading over the rows without a copy in training, where some have one."""
    scores = next(iter(value.get("without_copies", {}).values()), None)
    return (
        [] if scores is None or scores["exact"]["n"] == _rows(value) else [f"on the {scores['exact']['n']} not copied"]
    )


def _without_copies(row: dict[str, Any], value: dict[str, Any]) -> list[str]:
    return [f"{value['without_copies'][row['label']]['exact']['mean'] * 100:.1f}" for _ in _copies(value)]


def _runs(value: dict[str, Any]) -> str:
    plan, seeds = value["plan"], len(value["plan"]["seeds"])
    folds = plan["data"]["folds"]
    cut = f"{folds} folds, " if folds else ""
    return f"{value['facts']['data']['protocol']}, {cut}{seeds} seed{'s' if seeds > 1 else ''}"


def _kinds(value: dict[str, Any]) -> list[str]:
    positive = value["positive_label"]
    return [f"{positive} found %", "lost %"] if positive else ["macro-F1 %"]


def _found_and_lost(row: dict[str, Any], value: dict[str, Any]) -> list[str]:
    if value["positive_label"]:
        return [_share(row["recall"]), _share(row["false_positives"], 2)]
    return [_share(row["macro_f1"])]


def _costs(row: dict[str, Any]) -> list[str]:
    return [
        count_text(row["trainable_parameters"]),
        size_text(row["adapter_bytes"]),
        seconds_text(row["cold_seconds"]),
    ]


def _share(score: dict[str, Any] | None, digits: int = 1) -> str:
    if score is None:
        return DASH
    spread = "" if score["sd"] is None else f" ± {score['sd'] * 100:.{digits}f}"
    return f"{score['mean'] * 100:.{digits}f}{spread}"


def _interval(score: dict[str, Any] | None, digits: int = 1) -> str:
    return DASH if score is None else f"{score['low'] * 100:.{digits}f} to {score['high'] * 100:.{digits}f}"


def _gap(score: dict[str, Any] | None) -> str:
    if score is None:
        return DASH
    return f"{score['mean'] * 100:+.2f} ({score['low'] * 100:+.2f} to {score['high'] * 100:+.2f})"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    return markdown_table(headings, rows, [True] + [False] * (len(headings) - 1))


if __name__ == "__main__":
    sys.exit(main())
