"""What each strategy declares for tuning holds: values of its own fields, the default among them, each usable."""

from __future__ import annotations

import pytest

from lora_clf.tuners import create, strategies
from lora_clf.tuners.base import Tuner, rates_around

SEARCHED = {name: kind for name, kind in strategies().items() if kind.search}


def test_the_default_is_to_search_nothing() -> None:
    assert Tuner.search == {} and not create("head-only").search
    assert SEARCHED.keys() >= {"last-block", "full", "lora", "lora-scratch"}


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_is_over_the_strategys_own_settings(name: str) -> None:
    kind = SEARCHED[name]
    assert kind.search.keys() <= {"lr", *kind.flags()}
    for setting, values in kind.search.items():
        default = kind.learning_rate if setting == "lr" else kind.flags()[setting]
        assert len(values) == len(set(values)) > 1 and default in values, setting
        for value in values:
            if setting == "lr":
                assert 0 < value < 1
            else:
                assert create(name, **{setting: value}).settings()[setting] == value


def test_rates_lie_around_the_default() -> None:
    rates = rates_around(5e-4)
    assert rates[3] == 5e-4 and list(rates) == sorted(rates) and rates[-1] / rates[0] == pytest.approx(64, rel=0.01)
