"""GPT-2's tokenizer from a folder's own vocab.json and merges.txt, run by tiktoken.

tiktoken takes a table from byte strings to ranks, in which the rank is both the priority of the merge and the
token's id. GPT-2's files fit that; `ranks` says so for any other pair of files before they are trusted to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

# How GPT-2 splits a text before merging: an English clitic, a word, a number or a run of signs, each with the
# space in front of it, or white space.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

Merges = Sequence[tuple[str, str]]


def byte_of_character() -> dict[str, int]:
    """Returns GPT-2's map from the printable character that stands for a byte in vocab.json to that byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


def parse_merges(text: str) -> list[tuple[str, str]]:
    """Returns the pairs of a merges.txt, first to last.

    Raises:
        ValueError: a line that is not two tokens.
    """
    pairs = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        left, space, right = line.partition(" ")
        if not (left and space and right) or " " in right:
            raise ValueError(f"line {number} of merges.txt is not two tokens")
        pairs.append((left, right))
    return pairs


def ranks(vocabulary: Mapping[str, int], merges: Merges) -> dict[bytes, int] | None:
    """Returns tiktoken's table, or None where the ids are not in the order of the merges or a byte has none.

    Tokens that no merge makes (``<|endoftext|>``) are left out, so no text ever becomes one.
    """
    bytes_of = byte_of_character()
    table: dict[bytes, int] = {}
    for character, byte in bytes_of.items():
        if character not in vocabulary:
            return None
        table[bytes([byte])] = vocabulary[character]
    last = -1
    for left, right in merges:
        token = vocabulary.get(left + right)
        if token is None or token <= last or not all(c in bytes_of for c in left + right):
            return None
        table[bytes(bytes_of[character] for character in left + right)] = token
        last = token
    return table if len(set(table.values())) == len(table) == 256 + len(merges) else None


def encoding(table: dict[bytes, int]) -> tiktoken.Encoding:
    """Returns the encoder of a table from `ranks`, without special tokens."""
    import tiktoken

    return tiktoken.Encoding(name="gpt2", pat_str=PATTERN, mergeable_ranks=table, special_tokens={})
