"""What the scripts' command lines share: where --quick writes, mistakes in a line, tables of results, pages."""

from __future__ import annotations

import re
from pathlib import Path

import paired
import pytest
import script

from lora_clf.errors import UsageError

BENCHMARKS = Path(paired.__file__).parent


def test_quick_leaves_the_results_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    parser = script.parser("Words.", "quick", "table", out=paired.RESULTS / "a.json")
    for words, out in (
        (["--quick"], Path("runs") / "quick" / "a.json"),
        (["--quick", "--out", str(paired.RESULTS / "deeper" / "b.json")], Path("runs") / "quick" / "b.json"),
        (["--quick", "--out", "c.json"], Path("c.json")),
        ([], paired.RESULTS / "a.json"),
    ):
        flags = parser.parse_args(words)
        assert script.run(flags, lambda folder: None) == 0 and flags.out == out


def test_the_status_is_that_of_the_work_or_of_its_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = script.parser("Words.", "table", out=tmp_path / "a.json").parse_args([])
    assert script.run(flags, lambda folder: 3) == 3

    def mistaken(folder: Path) -> None:
        assert folder.is_dir()
        raise UsageError("Give --data.")

    assert script.run(flags, mistaken) == 2 and capsys.readouterr().err == "UsageError: Give --data.\n"


def test_a_table_is_printed_and_nothing_done(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = script.parser("Words.", "seed", "table", out=tmp_path / "a.json", seed=7).parse_args(["--table"])
    assert flags.seed == 7
    for expected in ("Not run yet: there is no a.json.\n", "{'n': 1}\n"):
        assert script.run(flags, lambda folder: 1, str) == 0 and capsys.readouterr().out == expected
        paired.write_json(flags.out, {"n": 1})


def test_every_script_is_on_the_page() -> None:
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    index = page[: page.index("\n## ")]
    assert not [file.name for file in BENCHMARKS.glob("*.py") if f"`{file.name}`" not in index]
    patterns = re.findall(r"`([\w*-]+\.json)`", index)
    told = {file for pattern in patterns for file in paired.RESULTS.glob(pattern)}
    assert {file.name for file in set(paired.RESULTS.glob("*.json")) - told} <= {"stress.json"}  # the tests' own
