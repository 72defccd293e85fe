"""The base that a row of the book's table runs on, or why there is none and what to do.

Where the weights of a GPT-2 are not on this machine, its architecture still is: rows with random weights run on it,
and the time of the others can be taken.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from book_rows import Row, unsupported
from random_gpt2 import SIZES as GPT2

from lora_clf.base.base import Base, load_base, pick_device
from lora_clf.base.catalogue import CATALOGUE
from lora_clf.errors import BaseNotFoundError, LoraClfError, UsageError

GPT2_LENGTH = 1024


class Refused(Exception):
    """A row that a base does not support: ``reason`` in a few words, ``todo`` what helps, where something does."""

    def __init__(self, reason: str, todo: str = "") -> None:
        super().__init__(reason)
        self.reason, self.todo = reason, todo


class Bases:
    """The base itself and its larger relatives, each loaded when a row first asks for it; one at a time is held.

    Attributes:
        names: the base of each size.
        tokenizer: a folder with GPT-2's vocab.json and merges.txt, for a GPT-2 whose weights are not here.
        trained: whether the base that was given last has pretrained weights.
    """

    def __init__(self, names: Mapping[str, str], device: str = "auto", tokenizer: Path | None = None) -> None:
        self.names, self.device, self.tokenizer = dict(names), device, tokenizer
        self.trained = True
        self._held: dict[str, tuple[Base, bool]] = {}

    def of(self, row: Row, *, timing: bool = False) -> Base:
        """The base for ``row``; with ``timing`` its weights do not matter.

        Raises:
            Refused: there is none, or it does not support the row.
            UsageError, BaseError: the base itself (not a relative) cannot be loaded.
        """
        name = self.names.get(row.size)
        if name is None:
            raise Refused(f"needs a larger relative of {self.label}", f"--size {row.size}=BASE")
        try:
            base, self.trained = self._loaded(name, anew=row.weights == "random" or timing)
        except LoraClfError as error:
            if row.size == "small":
                raise
            raise Refused(f"its {row.size} relative cannot be loaded", str(error)) from error
        if row.weights == "pretrained" and not self.trained and not timing:
            raise _no_weights(name)
        if reason := unsupported(row, base.config, base.architecture):
            raise Refused(reason)
        needed, there = needed_bytes(base, row), memory_bytes()
        if base.device.type == "cpu" and there is not None and needed > there:
            raise Refused(f"takes {needed / 1e9:.0f} GB of memory, and there are {there / 1e9:.0f}")
        return base

    @property
    def label(self) -> str:
        """The portable name of the base itself."""
        small = self.names["small"]
        return small if small in CATALOGUE else Path(small).name

    def _loaded(self, name: str, *, anew: bool) -> tuple[Base, bool]:
        if name not in self._held:
            self._held.clear()
            try:
                self._held[name] = load_base(name, device=self.device), True
            except BaseNotFoundError:
                if name not in GPT2:
                    raise
                if not anew:
                    raise _no_weights(name) from None
                if self.tokenizer is None:
                    raise Refused("needs GPT-2's tokenizer", "--tokenizer FOLDER") from None
                self._held[name] = untrained(name, self.tokenizer, self.device), False
        return self._held[name]


def needed_bytes(base: Base, row: Row) -> int:
    """What the weights of a row take in fp32: once for the base; where all train, a copy, gradients, two moments."""
    times = 1 + (4 if row.trains == "all" else 0) + (1 if row.weights == "random" else 0)
    return base.total_parameters * 4 * times


def memory_bytes() -> int | None:
    """The memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _no_weights(name: str) -> Refused:
    return Refused(f"needs the pretrained weights of {name}", f"lora-clf bases fetch {name}")


def untrained(name: str, tokenizer: Path, device: str = "cpu") -> Base:
    """A GPT-2 of the size ``name`` with transformers' own random weights, always the same ones.

    Raises:
        UsageError: the folder lacks the tokenizer's files.
    """
    import torch
    from transformers import GPT2Config, GPT2Model

    from lora_clf.base.architecture import architecture_of
    from lora_clf.base.digest import backbone_digest
    from lora_clf.base.tokenizer import load_tokenizer

    missing = [file for file in ("vocab.json", "merges.txt") if not (tokenizer / file).is_file()]
    if missing:
        raise UsageError(f"--tokenizer: the folder {tokenizer.name!r} has no {' and no '.join(missing)} of GPT-2's.")
    width, blocks, heads = GPT2[name]
    vocabulary = json.loads((tokenizer / "vocab.json").read_text(encoding="utf-8"))
    end = vocabulary["<|endoftext|>"]
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_embd=width,
        n_layer=blocks,
        n_head=heads,
        n_positions=GPT2_LENGTH,
        bos_token_id=end,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = GPT2Model(config).eval().requires_grad_(False)
    return Base(
        name=name,
        backbone=backbone.to(pick_device(device)),
        config=config,
        architecture=architecture_of(config),
        tokenizer=load_tokenizer(tokenizer, config, name),
        pooling="family",
        max_length=GPT2_LENGTH,
        digest=backbone_digest(backbone.named_parameters(), config.to_dict()),
    )


def identity(base: Base, row: Row) -> str:
    """What the weights of a row's runs come from: the base's digest, or its shapes where they are drawn anew."""
    if row.weights == "pretrained":
        return base.digest
    shapes = [[name, *parameter.shape] for name, parameter in base.backbone.named_parameters()]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
