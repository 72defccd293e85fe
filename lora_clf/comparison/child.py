"""Starts a cell in a process of its own and listens to what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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
runpy.run_module("lora_clf.comparison.cell", run_name="__main__", alter_sys=True)
"""


def start_cell(
    cell: Cell, folder: Path, adapter: Path | None, step: Callable[[dict[str, Any]], None], dtype: str = "fp32"
) -> Failure | None:
    """Run one cell in a child process; None where it is done, otherwise what went wrong."""
    request = {
        "cell": cell.to_json(),
        "folder": str(folder),
        "adapter": str(adapter) if adapter else None,
        "dtype": dtype,
    }
    last: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        _child(complaints) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        try:
            json.dump(request, child.stdin)
            child.stdin.close()
        except BrokenPipeError:
            pass  # it died at once; its last words say why
        for line in child.stdout:
            last = json.loads(line)
            if last["event"] == "progress":
                step(last)
        status = child.wait()
        complaints.seek(0)
        words = complaints.read().strip().splitlines()
    if status == 0 and last.get("event") == "done":
        return None
    if last.get("event") == "failed":
        return Failure(cell.name, cell.contender.label, last["error"], last["message"])
    if status < 0:
        reason = f"ended by signal {-status}" + (", probably for lack of memory" if status == -9 else "")
    else:
        reason = f"ended with status {status}: {words[-1] if words else 'without a word'}"
    return Failure(cell.name, cell.contender.label, "ChildProcess", reason)


@contextmanager
def _child(complaints: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A child process that does not outlive this block, however it is left."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", START, str(Path(__file__).resolve().parents[2])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        encoding="utf-8",
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
