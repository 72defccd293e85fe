"""Draws the picture of README.md: accuracy against trainable parameters, from the result files.

    python benchmarks/picture.py            # writes docs/accuracy.svg
    python benchmarks/picture.py --check    # exit 1 where it was drawn from other files

The picture's metadata hold a digest of the files that it was drawn from.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import script

from lora_clf.evaluation.drawing import COLOURS, FAINT, INK, MARKERS, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "accuracy.svg"
PANELS = {
    "sms-default": "SMS spam: 13 % spam, no near copies",
    "trec": "TREC: six classes, 500 test questions",
}
LEFT_OUT = ("lora-scratch",)  # the same function as lora, at the same place


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw or check the picture; the exit status."""
    parser = script.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the picture is out of date")
    if parser.parse_args(arguments).check:
        fresh = PICTURE.is_file() and digest() in PICTURE.read_text(encoding="utf-8")
        if not fresh:
            print("Out of date: docs/accuracy.svg. Run: python benchmarks/picture.py")
        return 0 if fresh else 1
    PICTURE.write_bytes(drawn())
    print(f"Written: docs/{PICTURE.name}.")
    return 0


def digest() -> str:
    """A SHA-256 over the result files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files())).hexdigest()


def files() -> list[Path]:
    """The result files, in the order of the panels."""
    return [HERE / "results" / f"{name}.json" for name in PANELS]


def drawn() -> bytes:
    """The picture as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**STYLE, "text.parse_math": True}):  # powers of ten beside the axis
        figure = Figure(figsize=(10, 4.1), layout="constrained")
        for axes, file, title in zip(figure.subplots(1, 2), files(), PANELS.values(), strict=True):
            panel(axes, json.loads(file.read_text(encoding="utf-8")), title)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Description": f"Result files: {digest()}"})
    return stream.getvalue()


def panel(axes: Axes, result: dict[str, Any], title: str) -> None:
    """One data set: a point a strategy with its 95 % interval, a line for the plain classifier."""
    rows = [row for row in result["rows"] if row["kind"] == "strategy" and row["label"] not in LEFT_OUT]
    for number, row in enumerate(rows):
        mean, low, high = (100 * row["accuracy"][key] for key in ("mean", "low", "high"))
        colour = COLOURS[number % len(COLOURS)]
        axes.errorbar(
            row["trainable_parameters"],
            mean,
            [[mean - low], [high - mean]],
            fmt=MARKERS[number % len(MARKERS)],
            color=colour,
            capsize=4,
            markersize=8,
            linewidth=1.6,
        )
        axes.annotate(
            row["label"],
            (row["trainable_parameters"], high),
            (0, 5),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    plain = next(row for row in result["rows"] if row["label"].startswith("TF-IDF"))
    axes.axhline(100 * plain["accuracy"]["mean"], color=INK, linestyle=(0, (5, 3)), linewidth=1.2)
    axes.annotate(
        plain["label"],
        (0.25, 100 * plain["accuracy"]["mean"]),
        (0, -5),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="top",
        color=INK,
    )
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 2, high * 2)
    axes.margins(y=0.12)
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
    axes.set_xlabel("trainable parameters (log scale)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(axis="y", color=FAINT, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
