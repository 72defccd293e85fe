"""Cells share the states of frozen layers through the disk; each is charged what they cost, and no more differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_clf.comparison.arguments import BaseArguments
from lora_clf.comparison.comparison import Comparison
from lora_clf.experiment.run import compare


@pytest.mark.usefixtures("inside")
def test_every_cell_pays_the_cold_price(
    base_folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))

    def run(name: str, size: str) -> Comparison:
        monkeypatch.setenv("LORA_CLF_CACHE_SIZE", size)
        return compare(
            BaseArguments(str(base_folder), device="cpu"),
            table,
            ["last-block"],
            seeds=2,
            out=tmp_path / name,
            training={"epochs": 1, "precision": "fp32"},
        )

    shared = run("shared", "1GB")
    files = list((tmp_path / "cache" / "prefix").glob("*/*.safetensors"))
    assert len(files) == 2  # of the one split that both seeds share, and the vectors for the nearest centroid
    first, second = shared.outcomes
    prices = [cell.cold_seconds - cell.seconds for cell in (first, second)]
    assert prices[0] == pytest.approx(prices[1]) and prices[0] > 0
    alone = run("alone", "0")
    for mine, other in zip(shared.outcomes, alone.outcomes, strict=True):
        assert mine.history == other.history and mine.scores == other.scores
    assert first.history != second.history


@pytest.mark.usefixtures("inside")
def test_the_price_is_the_same_whoever_filled_the_cache(
    base_folder: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two strategies that train the last block start from the same states: in either order, at the same price."""
    monkeypatch.setenv("LORA_CLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "1GB")

    def run(name: str, strategies: list[str]) -> Comparison:
        return compare(
            BaseArguments(str(base_folder), device="cpu"),
            table,
            strategies,
            strategy_settings={"lora-scratch": {"blocks": 1}},
            seeds=1,
            out=tmp_path / name,
            training={"epochs": 1, "precision": "fp32"},
        )

    def prices(found: Comparison) -> dict[str, float]:
        return {cell.label: cell.cold_seconds - cell.seconds for cell in found.outcomes}

    first = run("first", ["last-block", "lora-scratch"])
    files = sorted((tmp_path / "cache" / "prefix").glob("*/*.safetensors"))
    second = run("second", ["lora-scratch", "last-block"])
    assert files and files == sorted((tmp_path / "cache" / "prefix").glob("*/*.safetensors"))
    price = prices(first)
    assert price["last-block"] == pytest.approx(price["lora-scratch"]) and price["last-block"] > 0
    assert prices(second) == pytest.approx(price)
    for row in first.standings:
        other = next(one for one in second.standings if one.label == row.label)
        assert (row.accuracy, row.scores, row.to_baseline) == (other.accuracy, other.scores, other.to_baseline)
