"""`adapters convert | average | extract | merge | export`, as a person runs them."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def family(base: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters with family heads: spam-lora, spam-full, and lora-1 and lora-2 of two seeds."""
    from tests.cli.conftest import run_cli

    folder = tmp_path_factory.mktemp("family")
    common = ("--base", base, "--pooling", "family", "--precision", "fp32", "--device", "cpu", "--max-length", 40)
    for name, flags in {
        "spam-lora": ("--strategy", "lora", "--rank", 4, "--lr", 0.02, "--epochs", 4),
        "spam-full": ("--strategy", "full", "--lr", 0.003, "--epochs", 4),
        "spam-last": ("--strategy", "last-block", "--lr", 0.005, "--epochs", 4),
        "other-lora": ("--strategy", "lora-scratch", "--rank", 2, "--lr", 0.02, "--epochs", 4, "--blocks", 1),
    }.items():
        run_cli("train", table, *common, *flags, "--out", folder / name, "--json").ok()
    return folder


@pytest.fixture
def there(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base as a registered one, so that commands find it by digest."""
    monkeypatch.setenv("LORA_CLF_BASES", str(base.parent))
    return base


@pytest.fixture(scope="module")
def peft_folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What PEFT's own `save_pretrained` wrote after no training to speak of, with its logits on a text."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("peft")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=7, target_modules=["query"]))
    with torch.no_grad():
        for parameter in (p for p in peft.parameters() if p.requires_grad):
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    peft.eval().save_pretrained(str(folder / "theirs"), save_embedding_layers=False)
    tokens = AutoTokenizer.from_pretrained(base)("win a prize now", return_tensors="pt")
    shares = peft(**tokens).logits.softmax(-1)[0].tolist()
    (folder / "expected.json").write_text(json.dumps(shares))
    return folder


# convert


def test_convert(cli: Cli, peft_folder: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    args = ("adapters", "convert", peft_folder / "theirs", "--labels", "ham, spam", "--positive-label", "spam")
    found = cli(*args, "--base", base, "--out", out, "--device", "cpu", "--json").ok().json()
    assert found["labels"] == ["ham", "spam"] and found["positive_label"] == "spam"
    assert found["settings"] == {
        "rank": 3, "alpha": 7.0, "dropout": 0.0, "targets": "attention.self.query", "blocks": None,
    }  # fmt: skip
    assert found["adapter"] == str(out) and found["base"] == base.name and found["base_name_check"] == "unknown"
    answer = cli("predict", out, "win a prize now", "--base", base, "--device", "cpu", "--json").ok().json()[0]
    expected = dict(zip(["ham", "spam"], json.loads((peft_folder / "expected.json").read_text()), strict=True))
    assert answer["probabilities"] == pytest.approx(expected, abs=1e-5)
    # The base that the file names is a path, and still there: no flag is needed.
    ran = cli(*args, "--out", tmp_path / "again", "--device", "cpu").ok()
    assert "PEFT stores no digest of its base" in ran.out and "cannot be compared" in ran.out
    assert "lora (rank 3, alpha 7.0" in ran.out and "lora-clf predict" in ran.out and "Warning" not in ran.err
    odd = tmp_path / "odd"
    shutil.copytree(base, odd)
    form = json.loads((odd / "tokenizer.json").read_text())
    form["normalizer"]["lowercase"] = False  # transformers believes tokenizer_config.json
    (odd / "tokenizer.json").write_text(json.dumps(form))
    (odd / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    ran = cli(*args, "--base", odd, "--out", tmp_path / "third", "--device", "cpu", "--json").ok()
    assert ran.json()["base"] == "odd" and "transformers' tokenizer of odd reads other tokens in some fixed" in ran.err


def test_convert_refuses(cli: Cli, peft_folder: Path, base: Path, family: Path, tmp_path: Path) -> None:
    theirs, out = peft_folder / "theirs", tmp_path / "ours"
    start = ("adapters", "convert")
    for args, code, message in (
        ((theirs, "--base", base), 2, "name its 2 in the order of the outputs, as --labels label0,label1"),
        ((theirs, "--base", base, "--labels", "a,b,c"), 2, "3 labels (a, b, c)"),
        ((theirs, "--base", base, "--labels", "a,b", "--truncation", "up"), 2, "expected right or left"),
        ((theirs, "--base", base, "--labels", "a,b", "--strategy", "loro"), 2, "Did you mean 'lora'"),
        ((theirs, "--base", base, "--labels", "a,b", "--adapter-dtype", "int8"), 2, "There are: bf16, fp32"),
        ((theirs, "--base", base, "--labels", "a,b", "--base-check", "maybe"), 2, "Unknown base check"),
        ((theirs, "--base", base, "--labels", "a,b", "--fuse-qkv"), 1, "nothing to fuse or to split"),
        ((family / "spam-lora", "--base", base, "--labels", "a,b"), 1, "is one of lora_clf already"),
        ((tmp_path / "no", "--base", base, "--labels", "a,b"), 1, "There is no adapter"),
    ):
        ran = cli(*start, *args, "--out", out)
        assert ran.code == code and message in ran.err and "Traceback" not in ran.err, ran.err
        assert not out.exists()
    cli(*start, theirs, "--labels", "a,b", "--base", base, "--out", out).ok()
    ran = cli(*start, theirs, "--labels", "a,b", "--base", base, "--out", out)
    assert ran.code == 2 and "--force" in ran.err
    cli(*start, theirs, "--labels", "a,b", "--base", base, "--out", out, "--force", "--adapter-dtype", "bf16").ok()


def test_what_is_converted_is_not_replaced(
    cli: Cli, peft_folder: Path, base: Path, adapter: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(peft_folder / "theirs", theirs)
    (tmp_path / "link").symlink_to(theirs)
    shutil.copytree(adapter, tmp_path / "ours")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for source, out, more in (
        (theirs, theirs, ("--labels", "a,b")),
        (theirs, tmp_path / "link", ("--labels", "a,b")),
        (tmp_path / "ours", tmp_path / "ours", ("--split-qkv", "q_proj")),
    ):
        ran = cli("adapters", "convert", source, "--base", base, "--out", out, "--force", *more)
        assert ran.code == 2 and "is the adapter itself" in ran.err and "another --out" in ran.err, ran.err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_convert_finds_the_base_by_name(cli: Cli, peft_folder: Path, there: Path, tmp_path: Path) -> None:
    moved = tmp_path / "theirs"
    moved.mkdir()
    for file in (peft_folder / "theirs").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    config = json.loads((moved / "adapter_config.json").read_text())
    for name, base_flag, message in (
        ("/somewhere/else/base", (), "was trained on '/somewhere/else/base', by its adapter_config.json"),
        (None, (), "does not say on which base"),
    ):
        (moved / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))
        ran = cli("adapters", "convert", moved, "--labels", "a,b", "--out", tmp_path / "x", *base_flag)
        assert ran.code in (1, 2) and message in ran.err and "--base" in ran.err
    (moved / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": there.name}))
    args = ("adapters", "convert", moved, "--labels", "a,b", "--out", tmp_path / "ours", "--device", "cpu", "--json")
    found = cli(*args).ok().json()
    assert found["base"] == there.name and found["base_name_check"] == "equal"


def test_convert_names_the_revision_that_was_not_compared() -> None:
    from lora_clf.adapters.peft_fields import PeftFields
    from lora_clf.cli.adapters_make import _said

    fields = PeftFields(4, 8.0, base_name="owner/name", revision="v1")
    assert _said(fields, "unknown") == "the file names owner/name@v1, which cannot be compared"
    assert _said(PeftFields(4, 8.0), "unknown") == "the file names no base, which cannot be compared"


def test_split_needs_a_fused_base(cli: Cli, family: Path, there: Path, tmp_path: Path) -> None:
    ran = cli("adapters", "convert", family / "spam-lora", "--split-qkv", "q_proj", "--out", tmp_path / "x")
    assert ran.code == 1 and "nothing to fuse or to split" in ran.err and not (tmp_path / "x").exists()


def test_split_and_fuse(cli: Cli, tmp_path: Path) -> None:
    """GPT-2's fused attention to three layers in PEFT's folder, and back onto GPT-2."""
    from tests.adapters.making import make
    from tests.adapters.whole_bases import whole_base

    base = whole_base("gpt2", tmp_path / "tiny-gpt2", bytes_only=True)
    make("gpt2", "lora", "family", base=base).save(tmp_path / "ours")
    flags = ("--base", tmp_path / "tiny-gpt2", "--device", "cpu")
    start = ("adapters", "convert")
    ran = cli(*start, tmp_path / "ours", "--split-qkv", "W_query", "--out", tmp_path / "three", *flags).ok()
    assert "query, key and value apart" in ran.out
    config = json.loads((tmp_path / "three" / "adapter_config.json").read_text())
    assert "transformer.h.0.attn.W_key" in config["target_modules"]
    ran = cli(*start, tmp_path / "three", "--labels", "ham,spam", "--out", tmp_path / "x", *flags)
    assert ran.code == 1 and "--fuse-qkv" in ran.err and not (tmp_path / "x").exists()
    back = (*start, tmp_path / "three", "--labels", "ham,spam", "--fuse-qkv", "--out", tmp_path / "back", *flags)
    assert cli(*back, "--json").ok().json()["settings"]["rank"] == 9
    texts = ("win a prize now", "lunch at home later")
    one, two = (cli("predict", tmp_path / name, *texts, *flags, "--json").ok().json() for name in ("ours", "back"))
    for first, second in zip(one, two, strict=True):
        assert second["probabilities"] == pytest.approx(first["probabilities"], abs=1e-5)
    ran = cli(*start, tmp_path / "ours", "--split-qkv", "Q", "--out", tmp_path / "x", *flags)
    assert ran.code == 2 and "Unknown name of the query 'Q'" in ran.err


# average


def test_average(cli: Cli, family: Path, there: Path, table: Path, tmp_path: Path) -> None:
    names = [family / "spam-lora", family / "other-lora"]
    out = tmp_path / "both"
    args = ("adapters", "average", *names, "--weights", "3,1", "--device", "cpu")
    found = cli(*args, "--out", out, "--data", table, "--json").ok().json()
    assert found["weights"] == [0.75, 0.25] and found["settings"]["rank"] == 6 and found["kept"] == 1
    assert found["left_out"] == ["metrics"] and found["strategy"] == "lora"
    assert found["scores"].keys() == {"validation", "test"}
    scores = found["scores"]["test"]
    assert scores.keys() == {*map(str, names), "new"} and all(
        each["n"] == scores["new"]["n"] for each in scores.values()
    )
    # The parts are those of the training, so the scores are on record.
    header = cli("adapters", "inspect", out, "--json").ok().json()
    assert header["metrics"]["test"]["accuracy"] == scores["new"]["accuracy"]
    assert header["training"]["weights"] == [0.75, 0.25]
    ran = cli(*args, "--out", tmp_path / "thin", "--rank", 3).ok()
    assert "Averaged: 0.75 of" in ran.out and "Rank 3 keeps" in ran.out and "Not taken over" in ran.out
    assert cli("adapters", "verify", tmp_path / "thin", "--json").ok().json()["sound"]


def test_average_refuses(cli: Cli, family: Path, there: Path, table: Path, tmp_path: Path) -> None:
    lora, full = family / "spam-lora", family / "spam-full"
    for args, code, message in (
        ((lora,), 2, "two adapters or more"),
        ((lora, full), 2, "the strategy of the first is lora, of number 2 full"),
        ((lora, lora, "--weights", "1"), 2, "1 weights for 2 adapters"),
        ((lora, lora, "--weights", "1,x"), 2, "expected numbers with commas"),
        ((lora, lora, "--rank", "0"), 2, "--rank 0"),
        ((lora, lora, "--seed", "3"), 2, "--seed: expected --data"),
        ((lora, lora, "--label-column", "label"), 2, "expected --data"),
        ((lora, lora, "--data", table, "--split", "50/25/25"), 1, "No split of"),
        ((lora, tmp_path / "no"), 1, "There is no adapter"),
    ):
        ran = cli("adapters", "average", *args, "--out", tmp_path / "x")
        assert ran.code == code and message in ran.err, ran.err
        assert not (tmp_path / "x").exists()


# extract


def test_extract(cli: Cli, family: Path, there: Path, table: Path, tmp_path: Path) -> None:
    original = family / "spam-full"
    args = ("adapters", "extract", original, "--device", "cpu")
    found = cli(*args, "--rank", 16, "--out", tmp_path / "r16", "--data", table, "--json").ok().json()
    assert found["rank"] == 16 and found["layers"] == 12 and found["strategy"] == "lora"
    assert found["kept"] + sum(found["left_out"].values()) == pytest.approx(1)
    assert {"embeddings", "norms", "rank"} <= found["left_out"].keys()
    test = found["scores"]["test"]
    assert test.keys() == {str(original), "new"} and test["new"]["n"] == test[str(original)]["n"]
    header = cli("adapters", "inspect", tmp_path / "r16", "--json").ok().json()
    assert header["metrics"]["test"]["accuracy"] == test["new"]["accuracy"]
    ran = cli(
        *args, "--rank", 2, "--out", tmp_path / "r2", "--data", table, "--all-rows", "--adapter-dtype", "bf16"
    ).ok()
    assert "Of the squared norm of the change" in ran.out and "Left out:" in ran.out and "extracted" in ran.out
    assert str(original) in ran.out and "all accuracy" in ran.out
    header = cli("adapters", "inspect", tmp_path / "r2", "--json").ok().json()
    assert header["metrics"] == {}, "rows of the training are no test"
    last = cli("adapters", "extract", family / "spam-last", "--out", tmp_path / "last", "--json").ok().json()
    assert last["settings"]["blocks"] == 1 and last["rank"] == 8 and last["layers"] == 6


def test_extract_refuses(cli: Cli, adapter: Path, family: Path, there: Path, tmp_path: Path) -> None:
    ran = cli("adapters", "extract", family / "spam-full", "--rank", 0, "--out", tmp_path / "x")
    assert ran.code == 2 and "--rank 0" in ran.err
    ran = cli("adapters", "extract", family / "spam-full", "--out", adapter)
    assert ran.code == 2 and "--force" in ran.err


def test_the_scores_on_record_are_those_of_the_saved_numbers(
    cli: Cli, family: Path, there: Path, table: Path, tmp_path: Path
) -> None:
    for command, names in (("average", ("spam-lora", "other-lora")), ("extract", ("spam-full",))):
        metrics = {}
        for dtype in ("fp32", "bf16"):
            out = tmp_path / f"{command}-{dtype}"
            args = (*(family / name for name in names), "--data", table, "--adapter-dtype", dtype, "--device", "cpu")
            found = cli("adapters", command, *args, "--out", out, "--json").ok().json()["scores"]
            on_record = cli("adapters", "inspect", out, "--json").ok().json()["metrics"]
            saved = cli("evaluate", out, table, "--device", "cpu", "--json").ok().json()
            for part in ("validation", "test"):
                loss = on_record[part]["loss"]
                assert found[part]["new"]["loss"] == loss
                assert saved[part]["loss"] == pytest.approx(loss, rel=1e-6)
            metrics[dtype] = on_record["test"]["loss"]
        assert metrics["fp32"] != pytest.approx(metrics["bf16"], rel=1e-6)


def test_extract_looks_at_the_original_once(
    cli: Cli, family: Path, there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is told of where it lies, under the cap that was asked for, and before anything is written."""
    from lora_clf.adapters import origin

    asked = []

    def adapter_folder(place: Path, *, file_cap: int) -> Path:
        asked.append((file_cap, (tmp_path / "x").exists()))
        return family / "spam-full"

    monkeypatch.setattr(origin, "adapter_folder", adapter_folder)
    args = ("adapters", "extract", family / "spam-full", "--file-cap", 1, "--out", tmp_path / "x", "--json")
    found = cli(*args).ok().json()
    assert found["original_bytes"] > 10_000 and asked and set(asked) == {(1 << 30, False)}


# merge and export


def test_merge(cli: Cli, adapter: Path, there: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    found = cli("adapters", "merge", adapter, "--out", out, "--device", "cpu", "--json").ok().json()
    assert found["base"] == str(out) and found["adapter"] == str(out / "head") and found["difference"] < 1e-5
    assert found["base_bytes"] > 10 * found["adapter_bytes"]
    texts = ("win a prize now", "lunch at home later")
    one = cli("predict", adapter, *texts, "--device", "cpu", "--json").ok().json()
    two = cli("predict", out / "head", *texts, "--base", out, "--device", "cpu", "--json").ok().json()
    for first, second in zip(one, two, strict=True):
        assert second["probabilities"] == pytest.approx(first["probabilities"], abs=1e-5)
    ran = cli("adapters", "merge", adapter, "--out", out)
    assert ran.code == 2 and "--force" in ran.err
    assert f"--base {out}" in cli("adapters", "merge", adapter, "--out", out, "--force").ok().out
    ran = cli("adapters", "merge", out / "head", "--base", out, "--out", tmp_path / "x")
    assert ran.code == 2 and "a head and nothing else" in ran.err


def test_export(cli: Cli, family: Path, there: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    texts = ["win a prize now", "lunch at home later"]
    for name in ("spam-lora", "spam-full"):
        out = tmp_path / name
        found = cli("adapters", "export", family / name, "--merged", out, "--device", "cpu", "--json").ok().json()
        assert found["folder"] == str(out) and found["remarks"] == [] and found["difference"] < 1e-5
        run: Any = pipeline("text-classification", model=str(out), device="cpu")
        theirs = [{each["label"]: each["score"] for each in row} for row in run(texts, top_k=None)]
        ours = cli("predict", family / name, *texts, "--device", "cpu", "--json").ok().json()
        assert np.ptp([row["spam"] for row in theirs]) > 1e-4
        for first, second in zip(theirs, ours, strict=True):
            assert first == pytest.approx(second["probabilities"], abs=1e-5)
    ran = cli("adapters", "export", family / "spam-lora", "--merged", tmp_path / "spam-lora")
    assert ran.code == 2 and "--force" in ran.err
    ran = cli("adapters", "export", family / "spam-lora", "--merged", tmp_path / "spam-lora", "--force").ok()
    assert "pipeline(" in ran.out and "gives the same probabilities" in ran.out


def test_export_of_a_free_head_names_the_command(cli: Cli, adapter: Path, there: Path, tmp_path: Path) -> None:
    ran = cli("adapters", "export", adapter, "--merged", tmp_path / "x")
    assert ran.code == 2 and not (tmp_path / "x").exists()
    assert (
        "pooling mean" in ran.err
        and "`lora-clf train DATA --base tiny-bert" in ran.err
        and "--strategy lora --alpha 16.0 --dropout 0.0 --rank 4" in ran.err
        and "--pooling family`" in ran.err
    )


@pytest.mark.parametrize("command", ["convert", "average", "extract", "merge", "export"])
def test_help(cli: Cli, command: str) -> None:
    assert cli("adapters", command, "--help").ok().out
