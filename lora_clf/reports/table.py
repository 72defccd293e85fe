"""The table of a comparison: as a rich table, CSV, JSON and Markdown, all from the same rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from lora_clf.base.reading import Reading
from lora_clf.comparison.plan import canonical
from lora_clf.comparison.standing import Average, Score, Standing
from lora_clf.figures import bytes_text, listed

if TYPE_CHECKING:
    from rich.table import Table

    from lora_clf.comparison.comparison import Comparison

NONE = "–"
_FLOPS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@dataclass(frozen=True)
class Column:
    """One column: its heading, its text for people, and whether a comparison has it."""

    heading: str
    text: Callable[[Standing], str]
    left: bool = False
    shown: Callable[[Comparison], bool] = lambda comparison: True


def name_of(row: Standing) -> str:
    """The contender's name with the mark of its place: ``*`` best, ``=`` not to be told from the best."""
    return f"{row.label}{' *' if row.best else ' =' if row.tied else ''}"


def score_text(score: Score | Average | None) -> str:
    """``97.8 ± 0.4``, in percent."""
    if score is None:
        return NONE
    return f"{score.mean * 100:.1f}" + ("" if score.sd is None else f" ± {score.sd * 100:.1f}")


def interval_text(score: Score | None) -> str:
    """``95.1 to 99.2``, in percent."""
    return NONE if score is None or not score.n else f"{score.low * 100:.1f} to {score.high * 100:.1f}"


def size_text(count: int | None) -> str:
    """``1.35 MB``, where it is known."""
    return NONE if count is None else bytes_text(count)


def count_text(count: int | None) -> str:
    """``1,537``."""
    return NONE if count is None else f"{count:,}"


def seconds_text(seconds: float | None) -> str:
    """``0.12``, ``4.6``, ``132``."""
    if seconds is None:
        return NONE
    return f"{seconds:.2f}" if seconds < 1 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"


def flops_text(count: float | None) -> str:
    """``1.6 TFLOP``: two digits, as it is an estimate."""
    if count is None:
        return NONE
    size, unit = next(((size, unit) for size, unit in _FLOPS if count >= size), _FLOPS[-1])
    return f"{count / size:.2g} {unit}" if count < 99.5 * size else f"{count / size:,.0f} {unit}"


def share_text(share: float | None) -> str:
    """``0.003 %``: two significant digits."""
    if share is None:
        return NONE
    value = share * 100
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def _seconds(row: Standing) -> str:
    return seconds_text(row.cold_seconds)


COLUMNS = (
    Column("strategy", name_of, left=True),
    Column("accuracy %", lambda row: score_text(row.accuracy)),
    Column("95 % interval", lambda row: interval_text(row.accuracy)),
    Column("group", lambda row: row.group or NONE, left=True, shown=lambda c: len(c.plan.contenders) > 1),
    Column("macro-F1 %", lambda row: score_text(row.macro_f1)),
    Column("hard %", lambda row: score_text(row.hard), shown=lambda c: bool(c.hard_rows)),
    Column("found %", lambda row: score_text(row.recall), shown=lambda c: c.positive_label is not None),
    Column("lost %", lambda row: _two(row.false_positives), shown=lambda c: c.positive_label is not None),
    Column("trainable", lambda row: count_text(row.trainable_parameters)),
    Column("share", lambda row: share_text(row.share)),
    Column("adapter", lambda row: size_text(row.adapter_bytes)),
    Column("training s", _seconds),
    Column("tuning s", lambda row: seconds_text(row.tuning_seconds), shown=lambda c: c.plan.tune is not None),
    Column("peak memory", lambda row: size_text(row.peak_memory_bytes)),
)


def _two(score: Score | None) -> str:
    return NONE if score is None else f"{score.mean * 100:.2f}"


def columns_of(comparison: Comparison) -> list[Column]:
    """The columns that this comparison has something to say in."""
    return [column for column in COLUMNS if column.shown(comparison)]


def cells_of(comparison: Comparison) -> list[list[str]]:
    """The table's rows as texts."""
    columns = columns_of(comparison)
    return [[column.text(row) for column in columns] for row in comparison.standings]


def footnotes(comparison: Comparison) -> list[str]:
    """What has to be known to read the table, and what went wrong."""
    rows = comparison.standings
    best = next((row for row in rows if row.best), None)
    notes = []
    if best is not None:
        tied = [row.label for row in rows if row.tied]
        alone = sum(row.kind == "strategy" for row in rows) == 1
        notes.append(
            f"* the highest accuracy of a strategy. = cannot be told from it: {listed(tied)}."
            if tied
            else "* the only strategy with a complete run."
            if alone
            else "* the highest accuracy of a strategy; all others are worse by more than chance explains."
        )
        if any(row.group for row in rows) and not alone:
            notes.append("group: those that share a letter cannot be told apart, all pairs taken together.")
        runs = "seeds" if best.seeds > 1 else "folds" if comparison.plan.data.folds else ""
        spread = f"± is the standard deviation between {runs}; the" if runs else "The"
        covered = "test rows and seeds" if best.seeds > 1 else "test rows, not other seeds"
        notes.append(f"{spread} 95 % interval covers other {covered}; near copies count as one.")
    if comparison.positive_label is not None:
        name = comparison.positive_label
        notes.append(f"found: share of {name} that was found; lost: share of the rest that was taken for {name}.")
    if comparison.hard_rows:
        hard = next((row.hard.n for row in rows if row.hard is not None), 0)
        notes.append(f"hard: accuracy on the {hard} test rows that the data marks as hard.")
    notes.append(
        "share: of all parameters. adapter: the saved folder. training s: optimizer steps with what they "
        "need, mean of runs. peak memory: of a process that does nothing else."
    )
    if any(row.label == "TF-IDF + LR" for row in rows):
        notes.append("TF-IDF + LR: words weighed by rarity, logistic regression; it learns in the parent process.")
    said = {
        "nearest centroid": "the class whose training texts have the nearest mean in the vectors of the untuned base",
        "untrained head": "a head of random numbers on the untuned base",
    }
    notes += [f"{row.label}: {said[row.label]}." for row in rows if row.label in said]
    asked = next((one.baseline.choice for one in comparison.baselines if one.label == "prompt"), None)
    if asked:
        notes.append(f"prompt: the untuned base is asked {asked['prompt']!r} and its answers are {asked['answers']}.")
    if comparison.plan.base.template is not None:
        words = "" if comparison.plan.base.words is None else f" with the words {comparison.plan.base.words}"
        notes.append(f"Heads answer in words: each text in the template {comparison.plan.base.template!r}{words}.")
    if Reading.restored(comparison.plan.reading).whole:
        notes.append(f"{' and '.join(said)} read the beginning of a long text only, the strategies all of it.")
    notes += [f"No {one['label']}: {one['reason']}." for one in comparison.facts.get("left_out", ())]
    if len({canonical(outcome.environment) for outcome in comparison.outcomes}) > 1:
        notes.append("Not all runs had the same machine, threads or versions: do not compare their seconds.")
    notes += diagnoses(comparison)
    complete = {row.label for row in rows}
    notes += [
        f"FAILED {failure.cell}: {failure.error}: {failure.message.split(chr(10))[0]}"
        + ("" if failure.label in complete else f" ({failure.label} has no complete run and no row.)")
        for failure in comparison.failures
    ]
    return notes


def diagnoses(comparison: Comparison) -> list[str]:
    """What went wrong in the trainings: a line for each contender and trouble, with what the first such run says."""
    told = []
    for contender in comparison.plan.contenders:
        runs = comparison.outcomes_of(contender.label)
        for name in dict.fromkeys(finding["name"] for run in runs for finding in run.diagnosis):
            said = [finding for run in runs for finding in run.diagnosis if finding["name"] == name]
            where = f" in {len(said)} of {len(runs)} runs" if len(runs) > 1 else ""
            told.append(f"{contender.label}: {name}{where}: {said[0]['found']}; {said[0]['advice']}.")
    return told


def as_rich(comparison: Comparison, width: int) -> list[Table]:
    """The table for a terminal of ``width`` letters: as many as it takes for all columns, one below the other.

    What has to be known to read them is in `footnotes`.
    """
    from rich.table import Table
    from rich.text import Text

    columns, rows = columns_of(comparison), cells_of(comparison)
    sizes = [max(len(column.heading), *(len(cells[place]) for cells in rows)) for place, column in enumerate(columns)]
    kinds = [row.kind for row in comparison.standings]
    found = []
    for places in _side_by_side(sizes, width):
        table = Table()
        for place in places:
            side: Literal["left", "right"] = "left" if columns[place].left else "right"
            table.add_column(Text(columns[place].heading), justify=side, no_wrap=True)
        for number, cells in enumerate(rows):
            last = number + 1 < len(kinds) and kinds[number] != kinds[number + 1]
            bold = "bold" if comparison.standings[number].best else None
            # Text: brackets are not markup here.
            table.add_row(*(Text(cells[place]) for place in places), end_section=last, style=bold)
        found.append(table)
    return found


def _side_by_side(sizes: Sequence[int], width: int) -> list[list[int]]:
    """Which columns fit beside each other, the first in every table, each with three letters of frame."""
    groups = [[0]]
    for place in range(1, len(sizes)):
        taken = 1 + sum(sizes[each] + 3 for each in (*groups[-1], place))
        if taken > width and len(groups[-1]) > 1:
            groups.append([0])
        groups[-1].append(place)
    return groups


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool] = (True,)) -> str:
    """Any table in GitHub's Markdown; ``left`` says which columns hold words, those beyond its end hold numbers."""
    lines = [
        "| " + " | ".join(headings) + " |",
        "|" + "|".join(":---" if one else "---:" for one, _ in zip_longest(left, headings, fillvalue=False)) + "|",
        *("| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """``text`` so that Markdown shows it as it is."""
    for letter in "\\|*_<>`[]!#&":
        text = text.replace(letter, "\\" + letter)
    return " ".join(text.replace("://", ":\\//").split())


def flat(row: Standing) -> dict[str, Any]:
    """One row as plain numbers by column name: what CSV holds."""
    scores: dict[str, Any] = {}
    for name in ("accuracy", "macro_f1", "hard", "recall", "false_positives", "to_best", "to_baseline"):
        score: Score | Average | None = getattr(row, name)
        for part in ("mean", "sd", "low", "high"):
            scores[name if part == "mean" else f"{name}_{part}"] = getattr(score, part) if score else None
    plain = {
        name: getattr(row, name)
        for name in (
            *(
                "validation_accuracy",
                "trainable_parameters",
                "share",
                "adapter_bytes",
                "tensor_bytes",
                "seconds",
            ),
            *(
                "cold_seconds",
                "flops",
                "texts_per_second",
                "tuning_seconds",
                "peak_memory_bytes",
                "training_memory_bytes",
                "device_memory_bytes",
            ),
        )
    }
    more = {name: row.scores.get(name) for name in ("mcc", "loss", "calibration_error", "precision", "f1", "pr_auc")}
    identity = {
        "strategy": row.label,
        "kind": row.kind,
        "seeds": row.seeds,
        "best": row.best,
        "tied": row.tied,
        "group": row.group,
        "recommended": row.recommended,
    }
    return {**identity, **scores, **more, **plain}


def as_csv(comparison: Comparison) -> str:
    """The table as CSV: plain numbers, shares from 0 to 1, one line a row."""
    stream = io.StringIO(newline="")
    rows = [flat(row) for row in comparison.standings]
    names = list(rows[0]) if rows else ["strategy"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_json(comparison: Comparison) -> str:
    """Everything the comparison found as one JSON document without texts; long lists have a line an entry."""
    from lora_clf.reports.evidence import without_copies

    value = comparison.to_json()
    copies = without_copies(comparison)
    value["without_copies"] = {label: {k: asdict(v) for k, v in scores.items()} for label, scores in copies.items()}
    long = {name: value.pop(name) for name in ("cells", "predictions")}
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    for name, entries in long.items():
        lines = ",\n  ".join(json.dumps(entry, separators=(",", ":"), allow_nan=False) for entry in entries)
        text += f',\n "{name}": [\n  {lines}\n ]'
    return text + "\n}\n"
