"""What could not be saved in the end is refused before anything trains; very many labels can be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.provenance import MANY
from lora_clf.data.dataset import Dataset, Part
from lora_clf.errors import UsageError
from lora_clf.training.checkpoints import Checkpoints
from lora_clf.training.loop import train
from lora_clf.training.result import Progress
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create
from tests.bases import tiny_base
from tests.training.test_loop import toy

SETTINGS = TrainSettings(epochs=1, batch_size=64, lr=1e-2, precision="fp32")


def labelled(classes: int) -> Dataset:
    """Two texts a class for training, one for validation and one for the test."""
    names = tuple(f"intent number {number}" for number in range(classes))

    def part(copies: int, start: int) -> Part:
        places = list(range(classes)) * copies
        texts = tuple(f"{place} {start + row}" for row, place in enumerate(places))
        return Part(texts, tuple(names[place] for place in places), tuple(range(start, start + len(places))))

    parts = part(2, 1), part(1, 10_000), part(1, 20_000)
    return Dataset("many", *parts, names, None, "given", "0" * 64, "CC0-1.0", "made here")


@pytest.mark.parametrize("classes", [MANY, 600])
def test_an_adapter_of_many_labels_is_saved(classes: int, tmp_path: Path) -> None:
    base, data = tiny_base("bert"), labelled(classes)
    result = train(base, data, create("last-block"), SETTINGS)
    assert np.shape(result.test["confusion_matrix"]) == (classes, classes) and len(result.test["per_class"]) == classes
    result.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", base, verify=True)
    assert loaded.labels == data.labels
    kept: dict[str, Any] = dict(loaded.header.metrics["test"])
    assert kept["n"] == classes and kept["accuracy"] == result.test["accuracy"]
    assert ("confusion_matrix" in kept) == ("per_class" in kept) == (classes <= MANY)
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["labels"] == list(data.labels)


def refused(data: Dataset, tmp_path: Path, match: str, **more: Any) -> None:
    """That training is refused with what ``match`` says, before the first step and with nothing left on disk."""
    steps: list[Progress] = []
    place = Checkpoints(tmp_path / "checkpoints", every=1)
    with pytest.raises(UsageError, match=rf"could not be saved, so it was not begun\. (.|\n)*{match}"):
        train(
            more.pop("base", None) or tiny_base("bert"), data, create("lora"), SETTINGS, progress=steps.append,
            checkpoints=place, **more,
        )  # fmt: skip
    assert steps == [] and not (tmp_path / "checkpoints").exists()


def test_what_no_header_takes_is_refused_before_training(tmp_path: Path) -> None:
    parts = [
        replace(part, labels=tuple("c\n1" if each == "c1" else each for each in part.labels))
        for part in toy().parts.values()
    ]
    odd = Dataset("toy", *parts, ("c0", "c\n1"), "c\n1", "given", "0" * 64, "CC0-1.0", "made here")
    refused(odd, tmp_path, "positive_label")


def test_too_many_labels_are_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_clf.adapters.safetensors_file.HEADER_CAP", 30_000)
    refused(labelled(300), tmp_path, "takes .* bytes, of at most 30,000")
