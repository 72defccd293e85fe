"""The search for learning rates: a climb ends between two worse rates, and goes on from what is on the disk."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import learning_rates
import pytest

from lora_clf.tuners import strategies


def climbed(file: Path, best: float, folds: int = 1) -> list[tuple[float, int]]:
    """The rates that a climb tries where the loss is the distance from ``best``, and their folds."""
    arguments = argparse.Namespace(out=file, batch_size=16, climb=True, strategy=["lora"])
    tried = []
    for strategy, rate, number in learning_rates.cells(arguments, "sms-spam", folds):
        tried.append((rate, number))
        line = {"task": "sms-spam", "strategy": strategy, "rate": rate, "fold": number, "batch_size": 16}
        learning_rates._append(file, {**line, "loss": abs(math.log(rate / best))})
    return tried


@pytest.mark.parametrize(("best", "found"), [(1e-3, 1e-3), (2e-2, 0.03), (4e-4, 3e-4)])
def test_the_best_has_a_worse_one_on_either_side(best: float, found: float, tmp_path: Path) -> None:
    rates = [rate for rate, _ in climbed(tmp_path / "runs.jsonl", best)]
    assert rates[0] == strategies()["lora"].learning_rate and len(rates) == len(set(rates)) <= learning_rates.MOST
    assert min(rates, key=lambda rate: abs(math.log(rate / best))) == found
    assert min(rates) < found < max(rates)


def test_a_climb_goes_on_where_it_stopped_and_the_next_fold_from_the_best(tmp_path: Path) -> None:
    whole = climbed(tmp_path / "whole.jsonl", 1e-2, folds=2)
    assert next(rate for rate, fold in whole if fold == 1) == pytest.approx(1e-2)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    (tmp_path / "part.jsonl").write_text("\n".join(lines[:2]) + "\n")
    assert climbed(tmp_path / "part.jsonl", 1e-2, folds=2) == whole[2:]
    assert not climbed(tmp_path / "whole.jsonl", 1e-2, folds=2)


def test_the_summary_says_which_rates_are_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "family.jsonl"
    line = {"task": "sms-spam", "strategy": "lora", "fold": 0, "batch_size": 16, "error": 0.1}
    rates = {1e-3: 0.3, 3e-3: 0.1, 1e-2: 0.2}
    runs = [{**line, "rate": rate, "loss": loss} for rate, loss in rates.items()]
    runs += [{**line, "strategy": "ia3", "rate": rate, "loss": loss} for rate, loss in rates.items() if rate < 5e-3]
    # One of three seeds did not learn at a rate that is otherwise the best.
    other = {**line, "strategy": "full", "task": learning_rates.SEEDS}
    runs += [{**line, "strategy": "full", "rate": rate, "loss": loss} for rate, loss in rates.items()]
    runs += [{**other, "rate": rate, "fold": n, "loss": 0.1} for rate in rates for n in range(2)]
    runs += [{**other, "rate": rate, "fold": 2, "loss": 0.6 if rate == 3e-3 else 0.1} for rate in rates]
    file.write_text("".join(json.dumps(run) + "\n" for run in runs))
    learning_rates.summarise(argparse.Namespace(out=file, batch_size=16))
    value = json.loads(file.with_suffix(".json").read_text())
    assert {name: (entry["rate"], entry["open"]) for name, entry in value["chosen"].items()} == {
        "full": (1e-2, True),
        "ia3": (3e-3, True),
        "lora": (3e-3, False),
    }
    assert "| ia3 | 0.003 | no | 10.00 % | 0.001: 0.300, 0.003: 0.100 |" in learning_rates.table(value)
    assert "chosen" in capsys.readouterr().out


def test_what_is_drawn_of_a_fold_is_drawn_alike(tmp_path: Path) -> None:
    from tests.training.test_loop import toy

    data = toy(rows=40)
    short = learning_rates.shortened(data, 10, 0)
    assert len(short.train) == 10 and len(short.test) == 1 and short.validation == data.validation
    assert short.train.rows == learning_rates.shortened(data, 10, 0).train.rows
    assert learning_rates.shortened(data, None, 0) is data and learning_rates.shortened(data, 40, 0) is data
