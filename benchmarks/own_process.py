"""A side of a comparison in a process of its own, as people run it.

In one process each recipe leaves something for the other: thresholds and free blocks of the heap, the state of a
library. So the process of a side does nothing else; it lives as long as the comparison, waits for its turn on its
standard input, and ends when that is closed, whatever became of the comparison and whatever it is at.

    with OwnProcess(SCRIPT, ["--side", "ours"]) as side:    # SCRIPT ends with answer(side) in such a process
        seconds = side()
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from paired import Timing, ended


class OwnProcess:
    """A side that runs elsewhere.

    Args:
        script: what the process runs. It calls `answer` once it is ready to be timed.
        arguments: its command line.
    """

    def __init__(self, script: Path, arguments: Sequence[str]) -> None:
        self.script, self.arguments = script, list(arguments)
        self.timing: Timing | None = None

    def __enter__(self) -> OwnProcess:
        """Start the process and wait until it is ready.

        Raises:
            RuntimeError: it ended before; the message ends with its last words.
        """
        self._words = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._child = subprocess.Popen(
            [sys.executable, str(self.script), *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            encoding="utf-8",
        )
        try:
            self._said()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __call__(self) -> float:
        """The seconds that the side counts.

        Raises:
            RuntimeError: the process ended; the message ends with its last words.
        """
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and its last words say why
            self._child.stdin.write("run\n")
            self._child.stdin.flush()
        said = self._said()
        self.timing = Timing(**said["timing"]) if said["timing"] else None
        return float(said["seconds"])

    def __exit__(self, *_: object) -> None:
        """End the process."""
        assert self._child.stdin is not None and self._child.stdout is not None
        with suppress(BrokenPipeError):
            self._child.stdin.close()
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._words.close()

    def _said(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        if line := self._child.stdout.readline():
            said: dict[str, Any] = json.loads(line)
            return said
        status = self._child.wait()
        self._words.seek(0)
        raise ended(self.script, self.arguments, status, self._words.read())


def answer(side: Callable[[], float]) -> None:
    """Run ``side`` each time that the comparison asks for it, and tell it the seconds and the timing; until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    asked: SimpleQueue[bool] = SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        while os.read(0, 4096):
            asked.put(True)
        if busy.is_set():  # a comparison that was killed leaves nothing at work
            os._exit(1)
        asked.put(False)

    threading.Thread(target=listen, daemon=True).start()
    told: dict[str, Any] = {}
    while True:
        answers.write(json.dumps(told) + "\n")
        answers.flush()
        if not asked.get():
            return
        busy.set()
        gc.collect()
        seconds = side()
        timing = getattr(side, "timing", None)
        told = {"seconds": seconds, "timing": timing and asdict(timing)}
        busy.clear()
