"""Who is cheaper: parameters, then seconds, and no noise of the clock between two layers of one function."""

from __future__ import annotations

import pytest

from lora_clf.comparison.price import NEAR, Price, from_cheapest

A, B = b"right, wrong, right", b"right, right, right"


@pytest.mark.parametrize(
    ("prices", "order"),
    [
        ({"large": Price(9, 1.0, A), "small": Price(2, 50.0, A)}, ["small", "large"]),
        ({"slow": Price(2, 5.5, A), "fast": Price(2, 5.0, B)}, ["fast", "slow"]),
        ({"first": Price(2, 5.5, A), "second": Price(2, 5.0, A)}, ["first", "second"]),
        ({"second": Price(2, 5.0, A), "first": Price(2, 5.5, A)}, ["second", "first"]),
        ({"first": Price(2, 5.0 * NEAR, A), "second": Price(2, 5.0, A)}, ["first", "second"]),
        ({"first": Price(2, 5.01 * NEAR, A), "second": Price(2, 5.0, A)}, ["second", "first"]),
        ({"first": Price(3, 5.0, A), "second": Price(2, 5.0, A)}, ["second", "first"]),
        # What stands between two of a function stays behind the faster of them, and before one that takes too long.
        ({"a": Price(2, 5.4, A), "b": Price(2, 5.0, A), "c": Price(2, 5.2, B)}, ["a", "b", "c"]),
        ({"a": Price(2, 9.0, A), "b": Price(2, 5.0, A), "c": Price(2, 5.2, B)}, ["b", "c", "a"]),
        ({"a": Price(2, 9.0, A), "b": Price(2, 5.5, A), "c": Price(2, 5.0, A)}, ["b", "c", "a"]),
    ],
)
def test_from_the_cheapest_to_the_dearest(prices: dict[str, Price], order: list[str]) -> None:
    assert from_cheapest(prices) == order
