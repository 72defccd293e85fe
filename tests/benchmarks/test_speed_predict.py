"""The prediction benchmarks on a tiny base: they run, go on where they stopped, and are told honestly."""

from __future__ import annotations

import json
from pathlib import Path

import paired
import predict_sides
import predict_table
import pytest
import scale
import speed_predict

BLOCK = {"ours-fp32": 2.0, "ours-auto": 1.0, "pipeline": 8.0, "pipeline-tuned": 4.0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired.gc, "collect", lambda: 0)  # slow in a process that has imported everything


def test_both_sides_label_alike_and_blocks_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    arguments = ["--quick", f"--work={tmp_path}", f"--out={out}", "--device=cpu"]
    assert speed_predict.main([*arguments, "--blocks=2", "--budget=1e-9"]) == 0
    assert "1 of 2 blocks" in capsys.readouterr().out and not out.exists()
    assert speed_predict.main([*arguments, "--blocks=2"]) == 0
    told = capsys.readouterr()
    assert told.err.count("block 2") == len(predict_sides.SIDES) and "block 1" not in told.err
    found = json.loads(out.read_text())
    assert set(found) == {"speed", "quality"}
    assert set(found["speed"]["sides"]) == set(predict_sides.SIDES) and len(found["speed"]["blocks"]) == 2
    # In fp32 both are the same function; in bf16 a tiny random classifier may waver.
    assert found["quality"]["ours-fp32"]["other_labels"] == 0 and found["quality"]["ours-fp32"]["met"]
    assert set(found["speed"]["ceiling"]) == set(predict_sides.OURS)
    assert "| ours-fp32 |" in told.out and "message" in told.out
    assert not any(text in out.read_text() for text in ("prize", "lunch"))  # figures, no messages


def test_what_the_choices_come_from(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert speed_predict.main(["--quick", "--choices", f"--work={tmp_path}", f"--out={out}", "--device=cpu"]) == 0
    seconds = json.loads(out.read_text())["choices"]["seconds"]
    assert len(seconds) in (28, 56)  # on a machine without bf16, auto is fp32 again
    assert "fp32 merged+one sdpa 1024 1" in seconds and min(seconds.values()) > 0
    assert len(predict_table.table({"choices": json.loads(out.read_text())["choices"]}).splitlines()) > 20


def test_targets_are_told_as_they_are() -> None:
    found = paired.ratio([BLOCK["pipeline"]] * 3, [BLOCK["ours-fp32"]] * 3)
    assert found.median == pytest.approx(4) and speed_predict.TARGET == 3 and speed_predict.NET_FLIPS == 0.002
    state = {
        "blocks": [{"10": 1.0, "100": 10.9, "1000": 121.0}] * 2,
        "peaks": {"10": [1e6], "100": [2e6], "1000": [60e6]},
    }
    provenance = {"machine": {"threads": 1}}
    result = scale.result(state, "tiny", "fp32", provenance)
    assert result["a_row"]["ratio"]["median"] == pytest.approx(121.0 / 109.0, rel=1e-3)
    assert not result["a_row"]["met"] and result["memory"]["grown_bytes"] == 59e6 and not result["memory"]["met"]
    shown = scale.table(result)
    assert shown.count(" no |") == 2 and "1,000" in shown and "≤ 1.1" in shown
    assert (scale.SLOWER, scale.FLAT, scale.SIZES) == (1.1, 50e6, (1_000, 10_000, 100_000))


def test_no_two_messages_are_alike() -> None:
    texts = ["one two three", "four five", "six"]
    found = list(scale.messages(texts, 60))
    assert found[:3] == texts and len(set(found)) == 60
    assert found == list(scale.messages(texts, 60))
    assert {len(text.split()) for text in found} <= {1, 2, 3}


def test_every_size_is_labelled_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def child(script: Path, arguments: list[str]) -> dict[str, float]:
        asked.append(list(arguments))
        rows = int(arguments[-1].rpartition("-")[2].removesuffix(".csv"))
        return {"seconds": rows / 1000, "peak_bytes": 10**8 + rows}

    monkeypatch.setattr(scale, "in_child", child)
    out = tmp_path / "out.json"
    assert scale.main(["--quick", f"--work={tmp_path}", f"--out={out}", "--device=cpu"]) == 0
    found = json.loads(out.read_text())
    assert len(asked) == 3 and all("--quick" in each for each in asked)
    assert found["a_row"]["met"] and found["memory"]["grown_bytes"] == 350


def test_a_file_is_labelled_as_the_command_does_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("id,text\n" + "".join(f"{i},hello {i}\n" for i in range(30)), encoding="utf-8")
    assert scale.main(["--quick", f"--work={tmp_path}", "--device=cpu", f"--label={rows}"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["rows"] == 30 and found["seconds"] > 0 and found["peak_bytes"] > 10**7
