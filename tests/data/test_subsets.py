"""Subsets of k a class: nested, fixed test part, no near copy on two sides; and folds inside the training part."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset
from lora_clf.data.near_copies import components
from lora_clf.data.partition import digest_of
from lora_clf.data.subsets import Draws, folds_within
from lora_clf.errors import DataError, UsageError


def part(start: int, count: int, copies: int = 1, rare: int = 0) -> Part:
    """``count`` texts of two classes, each ``copies`` times with one letter changed, and ``rare`` of a third."""
    draw = random.Random(start)
    texts, labels = [], []
    for number in range(count):
        text = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=60))
        for copy in range(copies):
            texts.append(text + str(copy))
            labels.append("b" if number % 2 else "a")
    for _ in range(rare):
        texts.append("".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=60)))
        labels.append("c")
    return Part(tuple(texts), tuple(labels), tuple(range(start, start + len(texts))))


def data(copies: int = 1, count: int = 80, rare: int = 0) -> Dataset:
    parts = (part(1, count, copies, rare), part(1001, 20, copies), part(2001, 30))
    labels = ("a", "b", "c") if rare else ("a", "b")
    return Dataset("made", *parts, labels, None, "near-copy-free", digest_of(parts), None, "made.csv")


def sides(subset: Dataset) -> dict[int, str]:
    return {row: side for side in ("train", "validation") for row in subset.parts[side].rows}


def test_a_subset_has_k_of_each_class_and_the_same_test_part() -> None:
    whole = data()
    draws = Draws(whole)
    for k, validation in ((2, 1), (3, 1), (7, 1), (8, 2), (16, 4), (33, 8)):
        found = draws.subset(k, 0)
        assert Counter(found.train.labels) == {"a": k - validation, "b": k - validation}, k
        assert Counter(found.validation.labels) == {"a": validation, "b": validation}
        assert found.test is whole.test and found.digest == digest_of(tuple(found.parts.values()))  # type: ignore[arg-type]
        assert not set(sides(found)) & set(whole.test.rows) and not found.warnings
        assert list(found.train.rows) == sorted(found.train.rows)
    assert draws.largest == 50


@pytest.mark.parametrize("copies", [1, 3])
def test_subsets_of_one_draw_are_nested_and_so_are_their_parts(copies: int) -> None:
    draws = Draws(data(copies))
    for draw in range(3):
        found = [sides(draws.subset(k, draw)) for k in (2, 4, 9, 16, 40)]
        for small, large in pairwise(found):
            assert small.items() < large.items()
    assert len({draws.subset(8, draw).digest for draw in range(10)}) == 10


def test_near_copies_stay_on_one_side_and_come_last() -> None:
    draws = Draws(data(copies=3))
    groups = dict(zip(draws.pool.rows, components(draws.pool.texts).tolist(), strict=True))
    assert len(set(groups.values())) == 100
    for k in (16, 50, 120):
        for draw in range(4):
            found = draws.subset(k, draw)
            train, validation = ({groups[row] for row in found.parts[side].rows} for side in ("train", "validation"))
            assert not train & validation
            # 50 groups a class: up to there no second text of one is taken.
            assert len(train | validation) == min(2 * k, 100)


def test_the_same_draw_again_and_another_seed() -> None:
    whole = data()
    assert Draws(whole).subset(8, 3).digest == Draws(whole).subset(8, 3).digest
    assert Draws(whole).subset(8, 3).digest != Draws(whole, seed=1).subset(8, 3).digest


def test_a_class_with_fewer_gives_all_it_has() -> None:
    found = Draws(data(rare=5)).subset(16, 0)
    assert Counter(found.train.labels)["c"] == 4 and Counter(found.validation.labels)["c"] == 1
    assert found.warnings == ("class 'c' has 5 of the 16 examples",)


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        Draws(data()).subset(1, 0)
    same = Part(("the same text again",) * 8, ("a", "b") * 4, tuple(range(8)))
    whole = Dataset("same", same, Part((), (), ()), same, ("a", "b"), None, "random", "d", None, "s")
    with pytest.raises(DataError, match="near copies of each other"):
        Draws(whole).subset(3, 0)


def test_the_groups_of_a_column_stay_on_one_side() -> None:
    whole = data()
    column = {"sender": tuple(f"s{number // 4}" for number in range(len(whole.train)))}
    other = {"sender": tuple(f"t{number // 4}" for number in range(len(whole.validation)))}
    whole = Dataset(
        "made", Part(*_fields(whole.train), column), Part(*_fields(whole.validation), other), whole.test,
        whole.labels, None, "random", "d", None, "s",
    )  # fmt: skip
    found = Draws(replace(whole, group_column="sender")).subset(20, 1)
    of = [set(found.parts[side].columns["sender"]) for side in ("train", "validation")]
    assert of[0] and of[1] and not of[0] & of[1]


def _fields(one: Part) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    return one.texts, one.labels, one.rows


def test_folds_within_are_of_the_training_part_alone() -> None:
    whole = data(copies=2)
    found = folds_within(whole, 3, 5)
    rows = np.concatenate([fold.test.rows for fold in found])
    assert len(found) == 3 and sorted(rows.tolist()) == list(whole.train.rows)
    groups = dict(zip(whole.train.rows, components(whole.train.texts).tolist(), strict=True))
    for fold in found:
        used = [row for side in fold.parts.values() for row in side.rows]
        assert sorted(used) == list(whole.train.rows) and len(fold.validation)
        of = [{groups[row] for row in side.rows} for side in fold.parts.values()]
        assert not of[0] & of[1] and not of[0] & of[2] and not of[1] & of[2]
    assert len({fold.digest for fold in found}) == 3
    with pytest.raises(DataError, match="groups of near copies"):
        folds_within(data(count=4), 3)
