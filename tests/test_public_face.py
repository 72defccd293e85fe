"""The ten lines of the README run as they stand, and the public face holds what it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import lora_clf
from lora_clf.training.settings import TrainSettings
from tests.bases import tiny_base
from tests.training.test_loop import toy

TEN_LINES = """\
from lora_clf import LoRA, load_adapter, load_base, load_data, train

base = load_base("minilm")
data = load_data("sms-spam")
result = train(base, data, LoRA(rank=8))
result.save("spam")

spam = load_adapter("spam", base)
topic = load_adapter("adapters/trec-lora", base)   # another label set, same base, side by side
spam.predict(["You won a prize! Call 09098790123 now"])     # [Prediction(label="spam", probability=0.998, ...)]
"""
README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_readme_holds_the_ten_lines() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert TEN_LINES in blocks


def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_base("bert")
    spam = replace(toy(), name="sms-spam")
    topic = lora_clf.train(base, toy(classes=3), lora_clf.HeadOnly(), TrainSettings(precision="fp32"))
    monkeypatch.chdir(tmp_path)
    topic.save("adapters/trec-lora")
    monkeypatch.setattr(lora_clf, "load_base", lambda name: {"minilm": base}[name])
    monkeypatch.setattr(lora_clf, "load_data", lambda name: {"sms-spam": spam}[name])
    names: dict[str, object] = {}
    exec(TEN_LINES, names)
    prediction = names["spam"].predict(["You won a prize"])[0]  # type: ignore[attr-defined]
    assert isinstance(prediction, lora_clf.Prediction)
    assert set(prediction.probabilities) == {"c0", "c1"} and prediction.label in prediction.probabilities
    assert prediction.probability == max(prediction.probabilities.values())
    assert names["topic"].labels == ("c0", "c1", "c2")  # type: ignore[attr-defined]


def test_every_public_name_is_there_and_documented() -> None:
    assert len(lora_clf.__all__) >= 20
    for name in lora_clf.__all__:
        member = getattr(lora_clf, name)
        assert isinstance(member, str) or member.__doc__, name
