"""GPT-2's block for the pooled position alone, forward and backward by hand: one autograd node.

One token a text is asked for, so a batch is a few rows, and a step over them is the reading and writing of weights.
They are multiplied in the type they have: those that train are fp32, and to cast them would cost as much as the
product; all but the products is fp32 for so few rows.

Nor are there keys and values. A key is W x + c and the score q (W x + c), which is (Wᵀ q) x and a number that is the
same for all tokens of the text, so the softmax does not see it; c never gets a gradient. And the mean of the values is
the value of the mean of the states. So with one query a text two products of D² for every token become two for the
text, and 2 H D for a token. Just so the norm's own weights leave the tokens: (g ∘ n + b)ᵀ a is nᵀ (g ∘ a) and another
such number, so what a token has is n = (x - mean) / deviation, and gradients of g and b are sums over queries. With
n₁ that of the pooled token, K_h and V_h (D, d) the columns of a head::

    a_h = K_h q_h       q = ((g ∘ n₁ + b) Wq + bq) / sqrt d                (D) each
    p_h = softmax(n (g ∘ a_h))    m_h = p_hᵀ n                             (T), (D)
    y = x₁ + [(g ∘ m_h + b) V_h]_h Wo + bv Wo + bo                         (D)
    z = y + gelu(norm(y) Wu + bu) Wd + bd

The softmax's backward uses rowsum(dP ∘ P) = rowsum(dM ∘ M) (Dao et al. 2022, appendix B.4).

Shapes: B batch, T tokens, D width, H heads, d = D / H, I the width inside the feed-forward part. Weights (in, out).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from lora_clf.inference.original import holds_weight_and_bias
from lora_clf.inference.products import linear, outer, times

_GELU = "tanh"  # the form that GPT-2 has


def layers_of_gpt2(block: Any) -> tuple[nn.Module, ...] | None:
    """A block's parts in the order of the function: norm, q k v, output, norm, up, down; None where one is another."""
    parts = (block, getattr(block, "attn", None), getattr(block, "mlp", None))
    if [type(part).__name__ for part in parts] != ["GPT2Block", "GPT2Attention", "GPT2MLP"]:
        return None
    layers = (block.ln_1, block.attn.c_attn, block.attn.c_proj, block.ln_2, block.mlp.c_fc, block.mlp.c_proj)
    kinds = [nn.LayerNorm, Conv1D, Conv1D, nn.LayerNorm, Conv1D, Conv1D]
    plain = [type(layer) for layer in layers] == kinds and type(block.mlp.act).__name__ == "NewGELUActivation"
    return layers if plain and all(holds_weight_and_bias(layer) for layer in layers) else None


def pooled_block(layers: tuple[Any, ...], heads: int, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """What the block makes of one token a text: (B, T, D), places (B,), mask (B, T) -> (B, D) in fp32."""
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    with torch.autocast(x.device.type, enabled=False):
        found: Tensor = _Node.apply(heads, layers[0].eps, x.float(), places, mask == 0, *parameters)  # type: ignore[no-untyped-call]
    return found


class _Node(torch.autograd.Function):
    """The autograd node of the block."""

    @staticmethod
    def forward(
        ctx: Any, heads: int, eps: float, x: Tensor, places: Tensor, padding: Tensor, *parameters: Any
    ) -> Tensor:
        g1, b1, wa, ba, wo, bo, g2, b2, wu, bu, wd, bd = parameters
        batch, _, width = x.shape
        rows = torch.arange(batch, device=x.device)
        states, mean_1, deviation_1 = torch.native_layer_norm(x, (width,), None, None, eps)  # (B, T, D)
        one = states[rows, places]  # (B, D)
        query = _product(one * g1 + b1, wa[:, :width], ba[:width]) * (width // heads) ** -0.5
        key, value = _heads(wa, heads)
        asked = (_split(query, heads).to(wa.dtype) @ key.transpose(1, 2)).transpose(0, 1).float()  # (B, H, D)
        scores = (asked * g1) @ states.transpose(1, 2)  # (B, H, T)
        shares = scores.masked_fill_(padding.unsqueeze(1), float("-inf")).softmax(-1)
        means = shares @ states  # (B, H, D)
        seen = means * g1 + b1
        context = _joined(seen.transpose(0, 1).to(wa.dtype) @ value).float() + ba[2 * width :]  # (B, D)
        y = _product(context, wo, bo) + x[rows, places]
        normed, mean_2, deviation_2 = torch.native_layer_norm(y, (width,), g2, b2, eps)
        inner = _product(normed, wu, bu)  # (B, I)
        active = F.gelu(inner, approximate=_GELU)
        if any(ctx.needs_input_grad):
            ctx.heads = heads
            attention = (x, places, mean_1, deviation_1, states, one, query, asked, shares, means, context)
            feed_forward = (y, mean_2, deviation_2, normed, inner, active)
            ctx.save_for_backward(*attention, *feed_forward, g1, b1, wa, wo, g2, b2, wu, wd)
        return _product(active, wd, bd) + y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(grads[0].device.type, enabled=False):
            dy, behind = _feed_forward_gradients(ctx, grads[0].contiguous())
            _, _, need_x, _, _, *need = ctx.needs_input_grad
            dx, before = _attention_gradients(ctx, dy, need_x) if need_x or any(need[:4]) else (None, [None] * 4)
        return (None, None, dx, None, None, *before, *behind)


def _feed_forward_gradients(ctx: Any, dz: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    """dy (B, D) from dz (B, D); gradients of the output projection, the second norm, and up and down."""
    *_, context, y, mean, deviation, normed, inner, active, _, _, _, _, g2, b2, wu, wd = ctx.saved_tensors
    wo, bo, g, b, up, bu, down, bd = ctx.needs_input_grad[9:]
    dinner = torch.ops.aten.gelu_backward(_back(dz, wd), inner, approximate=_GELU)  # (B, I)
    dy, dg, db = torch.ops.aten.native_layer_norm_backward(
        _back(dinner, wu), y, y.shape[1:], mean, deviation, g2, b2, [True, g, b]
    )
    dy += dz
    weights = [outer(*each) if need else None for need, *each in ((up, normed, dinner), (down, active, dz))]
    biases = [each.sum(0) if need else None for need, each in ((bu, dinner), (bd, dz))]
    output = [outer(context, dy) if wo else None, dy.sum(0) if bo else None]
    return dy, [*output, dg, db, weights[0], biases[0], weights[1], biases[1]]


def _attention_gradients(ctx: Any, dy: Tensor, need_x: bool) -> tuple[Tensor | None, list[Tensor | None]]:
    """dx (B, T, D) from dy (B, D); gradients of the first norm, and of the projection to query, key and value."""
    x, places, mean, deviation, states, one, query, asked, shares, means, *rest = ctx.saved_tensors
    g1, b1, wa, wo = rest[-8:-4]
    need_g, need_b, need_weight, need_bias = ctx.needs_input_grad[5:9]
    heads, (batch, width) = ctx.heads, dy.shape
    dcontext = _back(dy, wo)
    key, value = _heads(wa, heads)
    dheads = _split(dcontext, heads).to(wa.dtype)  # (H, B, d)
    dseen = (dheads @ value.transpose(1, 2)).transpose(0, 1).float()  # (B, H, D)
    dmeans = dseen * g1
    dshares = dmeans @ states.transpose(1, 2)  # (B, H, T)
    dscores = (dshares - (dmeans * means).sum(-1, keepdim=True)).mul_(shares)
    dscaled = dscores @ states  # (B, H, D), of g ∘ a
    dasked = (dscaled * g1).transpose(0, 1).to(wa.dtype)  # (H, B, D)
    dquery = _joined(dasked @ key).float() * (width // heads) ** -0.5  # (B, D)
    dx = dg = db = dweight = dbias = None
    if need_weight:
        dweight = torch.empty(wa.shape, dtype=wa.dtype, device=wa.device)
        dkey, dvalue = _heads(dweight, heads)
        torch.mm((one * g1 + b1).t().to(wa.dtype), dquery.to(wa.dtype), out=dweight[:, :width])
        torch.bmm(dasked.transpose(1, 2), _split(query, heads).to(wa.dtype), out=dkey)
        torch.bmm((means * g1 + b1).permute(1, 2, 0).to(wa.dtype), dheads, out=dvalue)
    if need_bias:
        dbias = torch.cat((dquery.sum(0), torch.zeros_like(dquery[0]), dcontext.sum(0)))
    if need_x or need_g or need_b:
        done = (dquery.to(wa.dtype) @ wa[:, :width].t()).float()  # (B, D), of g ∘ n₁ + b; `_back` would copy the part
        dg = torch.addcmul(dscaled * asked, dseen, means).sum((0, 1)) + (done * one).sum(0) if need_g else None
        db = dseen.sum((0, 1)) + done.sum(0) if need_b else None
    if need_x:
        rows = torch.arange(batch, device=x.device)
        dstates = dscores.transpose(1, 2) @ (asked * g1) + shares.transpose(1, 2) @ dmeans
        dstates[rows, places] += done * g1
        dx, _, _ = torch.ops.aten.native_layer_norm_backward(
            dstates, x, (width,), mean, deviation, None, None, [True, False, False]
        )
        dx[rows, places] += dy
    return dx, [dg, db, dweight, dbias]


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W + b by the type of the weight, in fp32: (B, I), (I, O), (O) -> (B, O)."""
    return linear(x.to(weight.dtype), weight.t(), bias.to(weight.dtype)).float()


def _back(dy: Tensor, weight: Tensor) -> Tensor:
    """dy Wᵀ by the type of the weight, in fp32: (B, O), (I, O) -> (B, I)."""
    # W comes first: what comes second is put into another order before it is multiplied.
    return times(weight, dy.to(weight.dtype).t()).t().contiguous().float()


def _heads(weight: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Key and value of a joined projection (D, 3 D), a matrix a head: (H, D, d) each, in the same storage."""
    key, value = weight.view(len(weight), 3, heads, -1)[:, 1:].permute(1, 2, 0, 3)
    return key, value


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, D) -> (H, B, d)."""
    return x.view(len(x), heads, -1).transpose(0, 1)


def _joined(x: Tensor) -> Tensor:
    """(H, B, d) -> (B, D)."""
    return x.transpose(0, 1).flatten(1)
