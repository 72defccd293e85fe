"""Real comparisons on a tiny base: children are started, killed, and do only what is missing."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lora_clf.comparison.arguments import BaseArguments
from lora_clf.comparison.comparison import Comparison
from lora_clf.comparison.outcome import read_outcome
from lora_clf.data.corpus import load_corpus
from lora_clf.errors import DataError, UsageError
from lora_clf.experiment.run import compare
from lora_clf.experiment.work import PlanProgress
from lora_clf.reports.evidence import mistakes_of
from lora_clf.reports.table import as_rich
from tests import pickles

TRAINING = {"epochs": 2, "batch_size": 16, "precision": "fp32"}
PLAIN = ("majority", "TF-IDF + LR", "nearest centroid", "untrained head")
TIMED = {"seconds", "cold_seconds", "total_seconds"}
MEASURED = {*TIMED, "peak_memory_bytes", "training_memory_bytes", "texts_per_second"}


class Heard:
    """Remembers the events; ``stop_after`` runs it interrupts, as Ctrl-C would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[PlanProgress] = []
        self.stop_after = stop_after

    def __call__(self, now: PlanProgress) -> None:
        self.events.append(now)
        if self.stop_after is not None and self.of("done") and now.event == "step":
            raise KeyboardInterrupt

    def of(self, event: str) -> list[str]:
        return [now.cell for now in self.events if now.event == event]


@pytest.fixture(scope="module")
def run(base_folder: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def start(strategies: list[str] | str, out: Path | None = None, **more: Any) -> Comparison:
        return compare(
            BaseArguments(str(base_folder), device="cpu"),
            table,
            strategies,
            out=out or tmp_path_factory.mktemp("out"),
            training=TRAINING,
            data_settings={"columns": ["hard"]},
            **more,
        )

    return start


@pytest.fixture(scope="module")
def whole(run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, Heard]:
    """One comparison, interrupted within its second run and started again; lora cannot be prepared."""
    out = tmp_path_factory.mktemp("whole")
    arguments = {"seeds": 1, "save_adapters": True, "strategy_settings": {"lora": {"blocks": 99}}}
    first = Heard(stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        run(["head-only", "last-block", "lora"], out, progress=first, **arguments)
    assert first.of("done") == ["head-only-seed-0"]
    again = Heard()
    command = "lora-clf compare /some/where/messages.csv --base /else/tiny --out=/x/y"
    found = run(["head-only", "last-block", "lora"], out, progress=again, command=command, **arguments)
    return found, out, again


def strip(value: Any) -> Any:
    """``value`` without what differs from run to run: seconds and memory."""
    if isinstance(value, dict):
        return {key: strip(part) for key, part in value.items() if key not in MEASURED}
    return [strip(part) for part in value] if isinstance(value, list) else value


def test_only_what_is_missing_is_done(whole: tuple[Comparison, Path, Heard]) -> None:
    _, out, again = whole
    assert again.of("kept") == ["head-only-seed-0"]
    assert again.of("done") == ["last-block-seed-0"]
    assert not list((out / "cells").glob(".*-????????????"))
    estimates = [now for now in again.events if now.event == "estimate"]
    assert len(estimates) == 1 and estimates[0].message.startswith("2 runs, about ")


def test_a_failed_run_is_reported_and_the_others_go_on(whole: tuple[Comparison, Path, Heard]) -> None:
    found, out, again = whole
    assert again.of("failed") == ["lora-seed-0"]
    (failure,) = found.failures
    assert (failure.label, failure.error) == ("lora", "UsageError") and "99" in failure.message
    assert [row.label for row in found.standings] == ["head-only", "last-block", *PLAIN]
    assert "FAILED lora-seed-0" in (out / "report.md").read_text()


@pytest.mark.usefixtures("inside")
def test_all_leaves_out_what_the_base_cannot_take_and_a_name_does_not(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lora_clf import tuners

    some = {name: tuners.strategies()[name] for name in ("head-only", "bitfit")}
    monkeypatch.setattr(tuners, "strategies", lambda: some)
    monkeypatch.setattr(some["bitfit"], "refusal", lambda self, view: "it has no biases")
    found = run("all", tmp_path / "all", seeds=1)
    assert [row.label for row in found.standings] == ["head-only", *PLAIN] and not found.failures
    assert (
        "No bitfit: it cannot adapt this bert base: it has no biases." in (tmp_path / "all" / "report.md").read_text()
    )
    assert "bitfit" in [one["label"] for one in found.facts["left_out"]]
    again = Heard()
    run("all", tmp_path / "all", seeds=1, progress=again)
    assert again.of("kept") == ["head-only-seed-0"] and not again.of("done")


def test_costs_are_measured(whole: tuple[Comparison, Path, Heard]) -> None:
    found, out, _ = whole
    head, block = found.outcomes_of("head-only")[0], found.outcomes_of("last-block")[0]
    assert head.trainable_parameters == 32 * 2 + 2 < block.trainable_parameters
    assert 50e6 < head.peak_memory_bytes < 5e9 and head.training_memory_bytes < head.peak_memory_bytes
    for outcome in (head, block):
        adapter = out / "adapters" / outcome.label
        assert outcome.adapter_bytes == sum(file.stat().st_size for file in adapter.iterdir())
        assert outcome.tensor_bytes == (adapter / "adapter_model.safetensors").stat().st_size
        assert 0 < outcome.seconds <= outcome.cold_seconds <= outcome.total_seconds
        assert outcome.texts_per_second is not None and outcome.texts_per_second > 0
        assert outcome.test.probabilities.shape == (len(outcome.test.rows), 2)
    assert head.flops is not None and block.flops is not None and 0 < head.flops < block.flops
    assert [entry["epoch"] for entry in block.history] == [1, 2] and block.training["epochs"] == 2


@pytest.mark.usefixtures("inside")
def test_another_order_of_strategies_gives_the_same_table(run: Any, whole: tuple[Comparison, Path, Heard]) -> None:
    found, _, _ = whole
    other = run(["last-block", "head-only"], seeds=1)
    rows = [{row.label: strip(row.to_json()) for row in one.standings} for one in (found, other)]
    assert rows[0].keys() == rows[1].keys()
    for label, row in rows[0].items():
        assert not {key: (row[key], rows[1][label][key]) for key in row if row[key] != rows[1][label][key]}, label
    for label in ("head-only", "last-block"):
        one, two = found.outcomes_of(label)[0], other.outcomes_of(label)[0]
        assert (one.test.probabilities == two.test.probabilities).all()


def test_every_format_can_be_read(whole: tuple[Comparison, Path, Heard]) -> None:
    found, out, _ = whole
    value = json.loads((out / "results.json").read_text())
    assert {row["label"] for row in value["rows"]} == {"head-only", "last-block", *PLAIN}
    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    accuracy = {row["label"]: row["accuracy"]["mean"] for row in value["rows"]}
    assert {line["strategy"]: float(line["accuracy"]) for line in lines} == accuracy
    (wide,), narrow = as_rich(found, 1000), as_rich(found, 60)
    assert wide.row_count == 6 and len(wide.columns) > 10 and len(narrow) > 2
    assert sum(len(table.columns) - 1 for table in narrow) == len(wide.columns) - 1
    drawn = StringIO()
    for table in narrow:
        Console(file=drawn, width=60).print(table)
    assert max(map(len, drawn.getvalue().splitlines())) <= 60 and "…" not in drawn.getvalue()
    assert drawn.getvalue().count("TF-IDF + LR") == len(narrow)
    assert (out / "accuracy-parameters.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 6
    assert {file.stem for file in out.glob("*.png")} == {
        *("accuracy-parameters", "accuracy-seconds", "confusion", "reliability", "precision-recall", "training")
    }
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert found.hard_rows and "hard&nbsp;%" in page


def test_no_text_path_or_host_in_the_results(
    whole: tuple[Comparison, Path, Heard], table: Path, base_folder: Path
) -> None:
    import platform

    _, out, _ = whole
    texts = load_corpus(table).part.texts
    for name in ("results.json", "results.csv", "report.md", "report.html"):
        content = (out / name).read_text()
        quoted = [text for text in texts if text in content or re.findall(r"zq\d+xv", text)[0] in content]
        # The report is the user's own and shows errors; results are what is handed on.
        assert len(quoted) <= 20 if name.startswith("report") else not quoted
        for path in (str(table.parent), str(base_folder.parent), str(out), "/some/where", "/else", "/x/"):
            assert path not in content, (name, path)
        assert platform.node() not in content or len(platform.node()) < 4
    for file in (out / "cells").rglob("result.json"):
        assert str(base_folder) not in file.read_text()
    assert "compare messages.csv --base tiny --out=y" in (out / "report.md").read_text().replace("\\", "")


def test_a_cell_of_other_settings_is_not_taken_for_this_one(whole: tuple[Comparison, Path, Heard]) -> None:
    found, out, _ = whole
    folder = out / "cells" / "head-only-seed-0"
    digest = found.outcomes_of("head-only")[0].digest
    assert read_outcome(folder, digest) is not None
    assert read_outcome(folder, "other") is None
    assert read_outcome(out / "nowhere") is None


def test_an_adapter_of_another_cell_is_not_taken_for_this_one(whole: tuple[Comparison, Path, Heard]) -> None:
    from lora_clf.comparison.outcome import digest_file, is_adapter_of

    found, out, _ = whole
    adapter, digest = out / "adapters" / "head-only", found.outcomes_of("head-only")[0].digest
    assert is_adapter_of(digest, adapter) and not is_adapter_of("other", adapter)
    assert not is_adapter_of(digest, out / "adapters" / "nowhere")
    assert digest_file(adapter).is_file() and len(list(adapter.iterdir())) <= 3


@pytest.mark.usefixtures("inside")
def test_another_comparison_is_not_overwritten_unasked(
    run: Any, whole: tuple[Comparison, Path, Heard], tmp_path: Path
) -> None:
    import shutil

    _, there, _ = whole
    out = tmp_path / "out"
    (out / "cells").mkdir(parents=True)
    shutil.copytree(there / "cells" / "head-only-seed-0", out / "cells" / "head-only-seed-0")
    before = (there / "results.json").read_bytes()
    (out / "results.json").write_bytes(before)
    with pytest.raises(UsageError, match=r"other contenders.*Choose another --out, or --force"):
        run(["head-only"], out, seeds=1)
    assert (out / "results.json").read_bytes() == before
    heard = Heard()
    run(["head-only"], out, seeds=1, force=True, progress=heard)
    assert heard.of("kept") == ["head-only-seed-0"]
    changed = json.loads((out / "results.json").read_text())
    run(["head-only"], out, seeds=1)  # the same plan: nothing to ask
    changed["facts"]["data"]["splits"][0]["digest"] = "other"
    (out / "results.json").write_text(json.dumps(changed))
    with pytest.raises(UsageError, match="other data"):
        run(["head-only"], out, seeds=1)
    (out / "results.json").unlink()  # as where it was interrupted: what is there was begun by that plan
    with pytest.raises(UsageError, match=r"holds another comparison \(other contenders"):
        run(["head-only", "bitfit"], out, seeds=1)
    heard = Heard()
    run(["head-only"], out, seeds=1, progress=heard)
    assert heard.of("kept") == ["head-only-seed-0"]
    (out / "results.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        run(["head-only"], out, seeds=1)


@pytest.mark.usefixtures("inside")
def test_rows_that_stand_elsewhere_by_now_keep_their_results(base_folder: Path, table: Path, tmp_path: Path) -> None:
    heading, *lines = table.read_text(encoding="utf-8").splitlines()
    lines[3:3] = [",ham,0", ",spam,0"]  # without a text
    file = tmp_path / "rows.csv"

    def start(lines: list[str]) -> tuple[Comparison, Heard]:
        file.write_text("\n".join([heading, *lines]) + "\n", encoding="utf-8")
        heard = Heard()
        found = compare(
            BaseArguments(str(base_folder), device="cpu"), file, ["head-only"], seeds=1, out=tmp_path / "out",
            training=TRAINING, data_settings={"columns": ["hard"], "skip_bad_rows": True}, progress=heard,
        )  # fmt: skip
        assert isinstance(found, Comparison)
        return found, heard

    first, before_that = start(lines)
    told = [now.message for now in before_that.events if now.event == "warning"]
    assert any("left out row 4" in message for message in told) and len(told) == 2
    second, heard = start([*lines[:3], *lines[5:]])  # and without those rows, as a warning said
    assert heard.of("done") == [] and len(heard.of("kept")) == 1
    (before,), (after,) = first.outcomes, second.outcomes
    data = next(iter(second.datasets.values()))
    assert after.test.rows.tolist() == list(data.test.rows) != before.test.rows.tolist()
    assert after.test.probabilities.tolist() == before.test.probabilities.tolist()
    texts = dict(zip(data.test.rows, data.test.texts, strict=True))
    assert all(mistake.text == texts[mistake.row] for mistake in mistakes_of(second, "head-only"))


@pytest.mark.usefixtures("inside")
def test_a_failing_baseline_is_reported_and_the_rest_goes_on(
    run: Any, whole: tuple[Comparison, Path, Heard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from lora_clf.comparison import baselines

    def broken(data: object, seed: int) -> None:
        raise ValueError("This solver needs samples of at least 2 classes")

    monkeypatch.setattr(baselines, "tfidf", broken)
    out, heard = tmp_path / "out", Heard()
    shutil.copytree(whole[1] / "cells" / "head-only-seed-0", out / "cells" / "head-only-seed-0")
    found = run(["head-only"], out, seeds=1, progress=heard)
    (failure,) = found.failures
    assert (failure.label, failure.error) == ("TF-IDF + LR", "ValueError") and heard.of("failed") == ["TF-IDF + LR"]
    assert [row.label for row in found.standings] == ["head-only", "majority", "nearest centroid", "untrained head"]
    assert "FAILED TF-IDF + LR: ValueError" in (out / "report.md").read_text()


@pytest.mark.parametrize("forks", [True, False])
def test_data_that_changes_under_way_is_refused(
    whole: tuple[Comparison, Path, Heard], tmp_path: Path, forks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the folder that the user stands in holds a random.py, which is not Python's."""
    from dataclasses import replace

    from lora_clf.experiment import child
    from lora_clf.experiment.child import run_batches, task_of

    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(pickles.CHILDREN))
    if not forks:  # as where there is a GPU, and on other systems
        ending = 'runpy.run_module("lora_clf.experiment.worker", run_name="__main__", alter_sys=True)'
        assert ending in child.START
        other = "from lora_clf.experiment import worker; worker.forks = lambda: False; sys.exit(worker.main())"
        monkeypatch.setattr(child, "START", child.START.replace(ending, other))
    found, _, _ = whole
    cell = replace(found.plan.cells()[0], base_digest="no", data_digest="no")
    (failure,) = [news.failure for news in run_batches([[task_of(cell, tmp_path / "cell", None)]]) if news.failure]
    assert failure is not None and failure.error == "BaseError" and "Start the comparison again" in failure.message
    assert not (tmp_path / "cell").exists()


def test_a_child_runs_this_package_and_not_the_installed_one(tmp_path: Path) -> None:
    from lora_clf.experiment.child import START

    room = tmp_path / "lora_clf" / "experiment"
    room.mkdir(parents=True)
    for folder in (room, room.parent):
        (folder / "__init__.py").write_text("")
    (room / "worker.py").write_text(
        "import random, sys; print(random.__file__, __file__, vars(sys).get('_lora_clf_watches_pickles'))"
    )
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')\n")
    words = [sys.executable, "-P", "-c", START, str(tmp_path)]
    ours = str(Path(__file__).resolve().parents[2])  # where this is run from a working tree that is not installed
    environment = {**os.environ, "PYTHONPATH": pickles.search_path(without=ours)}
    ran = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ran.returncode == 0 and f"{room / 'worker.py'} True" in ran.stdout, ran.stderr  # with the tests' hook


@pytest.mark.skipif(sys.platform != "linux", reason="os.fork")
def test_nothing_that_is_imported_before_a_fork_starts_a_thread() -> None:
    code = (
        "import os, threading\n"
        "from lora_clf.experiment.worker import prepare\n"
        "prepare()\n"
        "print(len(os.listdir('/proc/self/task')), threading.active_count())\n"
    )
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}  # OpenBLAS has its own
    ran = subprocess.run([sys.executable, "-c", code], env={**os.environ, **one}, capture_output=True, text=True)
    assert ran.stdout.split() == ["1", "1"], ran.stderr


def test_a_wrong_setting_ends_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--epochs"):
        compare("nowhere", "nothing", seeds=1, out=tmp_path, training={"epochs": -1})
    with pytest.raises(UsageError, match="plot format"):
        compare("nowhere", "nothing", seeds=1, out=tmp_path, plot_format="gif")


@pytest.mark.slow
def test_folds_and_seeds(run: Any) -> None:
    found = run(["head-only", "lora-scratch"], seeds=2, folds=3)
    assert len(found.outcomes) == 12 and not found.failures
    for pool in found.pools.values():
        assert all(part.rows.tolist() == list(range(1, 121)) for part in pool.predictions)
    best = next(row for row in found.standings if row.best)
    assert best.seeds == 2 and best.accuracy.n == 120 and best.accuracy.sd is not None


@pytest.mark.slow
def test_a_split_for_each_seed(run: Any) -> None:
    found = run(["head-only"], seeds=2, resplit=True)
    pool = found.pools["head-only"]
    first, second = (part.rows.tolist() for part in pool.predictions)
    assert first != second and len(found.pools["majority"].seeds) == 2
    row = found.standings[0]
    assert row.accuracy.low <= row.accuracy.mean <= row.accuracy.high


@pytest.mark.usefixtures("inside")
def test_folds_refuse_and_tell_what_a_split_does(base_folder: Path, table: Path, tmp_path: Path) -> None:
    heading, *lines = table.read_text(encoding="utf-8").splitlines()
    file = tmp_path / "rows.csv"
    rows = [f"{line},{number % 9 or ''}" for number, line in enumerate(lines)]
    file.write_text("\n".join([f"{heading},speaker", ",ham,0,1", *rows]) + "\n", encoding="utf-8")
    heard = Heard()

    def start(**settings: Any) -> object:
        return compare(
            BaseArguments(str(base_folder), device="cpu"), file, ["head-only"], seeds=1, out=tmp_path / "out",
            folds=2, training=TRAINING, data_settings=settings, progress=heard,
        )  # fmt: skip

    with pytest.raises(DataError, match=r"nothing in column 'speaker'"):
        start(group_column="speaker", skip_bad_rows=False)
    with pytest.raises(UsageError, match="The seed is -1"):
        compare(BaseArguments(str(base_folder)), file, ["head-only"], out=tmp_path / "no", folds=2, split_seed=-1,
                data_settings={"skip_bad_rows": True})  # fmt: skip
    start(skip_bad_rows=True)
    assert [now.message for now in heard.events if now.event == "warning"] == ["Warning: left out row 1."]
    assert "left out row 1" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
