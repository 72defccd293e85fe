"""TREC's question classification files (Li and Roth 2002) as a CSV that every command reads.

    python benchmarks/trec_table.py train.label --out runs/trec-train.csv
    python benchmarks/trec_table.py test.label --out runs/trec-test.csv

A line is ``COARSE:fine text`` in ISO-8859-1; the label is the coarse one of six.
"""

from __future__ import annotations

import csv
from pathlib import Path

import script


def main() -> None:
    """Write the table."""
    parser = script.parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    lines = flags.file.read_text(encoding="iso-8859-1").splitlines()
    rows = [(line.split(":", 1)[0], line.split(" ", 1)[1]) for line in lines]
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    with flags.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("label", "text"))
        writer.writerows(rows)
    print(f"{flags.out}: {len(rows):,} questions, {len({label for label, _ in rows})} labels")


if __name__ == "__main__":
    main()
