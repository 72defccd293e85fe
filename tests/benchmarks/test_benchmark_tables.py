"""The tables of the README pages are those of the result files."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lora_clf.comparison.comparison import Failure
from tests.comparison.invented import invented, write
from tests.reports.test_evidence import copied

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """A script of the benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return loaded("tables")


def test_the_pages_hold_what_the_result_files_hold(tables: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


def test_the_picture_is_that_of_the_result_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert loaded("picture").main(["--check"]) == 0, capsys.readouterr().out


def test_sections_are_rewritten_and_others_left_alone(tables: ModuleType, tmp_path: Path) -> None:
    out = write(invented({"lora": 0.95, "head-only": 0.7}), tmp_path / "out")
    results = tmp_path / "results"
    results.mkdir()
    (out / "results.json").rename(results / "sms-book.json")
    (results / "speed.json").write_text(json.dumps({"seconds": 1}))
    page = "a\n<!-- begin {0} -->\nold\n<!-- end {0} -->\nz\n"
    text = tables.rewritten(page.format("sms-book"), results)
    assert text.startswith("a\n<!-- begin sms-book -->\n| strategy |") and text.endswith("<!-- end sms-book -->\nz\n")
    assert "| lora | 5.00 ± 0.00 |" in text and "lora got most right" in text and "old" not in text
    assert tables.rewritten(text, results) == text
    assert "**SMS spam as in the book" in tables.rewritten(page.format("results"), results)
    assert tables.rewritten(page.format("speed"), results) == page.format("speed")


def test_a_curve_is_a_table_of_its_own(tables: ModuleType) -> None:
    level = {"mean": 0.9, "low": 0.85, "high": 0.95, "sd": 0.02}
    points = [
        {
            "label": label,
            "k": k,
            "accuracy": level if k else {**level, "low": None, "high": None, "sd": None},
            "to_rival": {"low": 0.01 if k else -0.01} if label == "lora" else None,
        }
        for label in ("lora", "TF-IDF + LR")
        for k in (16, None)
    ]
    curve = {"points": points, "sizes": [{"k": 16, "draws": 10}]}
    facts = {"data": {"splits": [{"rows": {"test": 300}}]}}
    text = tables.table({"curve": curve, "facts": facts})
    assert "| strategy | 16 of each | all rows |" in text and "| lora | 90.0 (85.0 to 95.0) | 90.0 |" in text
    assert (
        "lora beats TF-IDF + LR with 16 examples of each class, not with all training rows." in text
        and "(10 of 16), on the same 300 test rows" in text
    )


@pytest.mark.usefixtures("inside")
def test_both_scores_stand_beside_each_other(tables: ModuleType, tmp_path: Path) -> None:
    value = json.loads(
        (write(copied(invented({"lora": 0.95, "head-only": 0.7}), 40), tmp_path) / "results.json").read_text()
    )
    mean = value["without_copies"]["lora"]["exact"]["mean"]
    assert "on the 360 not copied" in tables.short("t", value) and f"| {mean * 100:.1f} |" in tables.short("t", value)
    assert "on the 360 not copied, error %" in tables.table(value) and f"{(1 - mean) * 100:.2f}" in tables.table(value)
    plain = json.loads((write(invented({"lora": 0.95}), tmp_path / "b") / "results.json").read_text())
    assert "not copied" not in tables.short("t", plain) + tables.table(plain)


def test_speed_is_shown_beside_the_default_and_the_tuned_peer(tables: ModuleType, tmp_path: Path) -> None:
    def job(ours: float, theirs: float) -> dict[str, Any]:
        sides = {"ours": {"seconds": ours}, "theirs": {"seconds": theirs}}
        return {"sides": sides, "ratio": {"median": theirs / ours, "low": 1.5, "high": None}, "blocks": []}

    training = {"lora-auto": job(10.0, 55.0), "full-auto": job(1.0, 2.0), "lora-tuned": {"memory": {"ours": 1.0}}}
    training["lora-auto"]["ratio"]["high"] = 6.5
    training["lora-auto"]["memory"] = {"ours": 3e8, "theirs": 5e8}
    pipeline = {"median": 8.0, "low": None, "high": None}
    sides = {name: {"seconds": 6.0, "faster_than_pipeline": pipeline} for name in ("ours-fp32", "ours-auto")}
    sides |= {"pipeline": {"seconds": 48.0}, "pipeline-tuned": {"seconds": 12.0}}
    blocks = [{"ours-auto": 6.0, "pipeline-tuned": 12.0}, {"ours-auto": 6.0, "pipeline-tuned": 18.0}]
    predict = {"speed": {"sides": sides, "blocks": blocks, "messages": 5000}}
    page = "<!-- begin speed-summary -->\nold\n<!-- end speed-summary -->\n"
    (tmp_path / "speed_training.json").write_text(json.dumps(training))
    assert tables.rewritten(page, tmp_path) == page  # one of the two files is not there
    (tmp_path / "speed_predict.json").write_text(json.dumps(predict))
    rows = [line for line in tables.rewritten(page, tmp_path).splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[2:] for row in rows] == [
        ["10.0 s", "55.0 s", "5.5", "1.5 to 6.5", "300 MB", "500 MB |"],
        ["6.0 s", "48.0 s", "8", "–", "–", "– |"],
        ["6.0 s", "48.0 s", "8", "–", "–", "– |"],
        ["6.0 s", "12.0 s", "2.45", "0.186 to 32.2", "–", "– |"],  # the root of 2 times 3, by the blocks
    ]
    assert "5,000 messages" in rows[1]


# A path from the root of a disk, at the start of a string or after what may stand before one.
ROOTED = re.compile(r"(?:^|[\s'\"=(:,;])(?:~|[A-Za-z]:)?[/\\]\w[\w.-]*|/(?:work|root|home|tmp)\b")


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def committed() -> dict[str, list[str]]:
    """The strings of every result file by its name."""
    found = {}
    for file in sorted((BENCHMARKS / "results").rglob("*")):
        text = file.read_text(encoding="utf-8") if file.suffix in (".json", ".jsonl") else ""
        values = [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else None
        if text:
            found[file.name] = list(strings(json.loads(text) if values is None else values))
    assert found or not (BENCHMARKS / "results").is_dir()
    return found


def test_paths_are_recognised() -> None:
    for path in ("/work/a", "see /opt/x", "--out=/x/y", "C:\\data\\a", "~/a", "a:/home/b", "../home/b"):
        assert ROOTED.search(path), path
    for text in ("benchmarks/results/a.json", "70/10/20", "ms/step", "https://example.org/a", "n/a"):
        assert not ROOTED.search(text), text


def test_committed_results_hold_no_paths() -> None:
    for name, texts in committed().items():
        assert not [text for text in texts if ROOTED.search(text)], name


def test_committed_results_hold_no_messages(shared: Path) -> None:
    lines = (shared / "data" / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8").splitlines()
    messages = {message for line in lines if len(message := line.split("\t", 1)[1].strip()) >= 20}
    assert len(messages) > 4000
    for name, texts in committed().items():
        whole = "\n".join(dict.fromkeys(texts))
        assert not [message for message in messages if message in whole], name


def test_committed_comparisons_have_predictions_and_digests() -> None:
    seen = []
    for file in (BENCHMARKS / "results").glob("*.json"):
        value = json.loads(file.read_text(encoding="utf-8"))
        if "predictions" not in value:
            continue
        assert value["predictions"][0].keys() == {"rows", "labels", "probabilities"}
        assert len(value["facts"]["data"]["splits"][0]["digest"]) == 64
        seen.append(file.name)
    assert len(seen) >= 7, seen


def test_a_benchmark_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = loaded("compare_strategies")
    out = str(tmp_path / "a.json")
    for flags, words in (
        (["--folds", "3", "--test-file", "b.csv", "--out", out], "--test-file"),
        (["--quick", "--out", str(BENCHMARKS / "results" / "sub" / "a.json")], "--quick"),
    ):
        assert script.main(flags) == 2
        said = capsys.readouterr().err
        assert words in said and len(said.splitlines()) == 1


@pytest.mark.usefixtures("inside")
def test_a_benchmark_is_written_only_when_no_run_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, whole = loaded("compare_strategies"), invented({"lora": 0.95, "head-only": 0.7})
    lost = replace(whole, failures=(Failure("lora-seed-9", "lora", "ChildProcess", "ended by signal 9"),))
    out = tmp_path / "results" / "a.json"
    flags = ["--work", str(tmp_path / "work"), "--out", str(out)]
    for found, status in ((lost, 1), (whole, 0), (lost, 1)):
        before = out.read_bytes() if out.exists() else None
        write(found, tmp_path / "work")
        monkeypatch.setattr(script, "compare", lambda *args, found=found, **named: found)
        assert script.main(flags) == status
        assert ("Not written" in capsys.readouterr().out) == bool(status)
        assert out.exists() if status == 0 else (out.read_bytes() if out.exists() else None) == before
    assert [file.name for file in out.parent.iterdir()] == ["a.json"]
