"""A tokenizer.json, run by the tokenizers library in such a way that text stays text.

Truncation and padding that the file carries are switched off, random dropout of merges too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tokenizers import Tokenizer as Engine

from lora_clf.base.byte_pairs import byte_of_character
from lora_clf.errors import UnsupportedBaseError

# Fields of a component that change offsets or drawing, never ids; and the values that mean "as always".
_NOT_IDS: Final = frozenset({"trim_offsets", "dropout"})
_USUAL: Final = {"use_regex": True}

_NAMED: Final = ("bos", "eos", "pad", "cls", "sep", "mask")
_MARK: Final = re.compile(r"[\W_].*[^\W\d_].*[\W_]", re.DOTALL)  # letters between signs, as [PAD] or </s>: no word
_TRIES: Final = 4


class FastTokenizer:
    """A tokenizer.json as a source of ids.

    Attributes:
        prefix: the ids that the post-processor puts in front of a text.
        suffix: the ids that it puts behind a text.
    """

    def __init__(self, content: str, settings: Mapping[str, Any], name: str = "?") -> None:
        self._name = name  # what messages call the base
        try:
            self._engine: Any = Engine.from_str(content)
        except BaseException as error:
            # A broken file can make the library panic, which is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise UnsupportedBaseError(f"The tokenizer.json of base {name!r} cannot be used: {error}") from error
        self._engine.no_truncation()
        self._engine.no_padding()
        self._engine.encode_special_tokens = True  # what is spelled like one is text
        if getattr(self._engine.model, "dropout", None) is not None:
            self._engine.model.dropout = None
        form = self._form()
        tables = ("vocab", "merges")
        self._model = {name: value for name, value in form["model"].items() if name not in tables}
        self._normalizer = _component(form["normalizer"])
        self._pre_tokenizer = _component(form["pre_tokenizer"])
        self._added = form["added_tokens"]
        self._bytes_only = self._knows_all_bytes(form["model"]["vocab"])
        flagged = {id for id, token in self._engine.get_added_tokens_decoder().items() if token.special}
        named = self._named(settings)
        self._by_name = {token: id for token, id in named.items() if id not in flagged and id != self._unknown}
        self._special = frozenset((flagged | set(self._by_name.values())) - {self._unknown})
        self.prefix, self.suffix = self._surroundings()

    def token_to_id(self, token: str) -> int | None:
        """The id of a token, or None where there is no such token."""
        found: int | None = self._engine.token_to_id(token)
        return found

    def bodies(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special ones."""
        encoded = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [
            ids if self._special.isdisjoint(ids) else self._without_special(text)
            for text, ids in zip(texts, (row.ids for row in encoded), strict=True)
        ]

    def canonical(self) -> dict[str, Any]:
        """All that decides the ids of a text, in a form that does not depend on how it was stored."""
        model = self._form()["model"]
        merges = _pairs(model)
        vocabulary = model["vocab"]
        if isinstance(vocabulary, Mapping):
            hidden = {token["content"] for token in self._added if token["special"]}
            hidden.discard(model.get("unk_token"))
            if self._bytes_only:  # what no merge makes is never made
                made = {left + right for left, right in merges} | set(byte_of_character())
                hidden |= set(vocabulary) - made
            vocabulary = sorted((token, id) for token, id in vocabulary.items() if token not in hidden)
        order = ("content", "id", "single_word", "lstrip", "rstrip", "normalized")
        can_come = {piece for piece, _ in vocabulary} | {token["content"] for token in self._added}
        special = sorted(can_come & self._by_name.keys())
        return {
            "model": self._fields,
            "vocabulary": vocabulary,  # Unigram: pieces and scores, the id is the place
            "merges": merges,
            "normalizer": self._normalizer,
            "pre_tokenizer": self._pre_tokenizer,
            "added": sorted([token[name] for name in order] for token in self._added if not token["special"]),
            # Left out where there are none, as in bases whose tokenizer.json says what is special.
            **({"special": special} if special else {}),
        }

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids stand for; special ones stand for none."""
        text: str = self._engine.decode(list(ids), skip_special_tokens=True)
        return text

    def special(self) -> dict[str, int]:
        """The special tokens, but for the one that stands for the unknown."""
        return {str(self._engine.id_to_token(id)): id for id in sorted(self._special)}

    def highest(self) -> int:
        """The largest id that a text can get."""
        ids: set[int] = set(self._engine.get_vocab(with_added_tokens=True).values())
        return max(ids - self._special)

    def unknown(self) -> int | None:
        """The id that stands for what is not in the vocabulary, where there is one."""
        return self._unknown

    @property
    def is_plain_byte_pairs(self) -> bool:
        """Whether this is what GPT-2's vocab.json and merges.txt alone would give."""
        return (
            self._fields == {"type": "BPE"}
            and self._normalizer is None
            and self._pre_tokenizer == {"type": "ByteLevel", "add_prefix_space": False}
            and all(token["special"] for token in self._added)
            and not (self.prefix or self.suffix)
        )

    def byte_pairs(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The vocabulary and the merges of a byte pair model."""
        model = self._form()["model"]
        return model["vocab"], [(left, right) for left, right in _pairs(model)]

    @property
    def _fields(self) -> dict[str, Any]:
        fields = _component(self._model) or {}
        if self._bytes_only:
            fields.pop("unk_token", None)  # every text is bytes, so nothing is unknown
        return fields

    def _form(self) -> dict[str, Any]:
        form: dict[str, Any] = json.loads(self._engine.to_str())
        return form

    def _knows_all_bytes(self, vocabulary: Any) -> bool:
        before = self._pre_tokenizer or {}
        parts = before.get("pretokenizers", [before])
        return (
            self._model["type"] == "BPE"
            and not (self._model.get("ignore_merges") or self._model.get("byte_fallback"))
            and parts[-1].get("type") == "ByteLevel"
            and set(byte_of_character()) <= set(vocabulary)
        )

    def _named(self, settings: Mapping[str, Any]) -> dict[str, int]:
        """The tokens that tokenizer_config.json makes special: spelling and id.

        One that is a piece like any other ("!" pads in some bases) stays text, as it does in transformers.
        """
        added, found = {token["content"] for token in self._added}, {}
        for kind in _NAMED:
            named = settings.get(f"{kind}_token")
            if isinstance(named, Mapping):
                named = named.get("content")
            if isinstance(named, str) and (named in added or _MARK.fullmatch(named)):
                id = self.token_to_id(named)
                if id is not None:
                    found[named] = id
        return found

    @property
    def _unknown(self) -> int | None:
        unknown: int | None = self._model.get("unk_id")
        if unknown is None and self._model.get("unk_token") is not None:
            unknown = self.token_to_id(self._model["unk_token"])
        return unknown

    def _surroundings(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        for probe in ("a", "0", "."):
            whole = self._engine.encode(probe)
            body = self._engine.encode(probe, add_special_tokens=False).ids
            first = next((place for place, added in enumerate(whole.special_tokens_mask) if not added), None)
            if body and first is not None and whole.ids[first : first + len(body)] == body:
                return tuple(whole.ids[:first]), tuple(whole.ids[first + len(body) :])
        raise UnsupportedBaseError(f"The tokenizer.json of base {self._name!r} puts special tokens inside a text.")

    def _without_special(self, text: str) -> list[int]:
        """The ids of a text in which the model still finds special tokens: each gets a space inside it.

        That happens where special tokens are ordinary pieces of the vocabulary (Unigram), also in a text that
        only becomes one by normalising (full-width letters).
        """
        for _ in range(_TRIES):
            encoded = self._engine.encode(text, add_special_tokens=False)
            spans = [span for id, span in zip(encoded.ids, encoded.offsets, strict=True) if id in self._special]
            if not spans:
                ids: list[int] = encoded.ids
                return ids
            for start, end in reversed(spans):
                shown = start + len(text[start:end]) - len(text[start:end].lstrip())
                inside = text[shown : shown + 1] + " " if end - shown > 1 else "\ufffd "
                text = text[:shown] + inside + text[shown + 1 :]
        return [id for id in encoded.ids if id not in self._special]


def _pairs(model: Mapping[str, Any]) -> list[list[str]]:
    """The merges; older files have them as "left right", newer ones as pairs."""
    merges = model.get("merges", [])
    return [pair.split(" ", 1) if isinstance(pair, str) else list(pair) for pair in merges]


def _component(component: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A normaliser, pre-tokenizer or model without what does not decide ids; None where nothing is left."""
    if component is None:
        return None
    form: dict[str, Any] = {}
    for name, value in component.items():
        if isinstance(value, list) and name in ("normalizers", "pretokenizers"):
            value = [part for part in map(_component, value) if part is not None]
        empty = (value is None or value is False or value == "") and name != "add_prefix_space"
        if not (empty or name in _NOT_IDS or _USUAL.get(name) == value):
            form[name] = value
    parts = form.get("normalizers", form.get("pretokenizers"))
    if component["type"] == "Sequence" and parts is not None and len(parts) < 2:
        return parts[0] if parts else None
    if component["type"] == "BertNormalizer" and component.get("strip_accents") is None:
        form["strip_accents"] = bool(component.get("lowercase"))  # what null stands for
    return form
