"""Another base than an adapter's own: refused, said, or let pass, and found by digest under another name."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_clf.adapters import base_search
from lora_clf.adapters.adapter import load_adapter
from lora_clf.adapters.base_check import BASE_CHECKS, check_base
from lora_clf.adapters.base_search import find_base, with_digest
from lora_clf.adapters.file import read_header
from lora_clf.base.base import Base
from lora_clf.base.shelf import alike, is_here
from lora_clf.errors import BaseNotFoundError, UsageError, WrongBaseError
from tests.adapters.making import body_folder, make
from tests.bases import ByteTokenizer, tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make("bert", "lora-scratch").save(tmp_path / "a")


def other_bases() -> dict[str, Base]:
    """Bases that an adapter of `tiny_base("bert")` fits by shape, and none of which is its own."""
    stranger = ByteTokenizer()
    stranger.__dict__["digest"] = "f" * 64  # where the cached property keeps it
    return {
        "weights": replace(tiny_base("bert", seed=1), name="elsewhere"),
        "tokenizer": replace(tiny_base("bert"), tokenizer=stranger, name="elsewhere"),
    }


@pytest.mark.parametrize("kind", ["weights", "tokenizer"])
def test_strict_refuses_warn_says_off_is_silent(kind: str, folder: Path) -> None:
    base = other_bases()[kind]
    for mode in (None, "strict"):
        with pytest.raises(WrongBaseError, match=r"tiny-bert.*elsewhere"):
            load_adapter(folder, base, **({} if mode is None else {"base_check": mode}))
    with pytest.warns(UserWarning) as said:
        adapter = load_adapter(folder, base, base_check="warn", verify=True)
    assert len(said) == 1
    text = str(said[0].message)
    assert "\n" not in text and "tiny-bert" in text and "elsewhere" in text
    drift = float(text.split("Its canaries drift by ")[1].rstrip("."))
    assert drift > 0.01 if kind == "weights" else drift < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = load_adapter(folder, base, base_check="off", verify=True)
        right = load_adapter(folder, tiny_base("bert"), base_check="warn", verify=True)
    assert len(BASE_CHECKS) == 3
    texts = ["a text", "another"]
    same = torch.equal(torch.from_numpy(right.logits(texts)), torch.from_numpy(silent.logits(texts)))
    assert same is (kind == "tokenizer") and (adapter.logits(texts) == silent.logits(texts)).all()


def test_an_unknown_check_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown base check 'wran'\. Did you mean 'warn'"):
        load_adapter(folder, tiny_base("bert"), base_check="wran")


@pytest.mark.parametrize("mode", ["warn", "off"])
def test_shapes_that_do_not_fit_are_refused_in_any_case(mode: str, folder: Path) -> None:
    narrow = tiny_base("bert")
    narrow.config.num_hidden_layers = 2
    del narrow.backbone.encoder.layer[2]  # type: ignore[union-attr, operator]
    narrow = replace(narrow, name="two-blocks", digest="0" * 64)
    for base, says in ((narrow, r"encoder\.layer\.2"), (tiny_base("gpt2"), "fan_in_fan_out")):
        with pytest.raises(WrongBaseError, match=rf"tiny-bert.*{base.name}.*does not fit.*{says}"):
            load_adapter(folder, base, base_check=mode)


def test_what_is_saved_again_on_another_base_keeps_its_own_canaries(folder: Path, tmp_path: Path) -> None:
    other = load_adapter(folder, tiny_base("bert", 4), base_check="off")
    kept = other.header.canaries
    with pytest.raises(UsageError, match=r"trained on the base tiny-bert .* Load it on its own base"):
        other.save(tmp_path / "bf16", dtype="bf16")
    other.save(tmp_path / "again")
    assert not (tmp_path / "bf16").exists() and load_adapter(tmp_path / "again", tiny_base("bert")).verify() < 1e-4
    assert other.header.canaries == kept


def test_a_check_says_what_it_let_pass(folder: Path) -> None:
    header = read_header(folder)
    assert check_base(folder, header, tiny_base("bert")) is None
    found = check_base(folder, header, tiny_base("bert", seed=1), "off")
    assert found is not None and "names are equal" in found and "--base" not in found
    with pytest.raises(WrongBaseError, match=r"not\. Do this\.$"):
        check_base(folder, header, tiny_base("bert", seed=1), advice="Do this.")


# By digest


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registered folder of bases: `right` is the adapter's own, the others are not, each in its own way."""
    root = tmp_path / "bases"
    for name, kind, seed in (("right", "bert", 0), ("weights", "bert", 1), ("other-kind", "gpt2", 0)):
        body_folder(tiny_base(kind, seed), root / name)
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{")
    (root / "no-weights").mkdir()
    shutil.copy(root / "right" / "config.json", root / "no-weights")
    monkeypatch.setenv("LORA_CLF_BASES", str(root))
    return root


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`load_base` with the tokenizer of tests, and the names that it was asked for."""
    import lora_clf.base.base as module

    asked: list[str] = []
    real = module.load_base

    def load(name: str | Path, **how: object) -> Base:
        asked.append(str(name))
        with monkeypatch.context() as patch:
            patch.setattr(module, "load_tokenizer", lambda *args: ByteTokenizer())
            return real(name, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(base_search, "load_base", load)
    return asked


@pytest.fixture
def adapter(bases: Path, loads: list[str], tmp_path: Path) -> Path:
    """An adapter made on the base in the folder `right`, whose name in its header is that of nothing here."""
    base = base_search.load_base(bases / "right")
    loads.clear()
    return make("bert", "lora-scratch", base=replace(base, name="once-called-so")).save(tmp_path / "a")


def test_a_base_is_found_by_digest_under_another_name(adapter: Path, bases: Path, loads: list[str]) -> None:
    header = read_header(adapter)
    assert not is_here(header.base_name)
    base = find_base(header, device="cpu")
    assert (base.name, base.folder) == ("right", bases / "right")
    assert load_adapter(adapter, base, verify=True).labels == ("ham", "spam")
    # Of another architecture, or without a config.json that can be read: not even looked into.
    assert not {"other-kind", "broken"} & {Path(name).name for name in loads} and "right" in loads[-1]
    assert {Path(place).name for place in alike("bert", 32)} == {"right", "weights", "no-weights"}
    assert list(alike("bert", 64)) == [] and {Path(place).name for place in alike("gpt2", 32)} == {"other-kind"}


def test_a_name_that_is_another_base_now_is_passed_over(
    adapter: Path, bases: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bases / "weights", bases / "once-called-so")
    header = read_header(adapter)
    assert is_here("once-called-so")
    assert find_base(header, device="cpu").name == "right"
    assert loads[0] == "once-called-so"
    (bases / "once-called-so" / "model.safetensors").write_bytes(b"x")  # damaged, and no reason to stop
    assert find_base(header, device="cpu").name == "right"


def test_nothing_is_remembered_that_has_changed(adapter: Path, bases: Path, loads: list[str]) -> None:
    header = read_header(adapter)
    assert find_base(header, device="cpu").name == "right"
    weights = load_file(bases / "right" / "model.safetensors")
    name = next(name for name in weights if name.endswith("query.weight"))
    weights[name] = weights[name] * 1.001
    save_file(weights, bases / "right" / "model.safetensors", metadata={"format": "pt"})
    assert list(with_digest(header, device="cpu")) == []
    with pytest.raises(BaseNotFoundError, match="once-called-so"):
        find_base(header, device="cpu")
    (bases / "right").rename(bases / "once-called-so")
    assert find_base(header, device="cpu").name == "once-called-so"  # by name; `check_base` refuses it
