"""The bases that have a short name, and what was published of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class PublishedFile:
    """What a file of a base is known to be: its size in bytes and the SHA-256 of its content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class BaseEntry:
    """A base with a short name.

    Attributes:
        name: the short name, which is also the portable one.
        repo: its repository on the Hub.
        revision: the commit that is meant.
        parameters: how many numbers the backbone has.
        size_bytes: what has to be fetched.
        pooling: the default pooling of classifiers on it.
        max_length: the default cap on tokens a text.
        licence: its licence.
        files: the published files that each file is held to; empty where the Hub's word is taken.
        packaged: whether the package index has the same files.
    """

    name: str
    repo: str
    revision: str
    parameters: int
    size_bytes: int
    pooling: str
    max_length: int
    licence: str
    files: Mapping[str, PublishedFile] = field(default_factory=dict)
    packaged: bool = False


_MINILM_FILES = MappingProxyType(
    {
        name: PublishedFile(size, sha256)
        for name, size, sha256 in (
            ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            (
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        )
    }
)

_ENTRIES = (
    BaseEntry(
        name="minilm",
        repo="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        parameters=22_713_216,
        size_bytes=sum(file.size for file in _MINILM_FILES.values()),
        pooling="mean",
        max_length=256,
        licence="Apache-2.0",
        files=_MINILM_FILES,
        packaged=True,
    ),
    *(
        BaseEntry(
            name=name,
            repo=f"openai-community/{name}",
            revision=revision,
            parameters=parameters,
            size_bytes=size_bytes,
            pooling="family",
            max_length=1024,
            licence="MIT",
        )
        for name, revision, parameters, size_bytes in (
            ("gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e", 124_439_808, 549_605_000),
            ("gpt2-medium", "6dcaa7a952f72f9298047fd5137cd6e4f05f41da", 354_823_168, 1_521_500_000),
            ("gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519", 774_030_080, 3_248_700_000),
            ("gpt2-xl", "15ea56dee5df4983c59b2538573817e1667135e2", 1_557_611_200, 6_433_300_000),
        )
    ),
)

CATALOGUE: Final[Mapping[str, BaseEntry]] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Short name to base; the first is the default."""
