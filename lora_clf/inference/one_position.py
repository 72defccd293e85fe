"""One position pooled, one position computed: the last block for the pooled token alone.

With last or first pooling nobody reads what the last block says of the other tokens. Of them it needs key and value,
since the pooled token attends to them; query, output projection and feed-forward part run for one token a text. Of
the 12 D² products a token of a block 2 D² are left. In a block of GPT-2 not even those are (`pooled_block`), or 3 D²
where a strategy put something into it. The result is the same.

The pooled token sees every token of its text (the last one of a causal model, any of a bidirectional one), so the
only mask is the padding's. Blocks of GPT-2, BERT, RoBERTa, DistilBERT and Llama families; others stay as they are.
Shapes: B batch, T tokens, D width, H heads, d = D / H.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_clf.base.pooling import last_position
from lora_clf.base.view import View
from lora_clf.inference.encoder_block import plain_encoder, same_around
from lora_clf.inference.original import Shortcut
from lora_clf.inference.pooled_block import layers_of_gpt2, pooled_block


class LastBlock(Shortcut):
    """The last block of a view, called in place of the module's own ``forward``.

    Attributes:
        mask: the attention mask (B, T) of the batch that is on its way, padding on the right; without one the block
            computes every position, as it always did.
    """

    def __init__(self, view: View, pooling: str) -> None:
        block = view.blocks[-1]
        self.architecture = view.architecture
        self.first = pooling == "first"
        self.heads = int(view.config.num_attention_heads)
        self._block = weakref.ref(block)  # which holds this: a circle would outlive its run
        self._fused = vars(block).get("forward")
        self.mask: Tensor | None = None

    @property
    def alone(self) -> bool:
        """Whether it needs nothing but states and mask: no positions that are turned into every block."""
        return self.architecture.post_norm is not None or len(self.architecture.attention) == 1

    @property
    def block(self) -> Any:
        """The block itself."""
        return self._block()

    def __call__(self, hidden_states: Tensor, *rest: Any, **more: Any) -> Tensor:
        """(B, T, D) -> (B, T, D), where every position of a row holds what the pooled one should."""
        if self.mask is None:
            usual = self._fused or partial(type(self.block).forward, self.block)
            states: Tensor = usual(hidden_states, *rest, **more)
            return states
        pooled = self.pooled(hidden_states, more.get("position_embeddings"))
        return pooled.expand(-1, hidden_states.shape[1], -1)

    def pooled(self, states: Tensor, rotary: Any = None) -> Tensor:
        """What the block says of the pooled token of each text: (B, T, D) -> (B, 1, D)."""
        assert self.mask is not None
        rows = torch.arange(len(states), device=states.device)
        places = torch.zeros_like(rows) if self.first else last_position(self.mask)  # (B,)
        if self.architecture.post_norm is not None:
            return self._behind(states, rows, places)
        if (layers := layers_of_gpt2(self.block)) is not None:
            return pooled_block(layers, self.heads, states, places, self.mask).unsqueeze(1)
        return self._before(states, rows, places, rotary)

    def _behind(self, x: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        """A block with its norms behind its parts: (B, T, D) -> (B, 1, D)."""
        names = self.architecture.post_norm
        assert names is not None
        query, key, value, output, up, down = (self.block.get_submodule(name) for name in names.linears)
        norm_y, norm_z = (self.block.get_submodule(name) for name in names.norms)
        chosen = x[rows, places].unsqueeze(1)  # (B, 1, D)
        context = self._attend(query(chosen), key(x), value(x), x.shape[-1] // self.heads)
        y = norm_y(output(context) + chosen)
        z: Tensor = norm_z(down(F.gelu(up(y))) + y)
        return z

    def _before(self, x: Tensor, rows: Tensor, places: Tensor, rotary: Any) -> Tensor:
        """A block with its norms before its parts: (B, T, D) -> (B, 1, D)."""
        architecture = self.architecture
        assert architecture.pre_norm is not None
        norm_1, norm_2, feed_forward = (self.block.get_submodule(name) for name in architecture.pre_norm)
        projections = [self.block.get_submodule(name) for name in architecture.attention]
        chosen = x[rows, places].unsqueeze(1)
        states = norm_1(x)
        one = states[rows, places].unsqueeze(1)
        if len(projections) == 1:
            query, key, value = _joined(projections[0], states, rows, places)
        else:
            query, key, value = projections[0](one), projections[1](states), projections[2](states)
        if rotary is not None:
            cos, sin = rotary  # (B or 1, T, d)
            cos, sin = (table.expand(len(x), -1, -1) for table in (cos, sin))
            key = _rotated(key, cos, sin)
            query = _rotated(query, cos[rows, places].unsqueeze(1), sin[rows, places].unsqueeze(1))
        context = self._attend(query, key, value, query.shape[-1] // self.heads)
        output = self.block.get_submodule(architecture.attention_output[0])
        after = chosen + output(context)
        found: Tensor = after + feed_forward(norm_2(after))
        return found

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, width: int) -> Tensor:
        """Attention of one token over its text: (B, 1, H d), (B, T, G d), (B, T, G d) -> (B, 1, H d), G groups."""
        batch, tokens = key.shape[:2]
        groups = key.shape[-1] // width
        q = query.view(batch, groups, -1, width)  # (B, G, H / G, d)
        k = key.view(batch, tokens, groups, width).permute(0, 2, 3, 1)  # (B, G, d, T)
        v = value.view(batch, tokens, groups, width).transpose(1, 2)  # (B, G, T, d)
        # (B, G, H / G, T); scaled first: fp16 ends at 65,504
        context: Tensor = self._shares((q * width**-0.5) @ k).to(v.dtype) @ v  # (B, G, H / G, d)
        return context.reshape(batch, 1, -1)

    def _shares(self, scores: Tensor) -> Tensor:
        """What each token of a text gets of the attention: (B, G, H / G, T), none of it for padding, in fp32."""
        assert self.mask is not None
        padding = (self.mask == 0)[:, None, None, :]
        return scores.float().masked_fill(padding, float("-inf")).softmax(-1)


@contextmanager
def masked(last: LastBlock | None, mask: Tensor) -> Iterator[None]:
    """Have ``last``, where there is one, compute the pooled position of a batch with this mask (B, T), and no other."""
    if last is not None:
        last.mask = mask
    try:
        yield
    finally:
        if last is not None:
            last.mask = None


def pool_last_block(view: View) -> LastBlock | None:
    """Let the last block of ``view`` compute the pooled position alone; None where it has to stay as it is.

    Call it when the view is ready to run and belongs to the caller, who sets ``mask`` around each pass.
    """
    last = last_block_for(view, view.head.pooling)
    if last is not None:
        # An attribute of the object goes before the class's method; parameter names stay as they are.
        object.__setattr__(view.blocks[-1], "forward", last)
    return last


def last_block_for(view: View, pooling: str) -> LastBlock | None:
    """What computes the position of ``pooling`` in the last block of ``view``; None where nothing can."""
    config, architecture = view.config, view.architecture
    if pooling == "mean" or (pooling == "first" and architecture.causal):
        return None
    if view.front is not None:  # the mask of the text does not tell the place in what enters the blocks
        return None
    block, original = view.blocks[-1], view.original_blocks[-1]
    if getattr(config, "is_heterogeneous", False) or not isinstance(block, type(original)):
        return None
    if architecture.post_norm is not None:
        called: tuple[str, ...] = (*architecture.post_norm.linears, *architecture.post_norm.norms)
        fits = plain_encoder(config)
    elif architecture.pre_norm is not None:
        called = (*architecture.attention, *architecture.attention_output, *architecture.pre_norm)
        fits = (
            not getattr(config, "add_cross_attention", False)
            and getattr(config, "scale_attn_weights", True)
            and not getattr(config, "scale_attn_by_inverse_layer_idx", False)
            and getattr(config, "sliding_window", None) is None
        )
    else:
        return None
    if not fits or not same_around(block, original, called):
        return None
    return LastBlock(view, pooling)


def _joined(module: nn.Module, states: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query (B, 1, D) of one token, key and value (B, T, D) of all, from one projection."""
    query, key, value = module(states).split(states.shape[-1], dim=-1)
    return query[rows, places].unsqueeze(1), key, value


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, section 3.4), in the two-halves form of Llama: (B, T, n d), (B, T, d)."""
    split = x.view(*x.shape[:2], -1, cos.shape[-1])  # (B, T, n, d)
    left, right = split.chunk(2, dim=-1)
    turned = split * cos.unsqueeze(2) + torch.cat((-right, left), dim=-1) * sin.unsqueeze(2)
    return turned.flatten(2)
