"""A comparison whose heads answer in words: each cell has them, and those of linear heads are what they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_clf.adapters.file import read_header
from lora_clf.base.base import load_base
from lora_clf.base.verbalizer import Verbalizer
from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.contender import contenders_of
from lora_clf.comparison.plan import Cell, Plan, digest_of, with_digests
from lora_clf.errors import UsageError
from lora_clf.experiment.cell import run_cell
from tests.base.test_verbalizer import decoder

WORDS = Verbalizer("Text: {text}\nSpam:", {"spam": "yes", "ham": "no"})


def plan(base: Path, table: Path, verbalizer: Verbalizer | None) -> Plan:
    arguments = BaseArguments(str(base), device="cpu").asking(verbalizer)
    training = {"epochs": 1, "batch_size": 32, "precision": "fp32", "max_length": 64}
    return Plan(contenders_of(["bitfit"]), (0,), arguments, DataArguments(str(table)), training)


def test_a_cell_trains_and_saves_heads_that_answer_in_words(tmp_path: Path, table: Path) -> None:
    folder = decoder(tmp_path / "speaker", "gpt2", tied=True)
    asked = plan(folder, table, WORDS)
    base, data = load_base(folder, device="cpu"), asked.data.load(0)
    cell = with_digests(asked.cells()[0], base, data, "here")
    assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell
    outcome = run_cell(cell, tmp_path / "cells" / "one", tmp_path / "adapter")
    header = read_header(tmp_path / "adapter")
    assert header.verbalizer is not None and header.verbalizer["words"] == ["no", "yes"]
    assert header.verbalizer["template"] == WORDS.template and header.base_digest == base.digest
    assert outcome.texts_per_second and outcome.trainable_parameters == header.parameters
    with pytest.raises(UsageError, match="no word for ham"):
        replace(asked.base, words='{"spam": "yes"}').answering(base, data.labels)


def test_cells_of_linear_heads_have_the_digests_that_they_had(tmp_path: Path, table: Path) -> None:
    linear, words = plan(tmp_path, table, None), plan(tmp_path, table, WORDS)
    assert set(linear.to_json()["base"]) == {"name", "revision", "device", "pooling", "max_length"}
    assert linear.cells()[0].digest != words.cells()[0].digest
    other = plan(tmp_path, table, replace(WORDS, template="{text}?"))
    assert other.cells()[0].digest != words.cells()[0].digest
    assert digest_of(linear.base.to_json()) != digest_of(words.base.to_json())
