"""One checkpoint on disk: a folder that is written whole or not at all, and used only where every byte verifies.

``run.json`` says where the run stood; ``weights``, ``optimizer``, ``best`` and ``strategy.safetensors`` hold the
tensors (those of the four that have any); ``manifest.json``, written last, the size and the SHA-256 of each. There is
no pickle: nothing in a checkpoint can be executed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from lora_clf.adapters.disk import fill_in_place_of
from lora_clf.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MANIFEST: Final = "manifest.json"
RUN: Final = "run.json"
FORMAT: Final = 1
_MANIFEST_CAP: Final = 1 << 16  # bytes; ours has some hundred
_SUFFIX: Final = ".safetensors"
_NAME: Final = re.compile(r"[a-z]{1,20}\.(json|safetensors)")
_DTYPES: Final = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a run.

    Attributes:
        facts: what JSON can hold: where the run stood, what it was of, its history.
        tensors: by file (weights, optimizer, best, strategy) and name.
    """

    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]


def storable(dtype: torch.dtype) -> bool:
    """Whether a checkpoint can hold tensors of this type."""
    return str(dtype).removeprefix("torch.") in _DTYPES


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as the new folder ``folder``: afterwards it is there whole and on the disk, or not at all.

    Raises:
        CheckpointError: the disk is full or read-only, or the like.
    """
    try:
        fill_in_place_of(folder, lambda incoming: _fill(incoming, checkpoint), replace=False)
    except OSError as error:
        raise CheckpointError(
            f"No checkpoint could be written to {folder.parent}: {error.strerror or error}."
        ) from error


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    files = {}
    for stem, tensors in checkpoint.tensors.items():
        if tensors:
            files[f"{stem}{_SUFFIX}"] = _write(folder / f"{stem}{_SUFFIX}", tensors)
    files[RUN] = _write(folder / RUN, json.dumps(checkpoint.facts, sort_keys=True, indent=1).encode())
    # Last, and after the others are on the disk: where it is, they are.
    manifest = json.dumps({"format": FORMAT, "files": files}, sort_keys=True, indent=1)
    _write(folder / MANIFEST, manifest.encode())


def _write(path: Path, content: bytes | Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a file and see it onto the disk; its size and digest."""
    with open(path, "xb") as file:
        stream = _Stream(file)
        if isinstance(content, bytes):
            stream.write(content)
        else:
            _write_tensors(stream, content)
        file.flush()
        os.fsync(file.fileno())
        written = os.fstat(file.fileno()).st_size
    if written != stream.size:  # a disk that takes less than it says
        raise OSError(errno.EIO, f"{path.name} has {written:,} bytes of {stream.size:,} that were written")
    return {"size": stream.size, "sha256": stream.digest.hexdigest()}


class _Stream:
    """A file that is written, with the size and the digest of what went into it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)


def _write_tensors(stream: _Stream, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, one tensor after another: at most one of them is copied at a time."""
    import torch

    table: dict[str, Any] = {}
    place = 0
    # The widest numbers first, so that each is aligned.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        kind = _DTYPES[str(tensor.dtype).removeprefix("torch.")]
        table[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    stream.write(len(head).to_bytes(8, "little") + head)
    for name in order:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            stream.write(flat.view(torch.uint8).numpy().data)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint of which every file is what was written.

    Raises:
        CheckpointError: it is not whole and unchanged, or of a newer version; the message is one clause.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        files = _manifest(_read(folder / MANIFEST, cap=_MANIFEST_CAP))
        contents = {}
        for name, (size, digest) in files.items():
            content = _read(folder / name, size=size)
            if hashlib.sha256(content).hexdigest() != digest:
                raise CheckpointError(f"{name} is not what was written")
            contents[name] = content
        facts = json.loads(contents.pop(RUN))
        tensors = {name.removesuffix(_SUFFIX): load(content) for name, content in contents.items()}
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, (str, os.PathLike)) else "a file"
        raise CheckpointError(f"{name} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"a file of it cannot be understood ({error})") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{RUN} holds no JSON object")
    return Checkpoint(facts, tensors)


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``run.json`` says, with nothing verified: for a line to people.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        facts = json.loads(_read(folder / RUN))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{RUN} in {folder} cannot be read") from error
    return facts if isinstance(facts, dict) else {}


def _read(path: Path, *, size: int | None = None, cap: int | None = None) -> bytes:
    """The bytes of a plain file, of ``size`` bytes where that is known, and of at most ``cap``."""
    # Not blocking: a pipe in place of a file would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path.name} is no plain file")
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        if (size is not None and status.st_size != size) or (cap is not None and status.st_size > cap):
            expected = f"{size:,}" if size is not None else f"at most {cap:,}"
            raise CheckpointError(f"{path.name} has {status.st_size:,} bytes, expected {expected}")
        content = file.read(status.st_size)
    if len(content) != status.st_size:
        raise CheckpointError(f"{path.name} ends after {len(content):,} of {status.st_size:,} bytes")
    return content


def _manifest(text: bytes) -> dict[str, tuple[int, str]]:
    """Size and digest of each file."""
    value = json.loads(text)
    if value["format"] != FORMAT:
        raise CheckpointError(f"it is of format {value['format']}, this version reads {FORMAT}")
    files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in value["files"].items()}
    if RUN not in files or not all(_NAME.fullmatch(name) and size >= 0 for name, (size, _) in files.items()):
        raise CheckpointError(f"{MANIFEST} names files that a checkpoint does not have")
    return files
