"""What a strategy costs, and which of several is the cheapest: trainable parameters, then seconds.

Two layers of one function, as `lora` and `lora-scratch`, have as many parameters and are right in the same rows. What
the clock makes of such on a busy machine is no reason to take one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NEAR = 1.25  # times as long: runs that do the same differ by as much on a busy machine


@dataclass(frozen=True)
class Price:
    """What a strategy costs.

    Attributes:
        parameters: how many train.
        seconds: of training, at the cold price.
        found: what it got of every row with every seed; equal where two cannot be told apart at all.
    """

    parameters: int
    seconds: float
    found: bytes


def from_cheapest(prices: Mapping[str, Price]) -> list[str]:
    """The names from the cheapest to the dearest.

    Of those that train as many parameters and found the same the one named first in ``prices`` stands where the
    fastest would, unless it takes more than `NEAR` times as long.
    """
    order = sorted(prices, key=lambda name: (prices[name].parameters, prices[name].seconds))
    alike: dict[tuple[int, bytes], list[str]] = {}
    for name in order:
        alike.setdefault((prices[name].parameters, prices[name].found), []).append(name)
    first = {}
    for names in alike.values():
        near = [name for name in names if prices[name].seconds <= NEAR * prices[names[0]].seconds]
        first[names[0]] = next(name for name in prices if name in near)
    return list(dict.fromkeys(each for name in order for each in (first.get(name, name), name)))
