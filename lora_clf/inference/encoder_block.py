"""A block of a BERT-like encoder, forward and backward by hand: one autograd node.

At the sizes of short texts much of a training step lies around the matrix products: casts between fp32 and bf16,
sums, autograd's own bookkeeping, and three times over for query, key and value. Here a block is one function. Query,
key and value are one product; low-rank factors are added in place onto the result they belong to; what the backward
pass needs is kept once, in the type of the run. In bf16 the states between the blocks are bf16 too, where autocast
would hold sums and norms in fp32: as near to fp32 in the end (tests/inference/test_encoder_block.py).

The function of a block with the norms behind its parts (Vaswani et al. 2017, section 3.1), x of shape (B, T, D)::

    c = softmax(q kᵀ / sqrt d + mask) v        q, k, v = x Wqᵀ + bq, ...      each W x also + s B (A x), Hu et al. 2021
    y = norm(x + c Woᵀ + bo)
    z = norm(y + gelu(y Wuᵀ + bu) Wdᵀ + bd)

The softmax's backward uses rowsum(dP ∘ P) = rowsum(dO ∘ O) (Dao et al. 2022, section 3.1 and appendix B.4).

A block is left as transformers has it where anything in it is not exactly this: another activation, dropout inside
the factors, a hook, a layer that some strategy put there. Shapes: B batch, T tokens, N = B T, D width, H heads,
d = D / H, I inputs, O outputs, r rank, R the sum of the ranks; with padding left out (`padding`) N is less than B T.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lora_clf.base.architecture import PostNorm
from lora_clf.inference.attention import EAGER_TOKENS
from lora_clf.inference.original import Shortcut, altered, holds_weight_and_bias
from lora_clf.inference.padding import Packer, Packing
from lora_clf.inference.projection import Factors, Layer, Projection
from lora_clf.tuners.base import Tuned
from lora_clf.tuners.lora_scratch import LoRALinear
from lora_clf.tuners.low_rank import LowRankTuned

_SPLIT = (slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 6))  # q k v, output, up, down among the layers
_SLICE = 1 << 19  # scores that are turned into shares at once
_FAR_BELOW = -1e30  # added to the scores of padding; in range of bf16


def fuse_blocks(
    tuned: Tuned, precision: str, packer: Packer | None = None, longest: int | None = None, *, last: bool = True
) -> int:
    """Let every block that is exactly the function above compute itself as one node; how many there are.

    The modules, their names and parameters stay what they are; beside frozen bf16 weights stands a copy in the form in
    which they are multiplied. Call it when the view is ready to run and belongs to the caller.

    Args:
        tuned: the prepared view.
        precision: "fp32" or "bf16", in which the blocks will run.
        packer: what says how padding is left out; by default it is computed like any token. What a block returns for
            padding means nothing then, and the last bits of a text's states depend on how many tokens are packed.
        longest: positions of the longest text there will be, padding and all, where that is known: if none is too long
            for the node, those copies alone are kept, and the parameters are the base's own again.
        last: whether the last block is one of them; not where something else answers for it (`one_position`).
    """
    view = tuned.view
    names = view.architecture.post_norm
    if names is None or not plain_encoder(view.config):
        return 0
    factors: Mapping[str, Factors] = {}
    scaling = 1.0
    if isinstance(tuned, LowRankTuned):
        factors, scaling = tuned.factors, tuned.scaling
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    heads = int(view.config.num_attention_heads)
    alone = longest is not None and longest <= EAGER_TOKENS
    fused = 0
    for index, block in enumerate(view.blocks):
        if not isinstance(block, type(view.original_blocks[index])):  # one that was taken out
            continue
        if not last and index == len(view.blocks) - 1:
            continue
        if not same_around(block, view.original_blocks[index], (*names.linears, *names.norms)):
            continue
        parts = _parts(block, names, f"{view.architecture.blocks}.{index}", factors, scaling)
        if parts is None:
            continue
        body = EncoderBlock(block, *parts, scaling, heads, dtype, packer)
        if alone:
            original = view.original_blocks[index]
            body.give_back([original.get_submodule(name) for name in names.linears])
        # An attribute of the object goes before the class's method; parameter names stay as they are.
        object.__setattr__(block, "forward", body)
        fused += 1
    return fused


def plain_encoder(config: Any) -> bool:
    """Whether the settings of an encoder with norms behind its parts are those of the function above."""
    if getattr(config, "is_heterogeneous", False):  # settings that differ from block to block
        return False
    activation = getattr(config, "hidden_act", None) or getattr(config, "activation", None)
    decoder = getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False)
    position = getattr(config, "position_embedding_type", None) in (None, "absolute")
    return activation == "gelu" and not decoder and position and not getattr(config, "chunk_size_feed_forward", 0)


def same_around(block: nn.Module, original: nn.Module, called: Sequence[str]) -> bool:
    """Whether a block is the base's own but for the parts ``called``, which a fast path runs as they are.

    False where a strategy put something of its own anywhere else, trains something else, or where there is a hook or
    a ``forward`` of one object.
    """

    def around(module: nn.Module) -> dict[str, type]:
        inside = tuple(f"{name}." for name in called)
        return {name: type(m) for name, m in module.named_modules() if not f"{name}.".startswith(inside)}

    try:
        modules = [block.get_submodule(name) for name in called]
    except AttributeError:  # one of them is no longer where it was
        return False
    known = {id(p) for module in modules for p in module.parameters()}
    trains = {id(p) for p in block.parameters() if p.requires_grad}
    as_classes_say = not any(altered(module) for module in block.modules())
    return as_classes_say and trains <= known and around(block) == around(original)


def _parts(
    block: nn.Module, names: PostNorm, path: str, factors: Mapping[str, Factors], scaling: float
) -> tuple[list[Layer], list[nn.LayerNorm]] | None:
    """The layers (q, k, v, output, up, down) and the two norms of a block; None where one computes something else."""
    layers = []
    for name in names.linears:
        module: Any = block.get_submodule(name)
        own = factors.get(f"{path}.{name}")
        plain = type(module) is nn.Linear if own is None else _is_low_rank(module, scaling)
        if not plain or (own is None and not holds_weight_and_bias(module)) or module.bias is None:
            return None
        layers.append(Layer(module, own))
    norms = [block.get_submodule(name) for name in names.norms]
    if any(type(norm) is not nn.LayerNorm or not holds_weight_and_bias(norm) for norm in norms):
        return None
    known = {id(p) for layer in layers for p in layer.trainable()}
    known |= {id(p) for norm in norms for p in norm.parameters() if p.requires_grad}
    trains = {id(p) for p in block.parameters() if p.requires_grad}
    return (layers, norms) if trains == known else None  # type: ignore[return-value]


def _is_low_rank(module: Any, scaling: float) -> bool:
    """Whether a layer with factors computes W x + s B A x and nothing else: ours, or peft's plain one."""
    if type(module) is LoRALinear:
        return bool(module.scaling == scaling and module.lora_dropout.p == 0)
    kind = type(module)
    if (kind.__module__, kind.__name__) != ("peft.tuners.lora.layer", "Linear"):
        return False
    return bool(
        type(module.base_layer) is nn.Linear
        and module.active_adapters == ["default"]
        and module.scaling == {"default": scaling}
        and type(module.lora_dropout["default"]) is nn.Identity
        and not (module.merged or module.disable_adapters or module.lora_variant)
    )


class EncoderBlock(Shortcut):
    """One block: called in place of the module's own ``forward``, which it goes back to for long texts."""

    def __init__(
        self,
        block: nn.Module,
        layers: Sequence[Layer],
        norms: Sequence[nn.LayerNorm],
        scaling: float,
        heads: int,
        dtype: torch.dtype,
        packer: Packer | None = None,
    ) -> None:
        self.qkv, self.output, self.up, self.down = (Projection(layers[part], scaling, dtype) for part in _SPLIT)
        self.norms = norms
        self.heads = heads
        self.dtype = dtype
        self.packer = packer
        self.block = weakref.ref(block)  # which holds this: a circle would outlive its run

    def __call__(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *rest: Any, **more: Any) -> Tensor:
        """(B, T, D) and transformers' mask -> (B, T, D)."""
        others = [each for each in (*rest, *more.values()) if isinstance(each, Tensor) or each]
        if hidden_states.shape[1] > EAGER_TOKENS or others:
            block: Any = self.block()
            states: Tensor = type(block).forward(block, hidden_states, attention_mask, *rest, **more)
            return states
        row = additive(attention_mask, self.dtype)
        packing = None if self.packer is None else self.packer.of(attention_mask, row)
        mask = None if row is None else row.repeat_interleave(self.heads, 0)
        with torch.autocast(hidden_states.device.type, enabled=False):
            inputs = (self, hidden_states, mask, packing, *self.trainable())
            out: Tensor = _Node.apply(*inputs)  # type: ignore[no-untyped-call]
        return out

    def give_back(self, originals: Sequence[nn.Module]) -> None:
        """Keep frozen weights in packed form alone where they are those of these layers (q, k, v, output, up, down)."""
        for projection, part in zip((self.qkv, self.output, self.up, self.down), _SPLIT, strict=True):
            projection.give_back(originals[part])

    def trainable(self) -> list[nn.Parameter]:
        """What trains, in the order of the gradients that `backward` returns."""
        projections = (self.qkv, self.output, self.up, self.down)
        layers = [p for projection in projections for p in projection.trainable()]
        return layers + [p for norm in self.norms for p in (norm.weight, norm.bias) if p.requires_grad]

    def __deepcopy__(self, memo: dict[int, Any]) -> EncoderBlock:
        """Refused: the copy of a block would go on computing with the weights of the first.

        Raises:
            TypeError: always.
        """
        raise TypeError("A block that was made ready for a run belongs to it and cannot be copied.")

    def forward(
        self, x: Tensor, mask: Tensor | None, packing: Packing | None
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The states behind the block, (B, T, D), and what `backward` needs."""
        batch, tokens, width = x.shape
        per_head = width // self.heads
        pack, spread = (_same, _same) if packing is None else (packing.pack, packing.spread)
        flat = pack(x.to(self.dtype).reshape(-1, width))  # (N, D)
        joined, kept_qkv = self.qkv.forward(flat)  # (N, 3 D)
        heads = spread(joined).view(batch, tokens, 3, self.heads, per_head).permute(2, 0, 3, 1, 4)
        q, k, v = heads.reshape(3, batch * self.heads, tokens, per_head)  # (B H, T, d) each
        scale = per_head**-0.5
        scores = torch.baddbmm(
            _none(q) if mask is None else mask, q, k.transpose(1, 2), beta=float(mask is not None), alpha=scale
        )
        shares = _softmax(scores)  # (B H, T, T)
        context = (shares @ v).view(batch, self.heads, tokens, per_head).transpose(1, 2).reshape(-1, width)
        attended, kept_output = self.output.forward(pack(context))
        middle = attended.add_(flat)
        y, *moments_y = self._norm(0, middle)
        inner, kept_up = self.up.forward(y)  # (N, I)
        last, (_, *kept_down) = self.down.forward(F.gelu(inner))  # what went in is worked out again: that is memory
        last.add_(y)
        z, *moments_z = self._norm(1, last)
        attention, projections = (q, k, v, shares), (*kept_qkv, *kept_output, *kept_up, None, *kept_down)
        kept = (*attention, *projections, middle, *moments_y, inner, last, *moments_z)
        return spread(z).view(batch, tokens, width), kept

    def backward(
        self, dz: Tensor, kept: tuple[Any, ...], packing: Packing | None, need_dx: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """dx (B, T, D), and the gradients of `trainable`."""
        q, k, v, shares, *rest = kept
        projections, (middle, *moments_y), (inner, last, *moments_z) = rest[:8], rest[8:11], rest[11:]
        kept_qkv, kept_output, kept_up, kept_down = zip(projections[::2], projections[1::2], strict=True)
        batch, tokens, width = dz.shape
        per_head = width // self.heads
        pack, spread = (_same, _same) if packing is None else (packing.pack, packing.spread)
        dlast, norm_z = self._norm_backward(1, pack(dz.to(self.dtype).reshape(-1, width)), last, moments_z)
        active = F.gelu(inner) if self.down.reads_input else None
        dactive, grads_down = self.down.backward(dlast, (active, kept_down[1]), True)
        assert dactive is not None
        dinner = torch.ops.aten.gelu_backward(dactive, inner)
        dy, grads_up = self.up.backward(dinner, kept_up, True)
        assert dy is not None
        dmiddle, norm_y = self._norm_backward(0, dy.add_(dlast), middle, moments_y)
        dcontext, grads_output = self.output.backward(dmiddle, kept_output, True)
        assert dcontext is not None
        context = kept_output[0]
        split = (batch, tokens, self.heads, per_head)
        # rowsum(dP ∘ P) without P: the product of the context and its gradient, (B H, T, 1).
        row = (dcontext * context).view(-1, self.heads, per_head).sum(-1, dtype=torch.float32)  # (N, H)
        row = spread(row).view(batch, tokens, self.heads).transpose(1, 2).reshape(-1, tokens, 1).to(self.dtype)
        dheads = spread(dcontext).view(split).transpose(1, 2).reshape(-1, tokens, per_head)  # (B H, T, d)
        joined = torch.empty(3, *dheads.shape, dtype=self.dtype, device=dz.device)
        torch.bmm(shares.transpose(1, 2), dheads, out=joined[2])
        dscores = torch.baddbmm(row, dheads, v.transpose(1, 2), beta=-1).mul_(shares)  # (B H, T, T)
        scale = per_head**-0.5
        torch.baddbmm(_none(q), dscores, k, beta=0, alpha=scale, out=joined[0])
        torch.baddbmm(_none(q), dscores.transpose(1, 2), q, beta=0, alpha=scale, out=joined[1])
        djoined = joined.view(3, batch, self.heads, tokens, per_head).permute(1, 3, 0, 2, 4).reshape(-1, 3 * width)
        dx, grads_qkv = self.qkv.backward(pack(djoined), kept_qkv, need_dx)
        if dx is not None:
            dx = spread(dx.add_(dmiddle)).view(batch, tokens, width)
        return dx, [*grads_qkv, *grads_output, *grads_up, *grads_down, *norm_y, *norm_z]

    def _norm(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A layer norm, with its mean and reciprocal standard deviation."""
        norm = self.norms[index]
        y, mean, deviation = torch.native_layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return y, mean, deviation

    def _norm_backward(
        self, index: int, dy: Tensor, x: Tensor, moments: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        norm = self.norms[index]
        wanted = [norm.weight.requires_grad, norm.bias.requires_grad]
        dx, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
            dy, x, norm.normalized_shape, *moments, norm.weight, norm.bias, [True, *wanted]
        )
        return dx, [grad.float() for grad, want in zip((dweight, dbias), wanted, strict=True) if want]


class _Node(torch.autograd.Function):
    """The autograd node of a block."""

    @staticmethod
    def forward(
        ctx: Any, block: EncoderBlock, x: Tensor, mask: Tensor | None, packing: Packing | None, *trainable: Tensor
    ) -> Tensor:
        out, kept = block.forward(x, mask, packing)
        if any(ctx.needs_input_grad):
            ctx.block, ctx.packing, ctx.dtype = block, packing, x.dtype
            ctx.save_for_backward(*kept)  # and not as attributes: checkpoints let go of what is saved
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        dx, found = ctx.block.backward(grads[0], ctx.saved_tensors, ctx.packing, ctx.needs_input_grad[1])
        return (None, None if dx is None else dx.to(ctx.dtype), None, None, *found)


def additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Transformers' mask, (B, 1, T or 1, T) of booleans or of what is added to the scores, as (B, 1, T)."""
    if mask is None:
        return None
    row = mask[:, 0, :1, :]  # (B, 1, T): padding is the same for every query
    if row.dtype == torch.bool:
        row = torch.zeros_like(row, dtype=dtype).masked_fill_(~row, _FAR_BELOW)
    return row.clamp_min(_FAR_BELOW).to(dtype)


def _softmax(scores: Tensor) -> Tensor:
    """Scores (B H, T, T) as shares of each query, worked out in fp32; those in bf16 are written over.

    A few heads at a time on a CPU: all of them in fp32 are the largest thing in a block of long texts, and too large
    for the caches.
    """
    if scores.dtype == torch.float32:
        return scores.softmax(-1)
    heads, queries, keys = scores.shape
    at_once = max(1, _SLICE // (queries * keys)) if scores.is_cpu else heads
    for some in scores.split(at_once):
        some.copy_(some.float().softmax(-1))
    return scores


def _same(x: Tensor) -> Tensor:
    """Every position is computed: there is no padding, or none is left out."""
    return x


def _none(like: Tensor) -> Tensor:
    """Stands where a product has nothing to add to."""
    return like.new_empty(1, 1, 1)
