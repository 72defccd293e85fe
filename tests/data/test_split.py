from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_clf.data.split import divide, fold_parts, parse_shares, undersample
from lora_clf.errors import UsageError
from tests.pickles import search_path

SHARES = st.tuples(*[st.integers(1, 9)] * 3).map(lambda three: tuple(one / sum(three) for one in three))


def test_shares() -> None:
    assert parse_shares("70/10/20") == pytest.approx((0.7, 0.1, 0.2))
    assert parse_shares("8:1:1") == pytest.approx((0.8, 0.1, 0.1))
    assert parse_shares((1, 1, 2)) == pytest.approx((0.25, 0.25, 0.5))
    for wrong in ("80/20", "70/10/x", "70/0/30", "a", "", "70/10/inf", "1/1/nan", (1, 2)):
        with pytest.raises(UsageError, match="expected three numbers above 0"):
            parse_shares(wrong)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), SHARES, st.integers(0, 50))
def test_without_groups_each_class_is_divided_to_the_row(
    classes: list[int], shares: tuple[float, ...], seed: int
) -> None:
    labels = np.array(classes)
    parts = divide(labels, shares, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    if len(labels) >= 20 and min(np.bincount(labels)[np.unique(labels)]) * min(shares) >= 1:
        for part, share in zip(parts, shares, strict=True):
            for label in np.unique(labels):
                assert abs((labels[part] == label).sum() - share * (labels == label).sum()) < 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=80),
    SHARES,
    st.integers(0, 50),
)
def test_no_group_is_on_two_sides_and_every_row_is_somewhere(
    rows: list[tuple[int, int]], shares: tuple[float, ...], seed: int
) -> None:
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    parts = divide(labels, shares, seed, groups)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    sides = [set(groups[part].tolist()) for part in parts]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    if len(set(groups.tolist())) >= 3:
        assert all(sides)
    again = divide(labels, shares, seed, groups)
    assert all((one == other).all() for one, other in zip(parts, again, strict=True))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=12, max_size=60), SHARES, st.integers(0, 50))
def test_proportions_hold_to_within_a_group(sizes: list[int], shares: tuple[float, ...], seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.zeros(len(groups), np.int64)
    parts = divide(labels, shares, seed, groups)
    if min(shares) * len(groups) >= max(sizes):
        for part, share in zip(parts, shares, strict=True):
            assert abs(len(part) - share * len(groups)) <= max(sizes) + 1


def test_large_groups_are_not_all_in_training() -> None:
    groups = np.concatenate([np.repeat(np.arange(100), 5), np.arange(100, 600)])
    labels = np.zeros(len(groups), np.int64)
    shares = []
    for seed in range(10):
        parts = divide(labels, (0.7, 0.1, 0.2), seed, groups)
        assert [len(part) for part in parts] == [700, 100, 200]
        shares.append((groups[parts[2]] < 100).mean())
    assert 0.35 < np.mean(shares) < 0.65


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=10, max_size=60), st.integers(2, 6))
def test_folds_cover_every_row_once(rows: list[tuple[int, int]], k: int) -> None:
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    parts = fold_parts(labels, k, 3, groups)
    assert len(parts) == k
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    owner = {}
    for number, part in enumerate(parts):
        for group in groups[part].tolist():
            assert owner.setdefault(group, number) == number


def test_wrong_folds() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        fold_parts(np.zeros(4, np.int64), 1, 0)
    with pytest.raises(UsageError, match="5 folds were asked for of 4 rows"):
        fold_parts(np.zeros(4, np.int64), 5, 0)


def test_undersampling_is_even_and_seeded() -> None:
    labels = np.array([0] * 50 + [1] * 7 + [2] * 20)
    chosen = undersample(labels, 1)
    assert np.bincount(labels[chosen]).tolist() == [7, 7, 7]
    assert (np.diff(chosen) > 0).all()
    assert (chosen == undersample(labels, 1)).all()
    assert not (chosen == undersample(labels, 2)).all()


def test_the_same_in_another_process_with_another_hash_seed() -> None:
    program = (
        "from lora_clf.data.dataset import load_data\n"
        "print(load_data('demo', seed=3).digest, load_data('demo', protocol='random').digest)\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": search_path(*sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1234")
    }
    assert len(answers) == 1


@pytest.mark.parametrize(("classes", "rows"), [(150, 5), (50, 3), (10, 5), (10, 3)])
def test_many_small_classes_leave_no_part_behind(classes: int, rows: int) -> None:
    labels = np.repeat(np.arange(classes), rows)
    total = len(labels)
    for seed in (0, 1):
        sizes = [len(part) for part in divide(labels, (0.7, 0.1, 0.2), seed)]
        assert sum(sizes) == total
        assert all(abs(size - share * total) <= 2 for size, share in zip(sizes, (0.7, 0.1, 0.2), strict=True))
        folds = [len(part) for part in fold_parts(labels, 5, seed)]
        assert sum(folds) == total and max(folds) - min(folds) <= 2
    assert {tuple(part) for part in divide(labels, (0.7, 0.1, 0.2), 0)} != {
        tuple(part) for part in divide(labels, (0.7, 0.1, 0.2), 1)
    }
