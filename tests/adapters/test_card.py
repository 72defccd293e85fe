"""The card: for people, and for the Hub's own reader."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from lora_clf.adapters.adapter import Adapter
from lora_clf.adapters.card import card
from tests.adapters.making import STRATEGIES, make


def written(adapter: Adapter, folder: Path) -> Any:
    adapter.save(folder)
    return ModelCard.load(folder / "README.md")


def metadata(text: str) -> Any:
    return ModelCard(text).data


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_hub_reads_the_metadata(strategy: str, tmp_path: Path) -> None:
    data = written(make(strategy=strategy), tmp_path / "a").data
    assert data.license == "cc-by-4.0"
    assert data.pipeline_tag == "text-classification"
    assert data.library_name == ("peft" if strategy.startswith("lora") else "lora-clf")
    assert {"lora-clf", strategy} <= set(data.tags or ())
    assert data.metrics == ["accuracy", "f1"]
    assert data.base_model is None  # a folder's name is no repository


def test_a_base_of_the_hub_is_named() -> None:
    header = replace(make().header, base_name="minilm")
    data = metadata(card(header))
    assert data.base_model == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert "load_base()\n" in card(header) and "--base" not in card(header)
    assert "1110a243fdf4706b3f48f1d95db1a4f5529b4d41" in card(header)
    pinned = replace(header, base_name="owner/name@abc")
    assert metadata(card(pinned)).base_model == ["owner/name"]
    assert 'load_base("owner/name@abc")' in card(pinned)


@pytest.mark.parametrize(
    ("licence", "expected"), [("Apache-2.0", "apache-2.0"), (None, "unknown"), ("Our: own\n#1", "other")]
)
def test_any_licence_is_valid_metadata(licence: str | None, expected: str) -> None:
    assert metadata(card(replace(make().header, licence=licence))).license == expected


def test_nothing_in_a_header_breaks_the_card() -> None:
    nasty = "---\n`x`|\u2028\"'"
    header = make(labels=("a", nasty), data_name=nasty, positive_label=nasty).header
    text = card(replace(header, threshold=0.3))
    assert metadata(text).pipeline_tag == "text-classification"
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables if not line.startswith("| data")} <= {3, 4}
    assert "from a probability of 0.3 on" in text


def test_what_a_person_wants_to_know(tmp_path: Path) -> None:
    adapter = make()
    text = str(written(adapter, tmp_path / "a"))
    for part in ("`ham`, `spam`", "lora-clf predict", "0.8750", "test (8 texts)", adapter.header.digest, "epochs 3"):
        assert part in text
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b|/home|/tmp", text)
    assert "## Measured" not in card(replace(adapter.header, metrics={}))


def test_the_scores_are_the_hub_s_model_index(tmp_path: Path) -> None:
    scores = {"n": 8, "accuracy": 0.875, "macro_f1": 0.81, "precision": 0.9, "recall": 2 / 3, "confusion_matrix": [[1]]}
    metrics = {"validation": {"accuracy": 0.75}, "test": scores}
    data = written(make(metrics=metrics, data_name="SMS Spam / 2"), tmp_path / "a").data
    found = {(each.dataset_split, each.metric_type, each.metric_name): each.metric_value for each in data.eval_results}
    assert found == {
        ("test", "accuracy", "accuracy"): 0.875,
        ("test", "f1", "macro-F1"): 0.81,
        ("test", "precision", "precision of spam"): 0.9,
        ("test", "recall", "recall of spam"): 2 / 3,
        ("validation", "accuracy", "accuracy"): 0.75,
    }
    each = data.eval_results[0]
    assert (each.task_type, each.dataset_name, each.dataset_type) == (
        "text-classification",
        "SMS Spam / 2",
        "sms-spam-2",
    )
    assert data.model_name == "SMS Spam / 2 lora-scratch"
    none = metadata(card(replace(make().header, metrics={})))
    assert none.eval_results is None and none.library_name == "peft"
    nan = metadata(card(replace(make().header, metrics={"test": {"accuracy": None, "n": 3}})))
    assert nan.eval_results is None


def test_the_metadata_survives_the_hub_s_own_writer(tmp_path: Path) -> None:
    """Valid YAML with what the Hub looks for, read, written and read again by its library."""
    header = replace(make().header, base_name="owner/name@abc")
    first = ModelCard(card(header))
    again = ModelCard(str(first))
    assert again.data.to_dict() == first.data.to_dict()
    assert set(first.data.to_dict()) == {
        "base_model", "base_model_relation", "license", "library_name", "pipeline_tag", "metrics", "tags",
        "model-index",
    }  # fmt: skip
    assert first.data.to_dict()["base_model_relation"] == "adapter"


def test_characters_of_any_plane_are_read_back() -> None:
    """An escaped pair of surrogates would be two characters to YAML and to Python."""
    name = "emoji \U0001f600 \u2028 \x85 ü \ud7ff \"'\\ud83d"
    header = replace(make(labels=("a", "\U0001f600")).header, data_name=name, base_name="minilm")
    data = metadata(card(header))
    assert data.eval_results[0].dataset_name == name
    snippet = re.findall(r"```python\n(.*?)```", card(header), re.DOTALL)[1]
    line = next(line for line in snippet.splitlines() if line.startswith("BASE, FOLDER, LABELS = "))
    assert eval(line.split(" = ")[1])[2] == ["a", "\U0001f600"]


def test_temperature_and_threshold_say_what_stands_behind_them() -> None:
    threshold = {
        "value": 0.62, "rule": "precision", "target": 0.95, "rows": 150, "positives": 21, "flagged": 19, "hits": 19,
        "precision": 1.0, "precision_bound": 0.8541, "recall": 0.9048,
    }  # fmt: skip
    temperature = {"value": 1.4, "rows": 150, "calibration_error_before": 0.04, "calibration_error_after": 0.01}
    training = {"epochs": 3, "threshold": threshold, "temperature": temperature}
    header = make(threshold=0.62, temperature=1.4, training=training, pooling="family").header
    text = card(header)
    assert "| threshold | 0.62, the lowest with a precision of 0.95 on 150 validation rows, 21 of them spam" in text
    assert "precision 1.0000 (95 % lower bound 0.8541), recall 0.9048 |" in text
    assert (
        "| temperature | 1.4, fitted on 150 validation rows: calibration error there 0.0400 before, 0.0100 after"
        in text
    )
    assert "| training | epochs 3 |" in text
    assert "the temperature and the threshold of this adapter (below) are applied by lora_clf, not by peft" in text
    # as another program may have written it: nothing known, or nonsense
    for other in ({}, {"threshold": {"rows": "x"}, "temperature": {"rows": []}}, {"threshold": 3}):
        assert "| threshold | 0.62" in card(replace(header, training=other))
    plain = card(replace(header, threshold=None, temperature=None))
    assert "| threshold" not in plain and "by lora_clf, not by peft" not in plain
