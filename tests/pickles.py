"""No unpickling in our own paths: Python reports each, and one with a frame of ours above it fails the test.

What other libraries do while they are imported, and what multiprocessing sends between our own processes, is theirs.
An audit hook cannot be taken off again, so it is put on once a process. Processes that a test starts get it too
(tests/children/sitecustomize.py); what they find they write into a file, since nobody may look at how they end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Final

EVENT: Final = "pickle.find_class"
OURS: Final = "lora_clf"
THEIRS: Final = ("importlib", "multiprocessing", "concurrent", "xdist", "execnet")

found: list[str] = []
"""What was unpickled with a frame of ours above it, in this process, since a test last looked."""


CHILDREN: Final = Path(__file__).resolve().parent / "children"
FILE_VARIABLE: Final = "LORA_CLF_TESTS_UNPICKLED"
"""Names the file in which processes that a test starts write what they found."""


class Unpickled(RuntimeError):
    """Not one of the library's errors, so that nothing in it takes it for a damaged file."""


def guilty(frame: FrameType | None) -> str | None:
    """The module of ours that asked for what ``frame`` does; None where another library's own business lies between."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] in THEIRS or "importlib" in frame.f_code.co_filename:
            return None
        if module.split(".")[0] == OURS:
            return module
        frame = frame.f_back
    return None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == EVENT and (module := guilty(sys._getframe(1))) is not None:
        said = f"{module} had {'.'.join(map(str, arguments))} unpickled"
        found.append(said)
        if file := os.environ.get(FILE_VARIABLE):
            with open(file, "a", encoding="utf-8") as stream:
                stream.write(f"{os.getpid()}: {said}\n")
        raise Unpickled(said)


_ON: Final = "_lora_clf_watches_pickles"


def watch() -> None:
    """Put the hook on, once."""
    if not hasattr(sys, _ON):
        setattr(sys, _ON, True)
        sys.addaudithook(_hook)


def search_path(*folders: Path | str, without: str = "") -> str:
    """PYTHONPATH of a process that a test starts: the hook, ``folders``, and what the tests have but ``without``."""
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part not in ("", without)]
    return os.pathsep.join(dict.fromkeys([str(CHILDREN), *map(str, folders), *given]))


def told() -> list[str]:
    """What was unpickled below ours since the last look: here, and in processes that tests started."""
    said = list(found)
    found.clear()
    file = Path(os.environ[FILE_VARIABLE])
    if file.exists():
        said += [
            line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith(f"{os.getpid()}:")
        ]
        file.unlink()
    return said
