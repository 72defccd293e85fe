"""Which training rows an epoch takes: every one once, or as many of each class as of every other.

A pure function of labels, seed and epoch, as the order of the batches is, so that a run can go on from any step.
Shapes: N rows, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NATURAL: Final = "natural"
SAMPLINGS: Final = (NATURAL, "balanced")
_DOMAIN: Final = 2  # keeps these random numbers apart from those of the order of the batches


def balanced_rows(labels: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The rows of one epoch, N again, each class as often as every other (to within one): (N,).

    Each class is a stream: its rows shuffled, then all of them shuffled anew, and so on. An epoch takes the next N / C
    of each. So rows of a rare class come several times an epoch, equally often; those of a common one come in turn,
    and after enough epochs each has been there. An epoch has as many steps as it would have without.

    Args:
        labels: class numbers (N,); classes that have no row get none.
        seed: of the run.
        epoch: from zero.
    """
    present = np.unique(labels)
    shares = [len(labels) // len(present) + (place < len(labels) % len(present)) for place in range(len(present))]
    drawn = []
    for number, share in zip(present, shares, strict=True):
        rows = np.flatnonzero(labels == number)
        first, last = epoch * share, (epoch + 1) * share  # of the stream
        turns = range(first // len(rows), -(-last // len(rows)))
        randoms = (np.random.default_rng((seed, _DOMAIN, int(number), turn)) for turn in turns)
        stream = np.concatenate([rows[random.permutation(len(rows))] for random in randoms])
        begin = turns.start * len(rows)
        drawn.append(stream[first - begin : last - begin])
    found: NDArray[np.int64] = np.concatenate(drawn)
    return found
