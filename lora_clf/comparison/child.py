"""Starts units of work in processes of their own, some at a time, and listens to what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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
runpy.run_module("lora_clf.comparison.worker", run_name="__main__", alter_sys=True)
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


def start_cell(
    cell: Cell, folder: Path, adapter: Path | None, step: Callable[[News], None], dtype: str = "fp32"
) -> Failure | None:
    """Run one cell in a child process; None where it is done, otherwise what went wrong."""
    failure = None
    for news in run_batches([[task_of(cell, folder, adapter, dtype)]]):
        if news.event == "step":
            step(news)
        failure = failure or news.failure
    return failure


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
    heard: SimpleQueue[tuple[_Child, dict[str, Any] | None]] = SimpleQueue()
    working: list[_Child] = []
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                child = _Child(waiting.popleft(), threads, heard)
                working.append(child)
                yield News(child.tasks[0], "start")
            child, event = heard.get()
            if event is not None:
                yield from child.told(event)
                continue
            working.remove(child)
            failure = child.end()
            if failure is not None:
                yield News(child.tasks[child.place], "failed", failure=failure)
                if rest := child.tasks[child.place + 1 :]:
                    waiting.appendleft(rest)
    finally:
        for child in working:
            child.stop()


class _Child:
    """A process at work on a batch of tasks.

    Attributes:
        tasks: the batch.
        place: which of them it is at; their number when all are done.
    """

    def __init__(
        self, tasks: tuple[Task, ...], threads: int | None, heard: SimpleQueue[tuple[_Child, dict[str, Any] | None]]
    ) -> None:
        self.tasks = tasks
        self.place = 0
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see end()
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
        # Stdin stays open: it ends when this process does, however that happens, and then so does the child.
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once; its last words say why
            self._process.stdin.write(json.dumps({"tasks": [task.request for task in tasks]}) + "\n")
            self._process.stdin.flush()

    def _listen(self, heard: SimpleQueue[tuple[_Child, dict[str, Any] | None]]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):  # half a line of a child that was killed
                heard.put((self, json.loads(line)))
        heard.put((self, None))

    def told(self, event: dict[str, Any]) -> Iterator[News]:
        """What an event of the child means."""
        task = self.tasks[self.place]
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

    def end(self) -> Failure | None:
        """Wait for the child, which has nothing more to say; what went wrong where it left a task undone."""
        status = self._process.wait()
        self._complaints.seek(0)
        words = self._complaints.read().strip().splitlines()
        self._close()
        if self.place == len(self.tasks):
            return None
        task = self.tasks[self.place]
        if status < 0:
            reason = f"ended by signal {-status}" + (", probably for lack of memory" if status == -9 else "")
        else:
            reason = f"ended with status {status}: {words[-1] if words else 'without a word'}"
        return Failure(task.name, task.label, "ChildProcess", reason)

    def stop(self) -> None:
        """End the child in the middle of its work."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._close()

    def _close(self) -> None:
        self._listener.join(10)
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            if stream is not None:
                with suppress(OSError):  # what could not be written to a child that is gone
                    stream.close()
