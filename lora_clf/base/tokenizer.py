"""Texts to token ids, in batch, the same way whatever base the tokenizer came with.

What a user writes is text: nothing in it becomes a special token, however it is spelled; what spells one at an end
of a text is left out (`lora_clf.base.edges`). The special tokens that a base wants around a text (``[CLS]``,
``</s>``) are put there afterwards, and stay when a text is cut.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from lora_clf.base import byte_pairs
from lora_clf.base.edges import Edges
from lora_clf.base.fast_tokenizer import FastTokenizer
from lora_clf.base.text import Side, Text, normalise
from lora_clf.errors import BaseNotFoundError, UnsupportedBaseError, UsageError

CHARACTERS_A_TOKEN: Final = 32  # what a text may have before it is cut; English has 4 to 5 a token
LEAST_CHARACTERS: Final = 1024
MAX_BYTES: Final = 1 << 28  # of a tokenizer file; the largest in use have 40 MB

_TAG: Final = "lora_clf tokenizer digest 1"
_BATCH: Final = 1024  # texts at once: what the backend keeps of each takes some kilobytes


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of texts, in the order of the texts.

    Attributes:
        ids: one array (T,) of int32 a text, at least one token each.
        truncated: (N,) bool, whether a part of the text is not in its ids: it was too long, or special tokens that it
            spells at its ends were left out.
    """

    ids: list[npt.NDArray[np.int32]]
    truncated: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each text."""
        return np.fromiter((len(row) for row in self.ids), dtype=np.int64, count=len(self.ids))

    @cached_property
    def firsts(self) -> npt.NDArray[np.int64]:
        """(N,) the first row with the same ids as each."""
        first: dict[bytes, int] = {}
        digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in self.ids)
        found = (first.setdefault(digest, place) for place, digest in enumerate(digests))
        return np.fromiter(found, dtype=np.int64, count=len(self.ids))

    @property
    def texts(self) -> int:
        """How many texts they are of, which may be read in several chunks each (`lora_clf.base.documents`)."""
        return len(self)

    @property
    def text_lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each text."""
        return self.lengths

    @property
    def cut(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a part of a text is not read."""
        return self.truncated


class Bodies(Protocol):
    """What turns texts into ids, without special tokens in front or behind."""

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text; none of them special."""
        ...

    def canonical(self) -> dict[str, Any]:
        """All that decides these ids, in a form that does not depend on how it was stored."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for; bytes that are no text show as U+FFFD."""
        ...

    def special(self) -> dict[str, int]:
        """The special tokens, none of which a text may become: spelling and id."""
        ...

    def highest(self) -> int:
        """The largest id that a text can get."""
        ...

    def unknown(self) -> int | None:
        """The id that stands for what is not in the vocabulary, where there is one."""
        ...


class BytePairs:
    """GPT-2's byte pairs, run by tiktoken."""

    def __init__(self, table: dict[bytes, int], vocabulary: Mapping[str, int], merges: byte_pairs.Merges) -> None:
        self._encoding = byte_pairs.encoding(table)
        self._vocabulary, self._merges = vocabulary, merges

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        encode = self._encoding.encode_ordinary
        return [encode(text) for text in texts]

    def canonical(self) -> dict[str, Any]:
        """The same as that of a tokenizer.json made of the same two files."""
        made = {left + right for left, right in self._merges} | set(byte_pairs.byte_of_character())
        return {
            "model": {"type": "BPE"},
            "vocabulary": sorted((token, id) for token, id in self._vocabulary.items() if token in made),
            "merges": [list(pair) for pair in self._merges],
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
            "added": [],
        }

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for; special ones stand for none."""
        known = set(self._vocabulary.values()) - set(self.special().values())
        return self._encoding.decode([id for id in ids if id in known], errors="replace")

    def special(self) -> dict[str, int]:
        """The tokens that no merge makes."""
        made = {left + right for left, right in self._merges} | set(byte_pairs.byte_of_character())
        return {token: id for token, id in self._vocabulary.items() if token not in made}

    def highest(self) -> int:
        """The largest id that a text can get."""
        special = set(self.special().values())
        return max(id for id in self._vocabulary.values() if id not in special)

    def unknown(self) -> int | None:
        """None: every text is bytes."""
        return None


class Tokenizer:
    """Turns texts into token ids.

    Attributes:
        pad_id: the id to pad with; padding is masked, so its value changes nothing.
        empty_id: what stands for a text without a token where the base puts nothing around a text: its
            beginning-of-text token, else its end-of-text token, else ``pad_id``.
    """

    def __init__(
        self,
        backend: Bodies,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
        *,
        pad_id: int = 0,
        empty_id: int = 0,
    ) -> None:
        self._backend = backend
        self._prefix, self._suffix = tuple(prefix), tuple(suffix)
        self.pad_id, self.empty_id = pad_id, empty_id

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides the ids of a text; blind to truncation, padding and storage."""
        form = {**self._backend.canonical(), "prefix": self._prefix, "suffix": self._suffix, "tag": _TAG}
        odd = self.empty_id and self.empty_id not in self.special.values() and self.decode([self.empty_id])
        if odd and not (self._prefix or self._suffix):  # an ordinary piece that stands for texts without a token
            form["empty"] = self.empty_id
        return hashlib.sha256(json.dumps(form, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def _edges(self) -> Edges:
        return Edges(self.special)

    @property
    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special ids in front of and behind a text."""
        return self._prefix, self._suffix

    @property
    def special(self) -> dict[str, int]:
        """The special tokens, none of which a text may become: spelling and id."""
        return self._backend.special()

    @property
    def highest_id(self) -> int:
        """The largest id that a text can get, special ones included."""
        return max(self._backend.highest(), self.pad_id, self.empty_id, *self._prefix, *self._suffix)

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for what is not in the vocabulary, where there is one."""
        return self._backend.unknown()

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each of some normalised texts has, without those that the base puts around it."""
        return [len(body) for body in self._backend.bodies(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for."""
        return self._backend.decode([int(id) for id in ids])

    def encode(self, texts: Sequence[str], max_length: int, side: Side = "right") -> Tokens:
        """Returns the ids of ``texts``, each at most ``max_length`` tokens with its special tokens.

        ``side`` is what is cut off a long text: "right" its end, "left" its start. Texts are normalised
        first (see `lora_clf.base.text` and `lora_clf.base.edges`), and marked truncated where something was cut off.

        Raises:
            UsageError: one text in place of several, no room for a token of the text, or a ``side`` that is none.
        """
        if isinstance(texts, str):
            raise UsageError("Expected a list of texts, got one text. Put it into a list: [text].")
        cap = max(LEAST_CHARACTERS, CHARACTERS_A_TOKEN * max_length)
        normal = (self._edges.trim(normalise(text, cap, side)) for text in texts)
        return self._encode(normal, len(texts), max_length, side)

    def encode_pieces(self, pieces: Sequence[str], max_length: int, side: Side = "right") -> Tokens:
        """The same for slices of normalised texts: what spells a special token at an end of a slice stays.

        Raises:
            UsageError: no room for a token of the text.
        """
        return self._encode((Text(piece, False) for piece in pieces), len(pieces), max_length, side)

    def ends(self, text: str) -> tuple[int, int]:
        """Where a normalised text begins and ends without the special tokens that it spells there."""
        return self._edges.span(text)

    def _encode(self, texts: Iterator[Text], count: int, max_length: int, side: Side) -> Tokens:
        around = len(self._prefix) + len(self._suffix)
        room = max_length - around
        if room < 1:
            raise UsageError(
                f"A length of {max_length} tokens leaves no room for text: the base puts {around} special "
                f"tokens around it. Give --max-length {around + 1} or more."
            )
        ids: list[npt.NDArray[np.int32]] = []
        truncated = np.zeros(count, dtype=np.bool_)
        while normal := list(islice(texts, _BATCH)):
            for text, body in zip(normal, self._backend.bodies([text.text for text in normal]), strict=True):
                truncated[len(ids)] = text.truncated or len(body) > room
                body = body[:room] if side == "right" else body[-room:]
                row = [*self._prefix, *body, *self._suffix] or [self.empty_id]
                ids.append(np.array(row, dtype=np.int32))
        return Tokens(ids, truncated)


def load_tokenizer(folder: Path, config: Any, name: str | None = None) -> Tokenizer:
    """Returns the tokenizer of a base folder.

    GPT-2 folders are run by tiktoken, from vocab.json and merges.txt or from a tokenizer.json that holds the
    same; others by their tokenizer.json; where that is absent, transformers makes one of vocab.txt or a
    sentencepiece model, if it can.

    Args:
        folder: the base folder.
        config: its transformers config, or the fields of its config.json.
        name: what messages call the base; the folder's own name where it is None.

    Raises:
        BaseNotFoundError: the folder has no tokenizer files; the message lists what would do.
        UnsupportedBaseError: they cannot be read, or no fast tokenizer can be made of them.
    """
    name = name or folder.resolve().name
    settings = _read_json(folder / "tokenizer_config.json", name) or {}
    gpt2 = _field(config, "model_type") == "gpt2" and not settings.get("add_prefix_space")
    fast = FastTokenizer(_read_fast(folder, name), settings, name) if (folder / "tokenizer.json").is_file() else None
    plain = fast is None or fast.is_plain_byte_pairs  # no tokens of the owner's, nothing around a text
    if gpt2 and plain and (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        vocabulary, merges = _read_byte_pairs(folder, name)
        table = byte_pairs.ranks(vocabulary, merges)
        if table is not None:
            return _assemble(BytePairs(table, vocabulary, merges), vocabulary.get, config, settings)
    fast = fast or FastTokenizer(_read_fast(folder, name), settings, name)
    if gpt2 and fast.is_plain_byte_pairs:
        vocabulary, merges = fast.byte_pairs()
        table = byte_pairs.ranks(vocabulary, merges)
        if table is not None:
            return _assemble(BytePairs(table, vocabulary, merges), fast.token_to_id, config, settings)
    return _assemble(fast, fast.token_to_id, config, settings, fast.prefix, fast.suffix)


def _assemble(
    backend: Bodies,
    id_of: Callable[[str], int | None],
    config: Any,
    settings: Mapping[str, Any],
    prefix: Sequence[int] = (),
    suffix: Sequence[int] = (),
) -> Tokenizer:
    limit = _field(config, "vocab_size")

    def special(kind: str) -> int | None:
        """The id of the pad, bos or eos token: as config.json has it, else by its name in the tokenizer's."""
        named = settings.get(f"{kind}_token")
        if isinstance(named, Mapping):
            named = named.get("content")
        by_name = id_of(named) if isinstance(named, str) else None
        for candidate in (_field(config, f"{kind}_token_id"), by_name):
            if isinstance(candidate, list) and candidate:
                candidate = candidate[0]
            if isinstance(candidate, int) and 0 <= candidate < (limit or candidate + 1):
                return candidate
        return None

    pad, bos, eos = special("pad"), special("bos"), special("eos")
    pad_id = next((id for id in (pad, eos) if id is not None), 0)
    empty_id = next((id for id in (bos, eos) if id is not None), pad_id)
    return Tokenizer(backend, prefix, suffix, pad_id=pad_id, empty_id=empty_id)


def _read_byte_pairs(folder: Path, name: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocabulary = _read_json(folder / "vocab.json", name) or {}
    if not all(isinstance(id, int) for id in vocabulary.values()):
        raise UnsupportedBaseError(f"The vocab.json of base {name!r} is not tokens and ids.")
    try:
        return vocabulary, byte_pairs.parse_merges(_read(folder / "merges.txt", name))
    except ValueError as error:
        raise UnsupportedBaseError(f"The merges.txt of base {name!r} is damaged: {error}") from error


def _read_fast(folder: Path, name: str) -> str:
    """The folder's tokenizer.json, or one that transformers makes of older files."""
    if (folder / "tokenizer.json").is_file():
        return _read(folder / "tokenizer.json", name)
    here = sorted(file.name for file in folder.iterdir() if file.suffix in (".model", ".txt", ".json"))
    older = [file for file in here if file.endswith(".model") or file in ("vocab.txt", "vocab.json")]
    if not older:
        raise BaseNotFoundError(
            f"The base {name!r} has no tokenizer: it needs tokenizer.json, or vocab.json with "
            f"merges.txt, or vocab.txt. It has: {', '.join(here) or 'no such file'}."
        )
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        made: str = loaded.backend_tokenizer.to_str()
    # What transformers, its converters and the packages that they need may raise has no common root.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnsupportedBaseError(
            f"The base {name!r} has no tokenizer.json, and none can be made of {', '.join(older)}: {reason}"
        ) from error
    return made


def _read_json(file: Path, name: str) -> dict[str, Any] | None:
    """The object in a JSON file, or None where there is no such file."""
    if not file.is_file():
        return None
    try:
        content = json.loads(_read(file, name))
    except (ValueError, RecursionError) as error:
        raise UnsupportedBaseError(f"The {file.name} of base {name!r} is not JSON.") from error
    if not isinstance(content, dict):
        raise UnsupportedBaseError(f"The {file.name} of base {name!r} is not a JSON object.")
    return content


def _read(file: Path, name: str) -> str:
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise UnsupportedBaseError(f"The {file.name} of base {name!r} has {size:,} bytes; {MAX_BYTES:,} are the limit.")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnsupportedBaseError(f"The {file.name} of base {name!r} cannot be read.") from error


def _field(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
