"""The tables of ``task_scores.py``: each task by its own scores, and ratings of all tasks on one footing."""

from __future__ import annotations

from typing import Any

from lora_clf.reports.table import markdown_table
from lora_clf.tasks import kind_of

RATED = (
    ("mae", "MAE", 1),
    ("accuracy", "accuracy %", 100),
    ("within_one", "at most one off %", 100),
    ("quadratic_kappa", "quadratic kappa", 1),
    ("macro_f1", "macro-F1 %", 100),
)


def table(value: dict[str, Any]) -> str:
    """One table a task, and where labels are ratings one of all tasks."""
    parts = []
    for name, facts in sorted(value["settings"].items()):
        parts += [_of_task(value, name, facts), _facts(name, facts)]
    if any("as_ratings" in run for run in value["runs"].values()):
        parts.append(_as_ratings(value))
    return "\n\n".join(parts) + "\n"


def _of_task(value: dict[str, Any], name: str, facts: dict[str, Any]) -> str:
    measure, further = kind_of(name).primary, kind_of(name).further()
    factor, digits, unit = (100, 1, " %") if measure.share else (1, 3, "")
    rows = []
    for strategy, each in facts["compared"].items():
        runs = [run for key, run in value["runs"].items() if key.rsplit(" ", 1)[0] == f"{name} {strategy}"]
        score, low, high = (f"{factor * max(0.0, number):.{digits}f}" for number in each["score"])
        gap, least, most = (f"{factor * number:+.{digits}f}" for number in each["better_than_tfidf"])
        means = [sum(run["scores"][more.key] for run in runs) / len(runs) for more in further]
        against = "–" if strategy == "tfidf" else f"{gap} ({least} to {most})"
        rows.append([strategy, score, f"{low} to {high}", *(f"{mean:.3f}" for mean in means), against])
    titles = [more.heading() for more in further]
    headings = [name, f"{measure.title}{unit}", "95 % interval", *titles, "better than TF-IDF by"]
    return markdown_table(headings, rows, [True] + [False] * (len(headings) - 1)).rstrip()


def _facts(name: str, facts: dict[str, Any]) -> str:
    rows = ", ".join(f"{count:,} {part}" for part, count in facts["rows"].items())
    seeds = max(each["seeds"] for each in facts["compared"].values())
    return (
        f"{name.capitalize()}: {rows} rows (digest {facts['data_digest'][:12]}), {facts['epochs']} epochs, {seeds} "
        f"seed{'s' if seeds > 1 else ''}, precision {facts['precision']}."
    )


def _as_ratings(value: dict[str, Any]) -> str:
    rows = []
    for key, run in sorted(value["runs"].items()):
        name, strategy, seed = key.split(" ")
        if strategy != "constant" and seed == "0":
            scores = run["as_ratings"]
            cells = (f"{factor * scores[each]:.{1 if factor > 1 else 3}f}" for each, _, factor in RATED)
            rows.append([f"{name} {strategy}", *cells])
    headings = ["as whole ratings, seed 0", *(title for _, title, _ in RATED)]
    return markdown_table(headings, rows, [True] + [False] * len(RATED)).rstrip()
