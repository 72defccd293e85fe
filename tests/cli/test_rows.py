"""Tables read some rows at a time: the same rows and the same errors as when they are read whole, in flat memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_clf.cli.output import document, documents
from lora_clf.cli.row_files import DelimitedRows, JsonRows, LineRows, ParquetRows, open_rows
from lora_clf.cli.row_writer import row_writer
from lora_clf.cli.rows import HeldRows, Rows, RowSource, held, lines_of, read_whole
from lora_clf.data.reader import decoded, read_table
from lora_clf.errors import DataError, LoraClfError, UsageError

Cli = Callable[..., Any]
PIECES = ['"', '""', ",", "\t", ";", "\n", "\r\n", "\r", "a", "text", "1", " ", "é", "\u2028", "\x0c", "\x1c", "{", "["]


def whole(source: RowSource, size: int = 3) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in source.columns}
    rows = 0
    for chunk in source.chunks(size):
        assert 0 < len(chunk) <= size and chunk.text_column == source.text_column
        rows += len(chunk)
        for name, values in chunk.columns.items():
            found[name] += values
    assert rows == source.count
    return found


def outcome(read: Callable[[], RowSource]) -> Any:
    try:
        source = read()
    except LoraClfError as error:
        return type(error), str(error)
    return source.text_column, whole(source)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.sampled_from(["", "text,b\n", "text\tb\n", "text\n", "\ufeff"]),
)
def test_a_table_in_pieces_is_the_table(tmp_path: Path, body: str, header: str) -> None:
    file = tmp_path / "in.csv"
    file.write_bytes((header + body).encode())
    assert outcome(lambda: open_rows(file, None)) == outcome(lambda: read_whole(file, None))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["a", "\n", "\r\n", "\r", "\u2028", "\x0c", " ", "é", "\ufeff"]), max_size=20).map("".join)
)
def test_lines_in_pieces_are_the_lines(tmp_path: Path, text: str) -> None:
    file = tmp_path / "in.txt"
    file.write_bytes(text.encode())
    source = open_rows(file, None)
    assert isinstance(source, LineRows)
    assert whole(source)["text"] == lines_of(decoded(file.read_bytes(), "in.txt"))


def test_which_files_are_read_in_pieces(tmp_path: Path) -> None:
    cases = {
        "a.csv": (b"text,b\n1,2\n", DelimitedRows),
        "b.tsv": (b'text\tb\n"x\ty\n', DelimitedRows),
        "noname": (b"text|b\n1|2\n", DelimitedRows),
        "c.jsonl": (b'{"text": "a"}\n', JsonRows),
        "d.ndjson": (b'{"text": "a"}\n', JsonRows),
        "e.txt": (b"a\n", LineRows),
        "f.csv": (b'{"text": "a"}\n', HeldRows),
        "g.json": (b'[{"text": "a"}]', HeldRows),
        "SMSSpamCollection": (b"ham\thello\nspam\tprize\n", HeldRows),
        "list.jsonl": (b' [\n{"text": "a"},\n{"text": "b"}]\n', HeldRows),
        "list": (b'[\n\n{"text": "a"}]\n', HeldRows),
        "list.csv": (b'[{"text": "a"}]\n', HeldRows),
        "h.csv": (b"[text],b\n1,2\n", DelimitedRows),
    }
    for name, (content, kind) in cases.items():
        (tmp_path / name).write_bytes(content)
        source = open_rows(tmp_path / name, "[text]" if name == "h.csv" else None)
        assert type(source) is kind and source.count >= 1, name
    assert whole(open_rows(tmp_path / "b.tsv", None)) == {"text": ['"x'], "b": ["y"]}


@pytest.mark.parametrize(
    "content", ["id\tbody\n1\ttea\n", "id,body\n1,tea\n", '{"id": 1, "body": "tea"}\n', '[{"id": 1, "body": "tea"}]']
)
def test_a_column_makes_a_table_of_a_txt(tmp_path: Path, content: str) -> None:
    file = tmp_path / "in.txt"
    file.write_text(content, encoding="utf-8")
    assert open_rows(file, None).columns == ["text"]
    [rows] = open_rows(file, "body").chunks(9)
    assert rows.texts == ["tea"] and list(rows.columns) == ["id", "body"]
    with pytest.raises(DataError, match="no column 'bodi'"):
        open_rows(file, "bodi")


@pytest.mark.parametrize("suffix", ["csv", "txt", "jsonl"])
def test_wrong_bytes_and_encodings_are_said_as_ever(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"in.{suffix}"
    lines = ['{"text": "caf\u00e9"}'] * 3 if suffix == "jsonl" else ["text", "caf\u00e9", "caf\u00e9"]
    file.write_bytes(("\n".join(lines) + "\n").encode("cp1252"))
    with pytest.raises(DataError, match=r"not UTF-8.*probably Windows-1252") as told:
        open_rows(file, None)
    assert len(told.value.problems) == (3 if suffix == "jsonl" else 2)
    assert "caf\u00e9" in whole(open_rows(file, None, "cp1252"))["text"]
    for wrong, error in (("utf-9", UsageError), ("hex", UsageError), ("ascii", DataError)):
        with pytest.raises(error):
            open_rows(file, None, wrong)
    file.write_bytes(("\n".join(lines) + "\n").encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        open_rows(file, None)
    assert "caf\u00e9" in whole(open_rows(file, None, "utf-16"))["text"]


def test_all_bad_rows_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "in.csv"
    file.write_text('text,b\n1\n1,2,3\n1,2\n"open,1\n', encoding="utf-8")
    with pytest.raises(DataError, match="no row may be dropped") as told:
        open_rows(file, None)
    assert [problem.split(":")[0] for problem in told.value.problems] == ["row 1", "row 2", "row 4"]


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    for suffix, before, more in (
        ("csv", "text,b\n" + "1,2\n" * 9, "1,2,3\n"),
        ("csv", "text,b\n" + "1,2\n" * 9, "1,2\n"),
        ("txt", "a\n" * 9, "b\n"),
        ("jsonl", '{"text": 1}\n' * 9, "[]\n"),
        ("jsonl", '{"text": 1}\n' * 9, "{\n"),
    ):
        file = tmp_path / f"in.{suffix}"
        file.write_text(before, encoding="utf-8")
        source = open_rows(file, None)
        assert source.count == 9
        with file.open("a", encoding="utf-8") as stream:
            stream.write(more)
        with pytest.raises(DataError, match="changed while it was read"):
            whole(source)


def test_json_keeps_types_and_fills_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    records: list[dict[str, Any]] = [{"text": 5, "a": [1]}, {"b": None, "text": None}, {"text": "x", "a": {"k": 1.5}}]
    file.write_text("\n\n".join(json.dumps(each) for each in records) + "\n \n", encoding="utf-8")
    source = open_rows(file, None)
    assert source.columns == ["text", "a", "b"]
    assert whole(source, 2) == {"text": [5, None, "x"], "a": [[1], None, {"k": 1.5}], "b": [None] * 3}
    assert [text for rows in source.chunks(2) for text in rows.texts] == ["5", "", "x"]


def written(file: Path, source: RowSource, size: int = 2) -> list[str]:
    with row_writer(file, source) as writer:
        for rows in source.chunks(size):
            writer.write(rows, ["spam"] * len(rows), [0.5] * len(rows))
    return writer.names


NASTY = ["plain", 'quo"te', "com,ma", "tab\tbed", "line\nbreak", "cr\rhere", "", "\u2028", "caf\u00e9", "\ud800"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson"])
def test_what_is_written_is_what_the_library_writes_at_once(tmp_path: Path, suffix: str) -> None:
    columns = {"text": NASTY, "label": [*range(len(NASTY) - 1), None]}
    file = tmp_path / f"out{suffix}"
    names = written(file, HeldRows(Rows(columns, "text")), 3)
    assert names == ["predicted_label", "probability"]
    records = [[*row, "spam", 0.5] for row in zip(*columns.values(), strict=True)]
    text = io.StringIO(newline="")
    if suffix in (".csv", ".tsv"):
        maker = csv.writer(text, delimiter="," if suffix == ".csv" else "\t")  # with CRLF, so that it quotes a bare CR
        maker.writerows([["text", "label", *names], *(["" if v is None else v for v in row] for row in records)])
    else:
        for row in records:
            named = dict(zip(["text", "label", *names], row, strict=True))
            text.write(json.dumps(named, ensure_ascii=False) + "\n")
    assert file.read_bytes() == text.getvalue().replace("\r\n", "\n").encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("text", ["one\rtwo", "\r", "end\r", "\r\n", "a\r\n"], ids=ascii)
def test_a_bare_carriage_return_comes_back(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"out{suffix}"
    written(file, HeldRows(Rows({"text": [text, "next"], "note": ["n", text]}, "text")))
    assert whole(open_rows(file, None))["text"] == [text, "next"]
    assert read_whole(file, None).count == 2


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    values = [float("nan"), {"a": [float("inf"), 1.5]}, "NaN", 2]
    written(tmp_path / "out.jsonl", HeldRows(Rows({"text": ["a"] * 4, "value": values}, "text")))
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line, parse_constant=pytest.fail)["value"] for line in lines]
    assert found == [None, {"a": [None, 1.5]}, "NaN", 2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_first_line_of_files_for_excel_is_no_header(tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "in.csv"
    for first in ("sep=", "SEP="):
        lines = [first + delimiter, delimiter.join(["text", "label"]), delimiter.join(['5" or so', "b"])]
        for rows in (lines, [*lines, f'"two"{delimiter}c']):
            file.write_text("\r\n".join(rows) + "\r\n", encoding="utf-8", newline="")
            found = {name: list(cells) for name, cells in read_table(file).columns.items()}
            assert found["text"][0] == '5" or so' and list(found) == ["text", "label"]
            assert whole(open_rows(file, None)) == found and read_table(file).rows[0] == 1
    file.write_text(f"text{delimiter}label\nsep={delimiter}\n", encoding="utf-8")
    assert read_table(file).columns["text"] == ("sep=",)


def test_no_rows_still_make_a_file(tmp_path: Path) -> None:
    for suffix, expected in ((".csv", b"text,label,probability\n"), (".jsonl", b"")):
        written(tmp_path / f"out{suffix}", held([]))
        assert (tmp_path / f"out{suffix}").read_bytes() == expected


def test_parquet_keeps_its_types_and_its_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    count = 23
    table = pyarrow.table(
        {
            "text": pyarrow.array([f"t{i}" if i % 4 else None for i in range(count)]).dictionary_encode(),
            "small": pyarrow.array(range(count), pyarrow.int8()),
            "when": pyarrow.array([i * 1_000_000_007 for i in range(count)], pyarrow.timestamp("ns", "UTC")),
            "list": pyarrow.array([[i, None] for i in range(count)], pyarrow.list_(pyarrow.int16())),
            "nothing": pyarrow.nulls(count),
        }
    )
    file, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(table, file, row_group_size=5)
    source = open_rows(file, None)
    assert isinstance(source, ParquetRows) and source.count == count
    assert [text for rows in source.chunks(4) for text in rows.texts] == [
        f"t{i}" if i % 4 else "" for i in range(count)
    ]
    written(out, source, 4)
    again = parquet.read_table(out)
    assert again.select(table.column_names).equals(table.cast(again.select(table.column_names).schema))
    kinds = {
        name: again.schema.field(name).type for name in ("small", "when", "list", "nothing", "label", "probability")
    }
    assert [str(kind) for kind in kinds.values()][:2] == ["int8", "timestamp[ns, tz=UTC]"]
    assert kinds["probability"] == pyarrow.float64() and again.num_rows == count
    for suffix in (".csv", ".jsonl"):
        written(tmp_path / f"out{suffix}", source, 4)
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == count


def test_json_to_parquet_finds_types_over_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    monkeypatch.setattr("lora_clf.cli.row_writer._GROUP", 3)
    records: list[dict[str, Any]] = [{"text": "a", "n": None}] * 5000 + [
        {"n": 1, "s": {"x": 1}},
        {"n": 2.5, "text": "b"},
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    written(out, open_rows(file, None), 1000)
    again = parquet.read_table(out)
    assert again.column("n").to_pylist() == [None] * 5000 + [1.0, 2.5] and str(again.schema.field("n").type) == "double"
    assert again.column("s").to_pylist()[-2:] == [{"x": 1}, None]
    for bad in ([1, "x"], [{"a": 1}, 5], [2**70], [[1], "y"], ["\ud800"]):
        file.write_text("".join(json.dumps({"text": "a", "bad": value}) + "\n" for value in bad), encoding="utf-8")
        with pytest.raises(DataError, match=r"'bad'.*Write \.jsonl"):
            written(tmp_path / "no.parquet", open_rows(file, None))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.jsonl", "out.parquet"]


def test_bytes_are_decoded_and_lists_are_no_texts_as_in_training(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file, out = tmp_path / "in.parquet", tmp_path / "out.csv"
    kinds = {"text": pyarrow.binary(), "note": pyarrow.large_binary()}
    values = {"text": [b"hello", "caf\u00e9".encode(), None], "note": [b"n", None, b"\xff"]}
    parquet.write_table(pyarrow.table({name: pyarrow.array(values[name], kinds[name]) for name in kinds}), file)
    source = open_rows(file, None)
    assert [text for rows in source.chunks(2) for text in rows.texts] == ["hello", "caf\u00e9", ""]
    written(out, source)
    assert out.read_text(encoding="utf-8").splitlines()[1:] == [
        "hello,n,spam,0.5", "caf\u00e9,,spam,0.5", ",\ufffd,spam,0.5",
    ]  # fmt: skip
    written(tmp_path / "same.parquet", source)
    assert parquet.read_table(tmp_path / "same.parquet").schema.field("note").type == kinds["note"]
    parquet.write_table(pyarrow.table({"text": [["a"], ["b"]]}), file)
    with pytest.raises(DataError, match=r"'text' of in.parquet holds .*list.*, expected text"):
        open_rows(file, None)


def test_a_time_that_python_lacks_is_text(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file, out = tmp_path / "in.parquet", tmp_path / "out.csv"
    times = pyarrow.array([2**60, 0, None], pyarrow.timestamp("us"))
    parquet.write_table(pyarrow.table({"text": ["a", "b", "c"], "when": times}), file)
    assert read_table(file).columns["when"][1:] == ("1970-01-01 00:00:00.000000", None)
    written(out, open_rows(file, None))
    assert out.read_text(encoding="utf-8").splitlines()[2] == "b,1970-01-01 00:00:00.000000,spam,0.5"


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_numbers_are_the_texts_that_training_reads_and_lists_are_none(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"in.{suffix}"

    def write(values: list[Any]) -> None:
        records = [{"text": value} for value in values]
        lines = [json.dumps(records)] if suffix == "json" else [json.dumps(each) for each in records]
        file.write_text("\n".join(lines), encoding="utf-8")

    write([1.0, True, 2.5, None, "x"])
    found = [text for rows in open_rows(file, None).chunks(9) for text in rows.texts]
    assert found == ["1", "true", "2.5", "", "x"]
    assert [cell or "" for cell in read_table(file).columns["text"]] == found
    write(["x", ["a"], {"b": 1}])
    with pytest.raises(DataError, match="no row may be dropped") as told:
        open_rows(file, None)
    assert list(told.value.problems) == [
        "row 2: column 'text' holds a list, expected text", "row 3: column 'text' holds an object, expected text",
    ]  # fmt: skip


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {i}" * 50 for i in range(500)]}), file, compression="none")
    content = bytearray(file.read_bytes())
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="broken Parquet"):
        open_rows(file, None)
    content[4:400] = b"\xff" * 396  # the footer is whole, a page is not
    file.write_bytes(content)
    source = open_rows(file, None)
    with pytest.raises(DataError, match="broken Parquet"):
        written(tmp_path / "out.csv", source)
    assert [each.name for each in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("values", [[], [1], [{"a": "x\ny", "b": [1, {}]}, {}, []], [[[]]]], ids=str)
def test_documents_are_the_document(values: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    document(values)
    expected = capsys.readouterr().out
    documents(iter(values))
    assert capsys.readouterr().out == expected and json.loads(expected) == values


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".txt", ".parquet"])
def test_many_rows_keep_their_order(
    cli: Cli, adapter: Path, base: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of 7 in place of thousands; texts of all lengths, some of them equal."""
    pytest.importorskip("pyarrow")
    texts = [("win cash " if i % 3 else "tea home ") * (i % 11) + str(i % 50) for i in range(100)]
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.jsonl"
    if suffix == ".txt":
        source.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    else:
        with row_writer(source, held(texts)) as writer:
            writer.write(Rows({"text": texts}, "text"), ["x"] * 100, [0.0] * 100)
    plain = cli("predict", adapter, "--base", base, "--json", "--", *texts).ok().json()
    monkeypatch.setattr("lora_clf.inference.predict.CHUNK", 7)
    column = [] if suffix == ".txt" else ["--text-column", "text"]
    cli("predict", adapter, "--base", base, "--input", source, "--output", target, *column).ok()
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [each["text"] for each in found] == texts
    name = "label" if suffix == ".txt" else "predicted_label"
    assert [each[name] for each in found] == [each["label"] for each in plain]
    assert len({each[name] for each in found}) == 2
    probabilities = [each["probability" if suffix == ".txt" else "predicted_probability"] for each in found]
    assert probabilities == pytest.approx([each["probability"] for each in plain], abs=1e-5)


def test_progress_is_a_line_a_minute_where_there_is_no_terminal(
    cli: Cli, adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("tea\n" * 30, encoding="utf-8")
    monkeypatch.setattr("lora_clf.cli.output.MINUTE", 0.0)
    monkeypatch.setattr("lora_clf.inference.predict.CHUNK", 10)
    said = cli("predict", adapter, "--base", base, "--input", source, "--output", tmp_path / "o.csv").ok().err
    assert [line.split(" rows,")[0] for line in said.splitlines()[:2]] == ["10 of 30", "20 of 30"]
    assert len(said.splitlines()) == 3 and " s left" in said


@pytest.mark.parametrize("name", ["in.jsonl", "in.ndjson"])
def test_lists_line_by_line_are_no_objects(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text('["win cash now"]\n["tea at home"]\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: expected an object"):
        open_rows(file, None)
