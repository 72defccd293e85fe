"""Children for fault injection: forked from a warm process, killed at a moment or at the n-th system call of some work.

What trains is forked from a process that has not trained. System calls are counted through ptrace, so what a library
writes from C or Rust counts like what Python writes. Linux on x86-64.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

TRACEME, PEEKUSER, SYSCALL, SETOPTIONS = 0, 3, 24, 0x4200
SYSGOOD_AND_EXITKILL: Final = 0x100001
NUMBER, FIRST, SECOND, THIRD = (
    15 * 8,
    14 * 8,
    13 * 8,
    12 * 8,
)  # places of orig_rax, rdi, rsi and rdx among the registers
# Calls that change what is on the disk, or see to it that it is there.
CHANGES: Final = {
    1: "write", 18: "pwrite", 20: "writev", 296: "pwritev", 40: "sendfile", 326: "copy_file_range",
    76: "truncate", 77: "ftruncate", 285: "fallocate", 74: "fsync", 75: "fdatasync", 26: "msync",
    82: "rename", 264: "renameat", 316: "renameat2", 83: "mkdir", 258: "mkdirat", 84: "rmdir", 87: "unlink",
    263: "unlinkat", 85: "creat", 86: "link", 265: "linkat", 88: "symlink", 266: "symlinkat",
    90: "chmod", 91: "fchmod", 268: "fchmodat", 280: "utimensat",
}  # fmt: skip
OPENS: Final = {2: SECOND, 257: THIRD}  # open, openat: the place of their flags


def can_trace() -> bool:
    """Whether system calls can be counted here."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def forked(work: Callable[[], Any]) -> tuple[int, int]:
    """Start ``work`` in a child; its process number, and the end of a pipe on which its result comes as JSON."""
    here, there = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(there)
        return child, here
    status = 1
    try:
        os.close(here)
        try:
            answer = {"done": work()}
        except Exception as error:
            trace = "" if isinstance(error, RuntimeError) else traceback.format_exc(limit=-2)
            answer = {"failed": f"{type(error).__name__}: {error}", "trace": trace}
        with os.fdopen(there, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
        status = 0
    finally:
        os._exit(status)


def outcome(child: int, pipe: int) -> dict[str, Any]:
    """What a child said once it ended: ``done`` or ``failed``, or ``killed`` with the number of the signal."""
    with os.fdopen(pipe, encoding="utf-8") as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"killed": os.WTERMSIG(status)}
    return dict(json.loads(text)) if text else {"failed": f"it ended with {status}"}


def in_fork(work: Callable[[], Any]) -> dict[str, Any]:
    """`outcome` of ``work`` in a child."""
    return outcome(*forked(work))


def killed_after(work: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """`outcome` of ``work`` in a child that gets ``kill -9`` after so many seconds of the processor's time.

    Not of the clock's: on a busy machine a child may wait most of its time.
    """
    child, pipe = forked(work)
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if processor_seconds(child) >= seconds:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    return outcome(child, pipe)


def processor_seconds(process: int) -> float:
    """The processor's time that a process has taken."""
    with open(f"/proc/{process}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


def killed_at_call(work: Callable[[], Any], call: int) -> str | None:
    """Do ``work`` in a child that is killed when it makes its ``call``-th system call that changes the disk.

    Returns:
        The name of the call, which is not carried out any more; None where the work was done with fewer.
    """
    child = os.fork()
    if not child:
        try:
            _ptrace(TRACEME, 0, 0, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    _ptrace(SETOPTIONS, child, 0, SYSGOOD_AND_EXITKILL)
    entering, count, passed = True, 0, 0
    while True:
        _ptrace(SYSCALL, child, 0, passed)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            raise RuntimeError(f"signal {os.WTERMSIG(status)} ended the work")
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise RuntimeError("the work failed by itself")
            return None
        stopped = os.WSTOPSIG(status)
        passed = 0 if stopped == signal.SIGTRAP | 0x80 else stopped
        if passed:
            continue
        if entering and (found := _change(child)) is not None:
            count += 1
            if count == call:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return found
        entering = not entering


def _change(child: int) -> str | None:
    """The name of the system call that ``child`` is about to make, where it changes the disk."""
    number = _ptrace(PEEKUSER, child, NUMBER, 0)
    if number in OPENS:
        flags = _ptrace(PEEKUSER, child, OPENS[number], 0)
        return "open" if flags & (os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR) else None
    return CHANGES.get(number)


def _ptrace(request: int, child: int, address: int, data: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    ctypes.set_errno(0)
    found = int(library.ptrace(request, child, address, data))
    if found == -1 and (error := ctypes.get_errno()):
        raise OSError(error, os.strerror(error))
    return found
