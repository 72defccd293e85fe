"""The table of speed_training.json: targets beside what was reached.

*ratio* is the median over the blocks with the 95 % interval of the mean log ratio; *ceiling* is the ratio that ours
would reach if it did the least arithmetic there is (real tokens, the frozen prefix once) at the speed of this machine's
matrix products. A side is *complete*, or *extrapolated* from the steps that were timed, its evaluations counted.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from lora_clf.reports.table import markdown_table, seconds_text, size_text

HEADINGS = [
    "job", "base", "ours", "theirs", "theirs is", "ratio", "95 % interval", "target", "reached", "ceiling", "quality",
    "memory",
]  # fmt: skip
DASH = "–"


def table(results: dict[str, Any]) -> str:
    """All jobs that there are figures of, in the jobs' own order, and under them how they came about."""
    from speed_jobs import JOBS

    lines, notes = [], []
    for name in (*(name for name in JOBS if name in results), *(name for name in results if name not in JOBS)):
        value = results[name]
        if "ratio" not in value:
            continue
        lines.append(line(value))
        rows = {f"ours-{job.precision}" for job in JOBS.values() if job.within == name}  # which have a row of their own
        notes += [beside(name, side, value) for side in value["sides"] if side not in ("ours", "theirs", *rows)]
        if (check := value.get("complete")) and "steps" in check:
            both = f"ours {figure(check['ours'], 's')}, theirs {figure(check['theirs'], 's')}"
            notes.append(f"One complete run of `{name}`: {both}, ratio {check['ratio']:.3g}.")
    native = any(value["provenance"]["machine"].get("native_bf16") for value in results.values()
                                if "provenance" in value)  # fmt: skip
    left = [f"`{job.name}` ({job.row}; target {bound(job.target, job.at_most)})" for job in JOBS.values()
            if job.target is not None and (native or not job.native_bf16)
            and "ratio" not in results.get(job.name, {})]  # fmt: skip
    if left:
        notes.append(f"Not measured yet: {', '.join(left)}.")
    shared = [f"`{name}`" for name in JOBS if "ratio" in (value := results.get(name, {}))
              and not value.get("own_processes") and value["unit"] == "seconds"]  # fmt: skip
    if shared:
        notes.append(f"Measured with both sides in one process: {', '.join(shared)}.")
    made = sorted({machine(value["provenance"]) for value in results.values() if "provenance" in value})
    headings = HEADINGS
    if all(cells[-1] == DASH for cells in lines):  # nobody has measured memory yet
        headings, lines = headings[:-1], [cells[:-1] for cells in lines]
    body = markdown_table(headings, lines, [True, True] + [False] * (len(headings) - 2)) if lines else ""
    return "\n\n".join(part for part in (body.rstrip("\n"), *notes, *made) if part)


def beside(name: str, side: str, value: dict[str, Any]) -> str:
    """What a side took that was measured for the record, in a sentence."""
    unit = "s" if value["unit"] == "seconds" else "B"
    facts, blocks = value["sides"][side], value["blocks"]
    text = f"`{name}`, {facts['about']}: {figure(facts[value['unit']], unit)}"
    if not side.startswith("ours"):
        return f"{text}."
    small = (value["target"] or {}).get("at_most", False)
    ratios = [b[side] / b["theirs"] if small else b["theirs"] / b[side] for b in blocks]
    return f"{text}, ratio {median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g} in {len(blocks)} blocks)."


def line(value: dict[str, Any]) -> list[str]:
    """The cells of one job."""
    unit = "s" if value["unit"] == "seconds" else "B"
    ours, theirs = (value["sides"][name] for name in ("ours", "theirs"))
    target, ratio, ceiling = value["target"], value["ratio"], value["ceiling"]
    timed = theirs.get("kind")
    if timed == "extrapolated":
        timed = f"extrapolated from {theirs['steps']} of {theirs['total_steps']} steps"
    interval = DASH if ratio["low"] is None else f"{ratio['low']:.3g} to {ratio['high']:.3g}"
    return [
        value["row"],
        value["base"]["name"],
        figure(ours[value["unit"]], unit),
        figure(theirs[value["unit"]], unit),
        timed or DASH,
        f"{ratio['median']:.3g}",
        interval,
        DASH if target is None else bound(target["value"], target["at_most"]),
        DASH if target is None else ("yes" if target["met"] else "no"),
        DASH if ceiling is None else f"{ceiling['ratio']:.3g}",
        quality(value.get("quality")),
        memory(value.get("memory")),
    ]


def quality(value: dict[str, Any] | None) -> str:
    """What --quality found, in a cell."""
    if value is None:
        return DASH
    if value["kind"] == "cache":
        return f"losses to {value['relative_losses']:.0e}, logits to {value['relative_logits']:.0e}"
    part = value["all" if value["kind"] == "equal" else "unseen"]
    flips = f"{part['net_flips'] * 100:+.2f} ({part['low'] * 100:+.2f} to {part['high'] * 100:+.2f})"
    return f"{part['ours'] * 100:.2f} % against {part['theirs'] * 100:.2f} %, net flips {flips} points"


def memory(value: dict[str, Any] | None) -> str:
    """What --memory found, in a cell: the peaks above the loaded base."""
    return DASH if value is None else f"{figure(value['ours'], 'B')}, {figure(value['theirs'], 'B')}"


def bound(target: float | None, at_most: bool) -> str:
    """A target as it is read."""
    return DASH if target is None else f"{'≤' if at_most else '≥'} {target:g}"


def figure(value: float, unit: str) -> str:
    """Seconds or bytes for people."""
    return size_text(round(value)) if unit == "B" else f"{seconds_text(value)} s"


def machine(facts: dict[str, Any]) -> str:
    """One line on where and with what it was measured."""
    versions, here = facts["versions"], facts["machine"]
    native = "native bf16" if here.get("native_bf16") else "no native bf16"
    return (
        f"torch {versions['torch']}, transformers {versions['transformers']}, peft {versions['peft']}; "
        f"{here.get('accelerator') or here['instruction_set']}, {native}, {here['threads']} threads; "
        f"commit {(facts['commit'] or 'unknown')[:12]}."
    )
