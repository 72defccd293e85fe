"""How scores of very many labels are shown: those that go worst, and where the others are."""

from __future__ import annotations

import numpy as np
import pytest

from lora_clf.adapters.canonical import plain
from lora_clf.cli.scores import MATRIX, SHOWN, show_classes
from lora_clf.metrics.classification import summarise


@pytest.mark.parametrize("count", [MATRIX, SHOWN, 50])
def test_classes(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"intent-{number:02d}" for number in range(count)]
    truth = np.repeat(np.arange(count - 1), 4)  # of the last label there is no text
    guess = truth.copy()
    wrong = [number * 4 for number in range(5)]  # of the first five one text each
    guess[wrong] = 5
    probabilities = np.eye(count)[guess]
    show_classes("test", plain(summarise(truth, probabilities, names)))
    out = capsys.readouterr().out
    assert sum(f"intent-{number:02d} " in out for number in range(count)) == min(count, SHOWN)
    assert all(f"intent-{number:02d} " in out for number in range(6))
    assert ("as intent-00" in out) == (count <= MATRIX) != ("is in --json" in out)
    assert (f"the {SHOWN} of {count} labels with the lowest F1" in out) == (count > SHOWN)
    assert (f"intent-{count - 1:02d} " in out) == (count <= SHOWN)
