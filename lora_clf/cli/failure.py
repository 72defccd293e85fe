"""What a person sees when something goes wrong: one clear line on stderr and an exit status, no traceback."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import typer

from lora_clf.errors import LoraClfError
from lora_clf.training.interruption import Terminated, terminate

TRACEBACK = "LORA_CLF_TRACEBACK"
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
TERMINATED = 143  # and for one that SIGTERM ended

# Of files and servers, whose words errors repeat.
_MOVES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# typer brings its own copy of click's errors or uses click's, depending on its version.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, its cause, on its way past typer; its text, if any, is what the person is told."""


def guard(run: Callable[[], object]) -> int:
    """Run a command and return its exit status; whatever it raises becomes a line on stderr.

    SIGTERM ends it as Ctrl-C does, unless the program that calls this has a handler of its own.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, terminate)
    try:
        return _guarded(run)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _guarded(run: Callable[[], object]) -> int:
    try:
        status = run()
        sys.stdout.flush()  # here, where a closed pipe can still be met quietly
        return status if isinstance(status, int) else 0
    except (Interrupted, KeyboardInterrupt, typer.Abort) as interrupt:
        say(str(interrupt) or "Interrupted; nothing half-written is left behind.")
        terminated = isinstance(interrupt, Terminated) or isinstance(interrupt.__cause__, Terminated)
        return TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
        return 1
    except SystemExit as error:  # typer's answer to a closed pipe
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:
        if os.environ.get(TRACEBACK):
            import traceback

            traceback.print_exc()
        text, status = describe(error)
        if text:
            say(f"Error: {text}")
        return status


def describe(error: Exception) -> tuple[str, int]:
    """The text, empty where all is said, and the exit status for an error."""
    if isinstance(error, LoraClfError):
        text = str(error).strip() or type(error).__name__
        return text, error.exit_status
    if isinstance(error, _CommandLineError):
        return _usage(error), 2
    if isinstance(error, ValueError) and str(error) == "embedded null byte":  # of the system's own calls
        return "The name of a file or folder has a NUL character in it, which no name can have.", 2
    if isinstance(error, RuntimeError) and str(error) == "Could not determine home directory.":
        return "A name begins with ~ and a user whom this machine does not know. Write the folder out.", 2
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}.", 1
    hint = "" if os.environ.get(TRACEBACK) else f" {TRACEBACK}=1 shows where."
    message = _one_line(str(error)).rstrip(".")
    return f"Unexpected {type(error).__name__}{f': {message}' if message else ''}.{hint}", 1


def _usage(error: Exception) -> str:
    """A wrong flag or command, with the nearest that exists and where the help is."""
    text = _one_line(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    if not text:  # a group without a command: its help was shown
        return ""
    problems = getattr(error.__cause__, "errors", None)  # typer checks values by pydantic, which keeps what came
    if callable(problems):
        found = problems()[0]
        text = f"{_flag(error)}{found['input']}: {_one_line(found['msg']).replace('Input should be', 'expected')}"
        text = text.split(", unable to parse")[0]
    near = sorted(getattr(error, "possibilities", None) or ())
    if near:
        text = f"{error.message.rstrip('.')}. Did you mean {' or '.join(near)}?"  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    hint = f" See '{context.command_path} --help'." if context is not None else ""
    return f"{text}{'' if text.endswith('?') else '.'}{hint}"


def _flag(error: Exception) -> str:
    names = getattr(getattr(error, "param", None), "opts", None)
    return f"{max(names, key=len)} " if names else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def say(text: str) -> None:
    """Write a line to stderr, whatever stderr can show; what would move the cursor is spelt out."""
    text = still(text)
    with suppress(OSError, ValueError):
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()


def _close_stdout() -> None:
    """Send what is still buffered nowhere: the reader of the pipe has gone."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def still(text: str) -> str:
    """``text`` with what would move a terminal's cursor, or change its colours, spelt out."""
    return _MOVES.sub(lambda found: ascii(found[0])[1:-1], text)
