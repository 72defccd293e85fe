"""Every strategy on every architecture for every task: it gets gradients, and what it answers travels with its state.

`benchmarks/contract_counts.py` runs this and counts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lora_clf.base.base import Base
from lora_clf.inference.batches import collate
from lora_clf.inference.predict import logits
from lora_clf.tasks import NAMES, kind_of
from lora_clf.tasks.base import Task
from lora_clf.tuners import create
from tests.bases import ARCHITECTURE_NAMES, randomise, tiny_base
from tests.tuners.test_contract import STRATEGIES, refused

pytestmark = pytest.mark.slow

TEXTS = ("a plain text", "x", "longer than both of the others", "WIN", "", "so so", "bliss", "ruin")
# Labels as they stand in a table, over and over; of how many classes is the task's own business.
CELLS = {
    "binary": ("ham", "spam"),
    "multiclass": ("a", "b", "c"),
    "multilabel": ("a", "a|b", "", "c", "a|b|c"),
    "regression": ("0", "1", "2.5", "4"),
    "ordinal": ("low", "medium", "high"),
}
CLASSES = {"multilabel": ("a", "b", "c"), "regression": ("score",)}
CASES = [
    pytest.param(name, strategy, task, id=f"{name}/{strategy}/{task}")
    for name in ARCHITECTURE_NAMES
    for strategy in STRATEGIES
    for task in NAMES
]


def example(name: str) -> tuple[Task, list[str]]:
    """A task and the labels of `TEXTS`."""
    cells = CELLS[name]
    labels = [cells[place % len(cells)] for place in range(len(TEXTS))]
    task = kind_of(name)(CLASSES.get(name, cells))
    return (task.fitted(labels) if hasattr(task, "fitted") else task), labels


@pytest.fixture(scope="module")
def bases() -> dict[str, Base]:
    return {}


def test_the_examples_are_of_every_task() -> None:
    assert set(CELLS) >= set(NAMES) and len(CASES) == len(ARCHITECTURE_NAMES) * len(STRATEGIES) * len(NAMES)
    assert len(STRATEGIES) >= 19 and len(ARCHITECTURE_NAMES) >= 11 and len(NAMES) >= 2


@pytest.mark.parametrize(("name", "strategy", "task_name"), CASES)
def test_combination(bases: dict[str, Base], name: str, strategy: str, task_name: str) -> None:
    base = bases.setdefault(name, tiny_base(name))
    if refused(strategy, base):
        pytest.skip("refused, as it should be")
    task, labels = example(task_name)
    first = create(strategy).prepare(base.view(task.outputs, seed=3))
    randomise(first)
    tokens = base.encode(TEXTS, 24)
    batch = collate(tokens.ids, np.arange(len(TEXTS)))
    targets = torch.from_numpy(task.targets(labels))
    first.view.train()
    loss = task.summed_loss(first.view(batch.input_ids, batch.attention_mask).float(), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {parameter_name: p.grad for parameter_name, p in first.trainable().items()}
    assert torch.isfinite(loss.detach()) and all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    assert any(bool(g.abs().sum() > 0) for g in gradients.values() if g is not None)
    second = create(strategy).prepare(base.view(task.outputs, seed=4))
    second.load_state_dict(first.state_dict())
    ours, theirs = (logits(tuned.view.eval(), tokens) for tuned in (first, second))
    assert np.array_equal(ours, theirs) and ours.shape == (len(TEXTS), task.outputs)
    answers = [each.as_dict() for each in task.answers(ours, tokens.truncated)]
    assert answers == [each.as_dict() for each in task.answers(theirs, tokens.truncated)] and len(answers) == len(TEXTS)
    assert np.isfinite(task.assess(task.targets(labels), ours)["loss"])
