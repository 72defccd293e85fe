from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from lora_clf.errors import UsageError
from lora_clf.metrics.probability import cross_entropy, equal_mass_calibration_error, softmax
from lora_clf.metrics.temperature import HIGHEST, LOWEST, PRIOR, fit_temperature


def drawn(rows: int, classes: int, seed: int, times: float = 1.0, scale: float = 2.0):  # type: ignore[no-untyped-def]
    """Labels drawn from the softmax of logits, and those logits ``times`` too large."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(scale=scale, size=(rows, classes))
    labels = (softmax(logits).cumsum(axis=1) > draw.random((rows, 1))).argmax(axis=1)
    return labels, (times * logits).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("times", [0.5, 1.0, 3.0])
def test_it_finds_how_much_too_sure_a_classifier_is(classes: int, times: float) -> None:
    labels, logits = drawn(20_000, classes, 1, times)
    found = fit_temperature(labels, logits)
    assert found.value == pytest.approx(times, rel=0.05) and found.rows == 20_000 and not found.reason
    assert found.loss[0] == pytest.approx(cross_entropy(labels, softmax(logits)))
    assert found.loss[1] <= found.loss[0] and found.error[1] < 0.02
    if times != 1.0:
        assert found.error[1] < found.error[0] / 3
    other, others = drawn(20_000, classes, 2, times)
    assert found.value is not None
    assert equal_mass_calibration_error(other, softmax(others / found.value)) < 0.02


@pytest.mark.parametrize("seed", range(8))
def test_the_minimum_is_that_of_scipy(seed: int) -> None:
    labels, logits = drawn(60 + 40 * seed, 2 + seed % 3, seed, times=0.5 + seed)
    found = fit_temperature(labels, logits)

    def price(log: float) -> float:
        return len(labels) * cross_entropy(labels, softmax(logits / np.exp(log))) + 0.5 * (log / PRIOR) ** 2

    expected = minimize_scalar(price, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    assert found.value == pytest.approx(np.exp(expected.x), rel=1e-3)
    assert found.value == float(f"{found.value:.4g}")  # no digits that differ between machines


def test_labels_do_not_change() -> None:
    labels, logits = drawn(500, 4, 3, 4.0)
    value = fit_temperature(labels, logits).value
    assert value is not None and value > 2
    assert (softmax(logits / value).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_too_few_rows_and_no_mistake_give_none_and_say_so() -> None:
    labels, logits = drawn(49, 2, 0)
    few = fit_temperature(labels, logits)
    assert few.value is None and "49 rows are too few; it takes 50" in few.reason
    _, logits = drawn(50, 2, 0)
    right = fit_temperature(logits.argmax(axis=1), logits)
    assert right.value is None and right.mistakes == 0 and "answered rightly" in right.reason
    assert right.loss[0] == right.loss[1] > 0
    nothing = fit_temperature([], np.zeros((0, 2)))
    assert nothing.value is None and nothing.rows == 0
    with pytest.raises(UsageError, match="logits of shape"):
        fit_temperature([0, 1], [0.5, 0.5])


def test_what_has_no_minimum_stays_within_bounds() -> None:
    """Always wrong and wholly sure: the less sure the better; the other way round: one mistake by a hair."""
    wrong = np.tile(np.array([[80.0, -80.0]]), (4000, 1))
    found = fit_temperature(np.ones(4000, dtype=int), wrong)
    assert found.value is not None and 15 < found.value <= HIGHEST and np.isfinite(found.loss[1])
    near = np.tile(np.array([[0.02, 0.0]]), (4000, 1))
    labels = np.zeros(4000, dtype=int)
    labels[0] = 1
    sharp = fit_temperature(labels, near)
    assert sharp.value == LOWEST and "end of what is sought" in sharp.reason


def test_one_validation_part_harms_less_than_the_plain_minimum() -> None:
    """Of a calibrated classifier with few errors, on 100 rows; what the docstring says of them."""
    plain, ours = [], []
    held, far = drawn(20_000, 2, 99, scale=6.0)
    none = cross_entropy(held, softmax(far))
    for seed in range(60):
        labels, logits = drawn(100, 2, seed, scale=6.0)
        found = fit_temperature(labels, logits).value or 1.0
        ours.append(cross_entropy(held, softmax(far / found)))
        if (logits.argmax(axis=1) != labels).any():
            grid = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 80))
            best = min(grid, key=lambda t: cross_entropy(labels, softmax(logits / t)))
            plain.append(cross_entropy(held, softmax(far / best)))
        else:
            plain.append(none)
    assert np.mean(ours) < np.mean(plain)
    assert np.mean(ours) < 1.08 * none
