from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lora_clf.cli.row_files import open_rows
from lora_clf.data.reader import SMS_MEMBER, decoded, parse_table, read_table
from lora_clf.data.table import Listed, Nested
from lora_clf.errors import DataError, UsageError

# Any text that UTF-8 can hold; NUL too.
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def written(rows: list[list[str]], delimiter: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode("utf-8")


@settings(max_examples=150, deadline=None)
@example([("", "\n\t")], "\t")
@given(st.lists(st.tuples(CELLS, CELLS), max_size=8), st.sampled_from(",\t;|"))
def test_a_quoted_table_comes_back_as_it_was(rows: list[tuple[str, str]], delimiter: str) -> None:
    table = parse_table(written([["text", "label"], *map(list, rows)], delimiter), "x.csv")
    assert table.problems == ()
    assert table.rows == tuple(range(1, len(rows) + 1))
    assert table.columns["text"] == tuple(text or None for text, _ in rows)
    assert table.columns["label"] == tuple(label or None for _, label in rows)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.sampled_from('ab,"\n\r\t '), max_size=12), max_size=8))
def test_every_row_of_a_careless_file_is_accounted_for(lines: list[str]) -> None:
    data = "\n".join(["text,label", *lines]).encode()
    table = parse_table(data, "x.csv")
    named = [int(line.split(":")[0].removeprefix("row ")) for line in table.problems]
    assert len(named) == len(set(named))
    whole = sorted([*table.rows, *named])
    assert whole == list(range(1, len(whole) + 1))
    if not any('"' in line for line in lines):
        assert len(whole) == sum(1 for line in "\n".join(lines).replace("\r", "\n").split("\n") if line)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": CELLS, "label": st.none() | st.booleans() | st.integers() | CELLS})))
def test_json_lines_come_back_as_they_were(records: list[dict[str, object]]) -> None:
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    if not records:
        return
    table = parse_table(data, "x.jsonl")
    assert len(table) == len(records) and table.problems == ()
    assert table.columns["text"] == tuple(record["text"] for record in records)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_a_table_or_a_data_error(data: bytes) -> None:
    try:
        parse_table(data, "x.csv")
    except DataError as error:
        assert "x.csv" in str(error)


def test_the_formats(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"text": ["one, two", 'he said "no"', "line\nbreak"], "label": [1, 0, 1]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig", sep=";")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_parquet(tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.csv", "inner/a.csv")
        archive.writestr("README.txt", "read me")
    for name in ("a.csv", "a.tsv", "bom.csv", "a.jsonl", "a.json", "a.parquet", "a.zip"):
        table = read_table(tmp_path / name)
        assert table.columns == {"text": tuple(frame["text"]), "label": ("1", "0", "1")}, name
        assert table.rows == (1, 2, 3) and table.problems == (), name


def test_floats_of_a_table_with_gaps_are_whole_labels_and_nothing(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"text": ["a", "b"], "label": [1.0, None]}).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").columns["label"] == ("1", None)


def test_raw_sms_is_read_without_quoting_whatever_its_name() -> None:
    data = b'ham\t"Open quote\nspam\tWin "now"\r\n\nham\tclosed"\nbroken line\n'
    table = parse_table(data, "messages.csv")
    assert table.columns["text"] == ('"Open quote', 'Win "now"', 'closed"')
    assert table.rows == (1, 2, 3)
    assert table.problems == ("row 4: no tab between label and text: 'broken line'",)


def test_the_real_file_has_all_its_rows(sms_file: Path, tmp_path: Path) -> None:
    table = read_table(sms_file)
    assert len(table) == 5574 and table.problems == ()
    assert table.columns["label"].count("ham") == 4827
    assert table.rows == tuple(range(1, 5575))
    with zipfile.ZipFile(tmp_path / "sms.zip", "w") as archive:
        archive.write(sms_file, SMS_MEMBER)
        archive.writestr("readme", "about it")
    assert read_table(tmp_path / "sms.zip").columns == table.columns


def test_a_tab_file_whose_quotes_are_text_keeps_every_line() -> None:
    data = b'label\ttext\nham\t"one\nspam\ttwo"\nham\t"three" four\n'
    assert parse_table(data, "x.tsv").columns["text"] == ('"one', 'two"', '"three" four')
    swallowing = b'label\ttext\nham\t"one\nspam\ttwo"\n'
    assert len(parse_table(swallowing, "x.tsv")) == 2


def test_a_quote_that_is_never_closed_is_named() -> None:
    table = parse_table(b'label,text\nham,fine\nspam,"Win now\nham,lost\nham,lost too\n', "x.csv")
    assert table.rows == (1,)
    [problem] = table.problems
    assert problem.startswith("row 2: a quote that opens here is never closed (line 3 of the file)")


def test_rows_with_too_many_fields_are_named() -> None:
    table = parse_table(b"label,text\nham,hello, you\nspam,win\nham\n", "x.csv")
    assert table.rows == (2,)
    assert [line.split(" (")[0] for line in table.problems] == [
        "row 1: 3 fields where the header has 2",
        "row 3: 1 fields where the header has 2",
    ]


def test_json_lines_that_are_none_are_named() -> None:
    table = parse_table(b'{"text": "a", "label": "x"}\n{"text": \n[1]\n{"text": [1, {}]}\n{"text": "b"}\n', "x.jsonl")
    assert table.rows == (1, 4, 5)
    assert [line.split(":")[0] for line in sorted(table.problems)] == ["row 2", "row 3"]
    assert table.columns["label"] == ("x", None, None)
    nested = table.columns["text"][1]  # which only who asks for it as a text calls a problem
    assert nested == "[1, {}]" and isinstance(nested, Nested) and not isinstance(nested, Listed)


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.txt", "x"])
def test_a_column_called_spam_is_no_label(name: str) -> None:
    table = parse_table(b"spam\ttext\n1\twin cash\n0\ttea\n", name)
    assert table.columns == {"spam": ("1", "0"), "text": ("win cash", "tea")} and table.raw_sms is None
    raw = parse_table(b"spam\ttext\nham\ttea\n", name)  # the first message says text
    assert raw.columns == {"label": ("spam", "ham"), "text": ("text", "tea")} and raw.raw_sms is not None


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.txt", "x"])
def test_a_json_list_is_one_under_any_name(name: str) -> None:
    assert parse_table(b'\n [\n {"text": "a"},\n {"text": "b"}]\n', name).columns == {"text": ("a", "b")}
    if name != "x.json":
        assert list(parse_table(b"[text],b\n1,2\n", name).columns) == ["[text]", "b"]
        assert list(parse_table(b"[{text,b\n1,2\n", name).columns) == ["[{text", "b"]


def test_a_text_longer_than_the_csv_limit() -> None:
    long = "word " * 100_000
    assert parse_table(written([["text", "label"], [long, "a"]]), "x.csv").columns["text"] == (long,)


def test_other_encodings_are_explained_with_the_line() -> None:
    data = "label,text\nham,fine\nspam,café".encode("iso-8859-1")
    with pytest.raises(DataError) as caught:
        parse_table(data, "x.csv")
    assert "x.csv is not UTF-8: 1 of its lines" in str(caught.value)
    assert "encoding='cp1252' (--encoding cp1252)" in str(caught.value)
    assert caught.value.problems == ("line 3, byte 9 of the line: 0xE9 near 'spam,café'",)
    assert parse_table(data, "x.csv", encoding="cp1252").columns["text"] == ("fine", "café")
    with pytest.raises(DataError, match="UTF-16"):
        parse_table("label,text\n".encode("utf-16"), "x.csv")
    with pytest.raises(UsageError, match="Unknown encoding 'klingon'"):
        parse_table(data, "x.csv", encoding="klingon")
    with pytest.raises(DataError, match="is not ascii: byte 29 "):
        parse_table(data, "x.csv", encoding="ascii")


def test_the_trec_file_gets_a_helpful_line(shared: Path) -> None:
    with pytest.raises(DataError, match=r"train\.label is not UTF-8: .*probably Windows-1252 or ISO-8859-1"):
        read_table(shared / "data" / "trec" / "train.label")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x1f\x8b\x08...", "compressed"),
        (b"PK\x03\x04broken", "cannot be unpacked"),
        (b"PAR1broken", "broken Parquet"),
        (b"[1, 2", "not JSON"),
        (b"text,text\na,b\n", "names a column twice: text"),
    ],
)
def test_what_is_no_table_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        parse_table(data, "x.json")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_named(encoding: str, tmp_path: Path) -> None:
    for name in ("x.csv", "x.txt", "x.jsonl"):
        content = '{"text": "tea"}\n' if name == "x.jsonl" else "text\ntea\n"
        (tmp_path / name).write_bytes(content.encode(encoding))
        for read in (read_table, lambda path: open_rows(path, None)):
            with pytest.raises(DataError, match=f"is UTF-16 without a byte order mark.*--encoding {encoding}"):
                read(tmp_path / name)
        assert read_table(tmp_path / name, encoding=encoding).columns["text"] == ("tea",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old office document"),
        (b"SQLite format 3\0" + bytes(90), "an SQLite database"),
        (b"\x1f\x8b\x08" + bytes(9), "a compressed file"),
        (b"\x00\x01\xff\xfe\x80", "no text: it holds NUL bytes"),
        ("\u8bc4\u8bba,\u6807\n".encode("utf-16-le"), "no text: it holds NUL bytes.*utf-16-le"),
    ],
    ids=ascii,
)
def test_what_is_no_text_is_not_called_a_code_page(data: bytes, words: str, tmp_path: Path) -> None:
    for name in ("x.csv", "x.txt"):
        (tmp_path / name).write_bytes(data)
        for read in (read_table, lambda path: open_rows(path, None)):
            with pytest.raises(DataError, match=f"{name} is {words}") as told:
                read(tmp_path / name)
            assert "1252" not in str(told.value)
    assert parse_table(b"text,label\nn\0l,a\n", "x.csv").columns["text"] == ("n\0l",)  # UTF-8 has it


def test_zips_with_more_than_one_table_and_office_files_are_refused() -> None:
    for members, words in (
        (["a.csv", "b.csv"], "holds 2 files"),
        (["[Content_Types].xml"], "office document"),
    ):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name in members:
                archive.writestr(name, "text,label\n")
        with pytest.raises(DataError, match=words):
            parse_table(stream.getvalue(), "x.zip")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"There is no file 'review\.csv'\. Did you mean 'reviews\.csv'"):
        read_table(tmp_path / "review.csv")
    with pytest.raises(DataError, match="folder 'nowhere' is not there"):
        read_table(tmp_path / "nowhere" / "review.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path)


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_text_whatever_utf_8_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / "bom.csv").write_text("text,label,id\ngrüße,ham,1\n", encoding="utf-8-sig")
    (tmp_path / "bom.jsonl").write_text('{"text": "grüße", "label": "ham"}\n', encoding="utf-8-sig")
    for file in ("bom.csv", "bom.jsonl"):
        table = read_table(tmp_path / file, encoding=name)
        assert table.columns["text"] == ("grüße",) or list(table.columns["text"]) == ["grüße"]


@pytest.mark.parametrize("first", ["BZhang: see you", "PAR1 is a receptor", "%PDF is a format"])
def test_text_that_begins_as_a_binary_file_is_text(first: str) -> None:
    assert decoded(f"{first}\n".encode(), "x.txt", None) == f"{first}\n"
