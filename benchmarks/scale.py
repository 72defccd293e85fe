"""Does labelling a large file take more time a row, or more memory, than labelling a small one?

    python benchmarks/scale.py --budget 540    # again until it says that it is done
    python benchmarks/scale.py --table

Files of 1,000, 10,000 and 100,000 messages, no two alike, each labelled in a process of its own as `lora-clf predict
--input ... --output ...` does it. The messages are those of the data set with words changed for others of them, so
that lengths and words are as they were. Start-up (imports, loading, a first batch) is not counted in the seconds, and
is counted in the peak memory, which is the whole process's. The sizes run in turn, in shuffled order.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import script
from paired import RESULTS, Budget, in_child, interleave, key_of, provenance, ratio, read_json, short, write_json

OUT = RESULTS / "scale.json"
SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (50, 100, 400)
BLOCKS = 3
SLOWER = 1.1  # times as many seconds a row as at the size before
FLAT = 50e6  # bytes
CODE = ("paired", "predict_sides", "scale")


def messages(texts: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """``count`` texts, no two alike: those of ``texts``, then the same with every fourth word from another text."""
    draw = random.Random(seed)
    words = [word for text in texts for word in text.split()]
    seen: set[bytes] = set()
    number = 0
    while len(seen) < count:
        text = texts[number % len(texts)]
        if number >= len(texts):
            text = " ".join(draw.choice(words) if draw.random() < 0.25 else word for word in text.split())
        number += 1
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield text


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; the exit status."""
    flags = parsed(arguments)
    from lora_clf.cli.predict import prepare

    prepare()

    def work(folder: Path) -> None:
        if flags.label:
            print(json.dumps(labelled_in_here(flags, folder)))
        elif found := measured(flags, folder):
            write_json(flags.out, found)
            print(table(found))

    return script.run(flags, work, table)


def labelled_in_here(flags: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Label one file in this process: seconds without start-up, and the peak of the whole process."""
    from predict_sides import opened

    from lora_clf.cli.predict import labelled
    from lora_clf.cli.row_files import open_rows
    from lora_clf.cli.row_writer import row_writer
    from lora_clf.experiment.memory import peak_bytes
    from lora_clf.inference.precision import resolve_precision

    adapter = opened(flags, folder, exported=False).adapter
    precision = resolve_precision(flags.precision, adapter.base.device)
    adapter.predict(["a first batch", "of two"], precision=precision)
    started = time.perf_counter()
    source = open_rows(flags.label, None)
    with row_writer(folder / "labelled.csv", source) as writer:
        for rows, found in labelled(adapter, source, precision, lambda done: None):
            writer.write(rows, *zip(*(each.cells() for each in found), strict=True))
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes(), "rows": source.count}


def measured(flags: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """The figures of all blocks; None where the budget ended before the last of them."""
    from predict_sides import opened

    budget = Budget(flags.budget)
    bench = opened(flags, folder, exported=False)
    facts = provenance(bench.adapter.base.device)
    total = flags.blocks or (1 if flags.quick else BLOCKS)
    key = key_of(CODE, facts, bench.adapter.header.digest, flags.precision, flags.seed)
    kept = flags.work / f"scale{'-quick' if flags.quick else ''}.json"
    state = read_json(kept)
    if state.get("key") != key:
        state = {"key": key, "blocks": [], "peaks": {}}
    sides = {}
    for size in QUICK_SIZES if flags.quick else SIZES:
        place = folder / f"rows-{size}.csv"
        with place.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "text"])
            writer.writerows(enumerate(messages(bench.texts, size)))
        sides[str(size)] = _side(flags, place, state["peaks"].setdefault(str(size), []))
    while (done := len(state["blocks"])) < total:
        if not budget.allows_more():
            print(f"{done} of {total} blocks; the same command goes on.", flush=True)
            return None
        state["blocks"] += interleave(sides, 1, flags.seed, first=done, told=_told)
        write_json(kept, state)
    return result(state, bench.adapter.base.name, flags.precision, facts)


def _side(flags: argparse.Namespace, place: Path, peaks: list[int]) -> Callable[[], float]:
    """The labelling of one file, in a child, as a side of `interleave`."""
    given = [f"--{name}={getattr(flags, name)}" for name in ("data", "base", "device", "work", "precision")]
    more = ["--quick"] if flags.quick else []

    def side() -> float:
        found = in_child(Path(__file__), [*given, *more, f"--label={place}"])
        peaks.append(int(found["peak_bytes"]))
        return float(found["seconds"])

    return side


def result(state: dict[str, Any], base: str, precision: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Seconds a row and peak memory of every size, and whether the targets are reached."""
    blocks, peaks = state["blocks"], state["peaks"]
    sizes = sorted(peaks, key=int)
    rows = {
        size: {
            "seconds": short(median(block[size] for block in blocks)),
            "seconds_a_row": short(median(block[size] for block in blocks) / int(size)),
            "peak_bytes": int(median(peaks[size])),
        }
        for size in sizes
    }
    middle, large = sizes[-2:]
    slower = ratio([b[large] / int(large) for b in blocks], [b[middle] / int(middle) for b in blocks])
    grown = max(each["peak_bytes"] for each in rows.values()) - min(each["peak_bytes"] for each in rows.values())
    return {
        "base": base,
        "precision": precision,
        "sizes": rows,
        "a_row": {"of": [large, middle], "ratio": slower.as_dict(), "target": SLOWER, "met": slower.median <= SLOWER},
        "memory": {"grown_bytes": grown, "target": FLAT, "met": grown <= FLAT},
        "blocks": blocks,
        "provenance": facts,
    }


def table(found: dict[str, Any]) -> str:
    """Sizes with seconds and memory, and the targets beside what was reached."""
    from lora_clf.reports.table import markdown_table, seconds_text, size_text

    lines = [
        [
            f"{int(size):,}",
            seconds_text(each["seconds"]),
            f"{1000 * each['seconds_a_row']:.3g}",
            size_text(each["peak_bytes"]),
        ]
        for size, each in sorted(found["sizes"].items(), key=lambda item: int(item[0]))
    ]
    sizes = markdown_table(["rows", "seconds", "ms a row", "peak memory"], lines, [False] * 4).rstrip("\n")
    row, memory = found["a_row"], found["memory"]
    interval = row["ratio"]
    spread = "" if interval["low"] is None else f" ({interval['low']:.3g} to {interval['high']:.3g})"
    large, middle = (f"{int(size):,}" for size in row["of"])
    grown, flat = size_text(memory["grown_bytes"]), size_text(int(memory["target"]))
    lines = [
        [f"seconds a row, {large} rows over {middle}", f"{interval['median']:.3g}{spread}", f"≤ {SLOWER}", _yes(row)],
        ["peak memory, largest less smallest", grown, f"≤ {flat}", _yes(memory)],
    ]
    headings = ["what", "found", "target", "reached"]
    targets = markdown_table(headings, lines, [True, False, False, False]).rstrip("\n")
    machine = found["provenance"]["machine"]
    about = f"{found['base']}, {found['precision']}; {len(found['blocks'])} blocks; {machine['threads']} threads."
    return f"{sizes}\n\n{targets}\n\n{about}"


def _yes(value: dict[str, Any]) -> str:
    return "yes" if value["met"] else "no"


def _told(block: int, side: str, seconds: float) -> None:
    print(f"block {block + 1}, {int(side):,} rows: {seconds:.1f} s", file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    shared = ("data", "base", "device", "budget", "seed", "quick", "table")
    parser = script.parser(__doc__, *shared, out=OUT)
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or auto")
    parser.add_argument("--blocks", type=int, help=f"{BLOCKS} by default")
    parser.add_argument("--work", type=Path, default=Path("runs") / "benchmarks" / "speed_predict")
    parser.add_argument("--label", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
