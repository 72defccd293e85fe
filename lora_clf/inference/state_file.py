"""One file of kept states: written whole or not at all, and never read as states when it is anything else.

The layout is that of safetensors, so that other tools can look inside: ``states`` (V, D), all texts' vectors one
after another; ``keys`` (N, 16), a digest of each text's ids; ``lengths`` (N,), how many vectors each text has;
``seconds`` (N,), what computing each took; ``digests`` (N, 16), of each text's bytes; and ``whole`` (32,), a digest
over the header and all of these but the states. There are no texts in it. A file never changes once it has its name,
so whoever has it open or mapped keeps what was there, even when it is replaced or dropped meanwhile.

Shapes: N texts, V vectors, D width.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lora_clf.inference.file_lock import hold

SUFFIX: Final = ".safetensors"
PART: Final = ".part-"  # how the name of a file begins that is still being written
KEY_BYTES: Final = 16
_WHOLE_BYTES: Final = 32
_FACTS: Final = "lora_clf"
_LONGEST_HEADER: Final = 1 << 20
_ALIGNMENT: Final = 64  # bytes; where the states begin, so that they can be mapped
_DTYPES: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_INDEX: Final = {"keys": KEY_BYTES, "lengths": 8, "seconds": 8, "digests": KEY_BYTES}  # bytes a text

Kept = tuple[Tensor, float]
"""A state, (T, D) or (D,), and the seconds that computing it took."""


class DamagedError(ValueError):
    """The file is not a whole and unchanged file of states; never leaves this room."""


class StateWriter:
    """Writes a new file of states, one text after another; where the disk does not take it, nothing is left.

    Attributes:
        failed: whether the disk did not take it.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], texts: int, vectors: int, size: int) -> None:
        """Begin a file in ``folder`` that will hold ``texts`` texts with ``vectors`` vectors in all.

        It has ``size`` bytes at once, the most that it can get, so that others see what is taken, and is locked, so
        that they see whether somebody still writes it.
        """
        self.failed = False
        self._facts, self._texts, self._vectors = facts, texts, vectors
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=PART)  # readable by its owner alone
        self._part = Path(name)
        hold(descriptor)
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        self._stream = os.fdopen(descriptor, "wb")
        self._header = b""
        self._form = torch.float32, 0  # the type of the numbers and the width of a vector
        self._added: list[tuple[bytes, bytes, int, float]] = []  # key, digest, length, seconds

    def add(self, key: bytes, state: Tensor, seconds: float) -> None:
        """Append a text's state."""
        data = _bytes_of(state)
        if not self._header:
            self._form = state.dtype, state.shape[-1]
            self._header = _header(self._facts, self._form, self._texts, self._vectors)
            self._write(self._header)
        self._write(data)
        digest = blake2b(data, digest_size=KEY_BYTES).digest()
        self._added.append((key, digest, 1 if state.ndim == 1 else len(state), seconds))

    def finish(self) -> None:
        """Put the file in its place."""
        assert len(self._added) == self._texts and sum(length for _, _, length, _ in self._added) == self._vectors
        self._end()

    def finish_early(self) -> None:
        """Put what was added so far in its place, as a file of no more than that; nothing is left where it is none."""
        if self.failed or not self._added:
            self.discard()
            return
        vectors = sum(length for _, _, length, _ in self._added)
        dtype, width = self._form
        self._header = _header(self._facts, self._form, len(self._added), vectors, len(self._header))
        try:
            self._stream.seek(0)
            self._write(self._header)
            # What is behind these states is of a text that was not added as a whole.
            self._stream.seek(len(self._header) + vectors * width * dtype.itemsize)
            self._end()
        except BaseException as error:
            self.discard()
            if not isinstance(error, OSError):
                raise

    def _end(self) -> None:
        """Write the index, and give the file its name."""
        keys, digests, lengths, seconds = zip(*self._added, strict=True)
        index = b"".join(
            (
                *keys,
                np.array(lengths, dtype="<i8").tobytes(),
                np.array(seconds, dtype="<f8").tobytes(),
                *digests,
            )
        )
        self._write(index + blake2b(self._header + index, digest_size=_WHOLE_BYTES).digest())
        if self.failed:
            return
        name = blake2b(b"".join(sorted(keys)), digest_size=16).hexdigest()
        try:
            self._stream.truncate()
            self._stream.flush()  # Not to the disk: what a power cut tears is found out by its digests.
            if os.name == "nt":  # where no open file is renamed
                self._stream.close()
            os.replace(self._part, self._part.with_name(name + SUFFIX))
            self._stream.close()  # last: with it goes the lock, and a part that nobody holds is taken for abandoned
        except OSError:
            self.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        self.failed = True
        with suppress(OSError):
            self._stream.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview) -> None:
        if not self.failed:
            try:
                self._stream.write(data)
            except OSError:
                self.discard()


@dataclass(frozen=True)
class StateFile:
    """The verified index of a file of states.

    Attributes:
        path: the file.
        facts: what besides the texts decides these states.
        keys: a digest of each text's ids.
        lengths: how many vectors each text has.
        seconds: what computing each took.
        digests: of each text's bytes.
        dtype: of the numbers.
        width: numbers a vector.
        start: where in the file the states begin.
        size: bytes of the file.
    """

    path: Path
    facts: dict[str, Any]
    keys: list[bytes]
    lengths: list[int]
    seconds: list[float]
    digests: list[bytes]
    dtype: torch.dtype
    width: int
    start: int
    size: int

    def read(self, places: list[int], *, mapped: bool) -> dict[bytes, Kept]:
        """The states of the texts at ``places``, each held to its digest.

        Args:
            places: which texts, by their place in the file.
            mapped: leave them in the file, mapped into memory, in place of reading them.

        Raises:
            DamagedError: a state is not what was written.
            OSError: the file is gone.
        """
        vector = self.width * self.dtype.itemsize
        offsets = [self.start + vector * count for count in accumulate(self.lengths, initial=0)]
        pooled = bool(self.facts.get("pooled"))
        found: dict[bytes, Kept] = {}
        with self.path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != self.size:
                raise DamagedError("replaced by another")
            # Copy on write: torch wants memory it may write to, and the file must never change.
            whole = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) if mapped else None
            for place in places:
                begin, end = offsets[place], offsets[place + 1]
                if whole is not None:
                    data, at = memoryview(whole)[begin:end], begin
                else:
                    stream.seek(begin)
                    data, at = memoryview(bytearray(stream.read(end - begin))), 0
                if len(data) != end - begin or blake2b(data, digest_size=KEY_BYTES).digest() != self.digests[place]:
                    raise DamagedError("its states are not those that were written")
                numbers = (end - begin) // self.dtype.itemsize
                source: Any = data.obj if whole is None else whole
                flat = torch.frombuffer(source, dtype=self.dtype, count=numbers, offset=at)
                state = flat if pooled else flat.view(-1, self.width)
                found[self.keys[place]] = state, self.seconds[place]
        return found


def read_index(path: Path) -> StateFile:
    """The index of a file of states; its states are not read yet.

    Raises:
        DamagedError: it is no whole file of states.
        OSError: it is gone, or cannot be read.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if not 0 < length <= _LONGEST_HEADER:
                raise DamagedError("its header has no length that a header has")
            head = stream.read(length)
            header = json.loads(head)
            facts = json.loads(header["__metadata__"][_FACTS])
            states, texts = header["states"], int(header["keys"]["shape"][0])
            vectors, width = (int(number) for number in states["shape"])
            dtype = _DTYPES[states["dtype"]]
            payload = vectors * width * dtype.itemsize
            tail = texts * sum(_INDEX.values())
            if min(texts, vectors, width) < 1 or size != 8 + length + payload + tail + _WHOLE_BYTES:
                raise DamagedError("it has not the size that its header says")
            stream.seek(8 + length + payload)
            index, whole = stream.read(tail), stream.read(_WHOLE_BYTES)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, struct.error) as error:
            raise DamagedError(str(error)) from error
    prefix = struct.pack("<Q", length) + head
    if blake2b(prefix + index, digest_size=_WHOLE_BYTES).digest() != whole:
        raise DamagedError("its index is not what was written")
    parts, at = {}, 0
    for name, wide in _INDEX.items():
        parts[name] = index[at : at + texts * wide]
        at += texts * wide
    lengths = np.frombuffer(parts["lengths"], dtype="<i8").tolist()
    if sum(lengths) != vectors or min(lengths) < 1:
        raise DamagedError("its lengths do not add up")
    return StateFile(
        path=path,
        facts=facts,
        keys=_cut(parts["keys"]),
        lengths=lengths,
        seconds=np.frombuffer(parts["seconds"], dtype="<f8").tolist(),
        digests=_cut(parts["digests"]),
        dtype=dtype,
        width=width,
        start=8 + length,
        size=size,
    )


def file_bytes(texts: int, numbers: int) -> int:
    """How large a file of ``texts`` texts with ``numbers`` numbers in their states gets at most."""
    return 4 * numbers + texts * sum(_INDEX.values()) + 8192


def _header(
    facts: Mapping[str, Any], form: tuple[torch.dtype, int], texts: int, vectors: int, length: int = 0
) -> bytes:
    """The length and the JSON of the header, so long that what follows is aligned, and ``length`` bytes at least."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    kind, width = form
    entries: dict[str, Any] = {_FACTS: json.dumps(facts, sort_keys=True)}
    header: dict[str, Any] = {"__metadata__": entries}
    shapes: dict[str, tuple[str, list[int], int]] = {
        "states": (names[kind], [vectors, width], vectors * width * kind.itemsize),
        "keys": ("U8", [texts, KEY_BYTES], texts * KEY_BYTES),
        "lengths": ("I64", [texts], texts * 8),
        "seconds": ("F64", [texts], texts * 8),
        "digests": ("U8", [texts, KEY_BYTES], texts * KEY_BYTES),
        "whole": ("U8", [_WHOLE_BYTES], _WHOLE_BYTES),
    }
    at = 0
    for name, (dtype, shape, size) in shapes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = max(length, math.ceil((8 + len(text)) / _ALIGNMENT) * _ALIGNMENT) - 8
    return struct.pack("<Q", padded) + text.ljust(padded)


def _bytes_of(state: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, without a copy; numpy knows no bfloat16."""
    return state.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]
