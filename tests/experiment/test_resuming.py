"""A run of a comparison that is killed in the middle goes on there, and ends with what one that nobody killed finds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_clf.comparison.arguments import BaseArguments, DataArguments
from lora_clf.comparison.contender import contenders_of
from lora_clf.comparison.outcome import Outcome, read_outcome
from lora_clf.comparison.plan import Cell, Plan, with_digests
from lora_clf.errors import UsageError
from lora_clf.experiment import cell as cells
from lora_clf.experiment import tuning
from lora_clf.experiment.cell import run_cell
from lora_clf.experiment.folder import Folder
from lora_clf.experiment.materials import Materials
from lora_clf.experiment.resuming import checkpoints_of
from lora_clf.experiment.tuning import read_trial, run_trial, trials_of
from lora_clf.training.checkpoints import generations
from tests.experiment.test_curve import strip

Said = list[dict[str, Any]]


@pytest.fixture
def materials() -> Materials:
    return Materials()


@pytest.fixture
def cell(base_folder: Path, table: Path, materials: Materials, monkeypatch: pytest.MonkeyPatch) -> Cell:
    """One of a plan: two epochs in steps of eight rows."""
    monkeypatch.setattr(cells, "EVERY", 0.0)  # every step is told
    training = {"epochs": 2, "batch_size": 8, "precision": "fp32"}
    base = BaseArguments(str(base_folder), device="cpu")
    plan = Plan(contenders_of(["lora-scratch"]), (0,), base, DataArguments(str(table)), training)
    (found,) = plan.cells()
    return with_digests(found, materials.base(found.base), materials.data(found), "here")


def until(step: int, said: Said) -> Callable[[dict[str, Any]], None]:
    """Listens, and has Ctrl-C come after ``step``."""

    def say(event: dict[str, Any]) -> None:
        said.append(event)
        if event["step"] == step:
            raise KeyboardInterrupt

    return say


def plain(outcome: Outcome) -> Any:
    return strip(json.loads(json.dumps(outcome.to_json())))


@pytest.mark.parametrize("every", [3, "60s", 0])  # with the last two Ctrl-C alone writes one
def test_a_cell_goes_on_where_it_was_killed(every: int | str, cell: Cell, materials: Materials, tmp_path: Path) -> None:
    whole = run_cell(cell, tmp_path / "whole" / cell.name, tmp_path / "whole-adapter", materials=materials)
    folder, said = tmp_path / "cells" / cell.name, Said()
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, folder, tmp_path / "adapter", until(7, said), materials=materials, every=every)
    kept = checkpoints_of(folder, cell.digest)
    assert generations(kept) and read_outcome(folder) is None
    again = Said()
    found = run_cell(cell, folder, tmp_path / "adapter", again.append, materials=materials, every=every)
    assert [said[0]["step"], said[-1]["step"], again[0]["step"]] == [1, 7, 8] and again[-1]["step"] > 12
    assert plain(found) == plain(whole)
    np.testing.assert_array_equal(found.test.probabilities, whole.test.probabilities)
    models = [tmp_path / name / "adapter_model.safetensors" for name in ("adapter", "whole-adapter")]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert [path.name for path in (tmp_path / "cells").iterdir()] == [cell.name]


def test_checkpoints_of_other_cells_and_damaged_ones_are_not_gone_on_from(
    cell: Cell, materials: Materials, tmp_path: Path
) -> None:
    folder = tmp_path / cell.name
    for place in ("0" * 16, "1" * 16):
        (tmp_path / f"{cell.name}.{place}.checkpoints").mkdir()
    (tmp_path / f"{cell.name}-fold-0.{'0' * 16}.checkpoints").mkdir()  # of another run, which may be at work
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, folder, say=until(5, Said()), materials=materials, every=1)
    kept = checkpoints_of(folder, cell.digest)
    assert {path.name for path in tmp_path.iterdir()} == {kept.name, f"{cell.name}-fold-0.{'0' * 16}.checkpoints"}
    both = generations(kept)
    assert len(both) == 2
    (both[1] / "weights.safetensors").write_bytes(b"")
    said = Said()
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, folder, say=until(6, said), materials=materials, every=0)
    assert said[0]["step"] == 5  # the older generation
    for path in generations(kept):
        (path / "weights.safetensors").write_bytes(b"")
    said.clear()
    run_cell(cell, folder, say=said.append, materials=materials)
    assert said[0]["step"] == 1 and read_outcome(folder, cell.digest) is not None and not kept.exists()


def test_a_trial_goes_on_in_its_fold(cell: Cell, materials: Materials, tmp_path: Path) -> None:
    (trial, *_) = trials_of(cell, 2)
    whole = run_trial(trial, tmp_path / "whole", lambda _: None, materials)
    folder, said = tmp_path / "trial", Said()
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, folder, until(20, said), materials, 2)
    again = Said()
    found = run_trial(trial, folder, again.append, materials, 2)
    last = {event["step"] for event in said}
    steps = [event["step"] for event in again]
    assert found.cost == whole.cost and found.loss == whole.loss
    assert read_trial(folder, trial.digest) is not None and [path.name for path in folder.iterdir()] == ["trial.json"]
    assert len(last) == 20 and len(steps) < steps[-1] - 15, "the first fold, or what was done of the second, ran again"
    assert tuning.INNER_FOLDS == 3 and {path.name for path in tmp_path.iterdir()} == {"whole", "trial"}


HOLDER = """
import sys, time
from pathlib import Path
from lora_clf.comparison.contender import contenders_of
from lora_clf.experiment.folder import Folder
from lora_clf.comparison.plan import Plan
with Folder(Path(sys.argv[1]), Plan(contenders_of(["full"]))).held():
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_comparisons_do_not_write_to_one_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "deep" / "out", Plan(contenders_of(["full"])))
    words = [sys.executable, "-c", HOLDER, str(folder.out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == b"held"
        with pytest.raises(UsageError, match=rf"\(process {process.pid}\) is writing to"), folder.held():
            pass
        process.kill()
        process.wait()
    with folder.held():  # a dead owner's lock is nobody's
        assert (folder.out / "lock").is_file()
    assert list(folder.out.iterdir()) == []
    with Folder(tmp_path / "new" / "out", Plan(contenders_of(["full"]))).held():
        pass
    assert not (tmp_path / "new").exists()


def test_how_often_is_checked_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--checkpoint-every often"):
        Folder(tmp_path, Plan(contenders_of(["full"])), every="often")
