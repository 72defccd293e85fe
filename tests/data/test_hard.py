"""The marks of hard rows."""

from __future__ import annotations

from lora_clf.data.corpus import Part
from lora_clf.data.hard import hard_rows


def test_what_marks_a_row() -> None:
    marks = ("1", "0", "True", "", " yes ", "no", "X", "hard", "easy")
    count = len(marks)
    part = Part(("t",) * count, ("l",) * count, tuple(range(count)), {"hard": marks})
    assert hard_rows(part).tolist() == [True, False, True, False, True, False, True, True, False]
    assert hard_rows(Part(("t",), ("l",), (1,))).tolist() == [False]
