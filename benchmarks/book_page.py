"""The book's table as Markdown: the published figures, what they show, and a table for each base that was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from book_noise import ITEMS, verdicts
from book_rows import BY_NAME, ROWS

DASH = "–"
SHORT = 60  # characters of advice that a cell has room for
PUBLISHED = {row.name: row.published[2] for row in ROWS if row.published}


class Gap(NamedTuple):
    """A difference of accuracies with its interval, as shares."""

    value: float
    low: float
    high: float


def table(value: Mapping[str, Any]) -> str:
    """The whole section: what is published, then each base with its table, answers and refusals."""
    return "\n".join([published(), *(of_base(value, name) for name in sorted(value["bases"], key=_order))])


def _order(name: str) -> tuple[bool, str]:
    return (name != "minilm", name)


def published() -> str:
    """Which published differences from row 1 are beyond noise, in sentences."""
    found = verdicts(PUBLISHED)
    by_word = {word: [name for name in found if found[name].word == word] for word in ("beyond", "open", "within")}
    return (
        f"**Published for GPT-2, {ITEMS} test messages, one run each.** Of the {len(found)} differences from row 1, "
        f"{listed(by_word['beyond'])} cannot be noise of the messages, whichever they got wrong; "
        f"{listed(by_word['open'])} could be told from it only if the two got much the same messages wrong, which was "
        f"not published; {listed(by_word['within'])} cannot be told from noise in any case. Another seed adds noise of "
        f"its own: the chapter itself reports 95.67 % where row 1, the same settings, has 95.00 %.\n"
    )


def listed(names: Sequence[str]) -> str:
    """``rows 1, 2 and A``."""
    if not names:
        return "none"
    head, last = list(names[:-1]), names[-1]
    return f"row {last}" if not head else f"rows {', '.join(head)} and {last}"


def of_base(value: Mapping[str, Any], name: str) -> str:
    """One base: its rows, what they answer, and what could not be asked."""
    from lora_clf.reports.table import markdown_table, seconds_text

    entry = value["bases"][name]
    words = {"beyond": "yes", "open": "depends", "within": "no"}
    shown = verdicts(PUBLISHED)
    gaps = differences(value, entry)
    lines = []
    for row in ROWS:
        runs, time = runs_of(entry, row.name), entry["times"].get(_own(entry, row.name))
        refused = entry["refused"].get(row.name)
        if not runs and not time and not refused and not _failed(entry, row.name):
            continue
        cells = [row.name, row.question, DASH if row.published is None else f"{row.published[2]:.2f}"]
        cells.append(f"{shown[row.name].points:+.2f}, {words[shown[row.name].word]}" if row.name in shown else DASH)
        cells += _scores(value, runs)
        gap = gaps.get(row.name)
        cells.append(f"{_points(gap)} vs {row.against}" if gap else DASH)
        cost = [each["training_seconds"] + each["prefix_seconds"] for each in runs] or (
            [time["training_seconds"] + time["prefix_seconds"]] if time else []
        )
        cells.append(("" if runs or not cost else "≈ ") + seconds_text(float(np.mean(cost)) if cost else None))
        cells.append(_note(entry, row.name, bool(runs)))
        lines.append(cells)
    headings = ["row", "what differs from row 1", "GPT-2, published %", "from row 1, beyond noise?", f"{name} %",
                "95 % interval", "difference, points", "training s", ""]  # fmt: skip
    left = [True, True, False, False, False, False, False, False, True]
    text = [f"**{name}**\n", markdown_table(headings, lines, left), _answers(entry, gaps, name), _made(value, entry)]
    return "\n".join(part for part in text if part)


def _own(entry: Mapping[str, Any], name: str) -> str:
    """The row whose runs stand for this one."""
    return str(entry["twins"].get(name, name))


def runs_of(entry: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The runs of a row, or of the row that is the same computation, by seed."""
    own = _own(entry, name)
    return [entry["runs"][f"{own}/{seed}"] for seed in seeds_of(entry, own)]


def seeds_of(entry: Mapping[str, Any], name: str) -> list[int]:
    """The seeds that a row was run with."""
    return sorted(int(key.split("/")[1]) for key in entry["runs"] if key.split("/")[0] == name)


def rights(value: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """1 where a run was right on a test row: (S, N)."""
    found = np.ones((len(runs), len(value["about"]["rows"])))
    for seed, run in enumerate(runs):
        found[seed, run["wrong"]] = 0
    return found


def _scores(value: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy with its spread, and the interval over messages and, where there are several, seeds."""
    from lora_clf.evaluation.intervals import clustered

    if not runs:
        return [DASH, DASH]
    right, groups = rights(value, runs), value["about"]["groups"]
    wrong = clustered(1 - right, groups)
    spread = f" ± {100 * float(right.mean(axis=1).std(ddof=1)):.1f}" if len(runs) > 1 else ""
    return [f"{100 * right.mean():.1f}{spread}", f"{100 * (1 - wrong.high):.1f} to {100 * (1 - wrong.low):.1f}"]


def differences(value: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Gap]:
    """Each row less the one that it is compared with, with intervals that hold together for all pairs of rows.

    Rows that lack a seed which others have wait until they have it.
    """
    from lora_clf.evaluation.simultaneous import all_pairs, moments

    run_with = {row.name: seeds_of(entry, row.name) for row in ROWS if _own(entry, row.name) == row.name}
    seeds = max(run_with.values(), key=len)
    members = [name for name, own in run_with.items() if own == seeds]
    if not seeds or len(members) < 2:
        return {}
    groups = value["about"]["groups"]
    correct = [rights(value, runs_of(entry, name)).ravel() for name in members]
    family = all_pairs(moments(correct, np.tile(groups, len(seeds)), np.repeat(seeds, len(groups))))
    found = {}
    for name in members:
        against = BY_NAME[name].against
        if against in members and against != name:
            points, interval = family.difference(members.index(name), members.index(against))
            found[name] = Gap(points, interval.low, interval.high)
    return found


def _points(gap: Gap) -> str:
    return f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"


def _failed(entry: Mapping[str, Any], name: str) -> str | None:
    return next((words for key, words in sorted(entry["failed"].items()) if key.split("/")[0] == name), None)


def _note(entry: Mapping[str, Any], name: str, ran: bool) -> str:
    """What else there is to say of a row on this base."""
    if words := _failed(entry, name):
        return f"failed: {words}"
    if not ran and (refused := entry["refused"].get(name)):
        todo = f" ({refused['todo']})" if 0 < len(refused["todo"]) < SHORT else ""
        return f"refused: {refused['reason']}{todo}"
    if name in entry["twins"]:
        return f"the same computation as row {entry['twins'][name]} here"
    return ""


def _answers(entry: Mapping[str, Any], gaps: Mapping[str, Gap], name: str) -> str:
    """Which differences on this base are beyond noise."""
    if not gaps:
        return ""
    parts = []
    better = [row for row, gap in gaps.items() if gap.low > 0]
    worse = [row for row, gap in gaps.items() if gap.high < 0]
    for word, rows in (("better", better), ("worse", worse)):
        found = [row if BY_NAME[row].against == "1" else f"{row} (than {BY_NAME[row].against})" for row in rows]
        parts.append(f"{word} by more than chance: {listed(found)}")
    rest = [row for row, gap in gaps.items() if gap.low <= 0 <= gap.high]
    covered = "and seeds" if max(len(runs_of(entry, row)) for row in gaps) > 1 else "not seeds"
    return (
        f"On {name}, beside row 1 where no other is named: {'; '.join(parts)}; not to be told apart: {listed(rest)}. "
        f"The intervals of the differences cover messages (near copies as one), {covered}, and hold together for all "
        "pairs of rows.\n"
    )


def _made(value: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Settings, versions and machine."""
    about, runs = value["about"], list(entry["runs"].values()) + list(entry["times"].values())
    if not runs or "provenance" not in entry:
        return ""
    versions, machine = entry["provenance"]["versions"], entry["provenance"]["machine"]
    rate = "the strategy's learning rate" if about["learning_rate"] is None else f"AdamW at {about['learning_rate']:g}"
    widths = {run["width"] for key, run in entry["runs"].items() if key.split("/")[0] == "1"}
    padded = f", texts of row 1 padded to {widths.pop()} tokens" if len(widths) == 1 else ""
    timed = [run["timed_batches"] for run in entry["times"].values()]
    precision = " and ".join(sorted({run["precision"] for run in runs}))
    epochs = f"{about['epochs']} epoch" + ("s" if about["epochs"] > 1 else "")
    return (
        f"{entry['parameters']:,} parameters, {epochs}, {rate}, weight decay {about['weight_decay']:g}, batches of 8, "
        f"the last epoch's weights, {precision}{padded}; "
        f"data {about['data']} ({about['data_digest'][:12]}); torch {versions['torch']}, "
        f"{machine['instruction_set']}, {machine['threads']} threads."
        + (f" ≈: from {min(timed)} batches, weights of no matter." if timed else "")
        + (" Row G: lora_clf's own recipe." if any(key.startswith("G/") for key in entry["runs"]) else "")
        + "\n"
    )
