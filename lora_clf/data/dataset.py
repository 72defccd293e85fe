"""A dataset: one source, split into training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_clf.data import book, partition
from lora_clf.data.corpus import Corpus, is_prepared, label_problems, label_warnings, load_corpus
from lora_clf.data.corpus import Part as Part
from lora_clf.data.leaks import LeakReport, find_leaks
from lora_clf.data.question import Question, named, read_labels, refuse_classes_only
from lora_clf.data.split import divide, fold_parts, parse_shares, undersample
from lora_clf.data.table import Table
from lora_clf.errors import DataError, UsageError, unknown
from lora_clf.tasks.base import Task
from lora_clf.tasks.classification import Classification

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOLS = ("near-copy-free", "random", "book")
BALANCES = ("natural", "undersample", "undersample-train")
GIVEN = "given"
SPLIT = "70/10/20"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three parts of one source and what is known of them.

    ``labels`` are all class names, sorted; ``positive_label`` is set where there are two, the rarer one
    unless another was asked for. ``protocol`` is how it was split: ``near-copy-free``, ``random``, ``book``,
    or ``given`` where the user's own split was taken. ``digest`` is a SHA-256 over the part, label and text
    of every row in order. ``licence`` and ``source`` (an attribution or a file name, never a path) belong to
    the texts; ``text_column`` and ``label_column`` are the columns that were read. ``other_task`` is what is
    learned where that is not one label of several, and ``task_reason`` why it is that. ``group_column`` is a column
    whose values stay in one part.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    labels: tuple[str, ...]
    positive_label: str | None
    protocol: str
    digest: str
    licence: str | None
    source: str
    warnings: tuple[str, ...] = ()
    text_column: str = "text"
    label_column: str = "label"
    other_task: Task | None = None
    task_reason: str = ""
    group_column: str | None = None

    @property
    def task(self) -> Task:
        """What is learned: by default one of ``labels``."""
        return self.other_task or Classification(self.labels, self.positive_label)

    @property
    def parts(self) -> dict[str, Part]:
        """The three parts by name, training first."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def label_ids(self, part: Part) -> NDArray[np.int64]:
        """The class number of each row of ``part`` (N,), its place in ``labels``."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        return np.fromiter((numbers[label] for label in part.labels), np.int64, len(part))

    def groups(self, part: Part) -> NDArray[np.int64]:
        """Which rows of ``part`` count as one (N,): near copies, and rows of one value in the group column."""
        column = self.group_column if self.group_column in part.columns else None
        found = partition.groups_of(part, PROTOCOLS[0], column)
        assert found is not None
        return found

    def leaks(self) -> LeakReport:
        """Which validation and test texts have a copy in training; worked out once, when first asked for."""
        return self._leaks

    @cached_property
    def _leaks(self) -> LeakReport:
        parts = {"validation": self.validation, "test": self.test}
        if not self.task.parts(self.labels[0]) or self.task.name == "multilabel":  # the labels are no classes
            parts = {name: replace(part, labels=("any",) * len(part)) for name, part in parts.items()}
        return find_leaks(self.train.texts, parts)


def load_data(
    source: str | Path | Table = "sms-spam",
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    split: str | Sequence[float] = SPLIT,
    protocol: str = "near-copy-free",
    balance: str = "natural",
    positive_label: str | None = None,
    seed: int = 0,
    columns: Sequence[str] = (),
    encoding: str | None = None,
    skip_bad_rows: bool = False,
    task: str | Task = "auto",
    label_separator: str | None = None,
    label_order: str | None = None,
    bins: str | None = None,
) -> Dataset:
    """Read labelled texts and split them into training, validation and test.

    Args:
        source: ``sms-spam``, ``demo``, the path of a table, a table, or a folder with train.csv, test.csv and perhaps
            validation.csv.
        text_column: the column of texts; found by its usual names when not given. ``label_column`` likewise.
        label_column: the column of labels.
        group_column: rows with the same value here (a speaker, a document) stay in one part.
        split_column: a column that says train, validation or test; a validation part that it lacks is taken
            from training.
        validation: a table of its own for validation. ``test`` likewise; the part not given is taken from
            ``source``.
        test: a table of its own for the test.
        split: shares of train, validation and test.
        protocol: ``near-copy-free`` keeps near copies (character-5-gram Jaccard >= 0.7) in one part,
            ``random`` does not, ``book`` is the procedure of the book, seed 123, balanced, in its order.
        balance: ``natural``, or ``undersample`` every class to the size of the smallest before splitting
            (only training where the test is given); ``undersample-train`` does so after splitting, so that
            validation and test keep the classes' natural shares.
        positive_label: of two classes the one whose precision and recall are reported.
        seed: the same seed and data give the same split, on every machine.
        columns: further columns to carry along.
        encoding: that of a text file which is not UTF-8.
        skip_bad_rows: leave out rows without text or label, each named in ``warnings``.
        task: ``auto`` finds it out and says why in ``task_reason``; ``binary``, ``multiclass``, ``multilabel``,
            ``regression`` or ``ordinal``; or that of an adapter.
        label_separator: what stands between several labels of a row; ``|`` where that is not given.
        label_order: classes of an ordinal task from the lowest to the highest, between commas.
        bins: numbers cut into ordered classes: ``low:2,medium:4,high`` (up to 2, up to 4, above), or how many.

    Raises:
        UsageError: a setting is wrong.
        DataError: the table cannot be used; every reason is listed.
        DownloadError: ``sms-spam`` is not here and could not be fetched.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    if balance not in BALANCES:
        raise unknown("balance", balance, BALANCES)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"The seed is {seed!r}; expected a whole number from 0.")
    shares = parse_shares(split)
    question = Question(task if isinstance(task, str) else "auto", label_separator, label_order, bins)
    folder = Path(source.name if isinstance(source, Table) else source).expanduser()
    prepared = not isinstance(source, Table) and source not in ("demo", "sms-spam") and is_prepared(folder)
    if prepared:
        source, test = folder / "train.csv", test or folder / "test.csv"
        if validation is None and (folder / "validation.csv").is_file():
            validation = folder / "validation.csv"
    own = split_column is not None or validation is not None or test is not None
    if split_column is not None and (validation is not None or test is not None):
        raise UsageError("Give a split column or files of your own for validation and test, not both.")
    if protocol == "book" and (own or group_column is not None):
        raise UsageError("--protocol book is one fixed split; it takes no group column and no split of your own.")
    if protocol == "book" and (balance != BALANCES[0] or shares != parse_shares(SPLIT)):
        raise UsageError("--protocol book is one fixed, balanced split; it takes neither --split nor --balance.")

    needed = [name for name in (group_column, split_column) if name]

    def corpus_of(place: str | Path | Table) -> Corpus:
        return load_corpus(
            place,
            text_column=text_column,
            label_column=label_column,
            columns=tuple(dict.fromkeys([*columns, *needed])),
            required=needed,
            encoding=encoding,
            skip_bad_rows=skip_bad_rows,
            empty_labels=question.may_be_empty or getattr(task, "name", "") == "multilabel",
        )

    corpus = corpus_of(source)
    if isinstance(task, str):
        question.check_guess(corpus, label_column)
    if prepared and corpus.licence is None:  # else it is a known corpus, with a name of its own
        name = folder.resolve().name
        corpus = replace(corpus, name=name, source=name)
    if protocol == "book" and corpus.table.raw_sms is not None:
        corpus = book.quoted_corpus(corpus, columns, skip_bad_rows=skip_bad_rows)
    fixed: dict[str, Part] = {}
    for side, place in (("validation", validation), ("test", test)):
        if place is not None:
            fixed[side] = corpus_of(place).part
    rest = corpus.part
    if split_column is not None:
        fixed, rest = partition.by_column(corpus.part, split_column, corpus.table.name)
    idle = [f"--split {split}"] if shares != parse_shares(SPLIT) else []
    idle += [f"--protocol {protocol}"] if protocol != PROTOCOLS[0] else []
    if len(fixed) == 2 and idle:
        raise UsageError(f"{corpus.table.name} comes with a whole split of its own: {', '.join(idle)} does not apply.")
    labels = [label for part in (rest, *fixed.values()) for label in part.labels]
    rows = [row for part in (rest, *fixed.values()) for row in part.rows]
    if isinstance(task, str):
        found, why = question.answer(labels, rows, corpus.label_column)
    else:
        found, why = Classification(tuple(sorted(set(labels)))) if task.softmax else task, "the adapter's"
    refuse_classes_only(found, positive_label, balance, protocol)
    rest = read_labels(rest, found, corpus.table.name)
    fixed = {side: read_labels(part, found, f"the {side} part") for side, part in fixed.items()}
    counted = [named(part, found) for part in (rest, *fixed.values())]
    labels = [label for part in counted for label in part.labels]
    numbers = not labels and not found.softmax
    problems = [] if numbers else label_problems(labels, [row for part in counted for row in part.rows])
    problems += [] if numbers else partition.unlearnt(counted[0], dict(zip(fixed, counted[1:], strict=True)))
    if problems:
        raise DataError(f"{corpus.table.name} cannot be split.", problems)
    positive = partition.positive_of(labels, positive_label) if found.softmax else None

    if protocol == "book":
        if len(set(labels)) != 2:
            raise UsageError(
                f"--protocol book balances two classes; {corpus.table.name} has {len(set(labels))}: "
                f"{', '.join(sorted(set(labels))[:10])}. There are also: near-copy-free, random."
            )
        first, second, third = (rest.take(places) for places in book.book_parts(rest.labels))
        parts: partition.Parts = (first, second, third)
    else:
        if balance == "undersample":
            rest = rest.take(undersample(found.strata(rest.labels), seed).tolist())
        parts = partition.split_part(rest, fixed, shares, seed, protocol, group_column, found.strata)
        if balance == "undersample-train":
            parts = partition.evened(parts, seed)
    partition.refuse_empty(parts, group_column)
    shown = [replace(part, labels=found.labels * len(part)) if numbers else named(part, found) for part in parts]
    warnings = [*corpus.warnings, *label_warnings(labels), *partition.part_warnings(shown, group_column)]
    if protocol == PROTOCOLS[0] and not own and balance != "undersample-train":
        warnings += partition.lopsided(parts, shares, group_column)
    if isinstance(task, str):
        found = found.fitted(parts[0].labels)
    return Dataset(
        corpus.name,
        *parts,
        labels=found.labels,
        positive_label=positive,
        protocol=GIVEN if own else protocol,
        digest=partition.digest_of(parts),
        licence=corpus.licence,
        source=corpus.source,
        warnings=tuple(warnings),
        text_column=corpus.text_column,
        label_column=corpus.label_column,
        other_task=None if found.softmax else found,
        task_reason=why,
        group_column=group_column,
    )


def load_table(
    source: str | Path,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    columns: Sequence[str] = (),
    encoding: str | None = None,
    skip_bad_rows: bool = False,
    empty_labels: bool = False,
) -> Part:
    """All labelled rows of a source, not split: for evaluation and for ``folds``.

    Raises as ``load_data`` does, but labels may occur once or be all the same; with ``empty_labels`` there may be none.
    """
    corpus = load_corpus(
        source,
        text_column=text_column,
        label_column=label_column,
        columns=columns,
        encoding=encoding,
        skip_bad_rows=skip_bad_rows,
        empty_labels=empty_labels,
    )
    if not len(corpus.part):
        raise DataError(f"{corpus.table.name} has no row with a text and a label.")
    return corpus.part


def folds(
    part: Part,
    k: int = 5,
    seed: int = 0,
    groups: str = "near-copy-free",
    *,
    group_column: str | None = None,
    validation: float = 0.1,
    balance: str = "natural",
    positive_label: str | None = None,
    task: str = "auto",
    label_separator: str | None = None,
    label_order: str | None = None,
    bins: str | None = None,
    label_column: str = "label",
    name: str = "table",
    licence: str | None = None,
    source: str = "",
    warnings: Sequence[str] = (),
) -> list[Dataset]:
    """``k`` datasets whose test parts together are all rows of ``part``, each row once.

    ``groups`` is ``near-copy-free`` or ``random``; with ``group_column`` (one of ``part.columns``) its groups
    stay together as well. ``validation`` is the share of the rows outside the test fold that is set aside, by
    the same rules. ``balance`` is ``natural``, or ``undersample-train``: the test folds keep the classes' natural
    shares in both. ``warnings`` of whoever read the rows go along. ``task`` (a name) and what follows it say what is
    learned, as in ``load_data``. Raises UsageError and DataError as ``load_data`` does.
    """
    if groups not in PROTOCOLS[:2]:
        raise unknown("protocol for folds", groups, PROTOCOLS[:2])
    if balance not in BALANCES[::2]:
        raise unknown("balance for folds", balance, BALANCES[::2])
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"The seed is {seed!r}; expected a whole number from 0.")
    if not 0 < validation < 1:
        raise UsageError(f"The validation share is {validation}; it lies between 0 and 1.")
    question = Question(task, label_separator, label_order, bins)
    asked, why = question.answer(part.labels, part.rows, label_column)
    refuse_classes_only(asked, positive_label, balance, groups)
    part = read_labels(part, asked, name)
    counted = named(part, asked)  # no row at all where labels are numbers
    problems = label_problems(counted.labels, counted.rows) if asked.softmax or counted.labels else []
    if problems:
        raise DataError(f"{name} cannot be split into folds.", problems)
    positive = partition.positive_of(part.labels, positive_label) if asked.softmax else None
    together = partition.groups_of(part, groups, group_column)
    numbers = asked.strata(part.labels)
    found = []
    for fold, places in enumerate(fold_parts(numbers, k, seed, together), 1):
        others = np.setdiff1d(np.arange(len(part)), places)
        kept = None if together is None else together[others]
        inner = divide(numbers[others], (1 - validation, validation), seed, kept)
        parts = (
            part.take(others[inner[0]].tolist()),
            part.take(others[inner[1]].tolist()),
            part.take(places.tolist()),
        )
        if balance == "undersample-train":
            parts = partition.evened(parts, seed)
        partition.refuse_empty(parts, group_column)
        found.append(
            Dataset(
                f"{name} fold {fold} of {k}",
                *parts,
                labels=asked.labels,
                positive_label=positive,
                protocol=groups,
                digest=partition.digest_of(parts),
                licence=licence,
                source=source,
                warnings=(
                    *warnings,
                    *label_warnings(counted.labels),
                    *partition.part_warnings([named(each, asked) for each in parts], group_column),
                ),
                label_column=label_column,
                other_task=None if asked.softmax else asked.fitted(parts[0].labels),
                task_reason=why,
                group_column=group_column,
            )
        )
    return found
