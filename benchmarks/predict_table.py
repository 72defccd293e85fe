"""The table of speed_predict.json: targets beside what was reached.

*ceiling* is how many times as fast as the pipeline ours would be if it computed each distinct message once, real tokens
only, at the speed of this machine's matrix products.
"""

from __future__ import annotations

from typing import Any

from predict_sides import OURS, SIDES

from lora_clf.reports.table import markdown_table, seconds_text, size_text

HEADINGS = [
    "side", "seconds", "messages a second", "computed / real tokens", "times the pipeline's speed", "95 % interval",
    "target", "reached", "ceiling", "net flips, points", "peak memory above",
]  # fmt: skip
DASH = "–"


def table(results: dict[str, Any]) -> str:
    """Sides with seconds, ratio, target, labels and memory; under them what was run on, and the choices."""
    parts = []
    if found := results.get("speed"):
        lines = [line(name, results) for name in SIDES]
        machine = found["provenance"]["machine"]
        parts.append(markdown_table(HEADINGS, lines, [True] + [False] * (len(HEADINGS) - 1)).rstrip("\n"))
        parts.append(
            f"{found['messages']:,} messages ({found['distinct']:,} distinct), {found['base']['name']}, LoRA rank "
            f"{found['adapter']['rank']}, family head; {len(found['blocks'])} blocks; {machine['instruction_set']}, "
            f"{machine['threads']} threads."
        )
    else:
        parts.append("Not measured yet: labelling all messages.")
    if found := results.get("choices"):
        ranked = sorted(found["seconds"].items(), key=lambda item: float(item[1]))
        rows = [[*name.split(" "), seconds_text(seconds)] for name, seconds in ranked]
        headings = ["precision", "weights", "kernel", "tokens a batch", "widths", f"seconds for {found['messages']:,}"]
        parts.append(markdown_table(headings, rows, [True] * 3 + [False] * 3).rstrip("\n"))
    return "\n\n".join(parts)


def line(name: str, results: dict[str, Any]) -> list[str]:
    """The cells of one side."""
    found = results["speed"]
    side, ceiling = found["sides"][name], found["ceiling"].get(name)
    flip, held = results.get("quality", {}).get(name), results.get("memory", {}).get(name)
    fast = side["faster_than_pipeline"]
    return [
        name,
        seconds_text(side["seconds"]),
        f"{side['messages_a_second']:,}",
        f"{side['computed_tokens'] / found['tokens']:.2f}",
        f"{fast['median']:.3g}",
        DASH if fast["low"] is None else f"{fast['low']:.3g} to {fast['high']:.3g}",
        f"≥ {found['target']:g}" if name in OURS else DASH,
        {True: "yes", False: "no", None: DASH}[side["met"]],
        DASH if ceiling is None else f"{ceiling['ratio']:.3g}",
        DASH
        if flip is None
        else " ".join((_points(flip["net_flips"]), f"({_points(flip['low'])} to {_points(flip['high'])})")),
        DASH if held is None else size_text(held["above_bytes"]),
    ]


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
