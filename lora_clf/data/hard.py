"""Rows that a table marks as hard, in a column called ``hard``: what counts as a mark, said once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_clf.data.corpus import Part

COLUMN = "hard"
MARKS = frozenset({"1", "true", "yes", "y", "hard", "x"})


def is_hard(mark: str) -> bool:
    """Whether a cell of the column ``hard`` marks its row: 1, true, yes, y, hard or x, in any case."""
    return mark.strip().lower() in MARKS


def hard_rows(part: Part) -> NDArray[np.bool_]:
    """Which rows of ``part`` are marked as hard (N,); none where it has no such column."""
    marks = part.columns.get(COLUMN)
    if marks is None:
        return np.zeros(len(part), bool)
    return np.fromiter((is_hard(mark) for mark in marks), bool, len(part))
