"""The table of `speed_pool.py`: what was measured, its target, whether it was reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One line: the measure, its target and what was found; ``reached`` is None where there is no target."""

    measure: str
    target: str
    found: str
    reached: bool | None


def table(results: Mapping[str, Any]) -> str:
    """The lines of all jobs that are in a result file, as Markdown."""
    from lora_clf.reports.table import markdown_table

    rows = [row for name, lines in LINES.items() if name in results for row in lines(results[name]["found"])]
    signs = {True: "yes", False: "no", None: ""}
    cells = [[row.measure, row.target, row.found, signs[row.reached]] for row in rows]
    if not cells:
        return "No result yet."
    quick = any(results[name].get("quick") for name in LINES if name in results)
    warning = "\n\nMade with --quick: a tiny base, whose times mean nothing." if quick else ""
    return markdown_table(["measure", "target", "found", "reached"], cells, [True] * 4) + warning


def _times(found: Mapping[str, Any]) -> str:
    middle = f"{found['median']:.3g}"
    return middle if found["low"] is None else f"{middle} ({found['low']:.3g} to {found['high']:.3g})"


def _throughput(found: Mapping[str, Any]) -> Iterator[Row]:
    for setting in sorted(found, key=lambda key: (key.split()[0], int(key.split("N")[1]))):
        sides = found[setting]
        for name in sorted(sides, key=lambda name: int(name[1:]) if name[1:].isdigit() else 0):
            if name == "unmerged":
                continue
            last = name == "U32"
            for what, key in (("one unmerged", "over_unmerged"), ("the pool's own U1", "over_pool_U1")):
                if what == "one unmerged" or last:
                    value = sides[name][key]
                    reached = value["median"] >= 0.95 if last else None
                    goal = ">= 0.95" if last else ""
                    yield Row(f"throughput, {setting}, {name}, over {what}", goal, _times(value), reached)


def _peft(found: Mapping[str, Any]) -> Iterator[Row]:
    goals = {"U8": 1.5, "U32": 2.5}
    for setting, values in found.items():
        goal = goals.get(setting.split()[-1])
        yield Row(
            f"times PEFT's adapter_names, {setting}",
            f">= {goal}x" if goal else "",
            f"{_times(values['times'])}; as one padded batch {_times(values['times_uncut'])}",
            None if goal is None else values["times"]["median"] >= goal,
        )


def _select(found: Mapping[str, Any]) -> Iterator[Row]:
    for setting, values in found.items():
        yield Row(f"selecting, {setting}", "<= 20 us", f"{values['microseconds']:.3g} us", values["microseconds"] <= 20)
        if "times" in values:
            yield Row(
                f"selecting, times PEFT's set_adapter, {setting}",
                ">= 200x",
                _times(values["times"]),
                values["times"]["median"] >= 200,
            )


def _load(found: Mapping[str, Any]) -> Iterator[Row]:
    for (setting, values), goal in zip(found.items(), (10, 40), strict=True):
        shown = ", ".join(f"{name} {value:.3g} ms" for name, value in values["milliseconds"].items())
        worked = values["times_of_processor"]
        yield Row(
            f"loading, times {values['peft']}, {setting}",
            f">= {goal}x",
            f"{_times(values['times'])} by the clock, {_times(worked)} of processor time; {shown}",
            min(values["times"]["median"], worked["median"]) >= goal,
        )
        yield Row(f"loading with canaries, {setting}", "", _times(values["times_with_canaries"]), None)


def _memory(found: Mapping[str, Any]) -> Iterator[Row]:
    for kind, goal in (("equal", 1.05), ("mixed", 1.25)):
        values = found[kind]
        ranks = "equal rank" if kind == "equal" else "ranks 4 to 64"
        yield Row(
            f"memory over raw bytes, {ranks}, N = {values['adapters']}",
            f"<= {goal}",
            f"{values['over_raw']:.4g}",
            values["over_raw"] <= goal,
        )


def _folder(found: Mapping[str, Any]) -> Iterator[Row]:
    for setting, values in found.items():
        text = f"{values['bytes']:,} for {values['raw']:,} raw: {values['kib_beyond']:.3g} KiB"
        yield Row(f"folder beyond 1.01 x raw, {setting}", "<= 16 KiB", text, values["kib_beyond"] <= 16)


def _agreement(found: Mapping[str, Any]) -> Iterator[Row]:
    for side in ("alone", "peft"):
        values = found[side]
        yield Row(
            f"largest drift of a mixed batch against {side}, {found['texts']} texts",
            "<= 1e-4",
            f"{values['largest_drift']:.2g}",
            values["largest_drift"] <= 1e-4,
        )
        outside = values["label_flips_outside_margin"]
        shown = f"{outside}, {values['label_flips']} in all"
        yield Row(f"label flips against {side}", "0 outside the margin", shown, not outside)


def _everyone(found: Mapping[str, Any]) -> Iterator[Row]:
    for setting, values in found.items():
        text = f"{_times(values['times'])}; over passes of the pool: {_times(values['times_over_pool'])}"
        yield Row(
            f"8 adapters on the last 2 blocks, {setting}, times 8 passes",
            ">= 2.5x",
            text,
            values["times"]["median"] >= 2.5,
        )


LINES = {
    "throughput": _throughput,
    "peft": _peft,
    "select": _select,
    "load": _load,
    "memory": _memory,
    "folder": _folder,
    "agreement": _agreement,
    "everyone": _everyone,
}
