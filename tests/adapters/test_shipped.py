"""The adapters that ship in adapters/: whole, small, described, and as good as they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lora_clf.adapters.adapter import load_adapter, read_header
from lora_clf.data.dataset import Part, load_data
from lora_clf.errors import LoraClfError

if TYPE_CHECKING:
    from lora_clf.base.base import Base

HOME = Path(__file__).resolve().parents[2] / "adapters"
LABELS = {"sms-spam": ("ham", "spam"), "trec": ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")}
NAMES = (
    *(f"sms-spam-{strategy}" for strategy in ("full", "head-only", "last-block", "lora", "lora-scratch")),
    "trec-head-only",
    "trec-lora",
)
MEGABYTES = 4


@pytest.fixture(scope="module")
def minilm() -> Base:
    """The real base, where it is in the user's cache."""
    from lora_clf.base.base import load_base
    from tests.conftest import REAL_CACHE

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LORA_CLF_CACHE")
        if REAL_CACHE is not None:
            patch.setenv("LORA_CLF_CACHE", REAL_CACHE)
        try:
            return load_base("minilm", device="cpu")
        except (LoraClfError, RuntimeError):
            pytest.skip("needs the base minilm in the user's cache: lora-clf bases fetch minilm")


def test_these_and_no_others() -> None:
    assert tuple(sorted(place.name for place in HOME.iterdir() if place.is_dir())) == tuple(sorted(NAMES))
    assert len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_is(name: str) -> None:
    place = HOME / name
    assert sorted(file.name for file in place.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert sum(file.stat().st_size for file in place.iterdir()) < MEGABYTES * 2**20
    header = read_header(place)
    assert header.labels == LABELS["trec" if name.startswith("trec") else "sms-spam"]
    assert header.base_name == "minilm"
    strategy = name.removeprefix("sms-spam-").removeprefix("trec-")
    assert header.strategy == ("lora" if strategy == "full" else strategy)
    assert header.metrics["test"]["accuracy"] > (0.85 if strategy == "head-only" else 0.94)
    card = (place / "README.md").read_text(encoding="utf-8")
    assert 'base_model:\n- "sentence-transformers/all-MiniLM-L6-v2"' in card
    assert header.data_name and "/" not in header.data_name


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("sms-spam")])
def test_the_first_messages_of_the_readme(name: str, minilm: Base) -> None:
    """The first command of the README shows a spam and a ham; what the ten lines train is `sms-spam-lora`."""
    readme = (HOME.parent / "README.md").read_text(encoding="utf-8")
    texts = re.findall(r'"(.*?)"', next(line for line in readme.splitlines() if "adapters/sms-spam-lora" in line))
    spam, ham = load_adapter(HOME / name, minilm).predict(texts)
    assert (spam.label, ham.label) == ("spam", "ham") and len(texts) == 2
    assert f'spam.predict(["{texts[0]}"])' in readme
    if name == "sms-spam-lora":
        assert f"probability={spam.probability:.3f}" in readme


@pytest.mark.parametrize("name", NAMES)
def test_each_computes_its_canaries(name: str, minilm: Base) -> None:
    assert load_adapter(HOME / name, minilm, verify=True).verify() < 1e-4


# Of each data set and of each kind of file one by default, of the smaller ones; a thousand texts take long.
BY_DEFAULT = ("sms-spam-head-only", "trec-lora")
assert set(BY_DEFAULT) <= set(NAMES)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.slow) for name in NAMES]
)
def test_each_reproduces_its_accuracy(name: str, minilm: Base, shared: Path) -> None:
    adapter = load_adapter(HOME / name, minilm)
    if name.startswith("trec"):
        lines = (shared / "data" / "trec" / "test.label").read_text(encoding="iso-8859-1").splitlines()
        texts = [line.split(" ", 1)[1] for line in lines]
        labels = [line.split(":", 1)[0] for line in lines]
        assert len(texts) == 500
    else:
        test: Part = load_data(str(shared / "data" / "sms_spam" / "SMSSpamCollection"), seed=adapter.header.seed).test
        texts, labels = list(test.texts), list(test.labels)
        assert len(texts) > 1000
    found = [answer.label for answer in adapter.predict(texts)]
    accuracy = sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)
    assert accuracy == pytest.approx(adapter.header.metrics["test"]["accuracy"], abs=1.5 / len(labels))
