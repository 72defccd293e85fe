"""The table of windows: padding and one-label batches by hand, and training that goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import batching
import numpy as np
import pytest
import tables

from lora_clf.training import run


def test_a_larger_window_pads_less_and_mixes_less() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(320) % 2
    lengths = random.integers(5, 30, 320) + 30 * labels  # one label is longer than the other
    found = [batching.layout(lengths, labels, batching.window_of(name), 2) for name in batching.WINDOWS]
    assert len(found) == 8
    padding = [row["computed_over_real"] for row in found]
    alike = [row["one_label"] for row in found]
    assert padding == sorted(padding, reverse=True) and 1 < padding[-1] < 1.2 < padding[0]
    assert alike[0] < 0.01 and alike[-1] > 0.8
    packed = [row["packed_over_real"] for row in found]
    assert all(1 <= each < 1.2 for each in packed)  # however long the longest is
    pairs = np.arange(320) // 2 * 2
    apart, together = (
        batching.layout(lengths[pairs], labels[pairs], 5, 2, firsts)["packed_over_real"] for firsts in (None, pairs)
    )
    assert 1 <= apart < 1.25 and 0.5 <= together < 0.8  # nearly every copy meets the other
    equal = batching.layout(np.full(32, 8), labels[:32], 1, 1)
    assert equal["computed_over_real"] == equal["packed_over_real"] == 1


def test_gaps_are_taken_seed_by_seed() -> None:
    plain = [{"seed": seed, "accuracy": 0.9, "loss": loss} for seed, loss in enumerate((0.2, 0.4, 0.6))]
    runs = [{**run, "loss": run["loss"] + gap} for run, gap in zip(plain, (0.01, 0.02, 0.03), strict=True)]
    found = batching.summary(runs, plain)
    assert found["loss_gap"] == pytest.approx(0.02) and found["accuracy"] == pytest.approx(0.9)
    low, high = found["loss_gap_interval"]
    assert 0 > low > -0.01 and high < 0.05  # the spread between seeds cancels


def test_every_window_trains_with_every_seed_and_a_stopped_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    used: list[str] = []
    real = batching.trained

    def spied(base, data, name, seed):  # type: ignore[no-untyped-def]
        used.append(name)
        return real(base, data, name, seed)

    monkeypatch.setattr(batching, "trained", spied)
    before = run.training_rows
    assert "20 apart" in batching.WINDOWS and batching.window_of("20 apart") == 20
    flags = ["--quick", "--windows", "1", "all", "--out", str(tmp_path / "batching.json"), "--seeds"]
    assert batching.main([*flags, "1", "--budget", "0.001"]) == 0 and used == ["1"]
    assert batching.main([*flags, "1"]) == 0 and used == ["1", "all"]
    assert batching.main([*flags, "2"]) == 0 and used == ["1", "all", "1", "all"]
    assert run.training_rows is before
    value = json.loads((tmp_path / "batching.json").read_text())
    assert {name: [run["seed"] for run in row["runs"]] for name, row in value["windows"].items()} == {
        "1": [0, 1],
        "all": [0, 1],
    }
    # The window reached the training: other batches, another result.
    one, every = (value["windows"][name]["runs"][0]["last_loss"] for name in ("1", "all"))
    assert one != every
    page = "a\n<!-- begin batching -->\nNot run yet\n<!-- end batching -->\nz\n"
    written = tables.rewritten(page, tmp_path)
    assert written.count("\n| ") == 3 and written.endswith(" |\n<!-- end batching -->\nz\n")
    assert tables.rewritten(page, tmp_path / "empty").count("there is no benchmarks/results/batching.json") == 1
    capsys.readouterr()
    assert batching.main(["--table", "--out", str(tmp_path / "batching.json")]) == 0
    assert capsys.readouterr().out.count("\n") == 5
    assert batching.main(["--table", "--out", str(tmp_path / "none.json")]) == 0
    assert "Not run yet" in capsys.readouterr().out
