"""How often does a comparison of equal strategies find a difference, and how often does it find a real one?

    python benchmarks/family_error.py            # some ten minutes on a core; writes results/family_error.json
    python benchmarks/family_error.py --quick    # to see that it runs; writes nothing

Everything is drawn (`lora_clf.evaluation.simulation`): 2 to 16 strategies, 3 or 5 seeds, seed effects of 0 to 1.1
points, 300 or 1,100 test rows. The figures are shares of simulated comparisons; a standard error of theirs stands
beside them. What the correction by the number of pairs (Bonferroni) does on the same draws stands in the next columns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_clf.comparison.table import markdown_table
from lora_clf.evaluation.simulation import Design, measure

OUT = Path(__file__).resolve().parent / "results" / "family_error.json"
STRATEGIES, SEEDS, ROWS, EFFECTS = (2, 5, 16), (3, 5), (300, 1100), (0.0, 0.0055, 0.011)
GAPS = (0.01, 0.02)
PAIRWISE = 5  # strategies up to which single pairs are compared too: 120 pairs take long


def designs(quick: bool = False) -> list[Design]:
    """The grid, and what lies off it: unequal seed effects, near copies, high accuracy."""
    if quick:
        return [Design(2, 100, 3, 0.0), Design(3, 100, 3, 0.011)]
    grid = [
        Design(strategies, rows, seeds, effect)
        for strategies in STRATEGIES
        for seeds in SEEDS
        for rows in ROWS
        for effect in EFFECTS
    ]
    odd = [
        Design(strategies, 1100, 3, tuple(0.011 * (place % 2) for place in range(strategies))) for strategies in (5, 16)
    ]
    odd += [Design(5, 600, 3, 0.0055, copies=0.3), Design(5, 600, 3, 0.003, accuracy=0.975), Design(5, 300, 1)]
    return grid + odd


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and write; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few comparisons, nothing written")
    parser.add_argument("--repeats", type=int, default=1000, help="simulated comparisons a design")
    parser.add_argument("--out", type=Path, default=OUT)
    flags = parser.parse_args(arguments)
    repeats = 20 if flags.quick else flags.repeats
    found = []
    chosen = designs(flags.quick)
    for number, design in enumerate(chosen):
        pairwise = design.strategies <= PAIRWISE
        entry = measure(design, repeats, seed=number, bonferroni=pairwise).to_json()
        del entry["repeats"]
        for gap in GAPS:
            moved = Design(**{**vars(design), "gap": gap})
            other = measure(moved, max(20, repeats // 4), seed=number, bonferroni=pairwise)
            name = f"{gap * 100:g}"
            entry[f"power_{name}"], entry[f"bonferroni_power_{name}"] = other.power, other.bonferroni_power
            if gap == GAPS[0]:
                entry["recommendation_error"] = other.recommendation_error
        del entry["power"], entry["bonferroni_power"]
        found.append(entry)
        print(f"[{number + 1}/{len(chosen)}] {design}: {entry['family_error']:.3f}", file=sys.stderr, flush=True)
    value = {"repeats": repeats, "power_repeats": max(20, repeats // 4), "designs": found}
    print(table(value))
    if not flags.quick:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return 0


def table(value: dict[str, Any]) -> str:
    """The result as Markdown."""
    headings = ["strategies", "seeds", "rows", "seed effect, points", "other", "error %", "Bonferroni %"]
    headings += ["finds 1 point %", "finds 2 points %", "Bonferroni, 2 points %", "wrongly within 1 point %"]
    rows = []
    for entry in value["designs"]:
        design = entry["design"]
        effect = design["seed_sd"]
        words = "0 or 1.1" if isinstance(effect, list | tuple) else f"{effect * 100:g}"
        odd = [f"{design['copies'] * 100:.0f} % near copies"] if design["copies"] else []
        odd += [f"accuracy {design['accuracy'] * 100:g} %"] if design["accuracy"] != Design().accuracy else []
        figures = (
            "family_error",
            "bonferroni_error",
            "power_1",
            "power_2",
            "bonferroni_power_2",
            "recommendation_error",
        )
        rows.append(
            [
                *(str(design[name]) for name in ("strategies", "seeds", "rows")),
                *(words, ", ".join(odd)),
                *("–" if entry[name] is None else f"{entry[name] * 100:.1f}" for name in figures),
            ]
        )
    error = (0.05 * 0.95 / value["repeats"]) ** 0.5 * 100
    note = (
        f"{value['repeats']:,} simulated comparisons a row for the errors (standard error of 5 %: {error:.1f} points), "
        f"{value['power_repeats']:,} for the rest. Errors are shares of comparisons in which any two equal strategies "
        "were told apart; the last column: in which a strategy 1 point below the best was said to be within 1 point."
    )
    return f"{markdown_table(headings, rows, [False] * len(headings))}\n{note}\n"


if __name__ == "__main__":
    sys.exit(main())
