"""The learning rate over a run: a linear warm-up, then one of several shapes down from the peak."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

# What is left of the peak ``after`` steps behind a warm-up of ``rising``, of the ``falling`` that there are.
_SHAPES: Final[dict[str, Callable[[int, int, int], float]]] = {
    "linear": lambda after, falling, rising: max(0.0, (falling - after) / max(1, falling)),
    "cosine": lambda after, falling, rising: (1 + math.cos(math.pi * min(1.0, after / max(1, falling)))) / 2,
    "constant": lambda after, falling, rising: 1.0,
    "inverse-sqrt": lambda after, falling, rising: math.sqrt(max(1, rising) / (max(1, rising) + after)),
}
SCHEDULES: Final = tuple(_SHAPES)


def rate_share(schedule: str, step: int, total: int, warmup: float) -> float:
    """The share of the peak rate at ``step`` (from zero) of ``total``.

    It rises linearly over the first ``warmup`` share of the steps. Then it falls linearly to zero at the end (Devlin et
    al. 2019, appendix A.2), or along half a cosine to zero (Loshchilov and Hutter 2017, without restarts), or as one
    over the square root of the step (Vaswani et al. 2017, 5.3), or it stays.
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return _SHAPES[schedule](step - rising, total - rising, rising)
