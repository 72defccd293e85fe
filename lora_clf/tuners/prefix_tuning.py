"""Prefix tuning: trained keys and values stand before those of the text in every attention layer.

Li and Liang 2021 (section 4): a text attends to P further positions whose keys and values are not computed from
tokens but learned, per layer. Per block, with G key-value heads of width d::

    key   (B, G, P + T, d) = [prefix.key   (G, P, d), keys of the text   (B, G, T, d)]
    value (B, G, P + T, d) = [prefix.value (G, P, d), values of the text (B, G, T, d)]

The vectors are trained directly; the paper's two-layer network that made them more stable to train (section 4.3) is
left out, as in P-Tuning v2 (Liu et al. 2022, section 3.3). The prefix takes none of the base's positions: the text's
own begin at zero as they always did, so texts can be as long as without it. With rotary positions the prefix's keys
are learned as they stand after the rotation.

The attention of every architecture asks its config for the kernel by name at each pass. The config of an adapted
layer is replaced by one that names `_attend`, which puts the prefix in front, widens the mask and hands over to the
kernel that was set.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_clf.base.targets import last_blocks, linear_shape
from lora_clf.base.view import View
from lora_clf.errors import UsageError
from lora_clf.tuners.base import Tuned, Tuner, rates_around

KERNEL = "lora_clf_prefix"
DEVIATION = 0.02


class _Prefix(nn.Module):
    """The keys and values of one attention layer: (G, P, d) each."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device, generator: torch.Generator) -> None:
        super().__init__()
        self.key = nn.Parameter(torch.empty(shape).normal_(0.0, DEVIATION, generator=generator).to(device))
        self.value = nn.Parameter(torch.empty(shape).normal_(0.0, DEVIATION, generator=generator).to(device))


class _Config:
    """An attention layer's config, which says everything the base's own says, but names our kernel."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):  # while it is copied it has nothing yet
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def _attn_implementation(self) -> str:
        return KERNEL


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention with the prefix in front: query (B, H, T, d), key and value (B, G, T, d)."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    prefix: _Prefix = module.prefix
    batch, length, tokens = len(query), prefix.key.shape[1], query.shape[2]
    key, value = (
        torch.cat([before.to(states.dtype).expand(batch, -1, -1, -1), states], dim=2)
        for before, states in ((prefix.key, key), (prefix.value, value))
    )  # (B, G, P + T, d)
    chosen: str = module.config.inner._attn_implementation
    causal = more.get("is_causal")
    if attention_mask is None and tokens > 1 and (getattr(module, "is_causal", False) if causal is None else causal):
        # The kernels would take the prefix for the first tokens: the mask that they leave out has to be made.
        attention_mask = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()[None, None]
        if chosen == "eager":
            lowest = torch.finfo(query.dtype).min
            attention_mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(~attention_mask, lowest)
    if attention_mask is not None:
        seen = attention_mask.dtype == torch.bool
        attention_mask = F.pad(attention_mask, (length, 0), value=float(seen))  # (B, 1, T, P + T)
    if isinstance(bias := more.get("position_bias"), Tensor):
        more["position_bias"] = F.pad(bias, (length, 0))  # T5: no distance to a prefix
    own = sys.modules[type(module).__module__].eager_attention_forward
    found: tuple[Tensor, Tensor | None] = ALL_ATTENTION_FUNCTIONS.get_interface(chosen, own)(
        module, query, key, value, attention_mask, **more
    )
    return found


@dataclass(frozen=True)
class PrefixTuning(Tuner):
    """Train keys and values that stand before the text in every attention layer, and the head (Li and Liang 2021).

    A block gets 2 P G d numbers, with G key-value heads of width d: 2 P D, where every head has its own.

    Attributes:
        prefix_length: how many positions P stand before the text.
        blocks: how many of the last blocks are adapted; None means all.
    """

    prefix_length: int = 16
    blocks: int | None = None

    name: ClassVar[str] = "prefix-tuning"
    summary: ClassVar[str] = "keys and values before the text in every attention layer, and the head"
    learning_rate: ClassVar[float] = 1.5e-2
    identity_at_init: ClassVar[bool] = False
    mergeable: ClassVar[bool] = False
    order: ClassVar[int] = 80
    averages: ClassVar[bool] = False
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": rates_around(learning_rate), "prefix_length": (8, 16, 32)}

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        if self.prefix_length < 1:
            raise UsageError(f"{self.name}: --prefix-length {self.prefix_length}: expected at least 1.")

    def refusal(self, view: View) -> str | None:
        """Attention has to ask its config for a kernel, or nobody can step in between."""
        module: Any = view.blocks[-1].get_submodule(_place(view))
        asks = hasattr(module, "config") and hasattr(sys.modules[type(module).__module__], "eager_attention_forward")
        return None if asks else "its attention takes no keys and values from outside"

    def prepare(self, view: View) -> Tuned:
        """Give each attention layer its prefix."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self.check_base(view)
        ALL_ATTENTION_FUNCTIONS.register(KERNEL, _attend)
        place = _place(view)
        for index in last_blocks(len(view.blocks), self.blocks):
            module: Any = view.blocks[index].get_submodule(place)
            groups, width = _heads(view, index)
            name = f"{view.architecture.blocks}.{index}.{place}"
            shape = (groups, self.prefix_length, width)
            module.prefix = _Prefix(shape, view.device, view.generator(name))
            module.config = _Config(module.config)
        return Tuned(self, view)


def _place(view: View) -> str:
    """The attention module of a block, which holds the projections."""
    return view.architecture.attention[0].rpartition(".")[0]


def _heads(view: View, index: int) -> tuple[int, int]:
    """How many key-value heads a block has, and their width."""
    projections = view.architecture.attention
    _, outputs = linear_shape(view.blocks[index].get_submodule(projections[len(projections) // 2]))
    groups = int(getattr(view.config, "num_key_value_heads", None) or view.config.num_attention_heads)
    return groups, (outputs // 3 if len(projections) == 1 else outputs) // groups
