"""Tables, settings and flags that make no sense end in one error of ours, and no row is lost on the way."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import re
from collections import Counter
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_clf.adapters.canary import canaries
from lora_clf.adapters.canonical import canonical
from lora_clf.adapters.header import read_text
from lora_clf.adapters.rules import KNOWN, OPTIONAL
from lora_clf.cli.app import COMMANDS
from lora_clf.cli.failure import guard
from lora_clf.data.dataset import load_data, load_table
from lora_clf.errors import AdapterFormatError, LoraClfError, UsageError
from lora_clf.tasks import NAMES
from lora_clf.training.settings import TrainSettings
from lora_clf.tuners import create, strategies
from tests.adapters.making import make
from tests.cli.conftest import run_cli
from tests.stress.conftest import Counted
from tests.stress.test_task_headers import TASKS, adapter_of

CALM = settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
LONG = settings(CALM, max_examples=2_000)

CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LABELS = ("ham", "spam", "eggs", "", " ", "ham ", "Ham", "0", "1", "1.0", "true", "nan", "\u202e", "é")
LABEL = st.sampled_from(LABELS) | CELL
HEADER = st.sampled_from(["text", "label", "Text", "class", "message", "", "text ", "split", "\ufefftext", "id"]) | CELL
ROWS = st.lists(st.tuples(CELL, LABEL), max_size=40)
ANY = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | CELL | st.just([]) | st.just({})
    | st.lists(st.floats() | CELL, max_size=4)
)  # fmt: skip


def table_of(header: list[str], rows: list[tuple[str, str]], quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=quoting, escapechar="\\").writerows([header, *rows])
    return stream.getvalue().encode("utf-8")


def ours(error: LoraClfError) -> None:
    assert str(error).strip() and error.exit_status in (1, 2)


def kept_and_refused(file: Path, count: int) -> None:
    """Reads a table of ``count`` rows leaving out bad ones: what was kept and what was named are all of them."""
    try:
        part = load_table(file, text_column="text", label_column="label", skip_bad_rows=True)
    except LoraClfError as error:
        ours(error)
        return
    assert len(part) <= count
    kept = list(part.rows)
    assert len(kept) == len(set(kept)) and all(1 <= number <= count for number in kept)
    try:
        load_table(file, text_column="text", label_column="label")
        assert len(kept) == count
    except LoraClfError as error:
        named = {int(found) for found in re.findall(r"^row (\d+)", "\n".join(getattr(error, "problems", ())), re.M)}
        assert named == set(range(1, count + 1)) - set(kept), (named, kept, str(error))


def check_rows(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(table_of(["text", "label"], rows, csv.QUOTE_ALL))
    kept_and_refused(file, len(rows))


@CALM
@given(rows=ROWS)
def test_every_row_is_kept_or_named(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    check_rows(rows, tmp_path)


@pytest.mark.stress
def test_every_row_of_two_thousand_tables(tmp_path: Path, counted: Counted) -> None:
    tried = []

    @LONG
    @given(rows=ROWS)
    def each(rows: list[tuple[str, str]]) -> None:
        check_rows(rows, tmp_path)
        tried.append(len(rows))

    each()
    counted("nonsense tables", {"tables": len(tried), "rows": sum(tried), "rows not accounted for": 0})


@CALM
@given(
    rows=ROWS,
    header=st.lists(HEADER, min_size=1, max_size=4),
    how=st.fixed_dictionaries({}, optional={
        "split": st.sampled_from(["80/10/10", "1/1/1", "0/0/0", "100/0/0", "a/b/c", "", "-1/1/1", "nan/1/1"]) | ANY,
        "seed": ANY, "protocol": st.sampled_from(["random", "near-copy-free", "book", "x", ""]),
        "balance": st.sampled_from(["natural", "undersample", "undersample-train", "x"]),
        "positive_label": st.none() | LABEL, "text_column": HEADER, "label_column": HEADER, "group_column": HEADER,
        "split_column": HEADER, "skip_bad_rows": st.booleans(), "columns": st.lists(HEADER, max_size=2),
        "encoding": st.sampled_from(["utf-8", "cp1252", "utf-16", "no-such", "", "base64", "rot13", "idna"]),
        "task": st.sampled_from([*NAMES, "auto", "classification", "x", ""]),
        "label_separator": st.sampled_from(["|", ",", ";", "", " ", "||", "[", "]"]),
        "label_order": st.lists(LABEL, max_size=4).map(",".join), "bins": st.sampled_from(["0.5", "2,1", "1,2", "x"]),
    }),
)  # fmt: skip
def test_any_table_with_any_settings(
    rows: list[tuple[str, str]], header: list[str], how: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(table_of(header, rows))
    try:
        data = load_data(file, **how)
    except LoraClfError as error:
        ours(error)
        return
    numbers = Counter(row for part in (data.train, data.validation, data.test) for row in part.rows)
    assert max(numbers.values()) == 1
    if how.get("balance", "natural") == "natural" and how.get("protocol") != "book" and not how.get("skip_bad_rows"):
        assert sum(numbers.values()) == len(rows)


@CALM
@given(
    records=st.lists(st.dictionaries(HEADER, ANY, max_size=4) | ANY, max_size=10),
    name=st.sampled_from(["t.jsonl", "t.json"]),
)
def test_any_json_is_a_table_or_an_error(records: list[Any], name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    lines = [json.dumps(record) for record in records]
    file.write_text("\n".join(lines) if name.endswith("l") else json.dumps(records), encoding="utf-8")
    try:
        load_table(file)
    except LoraClfError as error:
        ours(error)


@CALM
@given(st.sampled_from(sorted(strategies())), st.data())
def test_any_settings_of_a_strategy(name: str, data: st.DataObject) -> None:
    fields = sorted(strategies()[name].flags())
    chosen = data.draw(st.dictionaries(st.sampled_from([*fields, "nonsense"]), ANY, max_size=3))
    try:
        made = create(name, **chosen)
    except (UsageError, LoraClfError) as error:
        ours(error)
        return
    assert made.settings().keys() == set(fields)


def check_training(chosen: dict[str, Any]) -> bool:
    try:
        made = TrainSettings(**chosen)
    except (TypeError, LoraClfError) as error:  # a TypeError: names that there are not, as of any Python function
        assert isinstance(error, LoraClfError) or "nonsense" in chosen, (chosen, error)
        return False
    return bool(made.as_dict())


SETTING = st.dictionaries(
    st.sampled_from([*(field.name for field in fields(TrainSettings)), "nonsense"]), ANY, max_size=4
)


@CALM
@given(chosen=SETTING)
def test_any_settings_of_training(chosen: dict[str, Any]) -> None:
    check_training(chosen)


@cache
def whole_header(name: str) -> str:
    """The header of an adapter, with canaries, as it stands in a file."""
    task = {**TASKS, "binary": None}[name]
    adapter = make("bert", "lora") if task is None else adapter_of(task)
    header = replace(adapter.header, canaries=canaries(adapter.base, adapter.tuned, adapter.header), digest="0" * 64)
    return read_text(header.text()).text()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | CELL,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(CELL, part, max_size=3),
    max_leaves=6,
)


def check_header(name: str, changes: dict[str, Any], gone: list[str]) -> bool:
    text = canonical(
        {key: value for key, value in {**json.loads(whole_header(name)), **changes}.items() if key not in gone}
    )
    try:
        found = read_text(text)
    except AdapterFormatError as error:
        assert len(str(error)) < 6_000
        return False
    assert found.text() == text and found.outputs >= 1
    return True


HEADERS = {
    "name": st.sampled_from(["binary", *TASKS]),
    "changes": st.dictionaries(st.sampled_from([*KNOWN, *OPTIONAL]) | CELL, JSON, max_size=3),
    "gone": st.lists(st.sampled_from([*KNOWN, *OPTIONAL]), max_size=1),
}


@CALM
@given(**HEADERS)
def test_any_header(name: str, changes: dict[str, Any], gone: list[str]) -> None:
    check_header(name, changes, gone)


@pytest.mark.stress
def test_two_thousand_headers_and_settings(counted: Counted) -> None:
    tried: dict[str, list[bool]] = {"headers": [], "settings of training": []}

    @LONG
    @given(**HEADERS)
    def header(name: str, changes: dict[str, Any], gone: list[str]) -> None:
        tried["headers"].append(check_header(name, changes, gone))

    @LONG
    @given(chosen=SETTING)
    def setting(chosen: dict[str, Any]) -> None:
        tried["settings of training"].append(check_training(chosen))

    header()
    setting()
    for what, came in tried.items():
        counted(f"nonsense {what}", {"tried": len(came), "taken": sum(came), "crashes": 0})


WORD = st.sampled_from([
    "train", "compare", "predict", "evaluate", "strategies", "bases", "data", "adapters", "cache", "doctor", "list",
    "leaks", "prepare", "verify", "diff", "inspect", "demo", "sms-spamm", "--json", "--help", "--version", "--rank",
    "--lr", "--epochs", "--split", "--seed", "--seeds", "--strategy", "--strategies", "--labels", "--blocks",
    "--pooling", "--max-length", "--device", "--precision", "--task", "--threshold", "--input", "--output", "--base",
    "regression", "ordinal", "multilabel", "balanced", "huber", "focal", "verbalizer", "{text}",
    "lora", "full", "-1", "0", "nan", "inf", "1e999", "9" * 30, "", " ", "-", "--", "=", "--rank=", "{}", "[]", "/",
    "..", "\x00", "é", "\udcff", "/dev/null", "no-such-file.csv", "a" * 5000,
])  # fmt: skip
# What would start work, or wait for input, in place of showing a mistake.
PLACED = st.lists(WORD, max_size=6).filter(lambda words: not ({"train", "compare"} & set(words) and "demo" in words))

FETCHES = ("bases", "fetch")  # tests have no network
# No place outside the folder that a test runs in: some flags say where to write.
VALUES = (
    *("-1", "0", "1", "2.5", "nan", "inf", "1e999", "9" * 30, "", " ", "-", "{}", "[]", "\x00", "é", "\udcff"),
    *("{text}", "/dev/null", "no-such-file.csv", "no-such-folder", "lora", "auto", "none", "=", "a=b", "a,b", "text"),
    *("regression", "ordinal", "multilabel", "truncate", "chunk", "hierarchical", "turns", "mean", "max", "score"),
    *("attention", "transcript", "balanced", "focal", "huber", "linear", "verbalizer", "cosine", "loss", "low:1,high"),
    *("Text: {text}\nSpam:", "spam=yes,ham=no", "16,32,all", "80/10/10", "fp32", "cpu", "left", "1GB"),
)  # fmt: skip
VALUE = st.sampled_from(VALUES)


@cache
def commands() -> dict[tuple[str, ...], dict[str, Any]]:
    """Every command by its words, and its flags as the command line itself has them; none is written down here."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, one in getattr(command, "commands", {}).items():
            walk(one, (*path, name))
        flags = {
            word: flag for flag in command.params for word in [*flag.opts, *flag.secondary_opts] if word[:1] == "-"
        }
        found[path] = flags

    for name in COMMANDS:
        walk(typer.main.get_command(import_module(f"lora_clf.cli.{name}").app), (name,))
    del found[FETCHES]
    return found


@st.composite
def flagged(draw: st.DrawFn) -> list[str]:
    """A command with flags of its own, most of them with a value, and something in the place of its arguments."""
    path = draw(st.sampled_from(sorted(commands())))
    flags = commands()[path]
    words = [*path, *draw(st.lists(VALUE, max_size=2))]
    for name in draw(st.lists(st.sampled_from(sorted(flags)), max_size=5) if flags else st.just([])):
        words.append(name)
        if not flags[name].is_flag or draw(st.integers(0, 9)) == 0:
            words.append(draw(VALUE))
    return words


LINE = PLACED | flagged()


def test_the_flags_are_those_of_today() -> None:
    assert len(commands()) >= 20 and sum(map(len, commands().values())) >= 200
    for name in ("train", "compare"):
        assert commands()[(name,)].keys() >= {
            "--long", "--segment", "--overlap", "--aggregate", "--combine", "--clean", "--head", "--template",
            "--verbalizer", "--task", "--bins", "--class-weight", "--sampling", "--loss", "--schedule", "--stop-on",
        }  # fmt: skip


def check_command(words: list[str], tmp_path: Path) -> None:
    places = ["--out", str(tmp_path / "out")] if words[:1] in (["train"], ["compare"]) else []
    ran = run_cli(*words, *places, stdin="")
    assert ran.code in (0, 1, 2), (words, ran.code, ran.err)
    assert "Traceback" not in ran.err and "Unexpected" not in ran.err, (words, ran.err)
    assert ran.code == 0 or ran.err.strip() or "Usage:" in ran.out, words  # a group without a command shows its help
    assert not (tmp_path / "out").exists(), words


@settings(CALM, max_examples=60)
@given(words=LINE)
def test_any_command_line(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))
    check_command(words, tmp_path)


@pytest.mark.stress
def test_two_thousand_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counted) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))
    tried: list[list[str]] = []
    drawn: set[tuple[tuple[str, ...], str]] = set()

    @LONG
    @given(words=LINE)
    def each(words: list[str]) -> None:
        check_command(words, tmp_path)
        tried.append(words)
        for path in (tuple(words[:1]), tuple(words[:2])):
            drawn.update((path, word) for word in words if word in commands().get(path, ()))

    each()
    draw, every = random.Random(0), sum(map(len, commands().values()))
    for path, flags in commands().items():  # and each flag once at least
        for name in flags:
            check_command([*path, name, draw.choice(VALUES)], tmp_path)
            tried.append([*path, name])
            drawn.add((path, name))
    counted("nonsense flags", {"command lines": len(tried), "tracebacks": 0, "exit statuses but 0, 1 and 2": 0,
                               "flags of all commands": every, "drawn": len(drawn)})  # fmt: skip
    assert len(drawn) == every


def test_what_an_error_says_cannot_move_the_cursor() -> None:
    def fail() -> None:
        raise UsageError("a\x1b[2J\u202eb\nc\td")

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert guard(fail) == 2
    assert said.getvalue() == "Error: a\\x1b[2J\\u202eb\nc\td\n"
