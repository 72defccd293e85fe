"""How much the rows of each class count in the loss: alike, each class in sum as much as every other, or as given.

A weight of two is the same as having each row of that class twice. Shapes: N rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from lora_clf.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NONE: Final = "none"
BALANCED: Final = "balanced"


def parse_weights(text: str) -> dict[str, float] | None:
    """The weights of ``spam=5,ham=1`` by label; None for "none" and "balanced".

    Raises:
        UsageError: it is none of that; all that is wrong with it at once.
    """
    if text in (NONE, BALANCED):
        return None
    weights: dict[str, float] = {}
    problems = []
    for piece in text.split(","):
        label, sign, number = (part.strip() for part in piece.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not sign or not label:
            problems.append(f"{piece.strip()!r} is no LABEL=WEIGHT")
        elif not 0 < weight < math.inf:
            problems.append(f"the weight of {label} is {number!r}, expected a number above 0")
        elif label in weights:
            problems.append(f"{label} is named twice")
        else:
            weights[label] = weight
    if problems:
        raise UsageError(
            f"--class-weight {text}: {'; '.join(problems)}. Expected {BALANCED}, {NONE}, or weights as spam=5,ham=1."
        )
    return weights


def check_weights(text: str, names: Sequence[str]) -> None:
    """Refuse weights of labels that the data does not have.

    Raises:
        UsageError: with the labels that there are.
    """
    unknown = [label for label in parse_weights(text) or () if label not in names]
    if unknown:
        raise UsageError(
            f"--class-weight names {', '.join(unknown)}; the data has no such label, it has {', '.join(names)}."
        )


def class_weights(
    text: str, names: Sequence[str], labels: NDArray[np.int64], *, even: bool = False
) -> NDArray[np.float64] | None:
    """The weight of each class: (C,); None where all are one.

    "balanced" is N / (C' n_c) for the C' classes that have rows (King and Zeng 2001; scikit-learn's too): all classes
    weigh the same in sum, and the mean over the rows is one. Labels that are not named have weight one.

    Args:
        text: "none", "balanced" or ``LABEL=WEIGHT,...``.
        names: the labels in the order of their numbers.
        labels: of the training rows (N,).
        even: whether to even out the classes on top of it, which is what balanced sampling does in the mean.

    Raises:
        UsageError: a label that the data does not have.
    """
    check_weights(text, names)
    given = parse_weights(text)
    if not given and text != BALANCED and not even:
        return None
    weights = np.array([(given or {}).get(name, 1.0) for name in names])
    if text == BALANCED or even:
        counts = np.bincount(labels, minlength=len(names))
        weights *= len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return weights


def positive_weights(text: str, names: Sequence[str], targets: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """How much the rows that have a label count for it, where a row may have several: (C,); None where all are one.

    "balanced" is (N - n_c) / n_c: having a label weighs as much in sum as not having it. A weight of two is the same as
    having each row of that label twice, for that label alone. A label that no row has, or all have, keeps weight one.

    Args:
        text: "none", "balanced" or ``LABEL=WEIGHT,...``.
        names: the labels in the order of the columns.
        targets: ones and zeros of the training rows (N, C).

    Raises:
        UsageError: a label that the data does not have.
    """
    check_weights(text, names)
    if text == NONE:
        return None
    if given := parse_weights(text):
        return np.array([given.get(name, 1.0) for name in names])
    has = (targets > 0.5).sum(axis=0).astype(np.float64)
    return np.where((has > 0) & (has < len(targets)), (len(targets) - has) / np.maximum(has, 1), 1.0)
