"""Adapters of every task through what is done with adapters: exported, averaged, extracted, described, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.average import average
from lora_clf.adapters.card import card
from lora_clf.adapters.extraction import extract
from lora_clf.adapters.plain import export, merge
from lora_clf.base.base import Base, load_base
from lora_clf.errors import UnsupportedBaseError, UsageError
from lora_clf.tasks.base import Task
from lora_clf.tasks.multilabel import Multilabel
from lora_clf.tasks.ordinal import Ordinal
from lora_clf.tasks.regression import Regression
from lora_clf.tuners import create
from tests.adapters.making import shared_base
from tests.adapters.whole_bases import whole_base

TASKS: dict[str, Task] = {
    "multilabel": Multilabel(("a", "b", "c"), "|", (0.4, 0.5, 0.6)),
    "regression": Regression(("stars",), "mse", 3.25, 1.5),
    "ordinal": Ordinal(("low", "medium", "high")),
}
TEXTS = ["Are we still on for lunch?", "WIN a prize " * 5, "ok"]


def adapter_of(name: str, strategy: str = "lora", pooling: str = "family", base: Base | None = None) -> Adapter:
    """An adapter of that task with weights at random."""
    from lora_clf.adapters.provenance import make_header

    task, base = TASKS[name], base or shared_base("bert")
    tuned = create(strategy).prepare(base.view(task.outputs, pooling, seed=3))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in tuned.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    targets = task.targets({"multilabel": ["a|b", "c", ""], "regression": ["1", "2", "5"]}.get(name, task.labels))
    scores = task.assess(targets, np.random.default_rng(0).normal(size=(3, task.outputs)).astype(np.float32))
    header = make_header(base, tuned, labels=task.labels, task=task, seed=3, metrics={"test": scores})
    return Adapter(base, tuned, header)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    return lambda name: whole_base(name, tmp_path_factory.mktemp("bases") / name, bytes_only=name == "gpt2")


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_the_pipeline_says_what_the_adapter_says(
    name: str, task: str, whole: Callable[[str], Base], tmp_path: Path
) -> None:
    adapter = adapter_of(task, base=whole(name))
    written = export(adapter, tmp_path / "plain")
    run: Any = pipeline("text-classification", model=str(tmp_path / "plain"), device="cpu")
    rows = [{each["label"]: each["score"] for each in row} for row in run(TEXTS, top_k=None, truncation=True)]
    for row, answer in zip(rows, adapter.predict(TEXTS), strict=True):
        expected = {"stars": answer.value} if task == "regression" else answer.probabilities
        assert row == pytest.approx(expected, abs=1e-4)
    assert (
        written.difference < 1e-4 and ("number itself" if task == "regression" else "a from 0.4") in written.remarks[0]
    )


def test_what_transformers_cannot_answer_is_refused(whole: Callable[[str], Base], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no classification class whose pipeline answers an ordinal task"):
        export(adapter_of("ordinal"), tmp_path / "plain")
    with pytest.raises(UnsupportedBaseError, match="gpt2 has no bias"):
        export(adapter_of("regression", base=whole("gpt2")), tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize("task", TASKS)
def test_merged_extracted_and_averaged_adapters_keep_the_task(
    task: str, whole: Callable[[str], Base], tmp_path: Path
) -> None:
    adapter = adapter_of(task, "last-block", "mean", whole("bert"))
    _, head = merge(adapter, tmp_path / "merged")
    again = load_adapter(tmp_path / "merged" / "head", load_base(tmp_path / "merged"), verify=True)
    assert again.header.answering == head.header.answering == adapter.header.answering
    assert np.allclose(again.logits(TEXTS), adapter.logits(TEXTS), atol=1e-4)
    assert extract(adapter, 4).adapter.header.answering == TASKS[task].unsettled()
    both = average([adapter, adapter]).adapter
    assert both.header.answering == TASKS[task].unsettled() and np.allclose(both.logits(TEXTS), adapter.logits(TEXTS))
    if task == "regression":
        other = adapter_of(task, "last-block", "mean", adapter.base)
        other.header = replace(other.header, task_settings={"loss": "mse", "mean": 0.0, "std": 1.0})
        with pytest.raises(UsageError, match="the task of the first is regression"):
            average([adapter, other])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pooling", ["family", "mean"])
def test_the_card_s_lines_print_the_adapter_s_answer(
    task: str, pooling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = adapter_of(task, pooling=pooling)
    text = card(adapter.header)
    measured = {"multilabel": "micro-F1", "regression": "mean absolute error", "ordinal": "quadratic kappa"}[task]
    assert f"| {measured} |" in text and "pipeline_tag: text-classification" in text
    logits = torch.from_numpy(adapter.logits(TEXTS))
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1]
    labels = next(line for line in code.splitlines() if "LABELS = " in line).rpartition(" = ")[2]
    last = code[code.rindex("logits = ") :].split("\n", 1)[1]
    for row, answer in zip(logits, adapter.predict(TEXTS), strict=True):
        exec(last, {"logits": row, "LABELS": eval(re.search(r"\[.*\]", labels).group())})  # type: ignore[union-attr]
        shown = capsys.readouterr().out.strip()
        if task == "regression":
            assert float(shown) == pytest.approx(answer.value, abs=1e-4)
        else:
            assert shown == (str(list(answer.labels)) if task == "multilabel" else answer.label)
