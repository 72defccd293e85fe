"""Which texts count as one in the intervals of `evaluate`: near copies, and rows of one group."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lora_clf.data.corpus import Part

SEARCHED = 20_000  # texts; near copies are not looked for among more


def companions(part: Part, column: str | None) -> NDArray[np.int64] | None:
    """The group of each text (N,): near copies, and rows of one value in ``column``; None where all are strangers."""
    from lora_clf.data.partition import groups_of

    return groups_of(part, "near-copy-free" if len(part) <= SEARCHED else "random", column)


def counted(texts: int) -> str:
    """What stands beside intervals over so many texts."""
    if texts <= SEARCHED:
        return "near copies count as one"
    return f"each counts by itself, as near copies are looked for among up to {SEARCHED:,}"
