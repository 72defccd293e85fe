"""`--long` from training to the explained answer, and `data clean`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.adapters.file import read_header
from tests.cli.conftest import rows
from tests.data.test_transcript import MEETING

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("all_inside")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with some sentences that say nothing in front of what tells the label."""
    file = tmp_path_factory.mktemp("talks") / "talks.csv"
    lines = []
    for number, (text, label) in enumerate(rows(90)):
        said = "the a of it. " * (5 + number % 4) + f"{text} {number}. " + "of the. " * (number % 5)
        lines.append(f"{label},speaker {number % 12},{said}")
    file.write_text("\n".join(["label,speaker,text", *lines]) + "\n", encoding="utf-8")
    return file


def trained(cli: Cli, talks: Path, base: Path, out: Path, *more: object) -> Any:
    return cli(
        "train", talks, "--base", base, "--strategy", "head-only", "--max-length", 24, "--precision", "fp32",
        "--device", "cpu", "--out", out, *more,
    )  # fmt: skip


def test_a_chunked_adapter_from_training_to_explanation(cli: Cli, talks: Path, base: Path, tmp_path: Path) -> None:
    said = trained(
        cli, talks, base, tmp_path / "a", "--long", "chunk", "--overlap", 4, "--aggregate", "max",
        "--group-column", "speaker", "--json",
    ).ok().json()  # fmt: skip
    assert said["reading"]["train"]["dropped"] == 0 and said["reading"]["train"]["chunks"] > 60
    text = "of the a. " * 12 + "win free cash prize now."
    plain = cli("predict", tmp_path / "a", text, "--base", base, "--json").ok().json()[0]
    found = cli("predict", tmp_path / "a", text, "--base", base, "--explain", "--json").ok().json()[0]
    assert found["label"] == plain["label"] and found["probability"] == pytest.approx(plain["probability"], abs=1e-5)
    chunks = found["chunks"]
    assert len(chunks) > 3 and sum(chunk["share"] for chunk in chunks) == pytest.approx(1)
    assert chunks[-1]["end"] == len(text) and chunks[0]["start"] == 0
    lines = cli("predict", tmp_path / "a", text, "--base", base, "--explain").ok().out.splitlines()
    assert len(lines) == 1 + len(chunks) and lines[1].split("\t")[2] == f"0-{chunks[0]['end']}"
    scores = cli("evaluate", tmp_path / "a", talks, "--base", base, "--group-column", "speaker", "--json").ok().json()
    assert scores["test"]["accuracy"] == said["test"]["accuracy"] and scores["same_split_as_training"]
    shown = cli("adapters", "inspect", tmp_path / "a").ok().out
    assert "chunks joined by max; windows, overlap 4" in " ".join(shown.split())


def test_people_are_told_what_was_read(cli: Cli, talks: Path, base: Path, tmp_path: Path) -> None:
    cut = trained(cli, talks, base, tmp_path / "cut").ok()
    assert "were dropped with the ends of" in cut.out and "tokens were not read" in cut.err
    whole = trained(
        cli, talks, base, tmp_path / "whole", "--long", "hierarchical", "--combine", "mlp", "--epochs", 2
    ).ok()  # fmt: skip
    assert "Read of train: all " in whole.out and "not read" not in whole.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--long", "chunks"], "Did you mean 'chunk'"),
        (["--aggregate", "max"], "--long truncate --segment windows; add --long chunk or --long hierarchical."),
        (["--long", "chunk", "--overlap", "20"], "at most half of them can be shared"),
        (["--long", "hierarchical", "--pooling", "family"], "--pooling mean, first or last"),
    ],
)
def test_wrong_flags_are_one_line(
    cli: Cli, talks: Path, base: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    ran = trained(cli, talks, base, tmp_path / "a", *flags)
    assert ran.code in (1, 2) and said in ran.err and not (tmp_path / "a").exists()


def test_explain_takes_no_file_to_write(cli: Cli, adapter: Path, base: Path, tmp_path: Path) -> None:
    ran = cli("predict", adapter, "win", "--base", base, "--explain", "--output", tmp_path / "a.csv")
    assert ran.code == 2 and "--explain" in ran.err
    found = cli("predict", adapter, "win cash", "--base", base, "--explain", "--json").ok().json()[0]
    assert found["chunks"] == [
        {"start": 0, "end": 8, "share": 1.0, "label": found["label"], "probability": found["probability"]}
    ]


def test_what_cleaning_takes_out_is_shown(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "meeting.txt"
    file.write_text(MEETING, encoding="utf-8")
    ran = cli("data", "clean", file).ok()
    assert ran.out.startswith("Speaker 1: hello. So this is the thing.\nSpeaker 2: I think")
    assert "1 text; changed or taken out: 5 speakers, 2 timestamps, 8 fillers." in ran.err
    shown = cli("data", "clean", file, "--show").ok().out.splitlines()
    assert len(shown) == 15 and shown[0] == "1\t0-11\ttimestamp\t'[00:00:01] '\t''"
    table = tmp_path / "talks.csv"
    table.write_text('text,label\n"ANN: Um, hi",a\n"no label, uh, here",b\n', encoding="utf-8")
    found = cli("data", "clean", table, "--json").ok().json()
    assert [each["text"] for each in found] == ["Speaker 1: hi", "no label here"]
    assert found[0]["speakers"] == ["ann"] and found[1]["changes"][0]["was"] == ", uh,"
    assert cli("data", "clean", tmp_path / "none.txt").code == 1


def test_a_comparison_reads_long_texts_too(cli: Cli, talks: Path, base: Path, tmp_path: Path) -> None:
    cli(
        "compare", talks, "--base", base, "--strategies", "head-only", "--seeds", 1, "--max-length", 24, "--long",
        "chunk", "--overlap", 4, "--precision", "fp32", "--device", "cpu", "--save-adapters", "--out", tmp_path / "runs"
    ).ok()  # fmt: skip
    plan = json.loads((tmp_path / "runs" / "results.json").read_text(encoding="utf-8"))["plan"]
    assert plan["reading"]["long"] == "chunk" and plan["reading"]["overlap"] == 4
    assert read_header(tmp_path / "runs" / "adapters" / "head-only").reading == plan["reading"]
