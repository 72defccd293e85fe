from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import brier_score_loss, log_loss

from lora_clf.metrics.probability import (
    brier,
    calibration_error,
    cross_entropy,
    equal_mass_calibration_error,
    equal_mass_reliability,
    reliability,
    softmax,
)

LOGITS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 20), st.integers(2, 5)), elements=st.floats(-1e4, 1e4, width=32)
)


@settings(deadline=None)
@given(LOGITS)
def test_softmax_is_stable_and_equals_scipy(logits: np.ndarray) -> None:
    probabilities = softmax(logits)
    assert probabilities.dtype == np.float64
    assert np.allclose(probabilities.sum(axis=-1), 1)
    assert np.allclose(probabilities, scipy_softmax(logits.astype(np.float64), axis=-1))
    assert np.allclose(softmax(logits.astype(np.float64) + 1e3), probabilities)


@settings(deadline=None)
@given(LOGITS, st.integers(0, 10_000))
def test_cross_entropy_equals_scikit_learn(logits: np.ndarray, seed: int) -> None:
    classes = logits.shape[1]
    labels = np.random.default_rng(seed).integers(0, classes, len(logits))
    probabilities = softmax(logits)
    expected = log_loss(labels, probabilities, labels=range(classes))
    assert cross_entropy(labels, probabilities) == pytest.approx(expected, abs=1e-9)


def test_a_sure_mistake_is_finite() -> None:
    assert cross_entropy([1], [[1.0, 0.0]]) == pytest.approx(36.04, abs=0.01)
    assert cross_entropy([0], [[1.0 + 1e-12, 0.0]]) == 0.0
    assert cross_entropy([], np.zeros((0, 2))) == 0.0


def test_calibration_error_by_hand() -> None:
    # two bins of (0.5, 1]: one of four with 0.6 is right, two of two with 0.9
    probabilities = np.array([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 2)
    labels = [0, 1, 1, 1, 1, 1]
    assert calibration_error(labels, probabilities) == pytest.approx((4 * 0.35 + 2 * 0.1) / 6)
    table = reliability(labels, probabilities)
    assert table.counts.sum() == 6 and np.count_nonzero(table.counts) == 2 and len(table.edges) == 16


def test_edges_belong_to_the_bin_below() -> None:
    table = reliability([0, 0], [[1.0, 0.0], [0.5, 0.5]], bins=2)
    assert table.counts.tolist() == [1, 1]


def test_calibrated_and_overconfident_predictions_are_told_apart() -> None:
    random = np.random.default_rng(0)
    sure = random.uniform(0.5, 1.0, 20_000)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    labels = (random.random(20_000) > sure).astype(int)
    assert calibration_error(labels, probabilities) < 0.02
    overconfident = np.where(probabilities > 0.5, 1.0, 0.0)
    assert calibration_error(labels, overconfident) == pytest.approx(0.25, abs=0.01)
    assert calibration_error([], np.zeros((0, 2))) == 0.0


@settings(deadline=None)
@given(LOGITS, st.integers(0, 10_000))
def test_brier_equals_scikit_learn(logits: np.ndarray, seed: int) -> None:
    classes = logits.shape[1]
    labels = np.random.default_rng(seed).integers(0, classes, len(logits))
    table = softmax(logits)
    if classes == 2:
        expected = brier_score_loss(labels, table[:, 1], labels=[0, 1], pos_label=1)
    else:
        expected = brier_score_loss(labels, table, labels=range(classes), scale_by_half=True)
    assert brier(labels, table) == pytest.approx(expected)
    assert brier([], np.zeros((0, 2))) == 0.0


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.integers(1, 20))
def test_bins_of_equal_mass(seed: int, rows: int, bins: int) -> None:
    """All rows in, no bin empty, no run of equal confidences cut; without ties as even as can be."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, rows)
    table = softmax(draw.normal(size=(rows, 3)))
    found = equal_mass_reliability(labels, table, bins)
    assert found.counts.sum() == rows and found.counts.min() >= 1 and len(found.counts) == min(bins, rows)
    assert found.counts.max() - found.counts.min() <= 1 and found.edges[-1] == table.max()
    tied = softmax(draw.integers(0, 2, (rows, 3)).astype(np.float64))
    order = draw.permutation(rows)
    error = equal_mass_calibration_error(labels, tied, bins)
    assert error == pytest.approx(equal_mass_calibration_error(labels[order], tied[order], bins))
    assert len(equal_mass_reliability(labels, tied, bins).counts) <= len(np.unique(tied.max(axis=1)))


def test_bins_of_equal_mass_by_hand() -> None:
    table = np.array([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 4)
    assert equal_mass_calibration_error([0, 1, 1, 1, 1, 1, 1, 0], table, 2) == pytest.approx((0.35 + 0.15) / 2)
    # one bin sees only the mean, where too sure and not sure enough cancel
    assert equal_mass_calibration_error([0, 1, 1, 1, 1, 1, 1, 0], table, 1) == pytest.approx(0.75 - 0.5)
    assert equal_mass_calibration_error([], np.zeros((0, 2))) == 0.0


def test_bins_of_equal_mass_see_what_bins_of_equal_width_cannot() -> None:
    """Confidences of 0.95 and 0.99, one too sure and one not sure enough, stand in one bin of equal width."""
    table = np.array([[0.95, 0.05]] * 100 + [[0.99, 0.01]] * 100)
    labels = [0] * 100 + [0] * 94 + [1] * 6
    assert calibration_error(labels, table) < 0.001 + abs(0.97 - 0.97)
    assert equal_mass_calibration_error(labels, table) == pytest.approx(0.05)
