"""Child processes that speak the worker's protocol: batches, failures, deaths, several at a time, the time left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lora_clf.errors import UsageError
from lora_clf.experiment import child
from lora_clf.experiment.child import News, Task, run_batches
from lora_clf.experiment.estimate import Clock
from lora_clf.experiment.work import threads_each

# What the real worker does, without what it does it for.
WORK = """
def work(task, say, materials):
    say({"event": "progress", "step": 1, "steps": 2})
    place = pathlib.Path(task["folder"])
    written = place / f"{task['name']}.part"
    written.write_text(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')} {os.getppid()}")
    written.rename(place / f"{task['name']}.pid")  # who waits for the file finds it whole
    if task["do"] == "die":
        print("last words", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)
    if task["do"] == "kill":
        os.kill(os.getpid(), 9)
    if task["do"] == "mute":
        os._exit(4)
    if task["do"] == "end":  # the step comes to its end, and a checkpoint is written
        def keep(*_):
            (place / f"{task['name']}.kept").write_text("")
            os._exit(0)
        signal.signal(signal.SIGTERM, keep)
        (place / f"{task['name']}.listens").write_text("")
    if task["do"] == "fail":
        raise DataError("no rows")
    while task["do"].startswith("meet") and not (place / f"{task['do'][5:]}.pid").exists():
        time.sleep(0.01)
    if task["do"] in ("wait", "end"):
        time.sleep(600)
"""
FAKE = f"""
import os, pathlib, signal, sys, time
sys.path.insert(0, sys.argv.pop())
from lora_clf.experiment import worker
from lora_clf.errors import DataError
{WORK}
worker.work, worker.IMPORTED, worker.forks = work, (), lambda: FORKS
sys.exit(worker.main())
"""


@pytest.fixture(
    autouse=True,
    params=[False, pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="os.fork"))],
    ids=["started", "forked"],
)
def forks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Whether a worker forks for every batch or does one itself."""
    monkeypatch.setattr(child, "START", FAKE.replace("FORKS", str(request.param)))
    found: bool = request.param
    return found


def tasks(folder: Path, **what: str) -> list[Task]:
    return [Task(name, "lora", {"name": name, "do": do, "folder": str(folder)}) for name, do in what.items()]


def told(news: list[News]) -> list[tuple[str, str]]:
    return [(item.task.name, item.event) for item in news]


def test_a_batch_shares_a_process_and_goes_on_behind_a_failure(tmp_path: Path, forks: bool) -> None:
    news = list(run_batches([tasks(tmp_path, a="do", b="fail", c="do"), tasks(tmp_path, d="do")]))
    steps = [("start", "step", end) for end in ("done", "failed", "done", "done")]
    assert told(news) == [(name, event) for name, mine in zip("abcd", steps, strict=True) for event in mine]
    (failed,) = [item for item in news if item.failure is not None]
    assert failed.failure is not None and (failed.failure.error, failed.failure.message) == ("DataError", "no rows")
    assert [item.step / item.steps for item in news if item.event == "step"] == [0.5] * 4
    processes, _, parents = zip(*((tmp_path / f"{name}.pid").read_text().split() for name in "abcd"), strict=True)
    assert len(set(processes[:3])) == 1 and processes[3] != processes[0]
    assert len(set(parents)) == 1 and (parents[0] == str(os.getpid())) is not forks


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("die", "ended with status 3: last words"),
        pytest.param("kill", "ended by signal 9, probably for lack of memory", marks=pytest.mark.skipif(
            sys.platform == "win32", reason="SIGKILL")),
    ],
)  # fmt: skip
def test_what_stood_behind_a_death_is_done_by_another_process(tmp_path: Path, how: str, words: str) -> None:
    news = list(run_batches([tasks(tmp_path, a="do", b=how, c="do")]))
    ends = {item.task.name: item for item in news if item.event in ("done", "failed")}
    assert [ends[name].event for name in "abc"] == ["done", "failed", "done"]
    failure = ends["b"].failure
    assert failure is not None and failure.error == "ChildProcess" and failure.message == words
    assert (tmp_path / "c.pid").read_text() != (tmp_path / "a.pid").read_text()


def test_the_words_of_one_batch_are_not_those_of_another(tmp_path: Path) -> None:
    news = list(run_batches([tasks(tmp_path, a="die"), tasks(tmp_path, b="mute")]))
    found = {item.task.name: item.failure.message for item in news if item.failure is not None}
    assert found == {"a": "ended with status 3: last words", "b": "ended with status 4: without a word"}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_that_is_killed_takes_its_run_along(tmp_path: Path, forks: bool) -> None:
    """What stood behind is done by another; one that had nothing to do is no run's failure."""
    batches = [tasks(tmp_path, a="do"), tasks(tmp_path, b="wait", c="do"), tasks(tmp_path, d="do")]
    seen: list[News] = []
    for item in run_batches(batches):
        seen.append(item)
        if item.event == "step" and item.task.name == "b":
            run, worker = pids(tmp_path, "b")
            os.kill(worker if forks else run, signal.SIGKILL)
    assert gone(run)
    ends = {item.task.name: item for item in seen if item.event in ("done", "failed")}
    assert [ends[name].event for name in "abcd"] == ["done", "failed", "done", "done"]
    assert ends["b"].failure is not None and "signal 9" in ends["b"].failure.message
    news = run_batches([tasks(tmp_path, e="do"), tasks(tmp_path, f="do")])
    events = []
    for item in news:
        events.append((item.task.name, item.event))
        if forks and events[-1] == ("f", "start"):
            os.kill(pids(tmp_path, "e")[1], signal.SIGKILL)  # perhaps before it has f's request
    assert events[-1] in [("f", "done"), ("f", "failed")] and ("e", "done") in events


def test_several_are_at_work_at_a_time(tmp_path: Path) -> None:
    # Each waits for the other to have begun: one at a time would never end.
    batches = [tasks(tmp_path, a="meet b"), tasks(tmp_path, b="meet a"), tasks(tmp_path, c="do")]
    news = list(run_batches(batches, jobs=2, threads=3))
    assert sorted(item.task.name for item in news if item.event == "done") == ["a", "b", "c"]
    assert {name for name, event in told(news)[: told(news).index(("c", "start"))]} == {"a", "b"}
    assert {(tmp_path / f"{name}.pid").read_text().split()[1] for name in "abc"} == {"3"}


def pids(folder: Path, name: str) -> tuple[int, int]:
    """The process of a task and that one's parent, once it has said so."""
    file = folder / f"{name}.pid"
    while not file.exists():
        time.sleep(0.01)
    process, _, parent = file.read_text().split()
    return int(process), int(parent)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has asked for its status yet does not."""
    import psutil

    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(pid: int) -> bool:
    """Whether a process ends, in a while."""
    for _ in range(1000):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("what", ["wait", "end"])
def test_no_child_outlives_the_one_who_listens(tmp_path: Path, what: str, forks: bool) -> None:
    news = run_batches([tasks(tmp_path, a=what), tasks(tmp_path, b=what)], jobs=2)
    seen: list[News] = []
    while {item.task.name for item in seen if item.event == "step"} != {"a", "b"}:
        seen.append(next(news))
    processes = [pid for name in "ab" for pid in pids(tmp_path, name)[: 1 + forks]]
    assert len(processes) == 2 + 2 * forks and all(alive(pid) for pid in processes)
    while what == "end" and len(list(tmp_path.glob("*.listens"))) < 2:
        time.sleep(0.01)
    news.close()
    assert all(gone(pid) for pid in processes)
    assert len(list(tmp_path.glob("*.kept"))) == (2 if what == "end" and sys.platform != "win32" else 0)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lora_clf.experiment import child\n"
        f"child.START = {child.START!r}\n"
        "request = {'name': 'a', 'do': 'wait', 'folder': sys.argv[1]}\n"
        "for item in child.run_batches([[child.Task('a', 'lora', request)]]): pass\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as process:
        run, parent = pids(tmp_path, "a")
        assert alive(run)
        process.kill()
        process.wait()
        assert gone(run) and gone(parent)


def test_a_worker_ends_with_its_parent() -> None:
    code = (
        "import threading, time\n"
        "from lora_clf.experiment.worker import _end_with_parent\n"
        "threading.Thread(target=_end_with_parent, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    words: Any = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().strip() == b"ready" and process.poll() is None
        process.stdin.close()  # as the system does when a parent is killed
        assert process.wait(120) == 1


def test_threads_are_the_cores_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert threads_each(1, None) is None and threads_each(1, 2) == 2
    assert [threads_each(jobs, None) for jobs in (2, 3, 9)] == [4, 2, 1] and threads_each(4, 3) == 3
    for jobs, threads in ((0, None), (1, 0)):
        with pytest.raises(UsageError, match="expected at least 1"):
            threads_each(jobs, threads)


def test_the_clock_counts_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock({"lora": 10.0, "lora k=4": 2.0}, ["lora", "lora", "lora k=4", "lora k=4"], jobs=2)
    assert clock.left() == 12.0 and clock.sentence() == "4 runs, about 10 s"
    clock.start("a", "lora")
    clock.start("b", "lora")
    clock.step("a", 0.5)
    assert clock.left() == pytest.approx((5 + 10 + 4) / 2)
    now = 120.0
    clock.stop("a")  # it took twice as long as was thought: so will the others
    assert clock.left() == pytest.approx((20 + 2 * 4) / 2)
    clock.stop("b")
    clock.drop("lora k=4")
    assert clock.left() == pytest.approx(4.0)  # one is left, so nothing is done beside it
    clock.drop("lora k=4")
    assert clock.left() == 0 and clock.sentence().startswith("Nothing is left")
