"""Labels become numbers and come back as they were, whatever they are called, in every task."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_clf.data.question import Question
from lora_clf.errors import UsageError
from lora_clf.tasks import NAMES, Classification, Regression, create
from lora_clf.tasks.base import Task
from lora_clf.tasks.multilabel import joined, split_labels

CALM = settings(max_examples=100, deadline=None, derandomize=True, database=None)
ALIKE = ("a", "\u0430", "A", "\uff41", "\u00e5", "a\u030a", "\u212b", "\ufb01", "fi", "ham", "h\u0430m", "ham\u200b")
ODD = (
    "0",
    "00",
    "1",
    "1.0",
    "01",
    "-1",
    "1e0",
    "nan",
    "inf",
    "true",
    "None",
    "null",
    "[",
    "[]",
    '["a"]',
    "a,b",
    "a;b",
    "'",
    '"',
)
NAME = st.sampled_from([*ALIKE, *ODD, "\u202eham", "spam spam", "\U0001f600", "x" * 500]) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6
)
# What a reader leaves of a cell: it has no white space around it, and is not empty.
NAMES_OF_LABELS = st.lists(NAME.map(str.strip).filter(bool), min_size=3, max_size=8, unique=True)
NUMBER = (
    st.floats(-1e6, 1e6, allow_subnormal=False).map(repr)
    | st.integers(-(10**6), 10**6).map(str)
    | st.sampled_from(["1", "1.0", "01", "1e0", "+1", "-0", "0", "\u0661"])
)


def again(task: Task) -> Task:
    """The task as an adapter's header has it."""
    settings: dict[str, Any] = json.loads(json.dumps(task.settings()))
    names = tuple(json.loads(json.dumps(task.labels)))
    return create(task.name, names, positive_label=task.positive_label, settings=settings)


def said(task: Task, logits: Any) -> list[Any]:
    return task.answers(np.asarray(logits, dtype=np.float32), np.zeros(len(logits), dtype=bool))


@CALM
@given(NAMES_OF_LABELS, st.integers(0, 99))
def test_one_label_of_several(names: list[str], seed: int) -> None:
    for chosen in (names, names[:2]):
        task = Classification(tuple(sorted(chosen)))
        rows = random.Random(seed).choices(chosen, k=12) + chosen
        numbers = task.targets(rows)
        assert again(task) == task and [task.labels[number] for number in numbers] == rows
        assert [answer.label for answer in said(task, 40 * np.eye(len(chosen))[numbers])] == rows
        assert [task.read(row) for row in rows] == rows
        with pytest.raises(ValueError, match="not known"):
            task.read(max(chosen, key=len) + "x")


@CALM
@given(NAMES_OF_LABELS, st.integers(0, 99))
def test_classes_in_order(names: list[str], seed: int) -> None:
    order = [name.replace(",", "") or f"n{place}" for place, name in enumerate(names)]
    order = list(dict.fromkeys(name.strip() or "n" for name in order))
    if len(order) < 3:
        return
    rows = random.Random(seed).choices(order, k=12) + order
    task, _ = Question(label_order=",".join(order)).answer(rows, range(1, len(rows) + 1), "label")
    assert task is not None and task.labels == tuple(order) and again(task) == task
    ranks = task.targets(rows)
    assert [order[rank] for rank in ranks] == rows
    places = np.arange(len(order) - 1)
    found = said(task, np.where(places[None, :] < ranks[:, None], 40.0, -40.0))
    assert [answer.label for answer in found] == rows


@CALM
@given(st.lists(NUMBER, min_size=3, max_size=9))
def test_numbers_as_text_are_classes_in_their_order(cells: list[str]) -> None:
    """In the order of the numbers; ``1`` and ``1.0`` have none, and are refused."""
    several = sorted(set(cells))
    if len(several) < 3:
        return
    if len({float(label) for label in several}) < len(several):
        with pytest.raises(UsageError, match="are the same"):
            Question(task="ordinal").answer(cells, range(1, len(cells) + 1), "label")
        return
    task, _ = Question(task="ordinal").answer(cells, range(1, len(cells) + 1), "label")
    assert task is not None and sorted(task.labels) == several and again(task) == task
    values = [float(label) for label in task.labels]
    assert values == sorted(values) and [task.labels[rank] for rank in task.targets(cells)] == cells


@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_numbers_of_any_size_have_a_deviation(unit: float) -> None:
    fitted = Regression(("stars",)).fitted([repr(number * unit) for number in (1.0, 2.0, 6.0)])
    assert fitted.mean / unit == pytest.approx(3.0) and fitted.std / unit == pytest.approx(14**0.5 / 3**0.5)
    found = fitted.assess(np.array([1.0, 2.0, 6.0]) * unit, (np.array([[2.0], [2.0], [5.0]]) - 3) / (14 / 3) ** 0.5)
    assert found["mae"] / unit == pytest.approx(2 / 3) and found["rmse"] / unit == pytest.approx((2 / 3) ** 0.5)
    assert found["r2"] == pytest.approx(1 - 2 / 14) and found["pearson"] == pytest.approx(9 / 84**0.5)


@CALM
@given(st.lists(NUMBER, min_size=2, max_size=9))
def test_a_number(cells: list[str]) -> None:
    task, _ = Question(task="regression").answer(cells, range(1, len(cells) + 1), "stars")
    assert task is not None
    if len({float(cell) for cell in cells}) == 1:
        with pytest.raises(UsageError, match="nothing to learn"):
            task.fitted(cells)
        return
    fitted = task.fitted(cells)
    assert isinstance(fitted, Regression)
    assert again(fitted) == fitted and fitted.labels == ("stars",)
    values = [
        answer.value for answer in said(fitted, (np.asarray(fitted.targets(cells))[:, None] - fitted.mean) / fitted.std)
    ]
    scale = max(1.0, *(abs(float(cell)) for cell in cells))
    assert np.allclose(values, [float(cell) for cell in cells], atol=1e-5 * scale)


@CALM
@given(NAMES_OF_LABELS, st.sampled_from(["|", ";", "||", "\u00a6"]), st.integers(0, 99))
def test_any_number_of_labels(names: list[str], separator: str, seed: int) -> None:
    draw = random.Random(seed)
    rows = [joined(draw.sample(names, draw.randint(0, len(names))), separator) for _ in range(8)]
    rows.append(joined(names, separator))
    task, _ = Question(label_separator=separator).answer(rows, range(1, len(rows) + 1), "labels")
    assert task is not None and task.labels == tuple(sorted(names)) and again(task).labels == task.labels
    targets = task.targets(rows)
    assert targets.shape == (9, len(names)) and targets[-1].all()
    for row, target, answer in zip(rows, targets, said(task, 80 * np.asarray(targets, np.float32) - 40), strict=True):
        mine = split_labels(row, separator)
        assert {task.labels[place] for place in np.flatnonzero(target)} == set(mine) == set(answer.labels)
        assert set(split_labels(answer.cells()[0], separator)) == set(mine) == set(task.parts(task.read(row)))


def test_every_task_is_among_them() -> None:
    assert set(NAMES) == {"binary", "multiclass", "multilabel", "regression", "ordinal"}


@CALM
@given(NAMES_OF_LABELS, st.sampled_from(["binary", "multiclass", "multilabel", "ordinal"]), st.randoms())
def test_the_order_of_the_rows_changes_no_number(names: list[str], kind: str, shuffle: random.Random) -> None:
    plain = [name.replace(",", "").replace("|", "").strip() for name in names]
    labels = [name for name in dict.fromkeys(plain) if name and not name.startswith("[")]  # a cell "[..." is a list
    if len(labels) < 3:
        return
    order = {"label_order": ",".join(labels)} if kind == "ordinal" else {}
    labels = labels[:2] if kind == "binary" else labels
    asked = Question(task=kind, **order)
    rows, found = labels * 2, []
    for _ in range(2):
        task, _ = asked.answer(rows, range(1, len(rows) + 1), "label")
        task = task or Classification(tuple(sorted(set(rows))))
        found.append({label: task.targets([label]).tolist() for label in labels})
        shuffle.shuffle(rows)
    assert found[0] == found[1] and len({str(number) for number in found[0].values()}) == len(labels)
