"""Ctrl-C and SIGTERM, held back for as long as a training step moves the weights.

A step that is torn apart leaves weights and optimizer that belong to no moment of the run. So the signal waits for the
end of the step, which then ends as if it had come there; a second one does not wait.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM: the machine or its scheduler wants the process to end, which it does as after Ctrl-C."""


def terminate(number: int, frame: FrameType | None) -> None:
    """A handler for SIGTERM outside training: what is half-written is cleared up, as after Ctrl-C."""
    raise Terminated


class Interruption:
    """A context in which the two signals wait for the end of a step; outside the main thread it does nothing.

    Handlers that a program has set for itself are left in place.

    Attributes:
        torn: whether a step was begun that did not come to its end.
    """

    def __init__(self) -> None:
        self.torn = False
        self._asked: type[KeyboardInterrupt] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Take the signals over, where nobody else has."""
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._arrived)
            if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, terminate):
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        while self._before:
            signal.signal(*self._before.popitem())

    @contextmanager
    def held(self) -> Iterator[None]:
        """A step: a signal that comes inside is raised at its end."""
        self.torn = True
        yield
        self.torn = False
        if self._asked is not None:
            raise self._asked

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.torn and self._asked is None:
            self._asked = kind
            return
        raise kind
