"""The training benchmark on tiny bases: every job runs, goes on where it stopped, and is told honestly."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import our_training
import paired
import pytest
import quick
import speed_bench
import speed_jobs
import speed_quality
import speed_table
import speed_training
import torch

from lora_clf.inference.cache import prefix_cache
from lora_clf.inference.precision import has_native_bf16
from lora_clf.training import loop as training_loop
from lora_clf.tuners.last_block import LastBlock

# The targets of the median ratio, as they were set.
TARGETS = {
    "last-block-fp32": 12, "last-block-auto": 30, "lora-auto": 5, "lora-fp32": 2.5, "lora-tuned": 2.5,
    "head-forward": 1.15, "head-trainer": 15, "last-block-warm": 4, "lora-last-2": 8, "full-trainer": 2.5,
    "memory": 0.6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_kept_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_CLF_CACHE_SIZE", "0")
    monkeypatch.setattr(paired.gc, "collect", lambda: 0)  # slow in a process that has imported everything


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def bench(kind: str, bases: Path) -> speed_bench.Bench:
    base = our_training.tokenised_once(quick.quick_base(kind, bases))
    return speed_bench.Bench(base, quick.quick_data(train=21), steps=2, width=base.max_length)


def test_the_jobs_are_those_with_targets_and_some_more() -> None:
    found = {job.name: job.target for job in speed_jobs.JOBS.values() if job.target is not None}
    assert found == TARGETS and len(speed_jobs.JOBS) == 15
    at_most = {job.name for job in speed_jobs.JOBS.values() if job.at_most}
    assert at_most == {"head-forward", "memory"}
    for job in speed_jobs.JOBS.values():
        assert job.about and {"ours", "theirs"} <= set(job.about) and (job.blocks >= 7 or job.name == "memory")


@pytest.mark.parametrize("name", ["last-block-fp32", "full-book", "head-forward", "last-block-warm", "lora-last-2"])
def test_a_job_runs_both_sides_and_has_a_ceiling(name: str, bases: Path) -> None:
    job = speed_jobs.JOBS[name]
    made = bench({"minilm": "bert"}.get(job.base, job.base), bases)
    blocks = paired.interleave(job.sides(made), 1)
    assert set(blocks[0]) >= {"ours", "theirs"} and min(blocks[0].values()) > 0
    assert job.least is not None
    ours, theirs = job.least(made)
    assert 0 < ours <= theirs and (ours == theirs) == (name == "head-forward")


def test_ours_pays_for_its_prefix_every_time_but_when_it_is_warm(bases: Path) -> None:
    made = bench("gpt2", bases)
    side = our_training.OurTraining(made.base, made.data, LastBlock(), precision="fp32", epochs=2)
    assert len(side.data.validation) == len(side.data.test) == 2  # a row of each label: no peer evaluates here
    held = []
    for _ in range(2):
        assert side() > 0
        assert side.result is not None and len(prefix_cache(made.base)) > 0
        held.append(side.result.prefix_seconds)
    assert held[0] != held[1] > 0  # computed again, not taken over
    assert side.timing is not None and side.timing.complete and side.timing.steps == 2 * 2
    warm = our_training.OurTraining(made.base, made.data, LastBlock(), precision="fp32", epochs=2, warm=True)
    assert warm() > 0 and warm.result is not None and warm.result.prefix_seconds == held[1]
    our_training.forget(made.base)
    assert len(prefix_cache(made.base)) == 0


def test_a_warm_run_is_warm_where_another_side_left_the_states_of_some_texts(
    bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the small sides do, that are run for what a process pays at first."""
    made = bench("gpt2", bases)
    few = replace(made, data=replace(made.data, train=made.data.train.take(range(4))))
    speed_jobs.JOBS["last-block-warm"].sides(few)["theirs"]()
    some = len(prefix_cache(made.base))
    side = speed_jobs.JOBS["last-block-warm"].sides(made)["ours"]
    seen: list[int] = []
    real = training_loop.train

    def watched(*given: Any, **more: Any) -> Any:
        seen.append(len(prefix_cache(made.base)))
        return real(*given, **more)

    monkeypatch.setattr(training_loop, "train", watched)
    side()
    assert len(seen) == 2 and 0 < some == seen[0] < seen[1] == len(prefix_cache(made.base))


def test_the_clock_starts_at_the_call_and_ends_with_the_last_evaluation(bases: Path) -> None:
    made = replace(bench("bert", bases), evaluated=True)
    side: Any = speed_jobs.JOBS["full-trainer"].sides(made)["ours"]
    side.timed_epochs = 1
    seconds = side()
    assert len(side.result.history) == 1 and len(side.data.validation) == 8
    assert side.timing.measured < side.result.seconds and seconds == 3 * side.timing.measured
    assert not side.timing.complete and side.timing.total_steps == 3 * side.timing.steps


def run(*arguments: str, place: Path) -> None:
    flags = ["--quick", "--work", str(place / "work"), "--out", str(place / "speed.json"), *arguments]
    assert speed_training.main(flags) == 0


def test_a_job_goes_on_where_its_budget_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    run("--job", "last-block-fp32", "--budget", "0.001", place=tmp_path)
    assert "1 of 2 blocks; the same command goes on." in capsys.readouterr().out and not out.exists()
    kept = json.loads((tmp_path / "work" / "last-block-fp32-quick.json").read_text())
    run("--job", "last-block-fp32", "--budget", "0.001", place=tmp_path)
    value = json.loads(out.read_text())["last-block-fp32"]
    first = {name: float(f"{seconds:.5g}") for name, seconds in kept["blocks"][0].items()}
    assert len(value["blocks"]) == 2 and value["blocks"][0] == first and value["ratio"]["blocks"] == 2
    assert value["sides"]["theirs"]["kind"] == "extrapolated" and value["sides"]["ours"]["kind"] == "complete"
    assert (value["sides"]["theirs"]["steps"], value["sides"]["theirs"]["total_steps"]) == (3, 15)
    assert value["target"]["met"] == (value["ratio"]["median"] >= 12) and value["ceiling"]["ratio"] > 0
    # The same runs of the other side, held against ours in another precision.
    run("--job", "last-block-auto", place=tmp_path)
    within = json.loads(out.read_text())["last-block-auto"]
    assert [b["theirs"] for b in within["blocks"]] == [b["theirs"] for b in value["blocks"]]
    assert [b["ours"] for b in within["blocks"]] == [b["ours-auto"] for b in value["blocks"]]
    assert within["precision"] == "auto" and within["target"]["value"] == 30
    # Another order of the sides is another measurement: it does not mix with the blocks of the first.
    run("--job", "last-block-fp32", "--seed", "1", "--budget", "0.001", place=tmp_path)
    assert "2 blocks are dropped" in capsys.readouterr().out
    # A check is put beside the figures and leaves them as they are.
    run("--job", "last-block-fp32", "--complete", place=tmp_path)
    both = json.loads(out.read_text())["last-block-fp32"]
    assert both["complete"]["steps"] == 15 and both["complete"]["ratio"] > 0 and both["ratio"] == value["ratio"]
    before = out.read_bytes()
    capsys.readouterr()
    assert speed_training.main(["--table", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert out.read_bytes() == before and "| tiny-gpt2 |" in table and "extrapolated from 3 of 15 steps" in table
    assert "One complete run of `last-block-fp32`" in table
    assert "Measured with both sides in one process: `last-block-fp32`, `last-block-auto`." in table
    left = table.partition("Not measured yet: ")[2].splitlines()[0]
    assert "`lora-fp32` (" in left and "`full-book`" not in left and "`last-block-fp32`" not in left
    assert ("`lora-auto` (" in left) is has_native_bf16(torch.device("cpu"))  # what cannot be measured is not awaited
    assert str(tmp_path) not in before.decode() and not re.search(r'"/\w', before.decode())


def test_quality_counts_flips_and_shares_the_sides_between_jobs(tmp_path: Path) -> None:
    run("--job", "head-trainer", "--quality", place=tmp_path)
    run("--job", "head-tuned", "--quality", place=tmp_path)
    values = json.loads((tmp_path / "speed.json").read_text())
    # Ours is the same side in both jobs and was trained once.
    assert len(list((tmp_path / "work" / "quality").iterdir())) == 3
    for name in ("head-trainer", "head-tuned"):
        found = values[name]["quality"]
        assert found["all"]["rows"] == 40 and 0 < found["unseen"]["rows"] <= 16
        assert found["all"]["net_flips"] == pytest.approx(found["all"]["theirs"] - found["all"]["ours"], abs=1e-5)
        assert found["met"] == (found["all"]["net_flips"] <= 0.002)
        assert found["all"]["low"] < found["all"]["net_flips"] < found["all"]["high"]
    assert values["head-trainer"]["quality"]["all"]["ours"] == values["head-tuned"]["quality"]["all"]["ours"]
    assert "net flips" in speed_table.quality(values["head-tuned"]["quality"])


def test_kept_states_change_neither_losses_nor_logits(bases: Path) -> None:
    found = speed_quality.kept_or_not(bench("gpt2", bases))
    assert found["met"] and found["relative_losses"] <= 1e-5 and found["relative_logits"] <= 1e-5
    assert "losses to" in speed_table.quality(found)


def test_each_side_of_the_memory_job_is_made_in_its_child(bases: Path) -> None:
    made = {kind: bench(kind, bases) for kind in ("bert", "gpt2")}
    assert set(speed_jobs.JOBS["memory"].sides(made["bert"])) == set(speed_jobs.MEMORY_SIDES)
    assert speed_jobs.memory_sides(speed_jobs.JOBS["memory"], made["bert"]) == {}
    shortened = {"head-forward/theirs": "bert", "last-block-fp32/ours-auto": "gpt2", "last-block-warm/ours": "gpt2",
                 **dict.fromkeys(speed_jobs.MEMORY_SIDES.values(), "bert")}  # fmt: skip
    for name, kind in shortened.items():
        side = speed_jobs.memory_side(name, made[kind])
        assert side() > 0 and side.timing is not None and side.timing.complete
    peer = speed_jobs.memory_side("last-block-fp32/theirs", made["gpt2"])
    assert peer() > 0 and peer.timing is not None and peer.timing.steps == 3
    wanted = [memory.side for job in speed_jobs.JOBS.values()
              for memory in speed_jobs.memory_sides(job, made["bert"]).values()]  # fmt: skip
    assert len(wanted) == 2 * (len(speed_jobs.JOBS) - 1) and "last-block-fp32/ours-auto" in wanted


def test_what_cannot_be_measured_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed_training.main(["--job", "nonsense"]) == 2
    assert "No job nonsense; there are: last-block-fp32," in capsys.readouterr().err
    assert speed_training.main(["--job", "last-block-fp32", "--gpt2", str(tmp_path)]) == 2
    assert "random_gpt2.py --tokenizer FOLDER --out" in capsys.readouterr().err
