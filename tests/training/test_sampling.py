"""Balanced sampling: every class as often, every row of it as often, and a pure function of seed and epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lora_clf.inference.batches import training_rows
from lora_clf.training.sampling import balanced_rows


@pytest.mark.parametrize("counts", [(87, 13), (40, 30, 3), (5, 5), (7, 1), (20,)])
def test_each_class_comes_as_often(counts: tuple[int, ...]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for epoch in range(4):
        rows = balanced_rows(labels, 3, epoch)
        assert len(rows) == len(labels)
        found = np.bincount(labels[rows], minlength=len(counts))
        assert found.max() - found.min() <= 1
        for number in range(len(counts)):
            times = Counter(rows[labels[rows] == number].tolist())
            assert max(times.values()) - min(times.values()) <= 2  # the end of one pass and the beginning of the next


def test_over_epochs_every_row_comes_equally_often() -> None:
    labels = np.array([0] * 87 + [1] * 13)
    rows = np.concatenate([balanced_rows(labels, 0, epoch) for epoch in range(7)])
    times = np.bincount(rows, minlength=100)
    assert times.sum() == 700 and set(times[:87]) == {4, 5} and set(times[87:]) == {26, 27}


def test_it_depends_on_seed_and_epoch_alone() -> None:
    labels = np.array([0] * 60 + [1] * 9 + [3] * 2)  # no row of class 2
    first = balanced_rows(labels, 1, 5)
    balanced_rows(labels, 2, 0)
    np.testing.assert_array_equal(first, balanced_rows(labels, 1, 5))
    assert not np.array_equal(first, balanced_rows(labels, 1, 6))
    assert not np.array_equal(first, balanced_rows(labels, 2, 5))
    assert set(labels[first]) == {0, 1, 3}


def test_batches_take_the_rows_that_are_given_and_all_rows_as_before() -> None:
    lengths = np.random.default_rng(0).integers(1, 40, 103)
    given = np.array([0, 0, 0, 5, 7, 9, 9, 100])
    batches = training_rows(lengths, 3, 1, 0, rows=given)
    assert [len(batch) for batch in sorted(batches, key=len)] == [2, 3, 3]
    assert sorted(np.concatenate(batches)) == given.tolist()
    for one, other in zip(
        training_rows(lengths, 8, 1, 2), training_rows(lengths, 8, 1, 2, rows=np.arange(103)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
