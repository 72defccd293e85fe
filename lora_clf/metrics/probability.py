"""Probabilities of a classifier, and how far they can be believed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def softmax(logits: npt.ArrayLike) -> Floats:
    """Turn logits (..., C) into probabilities (..., C), in float64.

    The largest logit is taken off first, so that no exponential overflows.
    """
    scores = np.asarray(logits, dtype=np.float64)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result


def cross_entropy(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean of -log p(true class), in nats; 0.0 where there are no examples.

    A probability below 2.2e-16 (the spacing of float64 at 1) counts as that, so that one sure mistake does
    not make the mean infinite.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C).
    """
    truth = np.asarray(labels, dtype=np.intp)
    table = np.asarray(probabilities, dtype=np.float64)
    if not truth.size:
        return 0.0
    chosen = table[np.arange(truth.size), truth]
    # max: a probability of 1 + rounding must not make the loss negative
    return max(0.0, float(-np.log(np.maximum(chosen, np.finfo(np.float64).eps)).mean()))


def brier(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 1; 0.0 where there are no examples.

    1/2 sum_k (p_k - [k is true])^2 (Brier 1950, halved): of two classes the usual (p - y)^2.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C).
    """
    truth = np.asarray(labels, dtype=np.intp)
    table = np.asarray(probabilities, dtype=np.float64)
    if not truth.size:
        return 0.0
    apart = table.copy()
    apart[np.arange(truth.size), truth] -= 1.0
    return float((apart**2).sum(axis=1).mean() / 2)


class Reliability(NamedTuple):
    """What a reliability diagram shows; bin b holds the confidences in (edges[b], edges[b + 1]].

    ``confidence`` and ``accuracy`` are the means in each bin, 0.0 where ``counts`` is 0.
    """

    edges: Floats
    confidence: Floats
    accuracy: Floats
    counts: npt.NDArray[np.int64]


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> Reliability:
    """Compare confidence, the largest probability of each row, with how often it is right, bin by bin.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C).
        bins: how many parts of equal width 0 to 1 is cut into.
    """
    truth = np.asarray(labels, dtype=np.intp)
    table = np.asarray(probabilities, dtype=np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    sure = table.max(axis=1) if truth.size else np.zeros(0)
    right = (table.argmax(axis=1) == truth) if truth.size else np.zeros(0, dtype=bool)
    place = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    below = np.maximum(count, 1)
    return Reliability(
        edges,
        np.bincount(place, weights=sure, minlength=bins) / below,
        np.bincount(place, weights=right, minlength=bins) / below,
        count,
    )


def calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, 0 to 1: the expected calibration error of Guo et al. 2017.

    sum_b n_b / N |accuracy_b - confidence_b| over bins of equal width; 0.0 where there are no examples. With
    few examples it is above zero for a perfectly calibrated classifier too: compare it between classifiers on
    the same examples only.
    """
    table = reliability(labels, probabilities, bins)
    total = int(table.counts.sum())
    return float((table.counts * np.abs(table.accuracy - table.confidence)).sum() / total) if total else 0.0


def equal_mass(values: npt.NDArray[Any], parts: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Cut numbers into ``parts`` of about as many each: the largest of each part, and the part of each number (N,).

    Equal numbers share a part, so there are fewer parts where one run of them fills several. At least one number.
    """
    ordered = np.sort(values)
    ends = np.unique(ordered[np.ceil(np.arange(1, parts + 1) * len(ordered) / parts).astype(np.intp) - 1])
    return ends, np.searchsorted(ends, values, side="left")


def equal_mass_reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> Reliability:
    """Compare confidence with how often it is right in bins of about as many examples each.

    A tuned classifier gives nearly all examples a confidence near 1, where bins of equal width put them into one;
    these bins follow the examples (Nguyen and O'Connor 2015). Equal confidences share a bin, so the order of the
    examples does not matter, and there are at most as many bins as different confidences.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, C).
        bins: how many there are at most.
    """
    truth = np.asarray(labels, dtype=np.intp)
    table = np.asarray(probabilities, dtype=np.float64)
    if not truth.size:
        return Reliability(np.array([0.0, 1.0]), np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.int64))
    sure = table.max(axis=1)
    right = (table.argmax(axis=1) == truth).astype(np.float64)
    ends, place = equal_mass(sure, bins)
    count = np.bincount(place, minlength=ends.size)
    return Reliability(
        np.concatenate([[0.0], ends]),
        np.bincount(place, weights=sure, minlength=ends.size) / count,
        np.bincount(place, weights=right, minlength=ends.size) / count,
        count,
    )


def equal_mass_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, 0 to 1, over bins of about as many examples each.

    As `calibration_error`, with the bins of `equal_mass_reliability`: what Nixon et al. 2019 found to be the
    steadier estimate. Above zero for a perfectly calibrated classifier too, the more the fewer examples there are.
    """
    table = equal_mass_reliability(labels, probabilities, bins)
    total = int(table.counts.sum())
    return float((table.counts * np.abs(table.accuracy - table.confidence)).sum() / total) if total else 0.0
