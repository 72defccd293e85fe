"""What is asked of a table's labels: the task that was asked for, or the one that the labels look like, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from lora_clf.data.corpus import LABEL_NAMES, Corpus, Part, is_usual
from lora_clf.errors import DataError, UsageError, unknown
from lora_clf.tasks import NAMES
from lora_clf.tasks.base import Task, as_number
from lora_clf.tasks.classification import Classification
from lora_clf.tasks.multilabel import SEPARATOR, Multilabel, listed, split_labels
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression

AUTO = "auto"
MANY = 20  # different numbers, above which they are measured and not told apart
BELONGS = {
    "label_separator": "multilabel",
    "label_order": "ordinal",
    "bins": "ordinal",
}
"""What each further setting makes of ``auto``."""


@dataclass(frozen=True)
class Question:
    """What was asked for.

    Attributes:
        task: "auto", or a task by name.
        label_separator: what stands between the labels of a row: multilabel.
        label_order: the classes from the lowest to the highest, between commas: ordinal. Numbers need none.
        bins: how numbers are cut into ordered classes: "low:2,medium:4,high" (low up to 2, medium above 2 up to 4,
            high above 4), or a number of classes with about as many rows each: ordinal.
    """

    task: str = AUTO
    label_separator: str | None = None
    label_order: str | None = None
    bins: str | None = None

    def __post_init__(self) -> None:
        """Check the settings; all problems at once."""
        if self.task not in (AUTO, *NAMES):
            raise unknown("task", self.task, (AUTO, *NAMES))
        given = {name: BELONGS[name] for name in BELONGS if getattr(self, name) is not None}
        problems = [
            f"--{name.replace('_', '-')} is about a {of} task, not --task {self.task}"
            for name, of in given.items()
            if self.task not in (AUTO, of)
        ]
        if self.task == AUTO and len(set(given.values())) > 1:
            flags = ", ".join(f"--{name.replace('_', '-')} ({of})" for name, of in given.items())
            problems.append(f"these flags ask for different tasks: {flags}")
        if self.bins is not None and self.label_order is not None:
            problems.append("--bins names its classes in their order, so --label-order has nothing to say")
        if problems:
            raise UsageError(f"{'; '.join(problems)}.")

    @property
    def may_be_empty(self) -> bool:
        """Whether a row without a label is one that has none, and not one that was forgotten."""
        return self.task == "multilabel" or self.label_separator is not None

    def answer(self, labels: Sequence[str], rows: Sequence[int], column: str) -> tuple[Task, str]:
        """The task of a table with these labels, and why.

        Args:
            labels: of all rows, as they were read.
            rows: their numbers, for what is said about one.
            column: the label column's name.

        Raises:
            UsageError: the task does not fit the labels as a whole.
            DataError: the labels of some rows do not fit the task; each is listed.
        """
        task, why = (self.task, "as asked") if self.task != AUTO else self._found(labels)
        if task == "regression":
            _check_numbers(labels, rows, "a regression")
            return Regression((column,)), why
        if task == "multilabel":
            return self._multilabel(labels), why
        if task == "ordinal":
            return self._ordinal(labels, rows), why
        several = len(set(labels))
        if (self.task == "binary" and several != 2) or (self.task == "multiclass" and several == 2):
            expected = "two" if self.task == "binary" else "three or more"
            raise UsageError(f"--task {self.task} is for {expected} different labels; there are {several}.")
        return Classification(tuple(sorted(set(labels)))), why

    def _found(self, labels: Sequence[str]) -> tuple[str, str]:
        for name, task in BELONGS.items():
            if getattr(self, name) is not None:
                return task, f"--{name.replace('_', '-')} was given"
        different = sorted(set(labels))
        if different and all(listed(label) is not None for label in different):
            return "multilabel", "the labels are lists"
        pieces = {name for label in different for name in split_labels(label, SEPARATOR)}
        if 2 <= len(pieces) < len(different) and any(SEPARATOR in label for label in different):
            return "multilabel", f"{len(different)} different labels are {len(pieces)} between {SEPARATOR!r}"
        numbers = all(_is_number(label) for label in different)
        if numbers and len(different) > MANY:
            count = f"{len(different):,} different"
            if (first := _counted_from(labels)) is None:
                return "regression", f"the labels are {count} numbers"
            why = f"{count} labels; they count from {first} without a gap, as numbers of classes do: --task regression"
            return "multiclass", f"{why} would measure them"
        hint = "; they are numbers: --task ordinal or regression would use their order" if numbers else ""
        return ("binary" if len(different) == 2 else "multiclass"), f"{len(different)} different labels{hint}"

    def check_guess(self, corpus: Corpus, asked: str | None) -> None:
        """Refuse to learn the numbers of rows, where neither the task nor the column of labels was named.

        Raises:
            DataError: the column of labels is only the other one of two, and holds whole numbers, none of them twice.
        """
        labels, column = corpus.part.labels, corpus.label_column
        named = asked is not None or self.task != AUTO or any(getattr(self, name) is not None for name in BELONGS)
        if named or is_usual(column, LABEL_NAMES) or len(labels) < 2 or len(set(labels)) < len(labels):
            return
        if all(_is_number(label) and as_number(label).is_integer() for label in labels):
            raise DataError(
                f"{corpus.table.name} seems to have no labels: column {column!r} holds another whole number in each "
                f"row, as numbers of rows do. Name the labels with label_column (--label-column), be it {column!r}."
            )

    def _multilabel(self, labels: Sequence[str]) -> Multilabel:
        separator = self.label_separator or SEPARATOR
        names = tuple(sorted({name for label in labels for name in split_labels(label, separator)}))
        if len(names) < 2:
            shown = f": {names[0]!r}" if names else ""
            raise UsageError(
                f"A multilabel task has two labels or more; with the separator {separator!r} there are {len(names)}"
                f"{shown}. Name another with --label-separator."
            )
        return Multilabel(names, separator)

    def _ordinal(self, labels: Sequence[str], rows: Sequence[int]) -> Ordinal:
        if self.bins is not None:
            _check_numbers(labels, rows, "--bins")
            return _binned(self.bins, [as_number(label) for label in labels])
        different = set(labels)
        if self.label_order is not None:
            order = tuple(name.strip() for name in self.label_order.split(","))
            if set(order) != different or len(order) != len(different):
                raise UsageError(
                    f"--label-order {self.label_order}: expected each label of the data once; there are "
                    f"{', '.join(sorted(different))}."
                )
        elif all(_is_number(label) for label in different):
            order = tuple(sorted(different, key=as_number))
            if same := [f"{a} and {b}" for a, b in pairwise(order) if as_number(a) == as_number(b)]:
                raise UsageError(
                    f"Classes in order are told apart by their numbers; {', '.join(sorted(same))} are the same. Write "
                    "each number in one way, or name the classes with --label-order."
                )
        else:
            raise UsageError(
                f"An ordinal task needs the order of its classes: --label-order {','.join(sorted(different)[:5])} from "
                "the lowest to the highest. Only numbers have one of their own."
            )
        if not Ordinal.fits("ordinal", order):
            raise UsageError(f"An ordinal task has three classes or more; there are {len(order)}: {', '.join(order)}.")
        return Ordinal(order)


def read_labels(part: Part, task: Task, name: str) -> Part:
    """The rows of ``part`` with their labels as ``task`` writes them.

    Raises:
        DataError: labels that the task does not have; each row is listed.
    """
    if task.one_label and set(task.labels).issuperset(part.labels):
        return part  # as most are: each label stands there as it is written
    found, problems = [], []
    for label, row in zip(part.labels, part.rows, strict=True):
        try:
            found.append(task.read(label))
        except ValueError as error:
            problems.append(f"row {row}: {error}")
    if problems:
        raise DataError(f"Labels of {name} do not fit a {task.name} task.", problems)
    return replace(part, labels=tuple(found))


def named(part: Part, task: Task) -> Part:
    """A row for each class that a row names: what can be counted; empty where labels are numbers."""
    if task.one_label:
        return part
    pairs = [(place, name) for place, label in enumerate(part.labels) for name in task.parts(label)]
    return replace(part.take([place for place, _ in pairs]), labels=tuple(name for _, name in pairs))


def _binned(text: str, values: Sequence[float]) -> Ordinal:
    """The classes that ``--bins`` asks for."""
    if text.strip().isascii() and text.strip().isdigit():
        count = int(text)
        if count < 3:
            raise UsageError(f"--bins {text}: expected three classes or more.")
        if count > len(values):
            raise UsageError(f"--bins {text}: there are {len(values):,} rows, too few for so many classes.")
        edges = np.unique(np.quantile(values, np.arange(1, count) / count, method="inverted_cdf"))
        edges = edges[edges < max(values)]
        if len(edges) != count - 1:
            raise UsageError(
                f"--bins {text}: so many rows share a number that {count} classes of about as many rows are not to be "
                f"had; the numbers cut into {len(edges) + 1}. Name the cuts, as --bins low:2,medium:4,high."
            )
        shown = [f"{edge:g}" for edge in edges]
        if len(set(shown)) < len(shown):  # numbers that differ behind the sixth digit
            shown = [repr(edge).removesuffix(".0") for edge in edges.tolist()]
        inner = [f"above {low} to {high}" for low, high in pairwise(shown)]
        return Ordinal((f"up to {shown[0]}", *inner, f"above {shown[-1]}"), tuple(float(edge) for edge in edges))
    pieces = [piece.strip().rpartition(":") for piece in text.split(",")]
    names = [name.strip() or (edge.strip() if not colon else "") for name, colon, edge in pieces]
    try:
        cuts = tuple(as_number(edge.strip()) for _, colon, edge in pieces[:-1] if colon)
    except ValueError:
        cuts = ()
    rising = len(cuts) == len(pieces) - 1 and all(a < b for a, b in pairwise(cuts)) and not pieces[-1][1]
    if not rising or len(names) < 3 or len(set(names)) != len(names) or not all(names):
        raise UsageError(
            f"--bins {text}: expected three or more names with rising upper ends, the last without one, such as "
            "low:2,medium:4,high; or a number of classes, such as 3."
        )
    if numbers := [name for name in names if _is_number(name)]:
        raise UsageError(
            f"--bins {text}: {', '.join(numbers)} could be a number of the table as well as a class. Name the "
            "classes in words, as low:2,medium:4,high."
        )
    empty = [
        name
        for name, count in zip(names, np.bincount(np.searchsorted(cuts, values), minlength=len(names)), strict=True)
        if not count
    ]
    if empty:
        raise UsageError(f"--bins {text}: no row lies in {', '.join(empty)}; numbers go from {min(values):g} to "
                         f"{max(values):g}.")  # fmt: skip
    return Ordinal(tuple(names), cuts)


def _check_numbers(labels: Sequence[str], rows: Sequence[int], what: str) -> None:
    pairs = zip(labels, rows, strict=True)
    wrong = [f"row {row}: {label!r} is no number" for label, row in pairs if not _is_number(label)]
    if wrong:
        raise DataError(
            f"The labels are not all numbers, which {what} needs. Name the column of numbers with --label-column, or "
            "leave the flag out for classes.",
            wrong,
        )


def _is_number(label: str) -> bool:
    try:
        as_number(label)
    except ValueError:
        return False
    return True


def _counted_from(labels: Sequence[str]) -> int | None:
    """0 or 1 where numbers are all the whole ones from there to the largest, each of them twice or more; else None."""
    counts = Counter(labels)
    numbers = {as_number(label) for label in counts}
    first = min(numbers)
    whole = first in (0, 1) and len(numbers) == len(counts) and max(numbers) - first + 1 == len(numbers)
    if not whole or min(counts.values()) < 2 or not all(number.is_integer() for number in numbers):
        return None
    return int(first)


def refuse_classes_only(task: Task, positive_label: str | None, balance: str, protocol: str) -> None:
    """Refuse settings that are about one label of several where ``task`` is another.

    Raises:
        UsageError: some came; all are named.
    """
    if task.softmax:
        return
    given = {
        f"--positive-label {positive_label}": positive_label is not None,
        f"--balance {balance}": balance != "natural" and task.name != "ordinal",
        "--protocol book": protocol == "book",
    }
    if wrong := [flag for flag, came in given.items() if came]:
        raise UsageError(f"For a {task.name} task {', '.join(wrong)} does not apply: leave it out.")
