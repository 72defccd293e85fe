"""Adapters as plain folders: transformers' pipeline gives our probabilities, a merged base our logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from lora_clf.adapters import plain
from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.plain import export, merge
from lora_clf.base.base import Base, load_base
from lora_clf.base.digest import backbone_digest
from lora_clf.errors import AdapterError, AdapterExistsError, UnsupportedBaseError, UsageError
from tests.adapters.making import STRATEGIES, make
from tests.adapters.whole_bases import whole_base
from tests.bases import FAMILY_NAMES, VARIANT_NAMES, tiny_base

CASES = [*((name, strategy) for name in FAMILY_NAMES for strategy in STRATEGIES), *((n, "lora") for n in VARIANT_NAMES)]
BYTES = ("gpt2", "qwen2")  # transformers makes byte pairs of any tokenizer of these
LABELS = ("ham", "spam", "other")
TEXTS = [
    "Are we still on for lunch?",
    "WIN a prize " * 5,
    "ok",
    "Call now: 5 for 4! " * 3,
    "a much longer text than a base of ninety-six positions can read " * 3,
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    kept: dict[str, Base] = {}

    def base(name: str) -> Base:
        if name not in kept:
            kept[name] = whole_base(name, tmp_path_factory.mktemp("bases") / name, bytes_only=name in BYTES)
        return kept[name]

    return base


def shares(folder: Path, adapter: Adapter, **settings: Any) -> Any:
    """The pipeline's probabilities, as a person would ask for them: (N, C)."""
    run: Any = pipeline("text-classification", model=str(folder), device="cpu")
    answers = run(TEXTS, top_k=None, truncation=True, **settings)
    by_label = [{each["label"]: each["score"] for each in answer} for answer in answers]
    return np.array([[row[label] for label in adapter.labels] for row in by_label])


def ours(adapter: Adapter) -> Any:
    answers = adapter.predict(TEXTS)
    return np.array([[answer.probabilities[label] for label in adapter.labels] for answer in answers])


def test_all_family_architectures_are_here() -> None:
    assert len({name for name, _ in CASES}) == 16 and len(CASES) == 11 * 5 + 5


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_the_pipeline_gives_our_probabilities(
    name: str, strategy: str, bases: Callable[[str], Base], tmp_path: Path
) -> None:
    adapter = make(name, strategy, "family", LABELS, base=bases(name))
    base = adapter.base
    digest = backbone_digest(base.backbone.named_parameters(), base.config.to_dict())
    written = export(adapter, tmp_path / "plain")
    assert written.difference < 1e-5 and written.remarks == ()
    expected = ours(adapter)
    assert np.ptp(expected, axis=0).min() > 1e-3, "the texts must differ in what they get"
    np.testing.assert_allclose(shares(tmp_path / "plain", adapter, batch_size=5), expected, atol=1e-5)
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert config["id2label"] == {"0": "ham", "1": "spam", "2": "other"}
    assert config["label2id"] == {"ham": 0, "spam": 1, "other": 2}
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == digest
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_the_longest_text_is_the_adapters(bases: Callable[[str], Base], tmp_path: Path) -> None:
    for side in ("right", "left"):
        adapter = make("bert", "lora", "family", LABELS, base=bases("bert"), max_length=11, truncation=side)
        export(adapter, tmp_path / side)
        assert adapter.predict(TEXTS)[4].truncated
        np.testing.assert_allclose(shares(tmp_path / side, adapter), ours(adapter), atol=1e-5)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / side)
        assert (tokenizer.model_max_length, tokenizer.truncation_side, tokenizer.padding_side) == (11, side, "right")


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta", "modernbert"])
def test_the_temperature_goes_along_and_the_threshold_is_named(
    name: str, bases: Callable[[str], Base], tmp_path: Path
) -> None:
    adapter = make(name, "lora", "family", ("ham", "spam"), base=bases(name), temperature=2.5, threshold=0.8)
    written = export(adapter, tmp_path / "plain")
    np.testing.assert_allclose(shares(tmp_path / "plain", adapter), ours(adapter), atol=1e-5)
    plain_adapter = Adapter(adapter.base, adapter.tuned, replace(adapter.header, temperature=None))
    assert not np.allclose(ours(plain_adapter), ours(adapter), atol=1e-2)
    assert len(written.remarks) == 2
    assert "temperature 2.5 went into the head" in written.remarks[0]
    assert "spam is predicted from a probability of 0.8 on only if" in written.remarks[1]
    page = (tmp_path / "plain" / "README.md").read_text()
    assert all(remark in page for remark in written.remarks)
    assert "library_name: transformers" in page and str(tmp_path) not in page


def test_padding_is_one_token_for_both(bases: Callable[[str], Base], tmp_path: Path) -> None:
    adapter = make("gpt2", "lora", "family", LABELS, base=bases("gpt2"))
    export(adapter, tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert tokenizer.pad_token == "<|endoftext|>" and config["pad_token_id"] == tokenizer.pad_token_id


def test_without_a_token_to_pad_with_it_is_one_text_at_a_time(tmp_path: Path) -> None:
    base = whole_base("llama", tmp_path / "base", padding=False, pad_token_id=None)
    adapter = make("llama", "lora", "family", LABELS, base=base)
    written = export(adapter, tmp_path / "plain")
    assert written.remarks == ("The base's tokenizer has no token to pad with: the pipeline takes one text at a time.",)
    np.testing.assert_allclose(shares(tmp_path / "plain", adapter), ours(adapter), atol=1e-5)


def test_a_tokenizer_that_transformers_reads_otherwise_is_noticed(tmp_path: Path) -> None:
    """transformers makes byte pairs of a Qwen 2 base's WordPiece: the answers would be others."""
    adapter = make("qwen2", "lora", "family", LABELS, base=whole_base("qwen2", tmp_path / "base"))
    with pytest.raises(AdapterError, match=r"Its tokenizer reads plain, .* differently\. Nothing was written"):
        export(adapter, tmp_path / "plain")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_a_free_head_is_refused_with_the_command(pooling: str, tmp_path: Path) -> None:
    adapter = make("bert", "lora", pooling)
    with pytest.raises(UsageError) as raised:
        export(adapter, tmp_path / "plain")
    command = "lora-clf train demo --base tiny-bert --strategy lora --rank 3 --alpha 7.0 --dropout 0.0 --targets all"
    assert f"`{command} --seed 3 --pooling family`" in str(raised.value) and f"pooling {pooling}" in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class of a t5 base runs the decoder too"):
        export(make("t5", "lora", "mean"), tmp_path / "plain")


def test_a_base_without_a_tokenizer_for_transformers(tmp_path: Path) -> None:
    base = whole_base("bert", tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    with pytest.raises(UnsupportedBaseError, match="cannot load the tokenizer of the base base"):
        export(make("bert", "lora", "family", base=base), tmp_path / "plain")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_nothing_is_overwritten_unasked(bases: Callable[[str], Base], tmp_path: Path) -> None:
    adapter = make("bert", "lora", "family", LABELS, base=bases("bert"))
    for write in (export, merge):
        place = tmp_path / write.__name__
        write(adapter, place)
        with pytest.raises(AdapterExistsError, match="use --force"):
            write(adapter, place)
        before = sorted(path.name for path in place.iterdir())
        write(adapter, place, force=True)
        assert sorted(path.name for path in place.iterdir()) == before
        (place / "thesis.tex").write_text("years of work")
        with pytest.raises(AdapterExistsError, match=r"thesis\.tex"):
            write(adapter, place, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterExistsError, match="is a file"):
        export(adapter, tmp_path / "file", force=True)


def test_the_base_is_never_replaced(bases: Callable[[str], Base], tmp_path: Path) -> None:
    """Its own base, by any name and also where it was merged before, and what lies around it."""
    merge(make("bert", "lora", "family", base=bases("bert")), tmp_path / "merged")
    base = load_base(tmp_path / "merged", device="cpu")
    adapter = make("bert", "lora", "family", base=base)
    (tmp_path / "link").symlink_to(tmp_path / "merged")
    before = {path: path.read_bytes() for path in (tmp_path / "merged").rglob("*") if path.is_file()}
    assert len(before) >= 6
    for write in (export, merge):
        for place in ("merged", "link", "merged/more", "."):
            with pytest.raises(UsageError, match=r"the adapter's base lies.*Choose another folder"):
                write(adapter, tmp_path / place, force=True)
    assert {path: path.read_bytes() for path in (tmp_path / "merged").rglob("*") if path.is_file()} == before


def test_force_replaces_only_what_was_written_here(bases: Callable[[str], Base], tmp_path: Path) -> None:
    adapter = make("bert", "lora", "family", base=bases("bert"))
    place = tmp_path / "theirs"
    place.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (place / name).write_text("---\ntags:\n- precious\n---\nNot - lora-clf.\n- lora-clf\n")
    for write in (export, merge):
        for force in (False, True):
            with pytest.raises(AdapterExistsError, match=r"a model that neither .*merge.* nor .*export.* wrote"):
                write(adapter, place, force=force)
        assert len(list(place.iterdir())) == 3
        written = tmp_path / write.__name__
        write(adapter, written)
        for again in (merge, export, merge):
            again(adapter, written, force=True)
    (place / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(AdapterExistsError, match="neither"):
        export(adapter, place, force=True)


@pytest.mark.parametrize("name", [".hidden", "~tilde"])
def test_a_name_that_no_base_can_have_is_refused_first(
    name: str, bases: Callable[[str], Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make("bert", "lora", "family", base=bases("bert"))
    monkeypatch.setattr(plain, "write_backbone", None)  # nothing may have been done by then
    with pytest.raises(UsageError, match=rf"{name!r}: .*becomes the base's name"):
        merge(adapter, tmp_path / name)


def test_a_full_disk_leaves_nothing(
    bases: Callable[[str], Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make("bert", "lora", "family", LABELS, base=bases("bert"))

    def full_disk(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    for write in (export, merge):
        with pytest.raises(AdapterError, match="No space left"):
            write(adapter, tmp_path / "plain")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [export, merge])
def test_one_on_another_base_is_refused(write: Any, bases: Callable[[str], Base], tmp_path: Path) -> None:
    """What is written would pass for trained on a base that it was never trained on."""
    make("bert", "lora", "family", LABELS, base=bases("bert")).save(tmp_path / "a")
    adapter = load_adapter(tmp_path / "a", tiny_base("bert", 4), base_check="off")
    with pytest.raises(UsageError, match=r"trained on the base .* Load it on its own base"):
        write(adapter, tmp_path / "plain")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# Merging


@pytest.mark.parametrize(
    ("name", "pooling", "strategy"),
    [
        *(("bert", "mean", strategy) for strategy in ("last-block", "full", "lora", "lora-scratch")),
        ("gpt2", "family", "lora"),
        ("gpt2", "family", "full"),
        ("t5", "last", "lora"),
        ("bart", "mean", "lora"),
    ],
)
def test_a_merged_base_carries_the_change(
    name: str, pooling: str, strategy: str, bases: Callable[[str], Base], tmp_path: Path
) -> None:
    adapter = make(name, strategy, pooling, LABELS, base=bases(name), temperature=1.5, max_length=64)
    written, head = merge(adapter, tmp_path / "merged")
    assert written.difference < 1e-5
    base = load_base(tmp_path / "merged", device="cpu")
    assert base.name == "merged" and base.digest != adapter.base.digest
    assert base.tokenizer_digest == adapter.base.tokenizer_digest
    loaded = load_adapter(tmp_path / "merged" / "head", base, verify=True)
    assert loaded.header == head.header and loaded.header.strategy == "head-only"
    assert loaded.header.base_name == "merged" and loaded.header.metrics == adapter.header.metrics
    assert loaded.header.temperature == 1.5 and loaded.header.training["merged_from"] == strategy
    np.testing.assert_allclose(loaded.logits(TEXTS), adapter.logits(TEXTS), atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(ours(loaded), ours(adapter), atol=1e-5)
    # What it does not compute with is as it was: BART's decoder, BERT's pooler.
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", adapter.base.folder))  # type: ignore[operator]
    assert before.keys() == after.keys()
    idle = [key for key in before if key.startswith(("decoder.", "pooler."))]
    assert bool(idle) == (name in ("bert", "bart")) and all(torch.equal(before[key], after[key]) for key in idle)
    assert {path.name for path in (tmp_path / "merged" / "head").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
    }


def test_further_training_starts_from_a_merged_base(bases: Callable[[str], Base], tmp_path: Path) -> None:
    adapter = make("bert", "lora", "mean", LABELS, base=bases("bert"))
    merge(adapter, tmp_path / "merged")
    again = make("bert", "lora", "mean", LABELS, base=load_base(tmp_path / "merged", device="cpu"))
    assert again.logits(TEXTS).shape == (5, 3)
    with pytest.raises(UsageError, match="head-only adapter is a head and nothing else"):
        merge(make("bert", "head-only", base=bases("bert")), tmp_path / "no")


def test_an_export_is_a_base_too(bases: Callable[[str], Base], tmp_path: Path) -> None:
    adapter = make("gpt2", "lora", "family", LABELS, base=bases("gpt2"))
    export(adapter, tmp_path / "plain")
    merge(adapter, tmp_path / "merged")
    digests = {load_base(tmp_path / name, device="cpu").digest for name in ("plain", "merged")}
    assert len(digests) == 1 and adapter.base.digest not in digests


def test_what_does_not_compute_the_same_is_not_written(
    bases: Callable[[str], Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make("bert", "lora", "family", LABELS, base=bases("bert"))

    def spoilt(base: Base, view: Any, folder: Path, **more: Any) -> Any:
        with torch.no_grad():
            view.head.classifier.weight[0].add_(0.5)
            view.backbone.encoder.layer[0].output.dense.weight[0].add_(0.5)
        return real[spoilt_name](base, view, folder, **more)

    real = {name: getattr(plain, name) for name in ("write_classifier", "write_backbone")}
    for spoilt_name, write in (("write_classifier", export), ("write_backbone", merge)):
        monkeypatch.setattr(plain, spoilt_name, spoilt)
        with pytest.raises(AdapterError, match="something else"):
            write(adapter, tmp_path / "plain")
        assert not list(tmp_path.iterdir())


def test_the_classes_are_transformers_own(bases: Callable[[str], Base], tmp_path: Path) -> None:
    adapter = make("distilbert", "full", "family", LABELS, base=bases("distilbert"))
    export(adapter, tmp_path / "plain")
    model, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert type(model).__name__ == "DistilBertForSequenceClassification"
    assert not report["missing_keys"] and not report["unexpected_keys"]
