"""`predict`: arguments, files of every format, stdin; order kept and nothing dropped."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_clf.cli.rows import lines_of

Cli = Callable[..., Any]
TEXTS = ["win cash prize now", "lunch at home", "", "[SEP] <|endoftext|>", "naïve ☕ line\u2028sep", "-5 today"]


@pytest.fixture
def ask(cli: Cli, adapter: Path, base: Path) -> Cli:
    return lambda *args, **named: cli("predict", adapter, "--base", base, *args, **named)


def test_texts_as_arguments(ask: Cli) -> None:
    said = ask("--json", "--", *TEXTS).ok().json()
    assert [each["text"] for each in said] == TEXTS
    for each in said:
        assert each.keys() == {"text", "label", "probability", "probabilities", "truncated"}
        assert each["probabilities"].keys() == {"ham", "spam"}
        assert each["probability"] == each["probabilities"][each["label"]]
        assert sum(each["probabilities"].values()) == pytest.approx(1)
    assert [each["label"] for each in said[:2]] == ["spam", "ham"]
    lines = ask("--", *TEXTS).ok().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [each["label"] for each in said]
    assert lines[0].split("\t")[2] == TEXTS[0] and len(lines) == len(TEXTS)


def test_lines_of_stdin(ask: Cli) -> None:
    said = ask("--json", stdin="win cash\n\nlunch\r\nno line break at the end").ok().json()
    assert [each["text"] for each in said] == ["win cash", "", "lunch", "no line break at the end"]
    assert ask("--json", stdin="").ok().json() == []
    assert ask(stdin="").ok().out == ""


def test_stdin_of_another_encoding(ask: Cli) -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        ran = ask("--json", stdin=start + b"tea\n\ncaf\xe9\nlunch\xe9\n")
        assert (ran.code, ran.out) == (1, "") and ran.err.count("\n") == 1
        assert "line 3 holds the byte 0xE9" in ran.err and "--encoding cp1252" in ran.err
    said = ask("--json", "--encoding", "cp1252", stdin=b"tea\ncaf\xe9\n").ok().json()
    assert [each["text"] for each in said] == ["tea", "caf\u00e9"]
    refused = ask("--encoding", "cp1252", "tea")
    assert refused.code == 2 and "texts came as arguments" in refused.err


def test_blank_lines_of_one_column_are_empty_texts(ask: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('\nmessage\nwin cash\n\n\r\n""\nlunch\n', encoding="utf-8", newline="")
    ask("--input", source, "--output", target).ok()
    assert [row["message"] for row in read_csv(target)] == ["win cash", "", "", "", "lunch"]
    source.write_text("id,text\n1,win\n\n2,tea\n", encoding="utf-8")
    assert len(ask("--input", source, "--json").ok().json()) == 2


def test_lines() -> None:
    assert lines_of("") == [] and lines_of("\n") == [""] and lines_of("a\n\nb") == ["a", "", "b"]
    assert lines_of("a\u2028b\x0cc\n") == ["a\u2028b\x0cc"]


def test_long_texts_are_said_to_be_cut(ask: Cli) -> None:
    texts = "lunch " * 500, "tea", "[SEP] win cash now"
    ran = ask("--json", *texts).ok()
    assert [each["truncated"] for each in ran.json()] == [True, False, True]
    assert ran.err.startswith(
        "2 of 3 texts were not read whole, since they are longer than the adapter reads or spell "
    )
    assert ran.err.endswith("; they are marked as truncated.\n")
    assert ask(*texts).ok().err == ran.err.replace("they are marked", "--json marks them")


def read_csv(file: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_in_and_out(ask: Cli, tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "in.jsonl"
    records = [{"id": number, "message": text, "more": None} for number, text in enumerate(TEXTS)]
    records[2]["message"] = None
    source.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    first = tmp_path / f"first{suffix}"
    ran = ask("--input", source, "--output", first).ok()
    assert ran.out == "" and ran.err == f"Wrote {first}: 6 rows with label and probability.\n"
    second = tmp_path / "second.jsonl"  # what was written can be read; its columns are all kept
    ran = ask("--input", first, "--output", second, "--text-column", "message").ok()
    assert "6 rows with predicted_label and predicted_probability" in ran.err
    written = [json.loads(line) for line in second.read_text(encoding="utf-8").split("\n") if line]
    assert [str(each["id"]) for each in written] == [str(number) for number in range(6)]
    assert [each["message"] or "" for each in written] == TEXTS
    assert list(written[0]) == [
        "id",
        "message",
        "more",
        "label",
        "probability",
        "predicted_label",
        "predicted_probability",
    ]
    assert all(each["label"] == each["predicted_label"] for each in written)
    if suffix in (".jsonl", ".parquet"):
        assert written[3]["id"] == 3 and written[2]["message"] is None  # types are kept too


def test_output_in_another_folder_of_texts_from_arguments(ask: Cli, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    said = ask("--output", target, "--json", "win", "tea\nwith a break").ok().json()
    rows = read_csv(target)
    assert [row["text"] for row in rows] == ["win", "tea\nwith a break"]
    assert [row["label"] for row in rows] == [each["label"] for each in said]
    refused = ask("--output", target, "win")
    assert refused.code == 2 and "is there already" in refused.err and len(read_csv(target)) == 2
    ask("--output", target, "--force", "win").ok()
    assert len(read_csv(target)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["out.csv"]


def test_a_failure_leaves_the_old_output(ask: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    target = tmp_path / "out.csv"
    target.write_text("old", encoding="utf-8")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ran = ask("--output", target, "--force", "win")
    assert ran.code == 1 and "No space left" in ran.err and "Traceback" not in ran.err
    assert target.read_text(encoding="utf-8") == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_text_file_of_lines(ask: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text('text\n\nwin, "cash\n', encoding="utf-8")
    said = ask("--input", source, "--json").ok().json()
    assert [each["text"] for each in said] == ["text", "", 'win, "cash']


def test_a_table_with_one_column_and_one_with_another_encoding(ask: Cli, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes("was\ncafé\n".encode("cp1252"))
    assert ask("--input", source).code == 1
    assert ask("--input", source, "--encoding", "cp1252", "--json").ok().json()[0]["text"] == "café"


def test_rows_that_cannot_be_read_stop_it(ask: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text('{"text": "a"}\n{"text": \n[1]\n', encoding="utf-8")
    ran = ask("--input", source, "--output", target)
    assert ran.code == 1 and len(ran.err.splitlines()) == 3 and not target.exists()
    assert "no row may be dropped" in ran.err and "row 2: not JSON" in ran.err and "row 3: expected" in ran.err


def test_a_byte_order_mark_under_its_encodings_name(ask: Cli, tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_text("text,id\ntea,1\n", encoding="utf-8-sig")
    for encoding in ("utf-8", "UTF8"):
        ask("--input", tmp_path / "bom.csv", "--output", tmp_path / f"{encoding}.csv", "--encoding", encoding).ok()
        assert [row["text"] for row in read_csv(tmp_path / f"{encoding}.csv")] == ["tea"]
