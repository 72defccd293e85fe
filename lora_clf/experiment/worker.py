"""The other end of `lora_clf.experiment.child`: ``python -m lora_clf.experiment.worker``, JSON in and out.

A request comes as one line of JSON on stdin: ``{"tasks": [...]}``, each a cell or a trial. Events go to stdout, one
JSON object a line, with the task's number: first some with ``"event": "progress"``, at last one with ``"done"`` or
``"failed"``; then the next task begins. What was found lies in the task's folder.

To import the libraries takes longer than many a run. So this process imports them and does no more: for every request
it forks another, which does the tasks, says ``"event": "ended"`` with that one's status, and waits for the next
request. Where that is not safe (`forks`) it does the tasks of one request itself, and ends. ``"event": "ready"`` comes
before the first task of a request, once what is imported only once is there.

Stdin stays open as long as the parent lives: when it ends, so do these processes, whatever task they are at.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from lora_clf.errors import LoraClfError
from lora_clf.experiment.materials import Materials

Say = Callable[[dict[str, Any]], None]
PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
IMPORTED: Final = (  # before a process is forked; nothing in them computes or starts a thread that a fork would miss
    "torch",
    "transformers.modeling_utils",
    "lora_clf.adapters.adapter",
    "lora_clf.experiment.cell",
    "lora_clf.experiment.tuning",
    "lora_clf.data.dataset",
    "lora_clf.training.loop",
)


def work(task: dict[str, Any], say: Say, materials: Materials) -> None:
    """Do one task."""
    if task["kind"] == "trial":
        from lora_clf.experiment.tuning import Trial, run_trial

        run_trial(Trial.from_json(task["trial"]), Path(task["folder"]), say, materials, task["every"])
        return
    from lora_clf.comparison.plan import Cell
    from lora_clf.experiment.cell import run_cell

    adapter = Path(task["adapter"]) if task["adapter"] else None
    run_cell(Cell.from_json(task["cell"]), Path(task["folder"]), adapter, say, task["dtype"], materials, task["every"])


def main() -> int:
    """Do what the requests on stdin say; 0 where they could be read and somebody listened to the end."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed must not mix with the events
    # Ctrl-C reaches the parent too, which then ends this process by SIGTERM: once, so that a step can come to its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = sys.stdin.readline()
    try:
        if not forks():
            said(channel, {"event": "ready"})
            return do(json.loads(request), channel)
        prepare()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by who started all this, it would take the status away
        while request:
            said(channel, {"event": "ready"})
            said(channel, {"event": "ended", "status": forked(json.loads(request), channel)})
            request = sys.stdin.readline()
    except BrokenPipeError:  # nobody listens any more
        return 1
    return 0


def prepare() -> None:
    """Import what a run needs."""
    for name in IMPORTED:
        importlib.import_module(name)


def forks() -> bool:
    """Whether a process that has imported the libraries can be forked: on Linux, on a machine without a GPU."""
    if sys.platform != "linux":
        return False
    import torch

    return not torch.cuda.is_available()


def forked(request: dict[str, Any], channel: IO[str]) -> int:
    """Do the tasks in a forked process, which does not outlive this one; its status, negative for a signal."""
    sys.stdout.flush()
    sys.stderr.flush()
    here = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until both know what to do at it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: OpenBLAS looks after its own
        child = os.fork()
    if not child:
        _leave(here, lambda: do(request, channel))

    def stop(*_: object) -> None:
        """Hand on SIGTERM, wait for the step that comes to its end, and end as well."""
        with suppress(ProcessLookupError, ChildProcessError):  # it has just ended
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(here, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(worker: int, last: Callable[[], int]) -> NoReturn:
    """End this process with what ``last`` returns, without the clearing up that is the worker's, or with the worker."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if os.getppid() == worker:
            status = last()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def do(request: dict[str, Any], channel: IO[str]) -> int:
    """Do the tasks of a request in this process; 0 at the end.

    Raises:
        BrokenPipeError: nobody listens any more.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    materials = Materials()
    for number, task in enumerate(request["tasks"]):

        def say(event: dict[str, Any], number: int = number) -> None:
            said(channel, {"task": number, **event})

        try:
            work(task, say, materials)
        except BrokenPipeError:
            raise
        except Exception as error:
            if not isinstance(error, LoraClfError):
                traceback.print_exc()
            say({"event": "failed", "error": type(error).__name__, "message": str(error)})
        else:
            say({"event": "done"})
    return 0


def said(channel: IO[str], event: dict[str, Any]) -> None:
    """Tell the parent one thing."""
    channel.write(json.dumps(event) + "\n")
    channel.flush()


def _end_with_parent() -> None:
    """Wait until the parent is gone; a file half written then is beside its place, and nobody takes it for whole."""
    while os.read(0, 4096):  # not sys.stdin: its lock, held by a thread, would stop the interpreter from ending
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
