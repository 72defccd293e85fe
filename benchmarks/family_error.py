"""How often does a comparison of equal strategies find a difference, and how often does it find a real one?

    python benchmarks/family_error.py            # some ten minutes on a core; again: only what is missing
    python benchmarks/family_error.py --quick    # to see that it runs; writes nothing

Everything is drawn (`simulation`): 2 to 16 strategies, 3 or 5 seeds, seed effects of 0 to 1.1 points, alike for all
strategies or not, 300 or 1,100 test rows. The figures are shares of simulated comparisons; a standard error of theirs
stands beside them. What the correction by the number of pairs (Bonferroni) does on the same
draws stands in the next columns. A design is written when it is done, with a digest of the code that it was drawn with.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import script
import simulation
from paired import RESULTS, read_json
from simulation import Design, measure

from lora_clf.data.cache import write_whole
from lora_clf.evaluation import noninferiority, simultaneous
from lora_clf.reports.table import markdown_table

OUT = RESULTS / "family_error.json"
STRATEGIES, SEEDS, ROWS, EFFECTS = (2, 5, 16), (3, 5), (300, 1100), (0.0, 0.0055, 0.011)
GAPS = (0.01, 0.02)
PAIRWISE = 5  # strategies up to which single pairs are compared too: 120 pairs take long
HIGH = 0.011


def mixed(strategies: int, varying: int) -> tuple[float, ...]:
    """Seed effects of 1.1 points for the first ``varying``, none for the others."""
    return (HIGH,) * varying + (0.0,) * (strategies - varying)


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
    odd = [Design(5, 1100, 3, mixed(5, varying)) for varying in (1, 2, 3, 4)]
    odd += [Design(16, 1100, 3, mixed(16, varying)) for varying in (1, 2, 8)]
    odd += [Design(2, 1100, 3, mixed(2, 1)), Design(3, 1100, 3, mixed(3, 2)), Design(5, 1100, 5, mixed(5, 2))]
    odd += [Design(5, 1100, 3, (0.0, 0.00275, 0.0055, 0.00825, HIGH)), Design(5, 300, 3, mixed(5, 2))]
    odd += [Design(5, 1100, 2, mixed(5, 2)), Design(5, 5000, 3, HIGH), Design(5, 5000, 3, mixed(5, 2))]
    odd += [Design(5, 5000, 3, mixed(5, 1)), Design(5, 5000, 5, mixed(5, 1))]
    odd += [Design(5, 600, 3, 0.0055, copies=0.3), Design(5, 600, 3, 0.003, accuracy=0.975), Design(5, 300, 1)]
    return grid + odd


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and write; the exit status."""
    parser = script.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few comparisons, nothing written")
    parser.add_argument("--repeats", type=int, default=2000, help="simulated comparisons a design")
    parser.add_argument("--out", type=Path, default=OUT)
    flags = parser.parse_args(arguments)
    chosen, code = designs(flags.quick), method()
    before = {} if flags.quick else read_json(flags.out)
    kept = before.get("designs", []) if before.get("method") == code else []
    found: list[dict[str, Any]] = []
    for number, design in enumerate(chosen):
        repeats = 20 if flags.quick else repeats_of(design, flags.repeats)
        plain = json.loads(json.dumps(vars(design)))
        entry = next((one for one in kept if one["design"] == plain and one["repeats"] >= repeats), None)
        if entry is None:
            entry = measured(design, repeats, number)
            print(f"[{number + 1}/{len(chosen)}] {design}: {entry['family_error']:.3f}", file=sys.stderr, flush=True)
        found.append(entry)
        value = {"method": code, "designs": found}
        if not flags.quick:
            rest = [one for one in kept if one not in found] if len(found) < len(chosen) else []
            text = json.dumps({**value, "designs": [*found, *rest]}, indent=1)
            write_whole(flags.out, f"{text}\n".encode())
    print(table(value))
    return 0


def repeats_of(design: Design, most: int) -> int:
    """How many comparisons of a design are drawn: fewer of those that take long, more of the one nearest to 5 %."""
    if design == Design(5, 1100, 3, mixed(5, 2)):
        return 2 * most
    if design.strategies > PAIRWISE:
        return most * 3 // 20
    if design.rows > 1100:
        return most // 8
    return most if design.strategies == 2 and isinstance(design.seed_sd, float) else most // 2


def method() -> str:
    """A digest of the code that is measured and of the code that measures it."""
    files = [simultaneous.__file__, noninferiority.__file__, simulation.__file__]
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:16]


def measured(design: Design, repeats: int, seed: int) -> dict[str, Any]:
    """Errors of a design, and what it finds of true gaps of 1 and 2 points."""
    pairwise = design.strategies <= PAIRWISE and design.rows <= 1100 and isinstance(design.seed_sd, float)
    entry = measure(design, repeats, seed=seed, bonferroni=pairwise).to_json()
    for gap, share in zip(GAPS, (2, 4), strict=True):  # the first says how often the recommendation errs, too
        moved = Design(**{**vars(design), "gap": gap})
        other = measure(moved, max(20, repeats // share), seed=seed, bonferroni=pairwise and gap == GAPS[-1])
        name = f"{gap * 100:g}"
        entry[f"power_{name}"], entry[f"bonferroni_power_{name}"] = other.power, other.bonferroni_power
        if gap == GAPS[0]:
            entry["recommendation_error"] = other.recommendation_error
            entry["recommendation_repeats"] = other.repeats
    del entry["power"], entry["bonferroni_power"]
    return entry


def table(value: dict[str, Any]) -> str:
    """The result as Markdown."""
    headings = ["strategies", "seeds", "rows", "seed effect, points", "other", "drawn", "error %", "Bonferroni %"]
    headings += ["finds 1 point %", "finds 2 points %", "Bonferroni, 2 points %", "wrongly within 1 point %"]
    rows = []
    for entry in value["designs"]:
        design = entry["design"]
        effect = design["seed_sd"]
        if isinstance(effect, list | tuple):
            kinds = sorted(set(effect), reverse=True)
            words = ", ".join(f"{sum(one == kind for one in effect)} with {kind * 100:.3g}" for kind in kinds)
        else:
            words = f"{effect * 100:g}"
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
                *(words, ", ".join(odd), f"{entry['repeats']:,}"),
                *("–" if entry[name] is None else f"{entry[name] * 100:.1f}" for name in figures),
            ]
        )
    counts = sorted({entry["repeats"] for entry in value["designs"]}, reverse=True)
    ends = ", ".join(f"{(0.05 * 0.95 / count) ** 0.5 * 100:.1f} for {count:,}" for count in counts)
    note = (
        "Of so many simulated comparisons (drawn) the error is the share in which any two equal strategies were told "
        f"apart; the standard error of 5 % is, in points, {ends}. Half as many stand behind 1 point and the last "
        "column, in which a strategy 1 point below the best was said to be within 1 point, a quarter behind 2 points."
    )
    return f"{markdown_table(headings, rows, [False] * len(headings))}\n{note}\n"


if __name__ == "__main__":
    sys.exit(main())
