"""The tables of the README pages are those of the result files."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.comparison.invented import invented, write

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_tables", BENCHMARKS / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_hold_what_the_result_files_hold(tables: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out


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


def test_committed_results_hold_no_texts_or_paths() -> None:
    for file in (BENCHMARKS / "results").glob("*.json"):
        value = json.loads(file.read_text(encoding="utf-8"))
        if "predictions" not in value:
            continue
        assert value["predictions"][0].keys() == {"rows", "labels", "probabilities"}
        assert len(value["facts"]["data"]["splits"][0]["digest"]) == 64
