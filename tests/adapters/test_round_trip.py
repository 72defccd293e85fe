"""What is saved comes back: the same logits, the same header, the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lora_clf.adapters.adapter import Adapter, Prediction, list_adapters, load_adapter, read_header
from lora_clf.adapters.canonical import canonical
from lora_clf.adapters.file import CARD, CONFIG, FILES, MODEL, write_folder
from lora_clf.adapters.pool import AdapterPool
from lora_clf.base.digest import backbone_digest
from lora_clf.errors import (
    AdapterError,
    AdapterExistsError,
    AdapterFormatError,
    AdapterNotFoundError,
    StateError,
    UsageError,
)
from lora_clf.tuners import strategies
from tests.adapters.making import LABELS, STRATEGIES, TEXTS, make
from tests.bases import ARCHITECTURE_NAMES, FAMILY_NAMES

CASES = [
    *[(name, strategy, "mean") for name in ARCHITECTURE_NAMES for strategy in STRATEGIES],
    *[(name, strategy, "family") for name in FAMILY_NAMES for strategy in STRATEGIES],
    *[("bert", strategy, pooling) for pooling in ("first", "last") for strategy in STRATEGIES],
]


def test_the_cases_are_all_there() -> None:
    assert tuple(strategies())[:5] == STRATEGIES
    assert len(CASES) == 13 * 5 + 11 * 5 + 2 * 5


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_logits_come_back(case: tuple[str, str, str], tmp_path: Path) -> None:
    adapter = make(*case)
    expected = adapter.logits(TEXTS)
    adapter.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", adapter.base, verify=True)
    assert np.array_equal(loaded.logits(TEXTS), expected)
    assert loaded.header == adapter.header == read_header(tmp_path / "a")
    assert loaded.header.parameters == adapter.tuned.trainable_parameters
    assert loaded.labels == LABELS and loaded.positive_label == "spam"
    base = loaded.base
    assert backbone_digest(base.backbone.named_parameters(), base.config.to_dict()) == base.digest
    # Saved again it is the same file.
    loaded.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def contents(folder: Path) -> dict[str, bytes]:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("bert", "mean"),
        ("bert", "family"),
        ("gpt2", "mean"),
        ("gpt2", "family"),
        ("distilbert", "family"),
        ("t5", "last"),
    ],
)
def test_the_two_lora_engines_load_each_other(name: str, pooling: str, tmp_path: Path) -> None:
    for engine, other in (("lora", "lora-scratch"), ("lora-scratch", "lora")):
        adapter = make(name, engine, pooling)
        adapter.save(tmp_path / engine)
        loaded = load_adapter(tmp_path / engine, adapter.base, engine=other)
        assert type(loaded.tuned.tuner) is strategies()[other]
        np.testing.assert_allclose(loaded.logits(TEXTS), adapter.logits(TEXTS), atol=1e-5, rtol=1e-5)
        assert loaded.header.strategy == engine
    assert names(tmp_path / "lora") == names(tmp_path / "lora-scratch")


def names(folder: Path) -> list[str]:
    with safe_open(folder / MODEL, "pt") as file:
        return sorted(file.keys())


def test_an_engine_must_be_a_lora_strategy(tmp_path: Path) -> None:
    make().save(tmp_path / "lora")
    make(strategy="full").save(tmp_path / "full")
    with pytest.raises(UsageError, match="lora, lora-scratch"):
        load_adapter(tmp_path / "lora", make().base, engine="full")
    with pytest.raises(UsageError, match="full adapter cannot be computed by 'lora'"):
        load_adapter(tmp_path / "full", make().base, engine="lora")


PROGRAM = """
import sys
from pathlib import Path
from tests.adapters.test_round_trip import write_three
write_three(Path(sys.argv[1]))
"""


def write_three(folder: Path) -> None:
    cases = (("bert", "lora", "family"), ("gpt2", "lora-scratch", "mean"), ("t5", "full", "mean"))
    for number, case in enumerate(cases):
        make(*case).save(folder / str(number))


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """This one, and one with another hash seed. Of every strategy: tests/training/test_determinism.py."""
    write_three(tmp_path / "here")
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "there")],
        env={
            **os.environ,
            "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242",
        },
        cwd=Path(__file__).parents[2],
        check=True,
    )
    here, there = ([contents(tmp_path / place / str(number)) for number in range(3)] for place in ("here", "there"))
    assert here == there
    for files in here:
        for content in files.values():
            assert str(tmp_path).encode() not in content and os.uname().nodename.encode() not in content


def test_the_digest_is_what_the_format_document_says(tmp_path: Path) -> None:
    """Computed here from the bytes and the document, with nothing of ours but the reading of JSON."""
    make("gpt2", "lora", "family").save(tmp_path / "a")
    header = read_header(tmp_path / "a")
    data = (tmp_path / "a" / MODEL).read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    text = table.pop("__metadata__")["lora_clf"]
    manifest = [[name, entry["dtype"], entry["shape"]] for name, entry in table.items()]
    blank = text.replace(f'"digest":"{header.digest}"', '"digest":""')
    parts = (blank, json.dumps(manifest, separators=(",", ":")), "")
    assert hashlib.sha256("\n".join(parts).encode() + data[8 + length :]).hexdigest() == header.digest
    assert (8 + length) % 8 == 0
    assert len(table) == len(header.tensors) == 12 * 2 + 1


def test_the_library_reads_the_same(tmp_path: Path) -> None:
    adapter = make()
    adapter.save(tmp_path / "a")
    with safe_open(tmp_path / "a" / MODEL, "pt") as file:
        assert list(file.metadata()) == ["lora_clf"]
        assert len(file.keys()) == len(adapter.header.tensors)
        total = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert total == adapter.header.parameters


def test_fields_of_later_programs_survive(tmp_path: Path) -> None:
    adapter = make()
    extra = {"zoo": {"deep": [1, 2.5, None, "ü"]}, "abc": 1}
    adapter.header = replace(adapter.header, extra=extra)
    adapter.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", adapter.base)
    assert loaded.header.extra == extra
    loaded.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_half_as_large_in_bf16(tmp_path: Path) -> None:
    adapter = make(strategy="full")
    adapter.save(tmp_path / "fp32")
    adapter.save(tmp_path / "bf16", dtype="bf16")
    sizes = [(tmp_path / name / MODEL).stat().st_size for name in ("fp32", "bf16")]
    assert sizes[1] < 0.7 * sizes[0]
    loaded = load_adapter(tmp_path / "bf16", adapter.base, verify=True)  # canaries after the cast
    assert {entry.dtype for entry in loaded.header.tensors} == {"BF16"}
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "bf16") == contents(tmp_path / "again")
    with pytest.raises(UsageError, match="There are: bf16, fp32"):
        adapter.save(tmp_path / "no", dtype="int8")


def test_each_tensor_keeps_its_dtype_when_it_is_saved_again(tmp_path: Path) -> None:
    adapter = make(pooling="family")
    adapter.save(tmp_path / "fp32")
    state = {n: t.bfloat16() if "lora_A" in n else t for n, t in adapter.tuned.state_dict().items()}
    write_folder(tmp_path / "mixed", adapter.header, state)
    loaded = load_adapter(tmp_path / "mixed", adapter.base)
    held = {(entry.dtype, "lora_A" in entry.name) for entry in loaded.header.tensors}
    assert held == {("BF16", True), ("F32", False)}
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "mixed")
    loaded.save(tmp_path / "all", dtype="bf16")
    assert {entry.dtype for entry in loaded.header.tensors} == {"BF16"}


def test_a_changed_adapter_is_saved_as_it_is_now(tmp_path: Path) -> None:
    adapter = make()
    adapter.save(tmp_path / "a")
    before = adapter.header.canaries
    with torch.no_grad():
        adapter.tuned.view.head_parameters()[0].mul_(2)
    adapter.save(tmp_path / "a", force=True)
    assert adapter.header.canaries != before
    assert load_adapter(tmp_path / "a", adapter.base, verify=True).header == adapter.header


def test_nothing_is_written_over_unasked(tmp_path: Path) -> None:
    adapter = make()
    adapter.save(tmp_path / "deep" / "a")
    with pytest.raises(AdapterExistsError, match="--force"):
        adapter.save(tmp_path / "deep" / "a")
    adapter.save(tmp_path / "deep" / "a", force=True)
    (tmp_path / "deep" / "a" / "thesis.tex").write_text("years of work")
    with pytest.raises(AdapterExistsError, match=r"thesis\.tex"):
        adapter.save(tmp_path / "deep" / "a", force=True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    for force in (False, True):
        with pytest.raises(AdapterExistsError, match=r"holds a README\.md and no adapter"):
            adapter.save(tmp_path / "notes", force=force)
    assert (tmp_path / "notes" / "README.md").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(AdapterExistsError, match="is a file"):
        adapter.save(tmp_path / "file", force=True)
    (tmp_path / "empty").mkdir()
    adapter.save(tmp_path / "empty")
    (tmp_path / "link").symlink_to("empty", target_is_directory=True)
    adapter.save(tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "empty", "file", "link", "notes"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two-steps"])
def test_a_failed_save_leaves_the_old_adapter(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make()
    adapter.save(tmp_path / "a")
    old = contents(tmp_path / "a")
    if not exchange:
        monkeypatch.setattr("lora_clf.adapters.disk._exchange", lambda one, other: False)
        make("bert", "full").save(tmp_path / "a", force=True)
        adapter.save(tmp_path / "a", force=True)
        assert contents(tmp_path / "a") == old

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(AdapterError, match="No space left"):
        adapter.save(tmp_path / "a", force=True)
    with pytest.raises(AdapterError, match="No space left"):
        adapter.save(tmp_path / "b")
    assert contents(tmp_path / "a") == old
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_ctrl_c_between_the_two_steps_leaves_the_old_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path / "a")
    old = contents(tmp_path / "a")
    monkeypatch.setattr("lora_clf.adapters.disk._exchange", lambda one, other: False)
    rename, steps = os.rename, list[str]()

    def interrupted(source: Any, target: Any) -> None:
        steps.append(Path(target).name)
        if len(steps) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.rename", interrupted)
        make("bert", "full").save(tmp_path / "a", force=True)
    assert len(steps) == 3 and contents(tmp_path / "a") == old and os.listdir(tmp_path) == ["a"]


def test_what_a_kill_between_the_two_steps_took_away_is_put_back(tmp_path: Path) -> None:
    make().save(tmp_path / "a")
    old = contents(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / ".a-0123456789ab-old")
    with pytest.raises(AdapterError, match="not empty"):
        make("bert", "full").save(tmp_path / "a")
    assert contents(tmp_path / "a") == old and os.listdir(tmp_path) == ["a"]


def test_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    one, other = make(), make("bert", "head-only")
    one.save(tmp_path / "a")
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    known = [read_header(tmp_path / name).digest for name in ("one", "other")]
    seen: set[str] = set()
    stop = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(load_adapter(tmp_path / "a", one.base).header.digest)
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(20):
        other.save(tmp_path / "a", force=True)
        one.save(tmp_path / "a", force=True)
    stop.set()
    thread.join()
    assert not failures
    assert seen <= set(known) and seen


def test_lists_adapters_one_level_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path / "b")
    make().save(tmp_path / "group" / "c")
    make().save(tmp_path / "group" / "too" / "deep")
    make().save(tmp_path / "a")
    (tmp_path / "a" / CONFIG).write_text("{}")
    (tmp_path / "nothing").mkdir()
    found = list_adapters(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path, _ in found] == ["a", "b", "group/c"]
    assert isinstance(found[0][1], AdapterFormatError)
    assert found[1][1] == read_header(tmp_path / "b")
    assert [path for path, _ in list_adapters(tmp_path / "b")] == [tmp_path / "b"]
    with monkeypatch.context() as patch:  # one that is closed to us hides no other
        patch.setattr("os.access", lambda path, mode: Path(path).name != "group")
        assert [path.name for path, _ in list_adapters(tmp_path)] == ["a", "b"]
    with pytest.raises(AdapterNotFoundError, match="There is no folder"):
        list_adapters(tmp_path / "no")


def test_predictions_keep_the_order_and_drop_nothing() -> None:
    adapter = make()
    answers = adapter.predict(TEXTS)
    assert len(answers) == len(TEXTS) and adapter.predict([]) == []
    assert adapter.logits([]).shape == (0, 2)
    assert [answer.truncated for answer in answers] == [False] * 5 + [True]
    shuffled = adapter.predict(TEXTS[::-1])[::-1]
    for answer, other in zip(answers, shuffled, strict=True):
        assert answer.label == other.label == max(answer.probabilities, key=answer.probabilities.__getitem__)
        assert answer.probability == pytest.approx(other.probability, abs=1e-5)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    document = json.loads(json.dumps(answers[0].as_dict()))
    assert Prediction(**document) == answers[0]


def test_only_texts_are_predicted() -> None:
    with pytest.raises(UsageError, match="one text"):
        make().predict("hello")
    with pytest.raises(UsageError, match=r"texts\[1\] is a float, expected a text"):
        make().predict(["hello", float("nan")])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"texts\[0\] is a NoneType"):
        make().logits([None])  # type: ignore[list-item]


def test_temperature_and_threshold() -> None:
    adapter = make()
    share = adapter.predict(["ok"])[0].probabilities["spam"]
    for threshold, label in ((share - 0.01, "spam"), (share + 0.01, "ham")):
        adapter.header = replace(adapter.header, threshold=threshold)
        answer = adapter.predict(["ok"])[0]
        assert answer.label == label and answer.probability == answer.probabilities[label]
    adapter.header = replace(adapter.header, threshold=None, temperature=1000.0)
    assert adapter.predict(["ok"])[0].probability == pytest.approx(0.5, abs=0.01)


def test_more_than_two_labels(tmp_path: Path) -> None:
    adapter = make(labels=("b", "a", "ü\n'|`"))
    adapter.save(tmp_path / "a")
    loaded = load_adapter(tmp_path / "a", adapter.base)
    assert loaded.labels == ("b", "a", "ü\n'|`") and loaded.header.task == "multiclass"
    assert loaded.positive_label is None
    assert set(loaded.predict(["x"])[0].probabilities) == set(loaded.labels)


def test_labels_and_head_must_agree() -> None:
    from lora_clf.adapters.adapter import make_header

    adapter = make()
    with pytest.raises(UsageError, match="3 labels"):
        make_header(adapter.base, adapter.tuned, labels=("a", "b", "c"))


def test_the_header_is_portable(tmp_path: Path) -> None:
    nan = {"test": {"loss": float("nan"), "m": np.eye(2), "n": np.int64(3)}}
    header = make(data_name="/home/ann/sms.csv", metrics=nan).header
    assert header.data_name == "sms.csv"
    assert header.metrics == {"test": {"loss": None, "m": [[1.0, 0.0], [0.0, 1.0]], "n": 3}}
    assert "/home" not in canonical(header.as_dict())
    integers = make().base
    from lora_clf.adapters.adapter import make_header
    from lora_clf.tuners import create

    one, other = (
        make_header(integers, create("lora-scratch", alpha=a).prepare(integers.view(2)), labels=LABELS)
        for a in (16, 16.0)
    )
    assert one.text() == other.text()


def test_small_beside_its_tensors(tmp_path: Path) -> None:
    """One percent and 16 KiB, for the layer count of the default base (here 3 x 6 layers; there 36)."""
    adapter = make(strategy="lora")
    adapter.save(tmp_path / "a")
    size = sum((tmp_path / "a" / name).stat().st_size for name in FILES)
    assert size - 4 * adapter.header.parameters < 16 * 1024


def test_a_state_of_another_shape_names_keys_and_shapes(tmp_path: Path) -> None:
    """Names and shapes that the header does not explain are refused, all of them at once."""
    adapter = make(strategy="head-only", labels=("a", "b", "c"))
    lora = make(strategy="lora-scratch")
    state = lora.tuned.state_dict()
    changed = {**state, "extra.lora_A.weight": torch.ones(3, 32)}
    del changed["head.linear.bias"]
    changed["head.linear.weight"] = torch.ones(5, 32)
    with pytest.raises(StateError, match=r"missing: head\.linear\.bias.*extra.*is \(5, 32\), expected \(2, 32\)"):
        lora.tuned.load_state_dict(changed)
    lora.tuned.load_state_dict(state)
    stolen = Adapter(lora.base, _WithState(lora.tuned, changed), lora.header)  # type: ignore[arg-type]
    with pytest.raises(StateError):
        stolen.save(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert adapter.tuned.trainable_parameters == 3 * 33


class _WithState:
    def __init__(self, tuned: object, state: dict[str, torch.Tensor]) -> None:
        self.tuned, self.state = tuned, state

    def __getattr__(self, name: str) -> object:
        return getattr(self.tuned, name)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.state


def test_no_pickle_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    adapter = make(strategy="lora")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, lambda *args, **more: pytest.fail("pickle was used"))
    monkeypatch.setattr(torch, "load", lambda *args, **more: pytest.fail("torch.load was used"))
    found: list[str] = []
    sys.addaudithook(lambda event, arguments: found.append(event) if event.startswith("pickle.") else None)
    adapter.save(tmp_path / "a")
    load_adapter(tmp_path / "a", adapter.base, verify=True)
    assert not found
    assert (tmp_path / "a" / CARD).is_file()


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_what_has_no_answer_gets_none(odd: float) -> None:
    adapter = make()
    with torch.no_grad():
        adapter.tuned.view.head.linear.bias[1] = odd  # type: ignore[union-attr, operator, index]
    with pytest.raises(AdapterError, match=r"2 of 2 texts got logits that are not finite.*--precision fp32"):
        adapter.predict(["hello", "there"])
    pool = AdapterPool(adapter.base)
    pool.add("a", adapter)
    with pytest.raises(AdapterError, match="not finite"):
        pool.predict(["hello"], "a")
