"""The book's table from the command line: what runs, what is refused, what goes on, what is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import book_bases
import book_page
import book_table
import book_training
import pytest
import quick
import tables
import torch

from lora_clf.base.base import pick_device
from lora_clf.data import dataset
from lora_clf.errors import BaseNotFoundError
from lora_clf.inference.precision import resolve_precision

SHAPE = (32, 3, 4)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained, as row/seed, in order."""
    found: list[str] = []
    real = book_training.trained

    def spied(base: Any, data: Any, row: Any, seed: int, *others: Any) -> dict[str, Any]:
        found.append(f"{row.name}/{seed}")
        return real(base, data, row, seed, *others)

    monkeypatch.setattr(book_training, "trained", spied)
    return found


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few messages in place of the whole file."""
    small = quick.quick_data(train=16, validation=6, test=8)
    monkeypatch.setattr(dataset, "load_data", lambda *_, **__: small)


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 in the files of a downloaded one: config.json, model.safetensors, vocab.json, merges.txt."""
    folder = tmp_path_factory.mktemp("checkpoints")
    quick.quick_base("gpt2", folder)
    found = folder / "tiny-gpt2"
    assert {"config.json", "model.safetensors", "vocab.json", "merges.txt"} <= {file.name for file in found.iterdir()}
    return found


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without GPT-2's weights, on which GPT-2 is tiny."""

    def absent(name: str, **_: Any) -> Any:
        raise BaseNotFoundError(f"{name} is not here")

    monkeypatch.setattr(book_bases, "load_base", absent)
    for size in list(book_bases.GPT2):
        monkeypatch.setitem(book_bases.GPT2, size, SHAPE)
    monkeypatch.setattr(book_bases, "GPT2_LENGTH", 128)
    yield


def run(out: Path, *flags: str) -> int:
    return book_table.main([*flags, "--out", str(out)])


def test_every_row_of_an_encoder_and_a_decoder_runs_or_says_why_not(
    tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "book_table.json"
    assert run(out, "--quick", "--seeds", "1") == 0
    assert run(out, "--quick", "--seeds", "1", "--base", "gpt2", "--rows", "1,2,10,16,17,18,19,B,C,D,A") == 0
    value = json.loads(out.read_text())
    assert set(value["bases"]) == {"tiny-bert", "tiny-gpt2"} and len(value["about"]["rows"]) == 8
    bert, gpt2 = value["bases"]["tiny-bert"], value["bases"]["tiny-gpt2"]
    assert sorted(bert["refused"], key=int) == ["6", "7", "8", "9", "12"] and len(bert["runs"]) == 20
    assert bert["twins"] == {"18": "1"} and gpt2["twins"] == {"18": "1", "B": "16"}
    assert calls.count("1/0") == 2 and "18/0" not in calls and "B/0" in bert["runs"] and "B/0" not in gpt2["runs"]
    assert "message" not in out.read_text() and not re.search("Rank your website", out.read_text())
    printed = capsys.readouterr()
    assert "Row 6, medium, refused: needs a larger relative of tiny-bert (--size medium=BASE)" in printed.err
    lines = book_page.table(value).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + 26 + 11
    assert sum("refused: needs a larger relative" in line for line in lines) == 5
    assert sum(line.endswith("the same computation as row 1 here |") for line in lines) == 2


def test_what_was_stopped_goes_on(tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out, flags = tmp_path / "found.json", ["--quick", "--rows", "1,19", "--seeds", "2"]
    spied = book_training.trained

    def stopped(*arguments: Any) -> dict[str, Any]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        return spied(*arguments)

    monkeypatch.setattr(book_training, "trained", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(out, *flags)
    assert sorted(json.loads(out.read_text())["bases"]["tiny-bert"]["runs"]) == ["1/0", "1/1"]
    monkeypatch.setattr(book_training, "trained", spied)
    assert run(out, *flags) == 0 and calls == ["1/0", "1/1", "19/0", "19/1"]
    before = json.loads(out.read_text())
    assert run(out, *flags) == 0 and len(calls) == 4 and json.loads(out.read_text()) == before
    whole = tmp_path / "whole.json"
    assert run(whole, *flags) == 0
    one, other = (
        {key: (run["wrong"], run["epochs"]) for key, run in bases["tiny-bert"]["runs"].items()}
        for bases in (json.loads(file.read_text())["bases"] for file in (out, whole))
    )
    assert one == other and len(one) == 4
    # Another rate is another recipe: not into the same file; another precision is another run.
    assert run(out, *flags, "--learning-rate", "strategy") == 2
    assert run(out, "--quick", "--rows", "1", "--seeds", "1", "--precision", "fp32") == 0
    same = resolve_precision("auto", pick_device("auto")) == "fp32"  # then nothing is new
    assert calls[8:] == ([] if same else ["1/0"])


def test_a_checkpoint_in_gpt2s_format_and_its_larger_relatives(
    tmp_path: Path, gpt2_folder: Path, small_data: None, calls: list[str]
) -> None:
    out = tmp_path / "found.json"
    flags = ["--base", str(gpt2_folder), "--size", f"medium={gpt2_folder}", "--rows", "1,6,7,10,11", "--seeds", "1"]
    assert run(out, *flags) == 0
    entry = json.loads(out.read_text())["bases"]["tiny-gpt2"]
    assert sorted(entry["runs"]) == ["1/0", "10/0", "11/0", "6/0"] and list(entry["refused"]) == ["7"]
    assert len(entry["runs"]["1/0"]["epochs"]) == 5 and entry["runs"]["1/0"]["learning_rate"] == 5e-5
    assert entry["runs"]["1/0"]["base_digest"] == entry["runs"]["6/0"]["base_digest"]
    assert entry["runs"]["10/0"]["base_digest"] is None
    assert str(tmp_path) not in out.read_text() and str(gpt2_folder.parent) not in out.read_text()
    # With the relative the row is asked, and no longer refused.
    assert run(out, *flags, "--size", f"large={gpt2_folder}") == 0 and calls[-1] == "7/0"
    assert json.loads(out.read_text())["bases"]["tiny-gpt2"]["refused"] == {}


def test_without_gpt2s_weights_pretrained_rows_are_refused_by_name(
    tmp_path: Path, gpt2_folder: Path, small_data: None, no_weights: None, calls: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "found.json"
    assert run(out, "--base", "gpt2", "--rows", "1,6,10") == 1 and not calls
    words = capsys.readouterr().err
    assert "needs the pretrained weights of gpt2 (lora-clf bases fetch gpt2)" in words
    assert "needs the pretrained weights of gpt2-medium (lora-clf bases fetch gpt2-medium)" in words
    assert "Row 10, random weights, all layers, refused: needs GPT-2's tokenizer (--tokenizer FOLDER)" in words
    told = ["--base", "gpt2", "--tokenizer", str(gpt2_folder)]
    assert run(out, *told, "--rows", "1,10", "--seeds", "2") == 0 and calls == ["10/0", "10/1"]
    # Times do not depend on what the weights are.
    assert run(out, *told, "--rows", "1,6,10,G", "--steps", "1") == 0 and len(calls) == 2
    entry = json.loads(out.read_text())["bases"]["gpt2"]
    assert list(entry["times"]) == ["1", "10", "6"] and not entry["times"]["1"]["trained"]
    assert list(entry["refused"]) == ["1", "6"]
    text = capsys.readouterr().out
    assert "≈ " in text and "10 | random weights, all layers | 93.67 | -1.33, no" in text
    assert run(out, "--base", "gpt2", "--tokenizer", str(tmp_path), "--rows", "E") == 2
    assert "no vocab.json and no merges.txt" in capsys.readouterr().err


def test_a_row_that_would_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    weights = quick.quick_base("bert", tmp_path).total_parameters * 4
    monkeypatch.setattr(book_bases, "memory_bytes", lambda: 5 * weights)
    assert run(out, "--quick", "--seeds", "1", "--rows", "1,5,10") == 0
    entry = json.loads(out.read_text())["bases"]["tiny-bert"]
    assert sorted(entry["runs"]) == ["1/0", "5/0"] and list(entry["refused"]) == ["10"]  # 10 draws a copy of its own
    assert "of memory" in capsys.readouterr().err


def test_a_row_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "found.json", ["--quick", "--seeds", "1", "--rows", "1,C"]
    real = book_training._stepped
    monkeypatch.setattr(
        book_training, "_stepped", lambda model, *rest: float("nan") if model.row.name == "1" else real(model, *rest)
    )
    assert run(out, *flags) == 1
    entry = json.loads(out.read_text())["bases"]["tiny-bert"]
    assert list(entry["runs"]) == ["C/0"] and list(entry["failed"]) == ["1/0"]
    assert "failed: TrainingError: The loss became nan" in capsys.readouterr().out
    monkeypatch.setattr(book_training, "_stepped", real)
    assert run(out, *flags) == 0
    assert json.loads(out.read_text())["bases"]["tiny-bert"]["failed"] == {}


def made(wrong: dict[str, list[list[int]]], items: int = 60) -> dict[str, Any]:
    """A result with these wrong rows for each row and seed."""
    runs = {
        f"{row}/{seed}": {
            "wrong": each,
            "training_seconds": 60.0,
            "prefix_seconds": 3.0,
            "precision": "fp32",
            "width": 9,
        }
        for row, seeds in wrong.items()
        for seed, each in enumerate(seeds)
    }
    about = {"rows": list(range(items)), "groups": list(range(items)), "epochs": 5, "learning_rate": 5e-5,
             "weight_decay": 0.1, "data": "sms", "data_digest": "ab" * 32}  # fmt: skip
    facts = {"versions": {"torch": "2"}, "machine": {"instruction_set": "X", "threads": 2}}
    entry = {"runs": runs, "times": {}, "refused": {}, "failed": {}, "twins": {"18": "1"}, "parameters": 5,
             "provenance": facts}  # fmt: skip
    return {"about": about, "bases": {"minilm": entry}}


def test_a_base_is_told_what_its_differences_show() -> None:
    bad = list(range(40))
    value = made({"1": [[1, 2], [1, 3], [2, 3]], "2": [bad, bad[1:], bad[2:]], "19": [[1], [1, 5], [3]],
                  "C": [bad, bad, bad], "D": [[1], [2], [3]]})  # fmt: skip
    gaps = book_page.differences(value, value["bases"]["minilm"])
    assert list(gaps) == ["2", "19", "C", "D"]
    assert gaps["2"].value == pytest.approx(-(39 - 2) / 60) and gaps["2"].high < 0
    assert gaps["19"].low < 0 < gaps["19"].high and gaps["D"].low > 0  # D is compared with C
    text = book_page.table(value)
    assert "better by more than chance: row D (than C); worse by more than chance: rows 2 and C" in text
    assert "not to be told apart: row 19." in text
    assert "| 1 | the book's chapter: last slot, last block, padded to 120 | 95.00 | – | 96.7 ± 0.0 |" in text
    # A row that lacks a seed has an accuracy, and no difference yet.
    del value["bases"]["minilm"]["runs"]["19/2"]
    assert list(book_page.differences(value, value["bases"]["minilm"])) == ["2", "C", "D"]
    assert "| 19 | mean of all slots | 96.33 | +1.33, no | 97.5 ± 1.2 |" in book_page.table(value)
    for low, high in re.findall(r"([+-][\d.]+) to ([+-][\d.]+)\)", text):
        assert -100 <= float(low) <= float(high) <= 100


def test_the_section_is_written_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.OWN[book_table.OUT.stem] == book_table.__name__
    page = "a\n<!-- begin book_table -->\nNot run yet\n<!-- end book_table -->\nz\n"
    assert "there is no benchmarks/results/book_table.json" in tables.rewritten(page, tmp_path)
    out = tmp_path / "book_table.json"
    out.write_text(json.dumps(made({"1": [[1, 2]], "3": [[4]]})), encoding="utf-8")
    written = tables.rewritten(page, tmp_path)
    assert written.count("\n| ") == 4 and "rows 2, 3, 6 and 13 cannot be noise" in written
    assert run(out, "--table") == 0 and capsys.readouterr().out.strip() in written
    assert run(tmp_path / "none.json", "--table") == 0 and "Not run yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--rows", "99"], "99"), (["--size", "giant=x"], "SIZE=BASE"), (["--base", "./nosuch"], "nosuch"),
     (["--precision", "fp8"], "fp8")],
)  # fmt: skip
def test_bad_flags_end_in_a_line(
    flags: list[str], words: str, tmp_path: Path, small_data: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    assert run(out, *flags) == (1 if flags[0] == "--base" else 2) and words in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(SystemExit):
        run(out, "--seeds", "0")


def test_quick_never_writes_among_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert book_table.main(["--quick", "--rows", "3", "--seeds", "1"]) == 0
    assert (tmp_path / "runs" / "quick" / "book_table.json").is_file()
