"""A view: a fresh module tree over the base's own storage, with a head of its own.

A strategy gets a view, never the base. Freezing, inserting layers and training happen in the view; what a strategy
trains it clones inside the view first (`View.own`), so the base keeps its bytes while any number of views are in
use. Shapes: B batch, T tokens, D width, C classes.
"""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lora_clf.base.head import Head, VerbalizerHead, make_head
from lora_clf.base.pooling import pool, right_padded
from lora_clf.errors import UnsupportedBaseError, UsageError

if TYPE_CHECKING:
    from lora_clf.base.base import Base

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def share(module: nn.Module) -> nn.Module:
    """A copy of the module tree whose parameters and buffers are new objects over the same storage.

    Tied parameters stay tied. Every parameter of the copy is frozen.
    """
    memo: dict[int, Any] = {}
    # ``data`` and not ``detach()``, whose version counter would be shared: autograd would take a training step of
    # one view for a change of another's weights.
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.data
    # What `copy.deepcopy` does with a module, without its detours: a view is made for every adapter that is loaded.
    plain = [part for part in module.modules() if _copies_plainly(type(part))]
    for part in plain:
        memo[id(part)] = object.__new__(type(part))
    for part in plain:
        values = ((name, _copied(value, memo)) for name, value in part.__getstate__().items())
        memo[id(part)].__dict__.update(values)
    return copy.deepcopy(module, memo)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (dict, OrderedDict, set) and not value:
        return kind()
    if kind is dict and all(id(part) in memo for part in value.values()):  # of parameters, buffers or modules
        return {name: memo[id(part)] for name, part in value.items()}
    return copy.deepcopy(value, memo)


def _copies_plainly(kind: type[nn.Module]) -> bool:
    """Whether `copy.deepcopy` takes objects of this class for the names and values that they hold."""
    return not hasattr(kind, "__deepcopy__") and all(
        getattr(kind, name, None) is getattr(usual, name, None)
        for usual, name in (
            (object, "__reduce_ex__"),
            (object, "__reduce__"),
            (nn.Module, "__getstate__"),
            (nn.Module, "__setstate__"),
        )
    )


class _Held:
    """Keeps the base out of a view's modules, and out of a copy of the view, which shares the base."""

    def __init__(self, base: Base) -> None:
        self.base = base

    def __deepcopy__(self, memo: dict[int, Any]) -> _Held:
        return self


class Front(nn.Module):
    """Puts ``length`` vectors before a text: ids and mask (B, T) -> embeddings (B, P + T, D), mask (B, P + T)."""

    length: int


class View(nn.Module):
    """One classifier on a shared base: backbone, pooling and head.

    Attributes:
        backbone: the base's module tree, over the base's storage until a strategy takes parts as its own.
        head: maps the pooled vector to logits.
        pooling: "mean", "first", "last" or "family".
        seed: what every random number of this view is drawn from.
        prompt: the template and the words of a head that is a verbalizer; None for every other head.
        combine: the network that makes one vector of a text's chunks (`lora_clf.base.combiner`), or None.
        front: what a strategy puts before the text in place of its embeddings: of ids and mask (B, T) it makes
            embeddings (B, P + T, D) and a mask (B, P + T), perhaps without columns that hold nothing but padding. None:
            the backbone gets the ids.
    """

    front: Front | None

    def __init__(self, base: Base, classes: int, pooling: str, seed: int, combine: str | None = None) -> None:
        super().__init__()
        self._held = _Held(base)
        self.architecture = base.architecture
        self.pooling = pooling
        self.seed = seed
        self.classes = classes
        self.prompt = base.prompt
        self.combine = combine
        self.backbone = share(base.backbone)
        base.architecture.settle(self.backbone)
        self.front = None
        self.head = self._made_head(base)
        self.head.initialise(self.generator("head"), float(getattr(base.config, "initializer_range", None) or 0.02))
        self.head.to(base.device)
        if self.head.uses_pooler and getattr(self.backbone, "pooler", None) is None:
            raise UnsupportedBaseError(
                f"The base {base.name} was saved without its pooler, which its family head needs. "
                "Use --pooling mean, first or last."
            )
        if not self.head.uses_pooler and getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # type: ignore[assignment]  # Nothing reads its output, so nothing could train it.
        self._frozen_modules = {module: type(module) for module in self.backbone.modules()}
        self.eval()

    def _made_head(self, base: Base) -> Head:
        """The head, its weights not set yet."""
        with torch.device("meta"):  # Nothing is drawn here from the caller's random numbers.
            if base.prompt is None:
                head = make_head(base.architecture, base.config, self.classes, self.pooling, self.combine)
                return head.to_empty(device="cpu")
        if self.combine is not None:
            raise UsageError("--head verbalizer reads a text at once; --long hierarchical does not apply.")
        if (self.classes, self.pooling) != (len(base.prompt.words), "last"):
            raise UsageError(
                f"--head verbalizer with {len(base.prompt.words)} words on the last token does not fit {self.classes} "
                f"labels and pooling {self.pooling}."
            )
        return VerbalizerHead(base.prompt.rows)

    @property
    def config(self) -> Any:
        """The transformers config of the backbone (this view's own copy)."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head_parameters()[0].device

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.architecture.block_list(self.backbone)

    @property
    def original(self) -> nn.Module:
        """The base's own backbone, as it was before any strategy; not to be changed."""
        return self._held.base.backbone

    @property
    def original_blocks(self) -> nn.ModuleList:
        """The blocks of `original`."""
        return self.architecture.block_list(self.original)

    def made_with(self, module: nn.Module) -> bool:
        """Whether the backbone had this module, of this class, before any strategy."""
        return self._frozen_modules.get(module) is type(module)

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm behind the last block, where this base has one (an OPT with its norms behind may not)."""
        if self.architecture.final_norm is None:
            return None
        path, _, name = self.architecture.final_norm.rpartition(".")
        module: nn.Module | None = getattr(self.backbone.get_submodule(path), name)
        return module

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the head."""
        return list(self.head.parameters())

    def fresh(self) -> View:
        """A new view of the same base with the same pooling, classes and seed, as before any strategy."""
        return View(self._held.base, self.classes, self.pooling, self.seed, self.combine)

    def generator(self, name: str) -> torch.Generator:
        """A random generator that depends on the view's seed and ``name`` alone, whatever was drawn before."""
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def own(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give the view its own copy of ``parameters`` and let them train: the base's storage stays as it is."""
        for parameter in parameters:
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> View:
        """Set training mode for what a strategy added; the base's own layers never drop anything out."""
        super().train(mode)
        for module in self._frozen_modules:
            module.training = False
        return self

    @property
    def drops(self) -> bool:
        """Whether what a strategy added drops a part of each text while it trains; the head aside."""
        base = {id(module) for module in (*self._frozen_modules, *self.head.modules())}
        return any(
            isinstance(module, _DROPOUTS) and module.p > 0 for module in self.modules() if id(module) not in base
        )

    def hidden(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states, padding on the right: (B, T), (B, T) -> (B, T, D)."""
        extra: dict[str, Any] = {"use_cache": False} if self.architecture.causal else {}
        if self.front is None:
            extra |= self._told(attention_mask, 0)
            output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **extra)
            states: Tensor = output.last_hidden_state
            return states
        embedded, mask = self.front(input_ids, attention_mask)  # (B, P + T, D), (B, P + T)
        extra |= self._told(mask, self.front.length)
        output = self.backbone(inputs_embeds=embedded, attention_mask=mask, **extra)
        states = output.last_hidden_state[:, self.front.length :]
        left_out = input_ids.shape[1] - states.shape[1]  # of padding
        return nn.functional.pad(states, (0, 0, 0, left_out)) if left_out else states

    def _told(self, mask: Tensor, before: int) -> dict[str, Tensor]:
        """Which token attends to all others (B, T), where that has to be said: a text's first, whatever is pooled."""
        if not self.architecture.global_token:
            return {}
        chosen = torch.zeros_like(mask)
        chosen[:, before] = 1
        return {"global_attention_mask": chosen}

    def pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """The head's input: (B, T, D), (B, T) -> (B, D)."""
        vectors = pool(hidden, attention_mask, self.head.pooling)
        if self.head.uses_pooler:
            vectors = self.backbone.pooler(vectors.unsqueeze(1))  # type: ignore[operator]
        return vectors

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of a batch padded on either side: (B, T), (B, T) -> (B, C)."""
        return self.classify(*right_padded(input_ids, attention_mask))

    def classify(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of a batch padded on the right, which is not checked: (B, T), (B, T) -> (B, C)."""
        vectors = self.vectors(input_ids, attention_mask)
        with torch.autocast(vectors.device.type, enabled=False):
            logits: Tensor = self.head(vectors)
        return logits

    def vectors(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The head's inputs of a batch padded on the right: (B, T), (B, T) -> (B, D)."""
        hidden = self.hidden(input_ids, attention_mask)
        with torch.autocast(hidden.device.type, enabled=False):  # The head and what follows stay in fp32.
            return self.pooled(hidden.float(), attention_mask)

    def vectors_of_pooled(self, states: Tensor) -> Tensor:
        """The head's inputs from what the last block says of the pooled token of each text: (B, 1, D) -> (B, D)."""
        with torch.autocast(states.device.type, enabled=False):
            hidden = states.float() if self.final_norm is None else self.final_norm(states.float())
            return self.pooled(hidden, torch.ones_like(hidden[:, :, 0], dtype=torch.int64))
