"""An adapter whose head is words: trained, untrained, saved, opened by every door, refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_clf.adapters.adapter import Adapter, load_adapter
from lora_clf.adapters.average import average
from lora_clf.adapters.canonical import canonical
from lora_clf.adapters.doctor import examine_adapter
from lora_clf.adapters.file import read_header
from lora_clf.adapters.header import read_text
from lora_clf.adapters.plain import export, merge
from lora_clf.adapters.pool import AdapterPool
from lora_clf.adapters.rules import KNOWN
from lora_clf.adapters.verification import verify_folder
from lora_clf.base.base import Base, load_base
from lora_clf.base.verbalizer import Verbalizer, unprompted
from lora_clf.data.dataset import Dataset
from lora_clf.errors import AdapterFormatError, UsageError
from lora_clf.training.checkpoints import Checkpoints
from lora_clf.training.loop import train
from lora_clf.tuners import create
from tests.base.test_verbalizer import decoder
from tests.training.test_loop import FAST, toy

TEXTS = ["aaaa bbb", "zzz yyy", "", "a long text " * 20]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(decoder(tmp_path_factory.mktemp("bases") / "tiny", "gpt2", tied=True), device="cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return toy()


def words(data: Dataset) -> Verbalizer:
    return Verbalizer("Text: {text}\nIs it?", dict(zip(data.labels, ("no", "yes", "maybe"), strict=False)))


@pytest.fixture(scope="module")
def tuned(base: Base, data: Dataset) -> Adapter:
    return train(base, data, create("lora-scratch", rank=2), FAST, verbalizer=words(data)).adapter


@pytest.fixture(scope="module")
def saved(tuned: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.save(tmp_path_factory.mktemp("adapters") / "words")


def test_it_is_the_same_after_a_round_trip(base: Base, tuned: Adapter, saved: Path) -> None:
    header = read_header(saved)
    assert (header.head, header.pooling, header.requires) == ("verbalizer", "last", ("verbalizer",))
    assert header.verbalizer is not None and header.verbalizer["template"] == "Text: {text}\nIs it?"
    assert header.verbalizer["words"] == ["no", "yes"]
    loaded = load_adapter(saved, base, verify=True)
    assert np.array_equal(loaded.logits(TEXTS), tuned.logits(TEXTS)) and base.prompt is None
    assert loaded.predict(TEXTS)[3].truncated
    assert load_adapter(saved, unprompted(loaded.base)).save(saved.parent / "again").exists()
    first, again = (folder / "adapter_model.safetensors" for folder in (saved, saved.parent / "again"))
    assert first.read_bytes() == again.read_bytes()
    checks = verify_folder(saved, lambda _: base)
    assert len(checks) >= 6 and all(check.passed for check in checks)
    card = (saved / "README.md").read_text()
    assert "| template | 'Text: {text}\\nIs it?' |" in card and "| words | 'no', 'yes' |" in card


def test_untuned_is_what_the_base_says(base: Base, data: Dataset) -> None:
    result = train(base, data, create("head-only"), replace(FAST, epochs=0), verbalizer=words(data))
    assert result.history == [] and result.best_epoch == 0
    assert not any(tensor.any() for tensor in result.adapter.tuned.state_dict().values())
    seen = words(data).on(base, data.labels)
    plain = create("head-only").prepare(seen.view(len(data.labels))).view
    from lora_clf.inference.predict import logits

    tokens = seen.encode(data.test.texts, 64)
    assert np.allclose(result.test_logits, logits(plain, tokens), atol=1e-5)
    calibrated = train(base, data, create("head-only"), replace(FAST, epochs=3), verbalizer=words(data))
    assert calibrated.trainable_parameters == len(data.labels)
    assert calibrated.adapter.tuned.state_dict()["head.bias"].any()


def test_a_run_is_resumed_with_the_same_words_only(base: Base, data: Dataset, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(now: object) -> None:
        if getattr(now, "step", 0) == 4:
            raise Stop

    kept = Checkpoints(tmp_path / "kept", every="1")
    with pytest.raises(Stop):
        train(base, data, create("bitfit"), FAST, verbalizer=words(data), checkpoints=kept, progress=stop)
    resumed = replace(kept, resume=True)
    from lora_clf.errors import CheckpointError

    other = replace(words(data), template="{text} so?")
    with pytest.raises(CheckpointError, match="--template"):
        train(base, data, create("bitfit"), FAST, verbalizer=other, checkpoints=resumed)
    whole = train(base, data, create("bitfit"), FAST, verbalizer=words(data))
    again = train(base, data, create("bitfit"), FAST, verbalizer=words(data), checkpoints=resumed)
    assert np.array_equal(whole.test_logits, again.test_logits) and again.resumed_step


def test_in_a_pool_it_answers_as_alone(base: Base, data: Dataset, tuned: Adapter, saved: Path) -> None:
    pool = AdapterPool(base)
    linear = train(base, data, create("head-only"), FAST).adapter
    pool.add("words", saved)
    pool.add("copy", tuned)
    pool.add("linear", linear)
    found = pool.predict_all(TEXTS)
    for name, alone in (("words", tuned), ("copy", tuned), ("linear", linear)):
        for ours, theirs in zip(found[name], alone.predict(TEXTS), strict=True):
            assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
            assert ours.truncated == theirs.truncated


def test_averages_take_equal_words_only(base: Base, data: Dataset, saved: Path) -> None:
    shared = words(data).on(base, data.labels)
    one = load_adapter(saved, shared)
    other = train(base, data, create("lora-scratch", rank=2), FAST, verbalizer=Verbalizer("{text} so?")).adapter
    assert np.allclose(average([one, load_adapter(saved, shared)]).adapter.logits(TEXTS), one.logits(TEXTS), atol=1e-4)
    with pytest.raises(UsageError, match=r"the head of the first"):
        average([one, other])


def test_what_no_class_of_transformers_has_is_not_exported(tuned: Adapter, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"head is a verbalizer.*no classification class"):
        export(tuned, tmp_path / "plain")
    with pytest.raises(UsageError, match="answers with the language model's head of its base"):
        merge(tuned, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_older_versions_and_odd_fields_are_refused(saved: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(saved)
    values = header.as_dict()
    for odd, message in (
        ({"verbalizer": {**values["verbalizer"], "template": "no place"}}, "expected an object with template"),
        ({"verbalizer": {**values["verbalizer"], "words": ["a", "a"]}}, "expected an object with template"),
        ({"head": "free"}, "no other head has"),
        ({"requires": []}, "requires does not name it"),
    ):
        with pytest.raises(AdapterFormatError, match=message):
            read_text(canonical({**values, **odd}))
    without = {name: value for name, value in values.items() if name != "verbalizer"}
    with pytest.raises(AdapterFormatError, match="a verbalizer has the field verbalizer"):
        read_text(canonical({**without, "requires": []}))
    from lora_clf.adapters import header as module

    monkeypatch.setattr(module, "OPTIONAL", {})
    with pytest.raises(AdapterFormatError, match="fields that this version of lora_clf does not know: verbalizer"):
        read_text(canonical(values))
    assert "verbalizer" not in KNOWN


def test_another_output_layer_is_refused(tmp_path: Path, data: Dataset) -> None:
    from safetensors.torch import load_file, save_file

    folder = decoder(tmp_path / "untied", "llama", tied=False)
    adapter = train(load_base(folder, device="cpu"), data, create("head-only"), FAST, verbalizer=words(data)).adapter
    saved = adapter.save(tmp_path / "words")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    other = load_base(folder, device="cpu")
    assert other.digest == adapter.base.digest  # of the backbone alone
    with pytest.raises(AdapterFormatError, match="language model's head of base untied is not the one"):
        load_adapter(saved, other)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_doctor_finds_it_well(tuned: Adapter, side: str, tmp_path: Path) -> None:
    patient = Adapter(tuned.base, tuned.tuned, replace(tuned.header, truncation=side, canaries=None))
    again = load_adapter(patient.save(tmp_path / side), tuned.base)
    found = {finding.name: finding.passed for finding in examine_adapter(again)}
    assert len(found) == 9 and found["truncation"] and found["padding"] and found["special tokens"]


def test_only_labels_of_which_one_holds(base: Base, data: Dataset) -> None:
    with pytest.raises(UsageError, match="--pooling mean does not apply"):
        train(base, data, create("lora"), FAST, verbalizer=Verbalizer(), pooling="mean")


def test_each_adapter_reads_its_own_template_whatever_the_base_was_seen_through(
    base: Base, data: Dataset, tuned: Adapter, saved: Path, tmp_path: Path
) -> None:
    other = Verbalizer("What is {text}\nAnswer:", {**words(data).words, data.labels[0]: "yes", data.labels[1]: "no"})
    second = train(base, data, create("lora-scratch", rank=2), FAST, verbalizer=other).adapter
    place = second.save(tmp_path / "other")
    alone = [load_adapter(folder, base).predict(TEXTS) for folder in (saved, place)]
    assert alone[0] != alone[1]
    through = load_adapter(saved, base)
    assert load_adapter(place, through.base, verify=True).predict(TEXTS) == alone[1]
    assert load_adapter(saved, through.base).base is through.base  # which it fits already
    assert average([load_adapter(saved, base), load_adapter(saved, base)]).adapter.predict(TEXTS)
