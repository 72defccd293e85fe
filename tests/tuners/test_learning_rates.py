"""The default learning rates are those that the committed search found."""

from __future__ import annotations

import json
from pathlib import Path

from lora_clf.tuners import strategies

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
FOUND = RESULTS / "learning_rates.json"


def test_the_defaults_are_what_was_found() -> None:
    chosen = json.loads(FOUND.read_text(encoding="utf-8"))["chosen"]
    assert set(chosen) >= {"last-block", "full", "lora"}
    for name, entry in chosen.items():
        assert strategies()[name].learning_rate == entry["rate"], name
    assert strategies()["lora-scratch"].learning_rate == chosen["lora"]["rate"]


def test_the_defaults_of_the_further_methods_are_the_best_of_those_that_were_tried() -> None:
    value = json.loads((RESULTS / "learning_rates_family.json").read_text(encoding="utf-8"))
    assert len(value["chosen"]) >= 8 and {"rslora", "bitfit"} <= {
        n for n, e in value["chosen"].items() if not e["open"]
    }
    for name, entry in value["chosen"].items():
        assert strategies()[name].learning_rate == entry["rate"], name
        tried = value["rates"][name]["sms-spam"]
        assert min(tried, key=lambda run: run["loss"])["rate"] == entry["rate"], name
