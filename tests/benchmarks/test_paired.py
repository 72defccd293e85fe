"""Blocks, ratios, memory and result files of the speed benchmarks."""

from __future__ import annotations

import json
import math
from pathlib import Path

import paired
import pytest


def test_every_side_runs_once_a_block_in_an_order_that_changes_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired.gc, "collect", lambda: 0)  # slow in a process that has imported everything
    ran: list[str] = []

    def side(name: str, seconds: float):  # type: ignore[no-untyped-def]
        return lambda: ran.append(name) or seconds

    sides = {"ours": side("ours", 1.0), "theirs": side("theirs", 3.0)}
    told: list[tuple[int, str, float]] = []
    blocks = paired.interleave(sides, 8, seed=1, told=lambda *event: told.append(event))
    assert blocks == [{"ours": 1.0, "theirs": 3.0}] * 8
    orders = [tuple(ran[i : i + 2]) for i in range(0, 16, 2)]
    assert len(ran) == 16 and set(orders) == {("ours", "theirs"), ("theirs", "ours")}
    assert [(block, name) for block, name, _ in told] == [(i // 2, name) for i, name in enumerate(ran)]
    first = ran.copy()
    ran.clear()
    # A measurement that stopped after three blocks goes on in the order that it would have had.
    paired.interleave(sides, 3, seed=1)
    paired.interleave(sides, 5, seed=1, first=3)
    assert ran == first


def test_the_ratio_is_taken_inside_blocks() -> None:
    # The machine is ten times slower in the second block; both sides feel it.
    found = paired.ratio([2.0, 22.0, 2.4], [1.0, 10.0, 1.0])
    assert found.median == pytest.approx(2.2) and found.blocks == 3
    logs = [math.log(2.0), math.log(2.2), math.log(2.4)]
    mean = sum(logs) / 3
    half = 4.302653 * math.sqrt(sum((x - mean) ** 2 for x in logs) / 2 / 3)  # t, two degrees of freedom
    assert found.low == pytest.approx(math.exp(mean - half)) and found.high == pytest.approx(math.exp(mean + half))
    assert paired.ratio([3.0], [2.0]).as_dict() == {"median": 1.5, "low": None, "high": None, "blocks": 1}
    for a, b in (([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])):
        with pytest.raises(ValueError, match="positive figures"):
            paired.ratio(a, b)


def test_the_peak_counts_what_the_work_takes_and_gives_back() -> None:
    found = paired.peak_above(lambda: len(bytearray(64 << 20)))
    if not found["restarted"]:
        pytest.skip("this system keeps the peak of the whole process")
    assert 60 << 20 < found["above_bytes"] < 90 << 20
    assert found["peak_bytes"] - found["held_bytes"] == found["above_bytes"]


def test_a_child_answers_in_its_last_line_or_says_why_not(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("import sys\nprint('words')\nprint('{\"n\": %s}' % sys.argv[1])")
    assert paired.in_child(script, ["3"]) == {"n": 3}
    script.write_text("raise SystemExit('no such job')")
    with pytest.raises(RuntimeError, match="no such job"):
        paired.in_child(script, [])


def test_jobs_share_a_result_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "speed.json"
    paired.merge_result(path, "first", {"ratio": 2.0})
    paired.merge_result(path, "second", {"ratio": 3.0})
    paired.merge_result(path, "first", {"ratio": 4.0})
    assert json.loads(path.read_text()) == {"first": {"ratio": 4.0}, "second": {"ratio": 3.0}}
    assert [file.name for file in path.parent.iterdir()] == ["speed.json"]
    with pytest.raises(ValueError):
        paired.merge_result(path, "third", {"ratio": math.nan})


def test_the_provenance_names_versions_threads_and_no_place() -> None:
    found = paired.provenance()
    assert {"torch", "transformers", "peft"} <= set(found["versions"])
    assert found["machine"]["threads"] >= 1 and found["machine"]["instruction_set"]
    assert len(found["code_digest"]) == 64
    assert str(paired.REPOSITORY) not in json.dumps(found)
