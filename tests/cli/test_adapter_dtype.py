"""`--adapter-dtype`: files half as large that answer alike, refused early where it makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
MODEL = "adapter_model.safetensors"


def test_train_saves_half_as_much(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    sizes, answers = {}, {}
    losses: dict[str, set[float]] = {}
    for dtype in ("fp32", "bf16"):
        out = tmp_path / dtype
        cli(
            "train", table, "--base", base, "--strategy", "full", "--epochs", 2, "--precision", "fp32",
            "--device", "cpu", "--out", out, "--adapter-dtype", dtype,
        ).ok()  # fmt: skip
        sizes[dtype] = (out / MODEL).stat().st_size
        metrics = cli("adapters", "inspect", out, "--json").ok().json()["metrics"]
        now = cli("evaluate", out, table, "--base", base, "--json").ok().json()
        for part in ("validation", "test"):  # those of the numbers in the file, whatever they were before
            assert metrics[part]["loss"] == now[part]["loss"]
            losses.setdefault(part, set()).add(now[part]["loss"])
        assert cli("adapters", "verify", out, "--base", base).code == 0
        said = cli("predict", out, "--base", base, "--json", "win cash now", "tea at home").ok().json()
        answers[dtype] = [(each["label"], each["probability"]) for each in said]
    assert all(len(each) == 2 for each in losses.values()) and len(losses) == 2
    assert sizes["bf16"] < 0.6 * sizes["fp32"]
    for one, other in zip(answers["fp32"], answers["bf16"], strict=True):
        assert one[0] == other[0] and one[1] == pytest.approx(other[1], abs=0.02) and one[1] != other[1]
    facts = cli("adapters", "inspect", tmp_path / "bf16", "--json").ok().json()
    assert facts["dtypes"] == "BF16"


@pytest.mark.usefixtures("inside")
def test_compare_keeps_them_in_the_dtype_that_was_asked_for(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    def run(dtype: str) -> Any:
        return cli(
            "compare", table, "--base", base, "--strategies", "head-only", "--seeds", 1, "--out", tmp_path / "run",
            "--save-adapters", "--adapter-dtype", dtype, "--device", "cpu", "--precision", "fp32",
        ).ok()  # fmt: skip

    folder = tmp_path / "run" / "adapters" / "head-only"
    losses = set()
    for dtype, held in (("bf16", "BF16"), ("fp32", "F32")):  # another dtype is another adapter
        run(dtype)
        facts = cli("adapters", "inspect", folder, "--json").ok().json()
        now = cli("evaluate", folder, table, "--base", base, "--json").ok().json()
        assert facts["dtypes"] == held and facts["metrics"]["test"]["loss"] == now["test"]["loss"]
        losses.add(now["test"]["loss"])
    assert len(losses) == 2  # so the scores of the other numbers would have shown
    before = (folder / MODEL).stat().st_mtime_ns
    run("fp32")
    assert (folder / MODEL).stat().st_mtime_ns == before  # nothing was missing


def test_what_makes_no_sense(cli: Cli, base: Path, table: Path, tmp_path: Path) -> None:
    ran = cli("train", table, "--base", base, "--adapter-dtype", "fp16", "--out", tmp_path / "a")
    assert ran.code == 2 and "Unknown adapter dtype 'fp16'. Did you mean" in ran.err
    ran = cli("compare", table, "--base", base, "--adapter-dtype", "bf16", "--out", tmp_path / "b")
    assert ran.code == 2 and "is about --save-adapters, which was not given" in ran.err
    assert list(tmp_path.iterdir()) == []
