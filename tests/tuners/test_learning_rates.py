"""The default learning rates are those that the committed search found."""

from __future__ import annotations

import json
from pathlib import Path

from lora_clf.tuners import strategies

FOUND = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "learning_rates.json"


def test_the_defaults_are_what_was_found() -> None:
    chosen = json.loads(FOUND.read_text(encoding="utf-8"))["chosen"]
    assert set(chosen) >= {"last-block", "full", "lora"}
    for name, entry in chosen.items():
        assert strategies()[name].learning_rate == entry["rate"], name
    assert strategies()["lora-scratch"].learning_rate == chosen["lora"]["rate"]
