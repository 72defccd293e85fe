"""The other end of `lora_clf.comparison.child`: ``python -m lora_clf.comparison.worker``, JSON in and out.

The request comes as one line of JSON on stdin: ``{"tasks": [...]}``, each a cell or a trial. Events go to stdout, one
JSON object a line, with the task's number: first some with ``"event": "progress"``, at last one with ``"done"`` or
``"failed"``; then the next task begins. What was found lies in the task's folder. Stdin stays open as long as the
parent lives: when it ends, so does this process, whatever it is at.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_clf.comparison.materials import Materials
from lora_clf.errors import LoraClfError

Say = Callable[[dict[str, Any]], None]


def work(task: dict[str, Any], say: Say, materials: Materials) -> None:
    """Do one task."""
    if task["kind"] == "trial":
        from lora_clf.comparison.tuning import Trial, run_trial

        run_trial(Trial.from_json(task["trial"]), Path(task["folder"]), say, materials, task["every"])
        return
    from lora_clf.comparison.cell import run_cell
    from lora_clf.comparison.plan import Cell

    adapter = Path(task["adapter"]) if task["adapter"] else None
    run_cell(Cell.from_json(task["cell"]), Path(task["folder"]), adapter, say, task["dtype"], materials, task["every"])


def main() -> int:
    """Do what the request on stdin says; 0 where it could be read and somebody listened to the end."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed must not mix with the events
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches the parent too, which then ends this process by SIGTERM: once, so that a step can come to its end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    materials = Materials()
    for number, task in enumerate(request["tasks"]):

        def say(event: dict[str, Any], number: int = number) -> None:
            channel.write(json.dumps({"task": number, **event}) + "\n")
            channel.flush()

        try:
            work(task, say, materials)
        except BrokenPipeError:  # nobody listens any more
            return 1
        except Exception as error:
            if not isinstance(error, LoraClfError):
                traceback.print_exc()
            say({"event": "failed", "error": type(error).__name__, "message": str(error)})
        else:
            say({"event": "done"})
    return 0


def _end_with_parent() -> None:
    """Wait until the parent is gone; a file half written then is beside its place, and nobody takes it for whole."""
    while os.read(0, 4096):  # not sys.stdin: its lock, held by a thread, would stop the interpreter from ending
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
