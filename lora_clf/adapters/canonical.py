"""JSON in one spelling only: what is equal has equal bytes, and nothing reads differently to two programs.

Canonical is: keys sorted by code point, no spaces, every character outside ASCII escaped, numbers as Python
writes them (integers plainly; others the shortest decimal that reads back the same, with an exponent below
1e-4 and from 1e16 on), no NaN and no infinity.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from lora_clf.adapters.wording import brief
from lora_clf.errors import AdapterFormatError

DEPTH: Final = 20  # nested lists and objects; ours are seven deep
_NO_BRACKET: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\[\]{}"]+', re.DOTALL)  # strings, and all else
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG: Final = b"0" * 19  # such a number may need more than 64 bits
_OTHERS: Final = bytes(set(range(256)) - set(b"[]{}"))


def canonical(value: Any) -> str:
    """Returns the canonical JSON of ``value``, pure ASCII.

    Raises:
        ValueError: a number is not finite.
    """
    return _ENCODER.encode(value)


def parse(text: str | bytes, what: str) -> Any:
    """Returns what the JSON ``text`` says, refusing whatever two readers might take differently.

    Raises:
        AdapterFormatError: not UTF-8, not JSON, a key twice in one object, NaN or infinity, a whole number of more than
            64 bits, a lone surrogate, or nested too deep; the message begins with ``what``.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        if _too_deep(text):
            raise ValueError(f"lists and objects are nested more than {DEPTH} deep")
        value = (_CAREFUL if _has_long_number(text) else _DECODER).decode(text)
        if not text.isascii() or "\\u" in text:  # a lone surrogate can be escaped, but not shown
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:  # UnicodeError and JSONDecodeError are ValueErrors
        raise AdapterFormatError(f"{what} is not JSON that can be trusted: {error}.") from error
    return value


def plain(value: Any) -> Any:
    """Returns ``value`` as JSON has it: arrays and tuples as lists, numbers that are not finite as null.

    Raises:
        TypeError: something else than mappings, sequences, strings, numbers, booleans and None is in it.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):  # numpy and torch, scalars too
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [plain(part) for part in value]
    raise TypeError(f"A {type(value).__name__} has no place in a saved adapter.")


def _too_deep(text: str) -> bool:
    """Whether lists and objects are nested too deep; asked before parsing, since parsing is what would overflow."""
    outside = "".join(text.split('"')[::2]) if "\\" not in text else _NO_BRACKET.sub("", text)
    brackets = rest = outside.encode("utf-8", "surrogatepass").translate(None, _OTHERS)
    for _ in range(DEPTH):  # each round takes the innermost away
        if not rest:
            return False
        rest = rest.replace(b"[]", b"").replace(b"{}", b"")
    deepest = depth = 0  # too deep, or not closed, which is for the parser to say
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest > DEPTH


def _has_long_number(text: str) -> bool:
    return _LONG in text.encode("utf-8", "surrogatepass").translate(_DIGITS)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the key '{brief(twice)}' is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999 reads as infinity
        raise ValueError(f"{brief(text)} is too large for a number")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or not -(1 << 63) <= (number := int(text)) < 1 << 64:  # a seed may have all 64
        raise ValueError(f"{brief(text)} is a whole number of more than 64 bits")
    return number


# Made once: a small adapter is read in little more than the time in which these are made.
_KEPT_TO: Final[dict[str, Any]] = {
    "object_pairs_hook": _no_key_twice, "parse_constant": _no_constant, "parse_float": _finite
}  # fmt: skip
_DECODER: Final = json.JSONDecoder(**_KEPT_TO)
_CAREFUL: Final = json.JSONDecoder(**_KEPT_TO, parse_int=_whole)  # twice as slow, for a text with a long number
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
