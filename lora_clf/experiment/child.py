"""Starts units of work in processes of their own, some at a time, and listens to what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lora_clf.comparison.comparison import Failure
from lora_clf.comparison.plan import Cell

# -P keeps the folder where the user stands out of the child's path: a random.py there is not Python's. This
# package, installed or in a checkout, goes behind the standard library and before what is installed.
START = """
import runpy, sys
folder = sys.argv.pop()
places = [place for place, entry in enumerate(sys.path) if entry.endswith(("site-packages", "dist-packages"))]
if folder not in sys.path:
    sys.path.insert(places[0] if places else len(sys.path), folder)
runpy.run_module("lora_clf.experiment.worker", run_name="__main__", alter_sys=True)
"""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """One unit of work for a child.

    Attributes:
        name: the unit's.
        label: the contender's.
        request: what the child is told.
    """

    name: str
    label: str
    request: dict[str, Any]


@dataclass(frozen=True)
class News:
    """What became of a task.

    Attributes:
        event: "start", "step", "done" or "failed".
        step, steps: of the task, where it is a step.
        failure: where it failed.
    """

    task: Task
    event: str
    step: int = 0
    steps: int = 0
    failure: Failure | None = None


def task_of(
    cell: Cell, folder: Path, adapter: Path | None = None, dtype: str = "fp32", every: int | str = "60s"
) -> Task:
    """The task of running one cell, with a checkpoint ``every`` so many steps or so much time."""
    request = {
        "kind": "cell",
        "cell": cell.to_json(),
        "folder": str(folder),
        "adapter": str(adapter) if adapter else None,
        "dtype": dtype,
        "every": every,
    }
    return Task(cell.name, cell.contender.label, request)


def run_batches(
    batches: Iterable[Sequence[Task]], jobs: int = 1, threads: int | None = None
) -> Generator[News, None, None]:
    """Run batches of tasks, each batch in one process, ``jobs`` processes at a time; tells what becomes of each task.

    A task that fails does not stop those behind it. Where a process dies, the task it was at has failed and the rest of
    its batch goes to another. When the generator is closed no child is left.

    Args:
        batches: tasks that share what they load; a batch of one has a process of its own.
        jobs: how many processes at a time.
        threads: of each process; None leaves what the environment says.
    """
    waiting = deque(tuple(batch) for batch in batches if batch)
    heard: SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = SimpleQueue()
    working: list[_Worker] = []
    idle: list[_Worker] = []
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                worker = idle.pop() if idle else _Worker(threads, heard)
                working.append(worker)
                worker.begin(waiting.popleft())
            worker, event = heard.get()
            if event is not None and event["event"] != "ended":
                yield from worker.told(event)
                continue
            if worker in idle:  # it died with nothing to do
                idle.remove(worker)
                worker.stop()
                continue
            working.remove(worker)
            if event is None and worker.batches > 1 and not worker.ready:  # it had died before it got this one
                waiting.appendleft(worker.tasks)
                worker.stop()
                continue
            failure = worker.ended(event)
            if event is not None:
                idle.append(worker)
            if failure is not None:
                if not worker.ready:
                    yield News(worker.tasks[0], "start")
                yield News(worker.tasks[worker.place], "failed", failure=failure)
                if rest := worker.tasks[worker.place + 1 :]:
                    waiting.appendleft(rest)
    finally:
        for worker in [*working, *idle]:
            worker.stop()


class _Worker:
    """A process that has the tasks of one batch done, and of the next if it is still there.

    Attributes:
        tasks: the batch.
        place: which of them it is at; their number when all are done.
        batches: how many it has been given.
        ready: whether it has said that it begins with the batch.
    """

    def __init__(self, threads: int | None, heard: SimpleQueue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        self.tasks: tuple[Task, ...] = ()
        self.place = self.batches = 0
        self.ready = False
        self._complaints = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - see ended()
        self._heard_before = 0  # bytes of the complaints that are about earlier batches
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, str(Path(__file__).resolve().parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=None if threads is None else {**os.environ, **dict.fromkeys(THREADS, str(threads))},
        )
        self._listener = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self._listener.start()

    def _listen(self, heard: SimpleQueue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # half a line of a child that was killed
                heard.put((self, json.loads(line)))
        heard.put((self, None))

    def begin(self, tasks: tuple[Task, ...]) -> None:
        """Let it do a batch."""
        self.tasks, self.place, self.ready = tasks, 0, False
        self.batches += 1
        # Stdin stays open: it ends when this process does, however that happens, and then so does the child.
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once; its last words say why
            self._process.stdin.write(json.dumps({"tasks": [task.request for task in tasks]}) + "\n")
            self._process.stdin.flush()

    def told(self, event: dict[str, Any]) -> Iterator[News]:
        """What an event of the child means."""
        task = self.tasks[self.place]
        if event["event"] == "ready":
            self.ready = True
            yield News(task, "start")
            return
        if event["event"] == "progress":
            yield News(task, "step", event["step"], event["steps"])
            return
        self.place += 1
        if event["event"] == "failed":
            yield News(task, "failed", failure=Failure(task.name, task.label, event["error"], event["message"]))
        else:
            yield News(task, "done")
        if self.place < len(self.tasks):
            yield News(self.tasks[self.place], "start")

    def ended(self, event: dict[str, Any] | None) -> Failure | None:
        """What went wrong where the batch ended with a task undone; without an ``event`` the worker ended as well."""
        status = self._process.wait() if event is None else int(event["status"])
        self._complaints.seek(self._heard_before)
        complaints = self._complaints.read()
        self._heard_before += len(complaints)
        if event is None:
            self._close()
        if self.place == len(self.tasks):
            return None
        task = self.tasks[self.place]
        words = complaints.decode(errors="replace").strip().splitlines()
        if status < 0:
            reason = f"ended by signal {-status}" + (", probably for lack of memory" if status == -9 else "")
        else:
            reason = f"ended with status {status}: {words[-1] if words else 'without a word'}"
        return Failure(task.name, task.label, "ChildProcess", reason)

    def stop(self) -> None:
        """End the child, where it is at work in the middle of it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # what could not be written to a child that is gone
            self._process.stdin.close()  # at which a process that it forked and left behind ends
        self._listener.join(10)
        for stream in (self._process.stdout, self._complaints):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
