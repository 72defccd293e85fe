"""The steps between a checked corpus and its parts: groups, the user's own split, digest, warnings."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_clf.data.corpus import Part
from lora_clf.data.near_copies import THRESHOLD, components, join_groups
from lora_clf.data.split import divide, undersample
from lora_clf.errors import DataError, UsageError, unknown
from lora_clf.tasks.base import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("train", "validation", "test")
SIDES = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SIDES.update(dict.fromkeys(("validation", "valid", "val", "dev"), "validation"))

Parts = tuple[Part, Part, Part]


def groups_of(part: Part, protocol: str, group_column: str | None) -> NDArray[np.int64] | None:
    """What has to stay together (N,): near copies, equal values of the group column, or both; else None."""
    columns = []
    if protocol == "near-copy-free":
        columns.append(components(part.texts, THRESHOLD))
    if group_column is not None:
        if group_column not in part.columns:
            raise unknown("group column", group_column, part.columns)
        columns.append(numbered(part.columns[group_column]))
    return join_groups(*columns) if columns else None


def split_part(
    rest: Part,
    fixed: Mapping[str, Part],
    shares: Sequence[float],
    seed: int,
    protocol: str,
    group_column: str | None,
    strata: Callable[[Sequence[str]], NDArray[np.int64]],
) -> Parts:
    """Train, validation and test: those in ``fixed`` as they are, the others divided out of ``rest``.

    ``strata`` numbers rows by their labels; rows of one number are divided in the proportion of ``shares``.
    """
    open_sides = [side for side in NAMES if side not in fixed]
    if len(open_sides) == 1:
        return rest, fixed["validation"], fixed["test"]
    wanted = np.array([share for side, share in zip(NAMES, shares, strict=True) if side in open_sides])
    groups = groups_of(rest, protocol, group_column)
    divided = divide(strata(rest.labels), (wanted / wanted.sum()).tolist(), seed, groups)
    parts = dict(fixed) | {side: rest.take(places.tolist()) for side, places in zip(open_sides, divided, strict=True)}
    return parts["train"], parts["validation"], parts["test"]


def evened(parts: Parts, seed: int) -> Parts:
    """The parts with as many training rows of every class as the smallest has; the others as they are."""
    train, validation, test = parts
    kept = undersample(numbered(train.labels), seed).tolist() if len(train) else []
    return train.take(kept), validation, test


def by_column(part: Part, column: str, name: str) -> tuple[dict[str, Part], Part]:
    """The validation and test rows that a split column names, and the rows for training."""
    places: dict[str, list[int]] = {side: [] for side in NAMES}
    problems = []
    for place, value in enumerate(part.columns[column]):
        side = SIDES.get(value.strip().lower())
        if side is None:
            problems.append(f"row {part.rows[place]}: {value!r}; expected train, validation or test")
        else:
            places[side].append(place)
    if not problems and not places["train"]:
        problems.append("no row is for training")
    if not problems and not (places["validation"] or places["test"]):
        problems.append("every row is for training; none is for validation or test")
    if problems:
        raise DataError(f"Column {column!r} of {name} does not say how to split.", problems)
    fixed = {side: part.take(places[side]) for side in NAMES[1:] if places[side]}
    return fixed, part.take(places["train"])


def unlearnt(train: Part, fixed: Mapping[str, Part]) -> list[str]:
    """One line for each label of a given part that training does not have."""
    known = set(train.labels)
    problems = []
    for side, part in fixed.items():
        for label in sorted(set(part.labels) - known):
            row = part.rows[part.labels.index(label)]
            problems.append(
                f"label {label!r} of the {side} part (row {row}) is not in training, which has: "
                f"{', '.join(sorted(known)[:20])}"
            )
    return problems


def positive_of(labels: Sequence[str], asked: str | None) -> str | None:
    """The positive label of two classes: the one asked for, else the rarer (of equals the later by name)."""
    counts = Counter(labels)
    if len(counts) != 2:
        if asked is not None:
            raise UsageError(
                f"A positive label ({asked!r}) is for two classes; there are {len(counts)}: "
                f"{', '.join(sorted(counts)[:20])}. Leave it out."
            )
        return None
    if asked is not None:
        if asked not in counts:
            raise unknown("positive label", asked, counts)
        return asked
    return max(sorted(counts), key=lambda label: (-counts[label], label))


def refuse_empty(parts: Parts, group_column: str | None) -> None:
    """Raise DataError where a part has no row."""
    empty = [side for side, part in zip(NAMES, parts, strict=True) if not len(part)]
    if empty:
        groups = f" or groups in column {group_column!r}" if group_column else ""
        raise DataError(
            f"There are too few rows{groups} to fill every part: {', '.join(empty)} would be empty, of "
            f"{sum(map(len, parts))} rows. Near copies stay together; --protocol random divides them too."
        )


def part_warnings(parts: Sequence[Part], group_column: str | None) -> list[str]:
    """What is doubtful about a split: a class that a part lacks, a group on two sides of a given one."""
    warnings = []
    every = sorted({label for part in parts for label in part.labels})
    for side, part in zip(NAMES, parts, strict=True):
        lacking = sorted(set(every) - set(part.labels))
        if lacking:
            warnings.append(f"the {side} part has no row of: {', '.join(lacking)}")
    if group_column is not None:
        values = [set(part.columns[group_column]) for part in parts]
        shared = sorted((values[0] & values[1]) | (values[0] & values[2]) | (values[1] & values[2]))
        if shared:
            warnings.append(
                f"{len(shared)} values of {group_column!r} are on two sides of the given split, such as {shared[0]!r}"
            )
    return warnings


def lopsided(parts: Parts, shares: Sequence[float], group_column: str | None) -> list[str]:
    """A warning where validation or test got less than half of its share, since rows that stay together are many."""
    total, whole = sum(map(len, parts)), sum(shares)
    if all(2 * whole * len(part) >= share * total for part, share in zip(parts[1:], shares[1:], strict=True)):
        return []
    groups = f"near copies and the groups of {group_column!r}" if group_column else "near copies"
    return [
        f"of {total:,} rows {', '.join(f'{len(part):,} are {name}' for name, part in zip(NAMES, parts, strict=True))}, "
        f"not {'/'.join(f'{100 * share / whole:g}' for share in shares)} %, as {groups} stay together and are many "
        "here; --protocol random divides near copies, and its scores flatter"
    ]


def digest_of(parts: Parts) -> str:
    """SHA-256 over part, label and text of every row in order: the same rows split alike, the same digest."""
    digest = hashlib.sha256()
    for side, part in zip(NAMES, parts, strict=True):
        for label, text in zip(part.labels, part.texts, strict=True):
            digest.update(json.dumps([side, label, text]).encode("ascii") + b"\n")
    return digest.hexdigest()
