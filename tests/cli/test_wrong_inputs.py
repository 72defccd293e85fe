"""Wrong inputs: each gets its one line on stderr, nothing on stdout, and the right exit status."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lora_clf.cli.failure import still

Cli = Callable[..., Any]

# Arguments, exit status and a part of the line. {table}, {base}, {adapter}, {tmp} are filled in.
CASES: dict[str, tuple[str, int, str]] = {
    "unknown command": ("trian", 2, "No such command 'trian'. Did you mean 'train'? See 'lora-clf --help'."),
    "unknown subcommand": ("data leeks", 2, "No such command 'leeks'. Did you mean 'leaks'?"),
    "unknown flag": ("train {table} --epoch 2", 2, "No such option: --epoch. Did you mean --epochs?"),
    "unknown flag of the program": ("--versoin", 2, "No such option: --versoin. Did you mean --version?"),
    "no data": ("train", 2, "No data set came."),
    "two data sets": ("train demo --data sms-spam", 2, "Two data sets came: 'demo' and --data 'sms-spam'."),
    "unknown corpus": ("train deno", 2, "Unknown data 'deno'. Did you mean 'demo'?"),
    "missing file": ("train {tmp}/no.csv --base {base}", 1, "There is no file 'no.csv'."),
    "folder for a file": ("train {tmp} --base {base}", 1, "is a folder; expected a file"),
    "missing column": ("train {table} --text-column txet", 1, "no column 'txet'. Did you mean 'text'?"),
    "a split's seed where seeds split": ("compare {table} --resplit --seed 7", 2, "--seed 7 does not apply."),
    "a split's seed where all rows are scored": (
        "evaluate {adapter} {table} --all-rows --seed 1", 2, "--seed 1 is about a split, and --all-rows makes none.",
    ),
    "flags of the other direction": (
        "adapters convert {adapter} --split-qkv q_proj --labels a,b --fuse-qkv --out {tmp}/new", 2,
        "--labels, --fuse-qkv does not apply.",
    ),
    "no number": ("train {table} --rank eight", 2, "--rank eight: expected a valid integer. See"),
    "flag of another strategy": (
        "train {table} --strategy last-block --rank 8", 2,
        "--rank does not apply to last-block, which has: --blocks.",
    ),
    "flag of no use": ("train demo --strategy full --blocks 2", 2, "--blocks does not apply to full"),
    "unknown strategy": ("train {table} --strategy loar", 2, "Unknown strategy 'loar'. Did you mean 'lora'?"),
    "rank below one": ("train {table} --rank 0", 2, "--rank 0: expected at least 1"),
    "dropout above one": ("train {table} --dropout 1.5", 2, "--dropout 1.5: expected 0 up to"),
    "too many blocks": ("train {table} --base {base} --blocks 9 --precision fp32", 2, "--blocks 9: the base has 2"),
    "unknown targets": (
        "train {table} --base {base} --targets querry --precision fp32", 1, "Targets 'querry' match no linear layer",
    ),
    "no epochs": ("train {table} --epochs -1", 2, "--epochs -1: expected zero or more"),
    "rate that is no number": ("train {table} --lr nan", 2, "--lr nan: expected a positive number"),
    "length that the base lacks": (
        "train {table} --base {base} --max-length 5000 --precision fp32", 2,
        "--max-length 5000: the base tiny-bert takes",
    ),
    "unknown protocol": ("train {table} --protocol bok", 2, "Unknown protocol 'bok'. Did you mean 'book'?"),
    "wrong split": ("train {table} --split 70/30", 2, "The split is '70/30'; expected three numbers"),
    "unknown balance": ("train {table} --balance under", 2, "Unknown balance 'under'"),
    "unknown positive label": ("train {table} --positive-label egg", 2, "egg"),
    "unknown device": ("train {table} --device gpu", 2, "Unknown device 'gpu'. Did you mean 'cpu'?"),
    "unknown precision": ("train {table} --precision fp8", 2, "Unknown precision 'fp8'"),
    "unknown pooling": ("train {table} --pooling max", 2, "Unknown pooling 'max'"),
    "unknown base": ("train {table} --base minilmm", 2, "Unknown base 'minilmm'. Did you mean 'minilm'?"),
    "folder that is no base": ("strategies --base {tmp}", 1, "has no config.json, so it is not a base"),
    "base that is a table": ("strategies --base {table}", 1, "Give a folder with a config.json"),
    "out is a file": ("train {table} --out {table}", 2, "is a file. Choose another place"),
    "out below a file": ("train {table} --out {table}/a", 2, "is a file, expected a folder"),
    "out holds other things": ("train {table} --out {base} --force", 2, "holds other files than an adapter's"),
    "no adapter": ("predict {tmp}/none hello", 1, "There is no adapter in"),
    "adapter is a file": ("predict {table} hello", 1, "is no folder"),
    "adapter is a base": ("predict {base} hello", 1, "There is no adapter in"),
    "adapter missing": ("predict", 2, "Missing argument 'ADAPTER'"),
    "wrong base": ("predict {adapter} --base {other} hello", 1, "was trained on the base tiny-bert"),
    "texts twice": ("predict {adapter} hello --input {table}", 2, "Texts came as arguments and with --input."),
    "no input file": ("predict {adapter} --input {tmp}/no.csv", 1, "There is no file 'no.csv'."),
    "input is a folder": ("predict {adapter} --input {tmp}", 1, "is a folder; expected"),
    "no such text column": ("predict {adapter} --input {table} --text-column body", 1, "no column 'body'"),
    "output of unknown format": ("predict {adapter} hi --output {tmp}/o.xlsx", 2, "ends in .csv, .tsv, .jsonl"),
    "output in no folder": ("predict {adapter} hi --output {tmp}/no/o.csv", 2, "there is no folder"),
    "output is the input": ("predict {adapter} --input {table} --output {table} --force", 2, "is the --input itself"),
    "column without a file": ("predict {adapter} hi --text-column a", 2, "is about --input, which was not given"),
    "all rows and a split": (
        "evaluate {adapter} {table} --all-rows --split 80/10/10", 2, "--split does not apply",
    ),
    "label to find that the adapter lacks": (
        "evaluate {adapter} {table} --positive-label spma", 2, "Unknown label 'spma'. Did you mean 'spam'?",
    ),
    "no place for the parts": ("data prepare demo", 2, "Give --out FOLDER."),
    "numbers that are words": (
        "train {table} --task regression", 1, "Name the column of numbers with --label-column, or leave",
    ),
    "a folder of adapters": ("predict {adapter}/.. hello", 1, "adapters list"),
    "unknown base to fetch": ("bases fetch gtp2", 2, "Unknown base 'gtp2'. Did you mean 'gpt2'?"),
    "no folder of adapters": ("adapters list {tmp}/none", 1, "There is no folder"),
    "nothing to inspect": ("adapters inspect {tmp}", 1, "There is no adapter in"),
    "labels below one": ("strategies --labels 0", 2, "--labels 0: expected greater than or equal to 1. See"),
    "unknown strategy to compare": (
        "compare demo --strategies lora,ful", 2, "Unknown strategy 'ful'. Did you mean 'full'?",
    ),
    "no strategies": ("compare demo --strategies ,", 2, "--strategies ',' names none. There are: head-only"),
    "seeds that are none": ("compare demo --seeds many", 2, "--seeds many: expected how many"),
    "no seeds": ("compare demo --seeds 0", 2, "--seeds 0: expected how many"),
    "flag of no compared strategy": (
        "compare demo --strategies full,head-only --rank 4", 2,
        "--rank applies to none of full, head-only; it is a flag of lora, lora-scratch, ",
    ),
    "folds and a split": ("compare demo --folds 3 --split 80/10/10", 2, "--split does not apply"),
    "unknown plot format": ("compare demo --plot-format gif", 2, "gif"),
    "home of nobody": ("data leaks ~no-such-user/a.csv", 2, "a user whom this machine does not know"),
    "an encoding of no files": ("data leaks {table} --encoding undefined", 2, "The encoding 'undefined' cannot read"),
    "a number that is no digit": ("data leaks {table} --bins ²", 1, "are not all numbers"),
}  # fmt: skip


@pytest.fixture(scope="session")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the same shape with other weights."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("other") / "tiny-bert"
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] + torch.finfo(torch.float32).eps
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("case", CASES)
def test_its_line(cli: Cli, case: str, table: Path, base: Path, adapter: Path, other: Path, tmp_path: Path) -> None:
    pattern, code, part = CASES[case]
    places = {"table": table, "base": base, "adapter": adapter, "tmp": tmp_path, "other": other}
    args = [piece.format(**places) for piece in pattern.split()]
    if args[0] == "train" and "--out" not in args:
        args += ["--out", str(tmp_path / "made")]
    if args[0] == "compare":
        args += ["--out", str(tmp_path / "made"), "--base", str(base)]
    ran = cli(*args)
    assert (ran.code, ran.out) == (code, ""), ran.err
    said = [line for line in ran.err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1 and part in ran.err, ran.err
    assert "Traceback" not in ran.err and "Unexpected" not in ran.err
    listed = [line for line in ran.err.splitlines()[1:] if line.startswith("  ")]
    assert len(ran.err.splitlines()) == 1 + len(listed), ran.err  # one line, more only where problems are listed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", ["data", "adapters", "bases", "cache"])
def test_a_group_without_a_command_shows_its_help(cli: Cli, group: str) -> None:
    ran = cli(group)
    assert ran.code == 2 and "Commands" in ran.out + ran.err and "Error" not in ran.err


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".jsonl", ".parquet"])
def test_a_file_that_may_not_be_read(
    cli: Cli, tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    import builtins
    import io

    locked = tmp_path / f"locked{suffix}"
    locked.write_bytes(b"text\nhello\n")
    real = io.open

    def refused(file: Any, *args: Any, **named: Any) -> Any:  # the user who runs this test may be allowed everything
        if str(file) == str(locked):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **named)

    monkeypatch.setattr(io, "open", refused)
    monkeypatch.setattr(builtins, "open", refused)
    for args in (("predict", adapter, "--input", locked), ("data", "leaks", locked)):
        ran = cli(*args)
        assert ran.code == 1 and ran.err.count("\n") == 1 and "Unexpected" not in ran.err, ran.err


def test_the_folder_one_is_in_is_no_place_for_an_adapter(
    cli: Cli, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (".", tmp_path, f"../{tmp_path.name}"):
        ran = cli("train", table, "--out", place)
        assert (ran.code, ran.out) == (2, "") and ran.err.startswith(f"Error: {place} is the folder you are in.")


def test_all_problems_of_a_table_together(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("text,label\nhello,ham\n,spam\nhi,\nwin,spam\n", encoding="utf-8")
    ran = cli("data", "leaks", file)
    assert ran.code == 1 and [line[:7] for line in ran.err.splitlines()[1:]] == ["  row 2", "  row 3"]


def test_an_encoding_is_no_matter_of_parquet(cli: Cli, adapter: Path, tmp_path: Path) -> None:
    pd.DataFrame({"text": ["tea"]}).to_parquet(tmp_path / "rows.parquet")
    ran = cli("predict", adapter, "--input", tmp_path / "rows.parquet", "--encoding", "cp1252")
    assert (ran.code, ran.out) == (2, "") and "is about text files; rows.parquet is Parquet" in ran.err


def test_what_moves_a_cursor_is_spelt_out() -> None:
    assert still("a\x1b[31mb\u202e\tc\n") == "a\\x1b[31mb\\u202e\tc\n"


@pytest.mark.parametrize(
    ("several", "flags", "named"),
    [
        (6, ["--bins", "low:2,fairly good:4,high"], ["--label-order", "low,fairly good,high"]),
        (6, ["--bins", "3"], ["--label-order"]),
        (6, ["--task", "regression"], ["--task", "regression"]),
        (2, ["--positive-label", "1"], ["--positive-label", "1"]),
    ],
    ids=str,
)
def test_the_command_for_a_prepared_split_works(
    cli: Cli, tmp_path: Path, several: int, flags: list[str], named: list[str]
) -> None:
    rows = [f"text {n} {n * 7919} of {n * n},{n % several}" for n in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["text,stars", *rows]), encoding="utf-8")
    said = cli("data", "prepare", tmp_path / "t.csv", *flags, "--out", tmp_path / "my parts").ok().out
    [command] = [shlex.split(line) for line in said.splitlines() if line.startswith("Use it: ")]
    assert command[2:5] == ["lora-clf", "train", str(tmp_path / "my parts")] and command[5 : 5 + len(named)] == named
    cli("data", "leaks", *command[4:]).ok()  # which reads the data as train does


def test_the_command_for_a_prepared_split_says_what_is_learned(cli: Cli, table: Path, tmp_path: Path) -> None:
    ran = cli("data", "prepare", table, "--label-order", "spam,ham,more", "--out", tmp_path / "no")
    assert ran.code != 0 and not (tmp_path / "no").exists()
    ran = cli("data", "prepare", table, "--task", "binary", "--out", tmp_path / "my split").ok()
    assert f"Use it: lora-clf train '{tmp_path / 'my split'}' --task binary" in ran.out
