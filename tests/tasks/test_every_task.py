"""Every task, with every strategy that is found: it trains, saves, loads, answers alike; and what a task promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_clf.adapters.adapter import load_adapter, read_header
from lora_clf.adapters.header import read_text
from lora_clf.adapters.pool import AdapterPool
from lora_clf.data.corpus import Part
from lora_clf.data.dataset import Dataset
from lora_clf.errors import AdapterFormatError, UsageError
from lora_clf.tasks import KINDS, NAMES, create, kind_of
from lora_clf.tasks.base import Task
from lora_clf.tasks.classification import Classification
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression
from lora_clf.training.loop import train
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create as strategy_of
from lora_clf.tuners import strategies
from tests.adapters.making import shared_base

WORDS = ("ruin", "dull", "plain", "good", "bliss")
TASKS: dict[str, Task] = {
    "binary": Classification(("ham", "spam"), "spam"),
    "multiclass": Classification(("a", "b", "c")),
    "multilabel": Multilabel(("a", "b", "c"), "|"),
    "regression": Regression(("score",)),
    "ordinal": Ordinal(("low", "medium", "high")),
}
LABELS = {
    "binary": ("ham", "spam"),
    "multiclass": ("a", "b", "c"),
    "multilabel": ("a", "a|b", "", "c", "a|b|c"),
    "regression": ("0", "1", "2.5", "3", "4"),
    "ordinal": ("low", "medium", "high"),
}


def dataset(name: str) -> Dataset:
    """Thirty texts in which a word goes with a label."""
    labels = LABELS[name]
    texts = tuple(f"{WORDS[n % len(labels)]} number {n} of them" for n in range(30))
    whole = Part(texts, tuple(labels[n % len(labels)] for n in range(30)), tuple(range(1, 31)))
    parts = (whole.take(range(18)), whole.take(range(18, 24)), whole.take(range(24, 30)))
    task = TASKS[name].fitted(parts[0].labels)
    return Dataset(
        name, *parts, labels=task.labels, positive_label=task.positive_label, protocol="given", digest="0" * 64,
        licence=None, source="test", other_task=None if task.softmax else task,
    )  # fmt: skip


def test_every_task_has_an_example_here() -> None:
    assert tuple(TASKS) == tuple(sorted(NAMES, key=list(TASKS).index)) and set(TASKS) == set(NAMES) and len(NAMES) == 5
    assert len(KINDS) == 4


# One of the two names of one label of several is enough: that is what every other test is about.
PAIRS = [(task, strategy) for task in TASKS if task != "multiclass" for strategy in strategies()]


def test_every_pair_is_tried() -> None:
    assert len(PAIRS) == len(KINDS) * len(strategies()) >= 76


@pytest.mark.parametrize(("name", "strategy"), PAIRS)
def test_every_strategy_learns_every_task_and_its_file_says_all(name: str, strategy: str, tmp_path: Path) -> None:
    base, data = shared_base("bert"), dataset(name)
    settings = TrainSettings(epochs=1, batch_size=9, max_length=24, precision="fp32")
    result = train(base, data, strategy_of(strategy), settings)
    folder = result.save(tmp_path / "one")
    loaded = load_adapter(folder, base, verify=True)
    texts = list(data.test.texts)
    assert loaded.header.task == name and loaded.header.answering == result.adapter.header.answering
    logits = loaded.logits(texts)
    assert logits.shape == (len(texts), data.task.outputs)
    assert np.array_equal(logits, result.adapter.logits(texts))
    answers = [[answer.as_dict() for answer in each.predict(texts)] for each in (loaded, result.adapter)]
    assert answers[0] == answers[1] and len(answers[0]) == 6
    assert result.test["n"] == 6 and np.isfinite(result.test["loss"])
    assert result.test[data.task.primary.key] == loaded.header.metrics["test"][data.task.primary.key]


@pytest.mark.parametrize("name", TASKS)
def test_a_pool_answers_as_the_adapter_alone(name: str, tmp_path: Path) -> None:
    base = shared_base("bert")
    pool, found = AdapterPool(base), {}
    for strategy in ("head-only", "lora"):
        adapter = train(base, dataset(name), strategy_of(strategy), TrainSettings(epochs=1, max_length=24)).adapter
        pool.add(strategy, adapter.save(tmp_path / strategy))
        found[strategy] = adapter.predict(["ruin of them", "bliss"])
    both = pool.predict_all(["ruin of them", "bliss"])
    assert set(both) == set(found)
    for strategy, answers in found.items():
        for one, other in zip(answers, both[strategy], strict=True):
            numbers = zip(_numbers(one.as_dict()), _numbers(other.as_dict()), strict=True)
            assert all(abs(a - b) < 1e-4 for a, b in numbers)


def _numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in _numbers(part)]
    return [float(value)] if isinstance(value, float) else []


@pytest.mark.parametrize("name", TASKS)
def test_a_row_s_loss_is_the_same_alone_and_its_sum_is_what_is_minimised(name: str) -> None:
    task, data = dataset(name).task, dataset(name)
    targets = torch.from_numpy(task.targets(data.train.labels))
    logits = torch.randn(len(targets), task.outputs, dtype=torch.float64)
    rows = task.row_losses(logits, targets)
    assert rows.shape == (18,) and bool((rows >= 0).all())
    alone = torch.cat([task.row_losses(logits[n : n + 1], targets[n : n + 1]) for n in range(18)])
    assert torch.allclose(rows, alone, rtol=1e-12)
    assert float(task.summed_loss(logits, targets)) == pytest.approx(float(rows.sum()), rel=1e-12)
    assert task.mean_loss(targets.numpy(), logits.numpy()) == pytest.approx(float(rows.mean()), rel=1e-9)


@pytest.mark.parametrize("name", TASKS)
def test_the_primary_score_is_the_mean_of_the_costs(name: str) -> None:
    data = dataset(name)
    task, targets = data.task, data.task.targets(data.train.labels)
    logits = np.random.default_rng(1).normal(size=(18, task.outputs)).astype(np.float32) * 3
    costs, scores = task.costs(targets, logits), task.assess(targets, logits)
    mean = 1 - costs.mean() if task.primary.higher else costs.mean()
    assert costs.shape == (18,) and scores[task.primary.key] == pytest.approx(mean)
    json.dumps(scores, allow_nan=False)


@pytest.mark.parametrize("name", TASKS)
def test_what_a_header_says_makes_the_same_task(name: str) -> None:
    task = dataset(name).task
    again = create(task.name, task.labels, positive_label=task.positive_label, settings=task.settings())
    assert again == task.settled(task.targets(LABELS[name]), np.zeros((len(LABELS[name]), task.outputs), np.float32))
    with pytest.raises(UsageError):
        create(task.name, task.labels, settings={**task.settings(), "newer": 1})
    assert kind_of(name) is type(task)


def test_a_header_of_another_task_names_what_its_reader_must_know(tmp_path: Path) -> None:
    result = train(shared_base("bert"), dataset("regression"), strategy_of("head-only"), TrainSettings(max_length=24))
    header = read_header(result.save(tmp_path / "one"))
    values = header.as_dict()
    assert values["requires"] == ["task_settings"] and set(values["task_settings"]) == {"loss", "mean", "std"}
    for change, said in (
        ({"task_settings": {"loss": "mse", "mean": 0.0, "std": -1.0}}, "above 0"),
        ({"task_settings": {"loss": "mse"}}, "a loss, a mean and a std"),
        ({"task_settings": 3}, "task_settings is 3"),
        ({"requires": []}, "requires does not name it"),
        ({"labels": ["one", "two"]}, "regression with one"),
    ):
        text = json.dumps({**values, **change}, sort_keys=True, separators=(",", ":"))
        with pytest.raises(AdapterFormatError, match=said):
            read_text(text)
    plain = train(shared_base("bert"), dataset("binary"), strategy_of("head-only"), TrainSettings(max_length=24))
    assert "task_settings" not in plain.adapter.header.as_dict() and plain.adapter.header.requires == ()
