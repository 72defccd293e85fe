"""The shared base: one frozen backbone with its tokenizer, loaded once, viewed by many classifiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_clf.base.architecture import Architecture, architecture_of
from lora_clf.base.digest import backbone_digest
from lora_clf.base.pooling import check_pooling
from lora_clf.base.sources import locate
from lora_clf.base.tokenizer import Tokenizer, Tokens, load_tokenizer
from lora_clf.base.weights import read_backbone, read_config
from lora_clf.errors import UnsupportedBaseError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from lora_clf.base.verbalizer import Prompt
    from lora_clf.base.view import View

DEVICES = ("auto", "cpu", "cuda", "mps")
LONGEST = 1024  # tokens; the default cap for a base that does not say how many positions it has


@dataclass(frozen=True, eq=False)
class Base:
    """A pretrained backbone and its tokenizer, frozen and shared.

    Attributes:
        name: the portable name: "minilm", "gpt2", a Hub id with revision, or a folder's name; never a path.
        backbone: the transformers model without a head, in evaluation mode, nothing requiring a gradient.
        tokenizer: texts to ids.
        pooling: the default pooling of classifiers on this base.
        max_length: the default cap on tokens a text.
        digest: SHA-256 over the backbone's weights and the settings that change its computation.
        prompt: the template and the words that its classifiers answer with; None: they have linear heads.
    """

    name: str
    backbone: nn.Module
    config: Any
    architecture: Architecture
    tokenizer: Tokenizer
    pooling: str
    max_length: int
    digest: str
    folder: Path | None = field(default=None, repr=False)
    prompt: Prompt | None = field(default=None, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    @property
    def tokenizer_digest(self) -> str:
        """SHA-256 over the tokenizer in canonical form."""
        return self.tokenizer.digest

    @property
    def total_parameters(self) -> int:
        """How many parameters the backbone has, tied ones once."""
        return sum(parameter.numel() for parameter in self.backbone.parameters())

    def view(self, classes: int, pooling: str | None = None, seed: int = 0, combine: str | None = None) -> View:
        """A fresh classifier with ``classes`` outputs over this base's storage; see `lora_clf.base.combiner`.

        Raises:
            UsageError: unknown pooling, or fewer than one class.
            UnsupportedBaseError: the architecture has no family head.
        """
        from lora_clf.base.view import View

        if classes < 1:
            raise UsageError(f"A classifier needs at least one output, got {classes}.")
        return View(self, classes, check_pooling(pooling or self.pooling), seed, combine)

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> Tokens:
        """The token ids of ``texts``, cut to ``max_length`` tokens (default: the base's)."""
        return self.tokenizer.encode(texts, self.check_length(max_length))

    def check_length(self, max_length: int | None, beside: int = 0) -> int:
        """``max_length`` itself, or the default where it is None; so many positions ``beside`` the text are taken.

        Raises:
            UsageError: the base has no positions for that many tokens.
        """
        if max_length is not None:
            return _check_length(max_length, self.config, self.name, beside)
        limit = position_limit(self.config)
        return self.max_length if limit is None else max(1, min(self.max_length, limit - beside))

    def __repr__(self) -> str:
        return f"Base({self.name!r}, {self.total_parameters:,} parameters, digest {self.digest[:12]})"


def position_limit(config: Any, name: str = "this one") -> int | None:
    """How many positions the backbone has, or None where there is no limit (relative positions).

    ``name`` is what messages call the base.

    Raises:
        UnsupportedBaseError: they are numbered by a padding token that the config does not name.
    """
    if config.model_type == "t5":
        return None
    positions = int(config.max_position_embeddings)
    if config.model_type in ("roberta", "longformer"):  # which number positions from pad + 1 on
        if config.pad_token_id is None:
            raise UnsupportedBaseError(
                f"The config.json of base {name!r} has no pad_token_id, and {config.model_type} counts from it."
            )
        return positions - int(config.pad_token_id) - 1
    turning = getattr(config, "rope_parameters", None) or {}
    if turning.get("rope_type") == "longrope":  # beyond these it turns all texts of a batch otherwise
        return min(positions, int(turning.get("original_max_position_embeddings") or positions))
    return positions


def _check_length(max_length: int, config: Any, name: str, beside: int = 0) -> int:
    limit = position_limit(config)
    if max_length < 1 or (limit is not None and max_length + beside > limit):
        taken = f" beside the {beside} positions that the strategy takes" if beside else ""
        most = "any" if limit is None else limit - beside
        raise UsageError(f"--max-length {max_length}: the base {name} takes 1 to {most} tokens{taken}.")
    return max_length


def _check_ids(tokenizer: Tokenizer, backbone: nn.Module, name: str) -> None:
    rows = int(backbone.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    if tokenizer.highest_id >= rows:
        raise UnsupportedBaseError(
            f"The tokenizer of base {name!r} gives ids up to {tokenizer.highest_id:,}, and its embeddings end with "
            f"{rows - 1:,}. Restore the tokenizer files that came with it."
        )


def pick_device(name: str) -> torch.device:
    """The torch device for "auto", "cpu", "cuda", "cuda:1" or "mps"; auto takes the first accelerator there is.

    Raises:
        UsageError: unknown name, or a device that this machine does not have.
    """
    import torch

    from lora_clf.errors import unknown

    kind, numbered, number = name.partition(":")
    if kind not in DEVICES or (numbered and not (kind == "cuda" and number.isdecimal())):
        raise unknown("device", name, DEVICES)
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here.insert(0, "cuda")
    if name == "auto":
        return torch.device(here[0])
    if kind in here and numbered:
        here[:1] = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        name = f"cuda:{int(number)}"
    if name not in here:
        raise UsageError(f"--device {name}: this machine has {', '.join(here)}. Use --device auto.")
    return torch.device(name)


def name_of(device: torch.device) -> str:
    """The name by which `pick_device` finds a device again: "cpu", "cuda:1", "mps"."""
    return str(device) if device.type == "cuda" else device.type


def load_base(
    name: str | Path = "minilm",
    *,
    revision: str | None = None,
    device: str = "auto",
    pooling: str | None = None,
    max_length: int | None = None,
) -> Base:
    """Load a base once, frozen, to be shared by any number of classifiers.

    Args:
        name: "minilm", "gpt2" (or -medium, -large, -xl), a folder in transformers' format, or a Hub id.
        revision: a Hub revision, where ``name`` is a Hub id.
        device: "auto", "cpu", "cuda", "cuda:1" (the second of several) or "mps".
        pooling: the default pooling of classifiers on this base instead of the base's own default.
        max_length: the default cap on tokens a text instead of the base's own.

    Raises:
        BaseNotFoundError: neither here nor within reach; the message says what to do.
        UnsupportedBaseError: an architecture, a tokenizer or settings that this version does not know.
        BaseError: weights that are damaged, incomplete or do not fit config.json.
        UsageError: unknown pooling or device, or a length that the base has no positions for.
    """
    where = pick_device(device)
    located = locate(str(name), revision)
    config = read_config(located.folder, located.name)
    architecture = architecture_of(config)
    if max_length is None:
        max_length = min(located.max_length or LONGEST, position_limit(config, located.name) or LONGEST)
    else:
        max_length = _check_length(max_length, config, located.name)
    tokenizer = load_tokenizer(located.folder, config, located.name)
    backbone = read_backbone(located.folder, config, architecture, located.name).to(where)
    _check_ids(tokenizer, backbone, located.name)
    return Base(
        name=located.name,
        backbone=backbone,
        config=config,
        architecture=architecture,
        tokenizer=tokenizer,
        pooling=check_pooling(pooling or located.pooling or architecture.pooling),
        max_length=max_length,
        digest=backbone_digest(backbone.named_parameters(), config.to_dict()),
        folder=located.folder,
    )
