"""Tables for tasks beside one label of several, made from data sets that are not part of this repository.

    python benchmarks/task_tables.py sst5 path/to/sst5 --out runs/sst5
    python benchmarks/task_tables.py sst5 path/to/sst5 --rows 2000 --out runs/sst5-2000
    python benchmarks/task_tables.py questions path/to/trec --rows 1500 --out runs/questions

``sst5``: the Stanford Sentiment Treebank (Socher et al. 2013), ``train.txt``, ``dev.txt`` and ``test.txt`` with lines
``rating text``, ratings 0 to 4. ``questions``: two or three random TREC questions (Li and Roth 2002) joined to one text
that has the labels of all of them. The questions are split first, so no question is on two sides: every tenth training
question is for validation, ``test.label`` for the test. In one part a question may stand in several texts. ``--rows``
is how many training rows there are: of the treebank a random part with the seed 0.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import script

TEXTS = {"train": 3000, "validation": 400, "test": 500}


def sst5(source: Path, out: Path, rows: int | None) -> None:
    """One CSV a part."""
    for part, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        lines = (source / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        if part == "train" and rows is not None:
            lines = random.Random(0).sample(lines, rows)
        with (out / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("rating", "text"))
            writer.writerows(line.split(" ", 1) for line in lines)


def questions(source: Path, out: Path, rows: int | None, seed: int = 0) -> None:
    """One JSONL a part, labels as lists."""
    texts = TEXTS if rows is None else {**TEXTS, "train": rows}
    read = {
        name: [
            (line.split(":", 1)[0], line.split(" ", 1)[1])
            for line in (source / f"{name}.label").read_text(encoding="iso-8859-1").splitlines()
        ]
        for name in ("train", "test")
    }
    random.Random(seed).shuffle(read["train"])
    parts = {"train": read["train"][len(read["train"]) // 10 :], "test": read["test"]}
    parts["validation"] = read["train"][: len(read["train"]) // 10]
    for part, asked in parts.items():
        draw = random.Random(f"{seed} {part}")
        with (out / f"{part}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(texts[part]):
                chosen = draw.sample(asked, draw.choice((2, 3)))
                text = " ".join(question for _, question in chosen)
                file.write(json.dumps({"labels": sorted({label for label, _ in chosen}), "text": text}) + "\n")


def main() -> None:
    """Write the tables."""
    parser = script.parser(__doc__)
    parser.add_argument("kind", choices=("sst5", "questions"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--rows", type=int, help="of training; default: all, or 3,000 joined ones")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    {"sst5": sst5, "questions": questions}[flags.kind](flags.source, flags.out, flags.rows)
    print(*sorted(flags.out.iterdir()), sep="\n")


if __name__ == "__main__":
    main()
